#include "rpc_grpc.h"

#include <errno.h>
#include <grpc/fork.h>
#include <grpc/grpc_security.h>
#include <grpc/support/log.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "config.h"
#include "health.h"
#include "log.h"
#include "reflection.h"
#include "rpc_link.h"
#include "sandbox/base/cleanup.h"
#include "tls.h"
#include "unix_socket.h"

/*
 * Listeners and the threads that serve them. Two gRPC servers share one completion queue, so that the socket a
 * call came in on says what it may do without a key: the admin socket (mode 0600) is the operator's, all else
 * needs a key. The ingress has a socket of its own (rpc_link_listen.c). What one peer can make the core hold is bounded
 * by the channel arguments here.
 */

#define THREADS_MAX 2
#define CANCEL_MS 3000 /* for calls to end that were cancelled */
#define GO_AWAY_MS 200 /* for connections without calls */
#define FRAME_SLACK                                                                                                    \
	(1u                                                                                                            \
	 << 20) /* above the largest row, so that rows give the error, with a text that says how much               \
		    */
#define CORE_MEMORY_MAX ((size_t)512 << 20)

static struct rpc_listener listeners[2]; /* admin, public */
static grpc_completion_queue *queue;
static pthread_t threads[THREADS_MAX];
static unsigned int n_threads;
static char socket_paths[2][sizeof(((struct sockaddr_un *)NULL)->sun_path)];
static struct rpc_tag shutdown_tag; /* its address is the tag; no call */
static atomic_uint servers_down;

/* gRPC's own words, without its own format. */
static void log_grpc(gpr_log_func_args *args)
{
	log_event(args->severity == GPR_LOG_SEVERITY_ERROR ? LOG_WARN : LOG_DEBUG, "grpc", "text", args->message, NULL);
}

static void *serve(void *arg)
{
	for (;;) {
		grpc_event event = grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);

		if (event.type == GRPC_QUEUE_SHUTDOWN)
			return NULL;
		if (event.type != GRPC_OP_COMPLETE)
			continue;
		if (event.tag == &shutdown_tag)
			atomic_fetch_add(&servers_down, 1);
		else
			rpc_grpc_event(event.tag, event.success);
	}
}

static grpc_arg integer(const char *key, int value)
{
	grpc_arg arg = {.type = GRPC_ARG_INTEGER, .key = (char *)(uintptr_t)key, .value.integer = value};

	return arg;
}

static int largest_message(void)
{
	uint32_t largest = 0;

	for (size_t i = 0; i < rpc_table_size; i++)
		largest = rpc_table[i].max_request_bytes > largest ? rpc_table[i].max_request_bytes : largest;
	return (int)(largest + FRAME_SLACK);
}

