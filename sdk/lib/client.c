#include "private.h"

#include "address.h"
#include "sandbox/base/cleanup.h"
#include <errno.h>
#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include <grpc/support/log.h>
#include <grpc/support/time.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PEM_MAX (1u << 20)
#define KEY_MAX 256

const char *paddock_version(void)
{
	return PADDOCK_VERSION;
}

int paddock_errno(enum pdk_code code)
{
	static const int numbers[] = {
		[PDK_OK] = 0,
		[PDK_CANCELLED] = -ECANCELED,
		[PDK_UNKNOWN] = -EIO,
		[PDK_INVALID_ARGUMENT] = -EINVAL,
		[PDK_DEADLINE_EXCEEDED] = -ETIMEDOUT,
		[PDK_NOT_FOUND] = -ENOENT,
		[PDK_ALREADY_EXISTS] = -EEXIST,
		[PDK_PERMISSION_DENIED] = -EACCES,
		[PDK_RESOURCE_EXHAUSTED] = -ENOSPC,
		[PDK_FAILED_PRECONDITION] = -EBUSY,
		[PDK_ABORTED] = -ESTALE,
		[PDK_OUT_OF_RANGE] = -ERANGE,
		[PDK_UNIMPLEMENTED] = -ENOSYS,
		[PDK_INTERNAL] = -EIO,
		[PDK_UNAVAILABLE] = -ECONNREFUSED,
		[PDK_DATA_LOSS] = -EBADMSG,
		[PDK_UNAUTHENTICATED] = -EPERM,
	};

	return (unsigned int)code < ARRAY_SIZE(numbers) ? numbers[code] : -EIO;
}

static void log_nothing(gpr_log_func_args *args)
{
}

/* gRPC's own log lines on stderr say nothing that the status of a call does not. */
static void silence_core(void)
{
	if (!getenv("GRPC_VERBOSITY"))
		gpr_set_log_function(log_nothing);
}

static int read_pem(const char *path, char **ret_text, struct pdk_error *err)
{
	_cleanup_file_ FILE *file = fopen(path, "re");
	_cleanup_free_ char *text = malloc(PEM_MAX);
	size_t length;

	if (!file)
		return pdk_fail_errno(err, -errno, "%s", path);
	if (!text)
		return pdk_fail_errno(err, -ENOMEM, "%s", path);
	length = fread(text, 1, PEM_MAX - 1, file);
	if (ferror(file) || length == PEM_MAX - 1 || length == 0)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "%s is not a PEM file", path);
	text[length] = '\0';
	*ret_text = STEAL_PTR(text);
	return 0;
}

static int tls_credentials(grpc_channel_credentials **ret_credentials, struct pdk_error *err)
{
	const char *ca = getenv("PADDOCK_CA"), *cert = getenv("PADDOCK_CERT"), *key = getenv("PADDOCK_CERT_KEY");
	_cleanup_free_ char *ca_pem = NULL, *cert_pem = NULL, *key_pem = NULL;
	grpc_ssl_pem_key_cert_pair pair;
	int rc;

	if (ca && (rc = read_pem(ca, &ca_pem, err)) < 0)
		return pdk_wrap(err, rc, "PADDOCK_CA");
	if (!cert != !key)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "set both PADDOCK_CERT and PADDOCK_CERT_KEY");
	if (cert && (rc = read_pem(cert, &cert_pem, err)) < 0)
		return pdk_wrap(err, rc, "PADDOCK_CERT");
	if (key && (rc = read_pem(key, &key_pem, err)) < 0)
		return pdk_wrap(err, rc, "PADDOCK_CERT_KEY");
	pair = (grpc_ssl_pem_key_cert_pair){.private_key = key_pem, .cert_chain = cert_pem};
	*ret_credentials = grpc_ssl_credentials_create(ca_pem, cert ? &pair : NULL, NULL, NULL);
	if (!*ret_credentials)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "the TLS certificates cannot be used");
	return 0;
}

static int make_channel(struct paddock_client *client, const struct address *address, struct pdk_error *err)
{
#define INTEGER(name, number) {.type = GRPC_ARG_INTEGER, .key = (char *)(name), .value.integer = (number)}
	grpc_arg list[] = {
		INTEGER(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, PADDOCK_MESSAGE_MAX),
		INTEGER(GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, PADDOCK_MESSAGE_MAX),
		/* A fixed window of a few of the largest chunks; probing the path costs a ping for every burst. */
		INTEGER(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 4 << 20),
		INTEGER(GRPC_ARG_HTTP2_BDP_PROBE, 0),
		INTEGER(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, 1 << 20),
		INTEGER(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1),
		INTEGER(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1),
		INTEGER(GRPC_ARG_ENABLE_RETRIES, 0),
		INTEGER(GRPC_ARG_ENABLE_HTTP_PROXY, 0),
		INTEGER(GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0),
		INTEGER(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100),
		INTEGER(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000),
	};
#undef INTEGER
	grpc_channel_args args = {.num_args = ARRAY_SIZE(list), .args = list};
	grpc_channel_credentials *credentials;
	int rc;

	if (address->tls) {
		rc = tls_credentials(&credentials, err);
		if (rc < 0)
			return rc;
	} else {
		credentials = grpc_insecure_credentials_create();
	}
	client->channel = grpc_channel_create(address->target, credentials, &args);
	grpc_channel_credentials_release(credentials);
	return 0;
}

