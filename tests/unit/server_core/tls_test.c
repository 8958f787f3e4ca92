#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <grpc/grpc_security.h>
#include <netinet/in.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client.h"
#include "sandbox/base/cleanup.h"
#include "server/tls.h"
#include "service.h"

/* TLS on the TCP listener: certificates of a throw-away authority, replaced while the server runs. */

static char dir[] = "/tmp/paddock-tls.XXXXXX";
static int port;

static const char *path_of(const char *name)
{
	static char paths[4][128];
	static unsigned int next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", dir, name);
	return path;
}

static void add_extension(X509 *certificate, int nid, const char *value)
{
	X509V3_CTX context;
	X509_EXTENSION *extension;

	X509V3_set_ctx(&context, certificate, certificate, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
	X509_add_ext(certificate, extension, -1);
	X509_EXTENSION_free(extension);
}

/* NAME.crt and NAME.key: an authority's own certificate, good for 127.0.0.1 too. */
static void make_pair(const char *name)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *certificate = X509_new();
	char file[32];
	FILE *out;

	X509_set_version(certificate, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(certificate), rand());
	X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
	X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
	X509_set_pubkey(certificate, key);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC, (const unsigned char *)name,
				   -1, -1, 0);
	X509_set_issuer_name(certificate, X509_get_subject_name(certificate));
	add_extension(certificate, NID_basic_constraints, "critical,CA:TRUE");
	add_extension(certificate, NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1");
	X509_sign(certificate, key, EVP_sha256());
	snprintf(file, sizeof(file), "%s.crt", name);
	out = fopen(path_of(file), "w");
	PEM_write_X509(out, certificate);
	fclose(out);
	snprintf(file, sizeof(file), "%s.key", name);
	unlink(path_of(file));
	out = fopen(path_of(file), "w");
	PEM_write_PrivateKey(out, key, NULL, NULL, 0, NULL, NULL);
	fclose(out);
	chmod(path_of(file), 0600);
	X509_free(certificate);
	EVP_PKEY_free(key);
}

static void read_text(const char *name, char text[4096])
{
	FILE *in = fopen(path_of(name), "r");

	assert_non_null(in);
	text[fread(text, 1, 4095, in)] = '\0';
	fclose(in);
}

static int free_port(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(address);
	_cleanup_fd_ int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
	return ntohs(address.sin_port);
}

/* One call on a fresh connection that trusts `authority`, with a certificate of its own if `own` is given. */
static int call_with(const char *authority, const char *own)
{
	char roots[4096], certificate[4096], key[4096], address[64], file[32];
	grpc_ssl_pem_key_cert_pair pair = {.private_key = key, .cert_chain = certificate};
	struct client client;
	int status;

	snprintf(file, sizeof(file), "%s.crt", authority);
	read_text(file, roots);
	if (own) {
		snprintf(file, sizeof(file), "%s.crt", own);
		read_text(file, certificate);
		snprintf(file, sizeof(file), "%s.key", own);
		read_text(file, key);
	}
	snprintf(address, sizeof(address), "127.0.0.1:%d", port);
	client_open_with(&client, address, GOOD_KEY,
			 grpc_ssl_credentials_create_ex(roots, own ? &pair : NULL, NULL, NULL));
	status = client_unary(&client, "/paddock.test.Test/Echo", 3000, "", 0, NULL, NULL, NULL);
	client_close(&client);
	return status;
}

static void use_tls(struct config *config)
{
	port = free_port();
	snprintf(config->listen, sizeof(config->listen), "127.0.0.1:%d", port);
	snprintf(config->tls_certificate, sizeof(config->tls_certificate), "%s", path_of("server.crt"));
	snprintf(config->tls_key, sizeof(config->tls_key), "%s", path_of("server.key"));
}

static void use_mutual_tls(struct config *config)
{
	use_tls(config);
	snprintf(config->tls_client_ca, sizeof(config->tls_client_ca), "%s", path_of("client.crt"));
}

static void only_tls_is_spoken(void **state)
{
	char address[64];
	struct client client;

	service_start(use_tls);
	assert_int_equal(call_with("server", NULL), PDK_OK);
	assert_int_equal(call_with("client", NULL), PDK_UNAVAILABLE);
	snprintf(address, sizeof(address), "127.0.0.1:%d", port);
	client_open(&client, address, GOOD_KEY);
	assert_int_not_equal(client_unary(&client, "/paddock.test.Test/Echo", 2000, "", 0, NULL, NULL, NULL), PDK_OK);
	client_close(&client);
	service_stop(100);
}

static void changed_files_are_used(void **state)
{
	char old[4096];
	FILE *out;

	service_start(use_tls);
	assert_int_equal(call_with("server", NULL), PDK_OK);
	read_text("server.crt", old);
	make_pair("server");
	assert_int_equal(call_with("server", NULL), PDK_OK);
	/* The certificate before the last is not accepted any more. */
	out = fopen(path_of("old.crt"), "w");
	fputs(old, out);
	fclose(out);
	assert_int_equal(call_with("old", NULL), PDK_UNAVAILABLE);
	/* A key that others can read is not loaded; what was loaded stays in force. */
	assert_int_equal(chmod(path_of("server.key"), 0644), 0);
	tls_reload();
	assert_int_equal(call_with("server", NULL), PDK_OK);
	chmod(path_of("server.key"), 0600);
	service_stop(100);
}

static void clients_show_certificates(void **state)
{
	service_start(use_mutual_tls);
	assert_int_equal(call_with("server", "client"), PDK_OK);
	assert_int_equal(call_with("server", NULL), PDK_UNAVAILABLE);
	assert_int_equal(call_with("server", "server"), PDK_UNAVAILABLE);
	service_stop(100);
}

static void bad_files_are_refused(void **state)
{
	grpc_server_credentials *credentials;
	struct pdk_error err = {};
	struct config config;

	config_defaults(&config);
	use_tls(&config);
	chmod(path_of("server.key"), 0640);
	grpc_init();
	assert_int_equal(tls_credentials(&config, &credentials, &err), 0);
	grpc_server_credentials_release(credentials);
	chmod(path_of("server.key"), 0644);
	assert_true(tls_credentials(&config, &credentials, &err) < 0);
	assert_non_null(strstr(err.text, "must not be open to others"));
	chmod(path_of("server.key"), 0600);
	snprintf(config.tls_certificate, sizeof(config.tls_certificate), "%s", path_of("nothing"));
	assert_true(tls_credentials(&config, &credentials, &err) < 0);
	assert_int_equal(err.code, PDK_NOT_FOUND);
	grpc_shutdown();
}

static int setup(void **state)
{
	if (!mkdtemp(dir))
		return -1;
	make_pair("server");
	make_pair("client");
	return 0;
}

static int teardown(void **state)
{
	static const char *const names[] = {"server.crt", "server.key", "client.crt", "client.key", "old.crt"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		unlink(path_of(names[i]));
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_tls_is_spoken),
		cmocka_unit_test(changed_files_are_used),
		cmocka_unit_test(clients_show_certificates),
		cmocka_unit_test(bad_files_are_refused),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