static grpc_server *create_server(const struct config *config)
{
	grpc_resource_quota *quota = grpc_resource_quota_create("paddockd");
	grpc_arg args[] = {
		integer(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, largest_message()),
		integer(GRPC_ARG_MAX_CONCURRENT_STREAMS, (int)config->max_streams),
		integer(GRPC_ARG_MAX_METADATA_SIZE, RPC_METADATA_MAX),
		integer(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, 10000),
		integer(GRPC_ARG_KEEPALIVE_TIME_MS, 30000),
		integer(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10000),
		integer(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
		integer(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10000),
		integer(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
		/* Messages are never decompressed: a small one could become any size. */
		integer(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0),
		integer(GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0),
		integer(GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1 << GRPC_COMPRESS_NONE),
		/* The engine has the deadlines, on the loop's clock. */
		integer(GRPC_ARG_ENABLE_DEADLINE_CHECKS, 0),
		integer(GRPC_ARG_ALLOW_REUSEPORT, 0),
		integer(GRPC_ARG_ENABLE_CHANNELZ, 0),
		integer(GRPC_ARG_MAX_CHANNEL_TRACE_EVENT_MEMORY_PER_NODE, 0),
		{.type = GRPC_ARG_POINTER,
		 .key = (char *)(uintptr_t)GRPC_ARG_RESOURCE_QUOTA,
		 .value.pointer = {.p = quota, .vtable = grpc_resource_quota_arg_vtable()}},
	};
	grpc_channel_args channel_args = {.num_args = ARRAY_SIZE(args), .args = args};
	grpc_server *server;

	grpc_resource_quota_resize(quota, CORE_MEMORY_MAX);
	server = grpc_server_create(&channel_args, NULL);
	grpc_resource_quota_unref(quota);
	grpc_server_register_completion_queue(server, queue, NULL);
	return server;
}

static int bind_unix(struct rpc_listener *listener, const char *folder, const char *name, mode_t mode,
		     struct pdk_error *err)
{
	char *path = socket_paths[listener - listeners];
	char address[sizeof(socket_paths[0]) + 8];
	grpc_server_credentials *credentials;
	mode_t before;
	int rc, port;

	if (snprintf(path, sizeof(socket_paths[0]), "%s/%s", folder, name) >= (int)sizeof(socket_paths[0])) {
		path[0] = '\0';
		return pdk_fail(err, -ENAMETOOLONG, PDK_INVALID_ARGUMENT, "runtime_dir: too long for a socket");
	}
	rc = unix_socket_remove_stale(path, err);
	if (rc < 0) {
		path[0] = '\0';
		return rc;
	}
	snprintf(address, sizeof(address), "unix:%s", path);
	credentials = grpc_insecure_server_credentials_create();
	before = umask(0177);
	port = grpc_server_add_http2_port(listener->server, address, credentials);
	umask(before);
	grpc_server_credentials_release(credentials);
	if (!port)
		return pdk_fail(err, -EADDRNOTAVAIL, PDK_FAILED_PRECONDITION, "%s: cannot listen", path);
	if (chmod(path, mode) < 0)
		return pdk_fail_errno(err, -errno, "%s", path);
	return 0;
}

static int bind_tcp(struct rpc_listener *listener, const struct config *config, struct pdk_error *err)
{
	grpc_server_credentials *credentials;
	int port, rc;

	if (!config->listen[0])
		return 0;
	if (config->tls_certificate[0]) {
		rc = tls_credentials(config, &credentials, err);
		if (rc < 0)
			return rc;
	} else {
		credentials = grpc_insecure_server_credentials_create();
	}
	port = grpc_server_add_http2_port(listener->server, config->listen, credentials);
	grpc_server_credentials_release(credentials);
	if (!port)
		return pdk_fail(err, -EADDRNOTAVAIL, PDK_FAILED_PRECONDITION, "%s: cannot listen", config->listen);
	log_event(LOG_INFO, "rpc.listening", "address", config->listen, "port", log_i64(port), "tls",
		  config->tls_certificate[0] ? "true" : "false", NULL);
	return 0;
}

static int request_calls(struct pdk_error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(listeners); i++) {
		for (int slot = 0; slot < RPC_SLOTS; slot++) {
			struct rpc_grpc_call *call = rpc_grpc_create(&listeners[i]);

			if (!call)
				return pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "out of memory");
			rpc_grpc_request(call);
		}
	}
	return 0;
}

/* One thread serves a small box better: a call's steps then never wake another thread (measured on 2 CPUs: 145 us of
 * CPU for an echo and its client instead of 182, half the context switches). */
static unsigned int threads_wanted(void)
{
	cpu_set_t cpus;

	return sched_getaffinity(0, sizeof(cpus), &cpus) == 0 && CPU_COUNT(&cpus) < 4 ? 1 : THREADS_MAX;
}

static int start_threads(struct pdk_error *err)
{
	for (; n_threads < threads_wanted(); n_threads++) {
		int rc = pthread_create(&threads[n_threads], NULL, serve, NULL);

		if (rc)
			return pdk_fail_errno(err, -rc, "cannot start a thread");
		pthread_setname_np(threads[n_threads], "paddockd-rpc");
	}
	return 0;
}

static int bind_all(const struct config *config, struct pdk_error *err)
{
	int rc = bind_unix(&listeners[0], config->runtime_dir, "admin.sock", 0600, err);

	if (rc >= 0)
		rc = bind_unix(&listeners[1], config->runtime_dir, "paddock.sock", 0666, err);
	if (rc >= 0)
		rc = bind_tcp(&listeners[1], config, err);
	return rc;
}