/* A key goes into an HTTP/2 header: visible ASCII only. */
static int set_key(struct paddock_client *client, const char *key, const struct address *address, struct pdk_error *err)
{
	const char *insecure = getenv("PADDOCK_INSECURE");
	const char *c;

	if (!key)
		key = getenv("PADDOCK_API_KEY");
	if (!key || !*key)
		return 0;
	for (c = key; *c; c++)
		if (*c <= ' ' || *c > '~' || c - key >= KEY_MAX)
			return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT,
					"the API key has a character that no key has");
	if (!address->tls && !address->local && !(insecure && !strcmp(insecure, "1")))
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT,
				"the API key would travel in clear text to %s: use https://, or set PADDOCK_INSECURE=1",
				address->target);
	if (asprintf(&client->bearer, "Bearer %s", key) < 0) {
		client->bearer = NULL;
		return pdk_fail_errno(err, -ENOMEM, "API key");
	}
	return 0;
}

static int client_setup(struct paddock_client *client, const char *key, struct pdk_error *err)
{
	struct address address = {0};
	int rc = address_parse(client->address, &address, err);

	if (rc < 0)
		return rc;
	rc = set_key(client, key, &address, err);
	if (rc == 0)
		rc = make_channel(client, &address, err);
	address_clear(&address);
	return rc;
}

struct paddock_client *paddock_connect(const char *address, const char *key, struct pdk_error *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct paddock_client *client = calloc(1, sizeof(*client));

	if (!client) {
		pdk_fail_errno(err, -ENOMEM, "client");
		return NULL;
	}
	client->timeout_ms = PADDOCK_NO_TIMEOUT;
	pthread_once(&once, silence_core);
	grpc_init();
	client->address = address && *address ? strdup(address) : address_default(err);
	if (!client->address || client_setup(client, key, err) < 0) {
		paddock_close(client);
		return NULL;
	}
	return client;
}

void paddock_close(struct paddock_client *client)
{
	if (!client)
		return;
	if (client->channel)
		grpc_channel_destroy(client->channel);
	grpc_shutdown();
	if (client->bearer)
		explicit_bzero(client->bearer, strlen(client->bearer));
	free(client->bearer);
	free(client->address);
	free(client);
}

int paddock_wait_ready(struct paddock_client *client, int64_t timeout_ms, struct pdk_error *err)
{
	gpr_timespec deadline = client_deadline(timeout_ms);
	grpc_completion_queue *cq = grpc_completion_queue_create_for_pluck(NULL);
	grpc_connectivity_state state;
	bool in_time = true;

	while ((state = grpc_channel_check_connectivity_state(client->channel, 1)) != GRPC_CHANNEL_READY && in_time) {
		grpc_channel_watch_connectivity_state(client->channel, state, deadline, cq, client);
		/* The watch itself ends at the deadline, without success. */
		in_time = grpc_completion_queue_pluck(cq, client, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).success;
	}
	grpc_completion_queue_shutdown(cq);
	grpc_completion_queue_destroy(cq);
	if (state == GRPC_CHANNEL_READY)
		return 0;
	return pdk_fail(err, -ETIMEDOUT, PDK_UNAVAILABLE, "no server answers at %s", client->address);
}

const char *paddock_address(const struct paddock_client *client)
{
	return client->address;
}

void paddock_set_timeout(struct paddock_client *client, int64_t timeout_ms)
{
	client->timeout_ms = timeout_ms;
}

gpr_timespec client_deadline(int64_t timeout_ms)
{
	if (timeout_ms < 0)
		return gpr_inf_future(GPR_CLOCK_MONOTONIC);
	return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(timeout_ms, GPR_TIMESPAN));
}

grpc_call *client_new_call(struct paddock_client *client, grpc_completion_queue *cq, const char *path,
			   int64_t timeout_ms)
{
	return grpc_channel_create_call(client->channel, NULL, GRPC_PROPAGATE_DEFAULTS, cq,
					grpc_slice_from_static_string(path), NULL, client_deadline(timeout_ms), NULL);
}

size_t client_metadata(const struct paddock_client *client, grpc_metadata metadata[1])
{
	if (!client->bearer)
		return 0;
	memset(metadata, 0, sizeof(*metadata));
	metadata->key = grpc_slice_from_static_string("authorization");
	metadata->value = grpc_slice_from_static_string(client->bearer);
	return 1;
}

/* gRPC's own texts for a server that is not there are long and speak of subchannels. */
static bool is_connect_failure(const char *text)
{
	return strstr(text, "failed to connect to all addresses") || strstr(text, "onnection refused") ||
	       strstr(text, "No such file or directory") || strstr(text, "DNS resolution failed");
}

int client_fail(const struct paddock_client *client, grpc_status_code status, grpc_slice details, struct pdk_error *err)
{
	enum pdk_code code = status <= GRPC_STATUS_UNAUTHENTICATED ? (enum pdk_code)status : PDK_UNKNOWN;
	char *text = grpc_slice_to_c_string(details);
	int rc = paddock_errno(code);

	if (code == PDK_UNAVAILABLE && is_connect_failure(text))
		pdk_fail(err, rc, code, "no server answers at %s", client->address);
	else if (*text)
		pdk_fail(err, rc, code, "%s", text);
	else
		pdk_fail(err, rc, code, "the server said %s", pdk_code_name(code));
	gpr_free(text);
	return rc;
}