/* Never fork after this: the core has threads and locks. */
static void start_core(const struct config *config)
{
	setenv("GRPC_ENABLE_FORK_SUPPORT", "0", 1);
	unsetenv("GRPC_TRACE");
	gpr_set_log_verbosity(GPR_LOG_SEVERITY_ERROR);
	gpr_set_log_function(log_grpc);
	grpc_init();
	queue = grpc_completion_queue_create_for_next(NULL);
	listeners[0] = (struct rpc_listener){.server = create_server(config), .queue = queue, .trusted = true};
	listeners[1] = (struct rpc_listener){.server = create_server(config), .queue = queue};
}

int rpc_start(const struct config *config, struct pdk_error *err)
{
	int rc = rpc_table_index(err);

	if (rc >= 0)
		rc = rpc_table_check(rpc_descriptor_set, rpc_descriptor_set_size, err);
	if (rc >= 0)
		rc = reflection_start(err);
	if (rc < 0)
		return rc;
	start_core(config);
	loop_lock();
	health_set_serving(true);
	loop_unlock();
	rc = bind_all(config, err);
	for (size_t i = 0; i < ARRAY_SIZE(listeners); i++)
		grpc_server_start(listeners[i].server);
	if (rc >= 0)
		rc = request_calls(err);
	if (rc >= 0)
		rc = start_threads(err);
	if (rc >= 0)
		rc = rpc_link_listen(config, err);
	if (rc < 0) {
		rpc_stop(0);
		return rc;
	}
	return 0;
}

static bool calls_left(void)
{
	bool left;

	loop_lock();
	left = rpc_active() > 0;
	loop_unlock();
	return left;
}

/* A call can outlive its stream, while its handler or a commit is still busy. */
static bool is_down(void)
{
	return atomic_load(&servers_down) == ARRAY_SIZE(listeners) && !calls_left();
}

static bool calls_have_ended(void)
{
	return !calls_left();
}

static bool wait_until(bool (*reached)(void), uint64_t ms)
{
	const struct timespec step = {.tv_nsec = 5000000};
	uint64_t until = loop_now_ns() + ms * 1000000;

	while (!reached()) {
		if (loop_now_ns() >= until)
			return false;
		nanosleep(&step, NULL);
	}
	return true;
}

static void cancel_rest(void)
{
	struct pdk_error why;

	pdk_fail(&why, 0, PDK_UNAVAILABLE, "the server is stopping");
	loop_lock();
	rpc_cancel_all(&why);
	loop_unlock();
}

static void close_links(void)
{
	loop_lock();
	rpc_link_close_all();
	loop_unlock();
}

static void remove_sockets(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(socket_paths); i++) {
		if (socket_paths[i][0])
			unlink(socket_paths[i]);
		socket_paths[i][0] = '\0';
	}
}

void rpc_stop(uint32_t grace_ms)
{
	if (!queue)
		return;
	if (!n_threads && start_threads(NULL) < 0)
		return;
	loop_lock();
	health_set_serving(false);
	loop_unlock();
	rpc_link_stop_listening();
	for (size_t i = 0; i < ARRAY_SIZE(listeners); i++)
		grpc_server_shutdown_and_notify(listeners[i].server, queue, &shutdown_tag);
	if (!wait_until(calls_have_ended, grace_ms)) {
		cancel_rest();
		wait_until(calls_have_ended, CANCEL_MS);
	}
	/* Clients were told to go. One that has no call does not even look at its connection. */
	if (!wait_until(is_down, GO_AWAY_MS))
		for (size_t i = 0; i < ARRAY_SIZE(listeners); i++)
			grpc_server_cancel_all_calls(listeners[i].server);
	close_links();
	remove_sockets();
	if (!wait_until(is_down, CANCEL_MS)) {
		log_event(LOG_ERROR, "rpc.stuck", "calls", log_u64(rpc_active()), NULL);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(listeners); i++)
		grpc_server_destroy(listeners[i].server);
	grpc_completion_queue_shutdown(queue);
	while (n_threads)
		pthread_join(threads[--n_threads], NULL);
	grpc_completion_queue_destroy(queue);
	queue = NULL;
	atomic_store(&servers_down, 0);
	grpc_shutdown();
}
