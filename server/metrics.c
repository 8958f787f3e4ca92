#include "metrics.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "sandbox/base/cleanup.h"

/*
 * Counters are atomics that anybody adds to without a lock; a scrape reads them one by one, which is as exact as a
 * scrape can be. Calls are counted in a small open-addressed table whose keys are the addresses of the paths in
 * the method table, so nothing is allocated and nothing that a client sends becomes a label.
 */

#define METHODS 256 /* a power of two, several times the rows of the table */
#define CODES 17

struct description {
	const char *name;
	const char *type;
	const char *help;
};

static const struct description descriptions[METRIC_COUNT] = {
	[METRIC_CALLS_OK] = {"calls_ok_total", "counter", "Calls that ended with OK."},
	[METRIC_CALLS_FAILED] = {"calls_failed_total", "counter", "Calls that ended with an error."},
	[METRIC_CALLS_ACTIVE] = {"calls_active", "gauge", "Calls under way."},
	[METRIC_AUTH_FAILURES] = {"auth_failures_total", "counter", "Calls without a valid key."},
	[METRIC_SANDBOXES] = {"sandboxes", "gauge", "Sandboxes that live, pre-made ones not counted."},
	[METRIC_SANDBOXES_CREATED] = {"sandboxes_created_total", "counter", "Sandboxes created."},
	[METRIC_SANDBOXES_ENDED] = {"sandboxes_ended_total", "counter", "Sandboxes ended, for any reason."},
	[METRIC_SANDBOXES_FAILED] = {"sandboxes_failed_total", "counter", "Sandboxes that failed."},
	[METRIC_CREATES_REFUSED] = {"creates_refused_total", "counter",
				    "Creates refused by a quota or for lack of room."},
	[METRIC_POOL_HITS] = {"pool_hits_total", "counter", "Creates served by a pre-made sandbox."},
	[METRIC_POOL_MISSES] = {"pool_misses_total", "counter", "Creates that had to make one."},
	[METRIC_POOL_READY] = {"pool_ready", "gauge", "Pre-made sandboxes that wait."},
	[METRIC_PROCESSES_STARTED] = {"processes_started_total", "counter", "Processes started in sandboxes."},
	[METRIC_PROCESSES_RUNNING] = {"processes_running", "gauge", "Processes that run in sandboxes."},
	[METRIC_OUTPUT_BYTES] = {"output_bytes_total", "counter", "Output read from processes."},
	[METRIC_OUTPUT_DROPPED_BYTES] = {"output_dropped_bytes_total", "counter", "Output not kept."},
	[METRIC_STORE_COMMITS] = {"store_commits_total", "counter", "Transactions of the store."},
	[METRIC_STORE_BATCHES] = {"store_batches_total", "counter", "Changes that they contained."},
	[METRIC_AUDIT_RECORDS] = {"audit_records_total", "counter", "Audit records written."},
};

static const uint64_t buckets_us[] = {100,   250,    500,    1000,    2500,     5000,    10000,
				      25000, 100000, 500000, 2500000, 10000000, 60000000};
#define BUCKETS ARRAY_SIZE(buckets_us)

struct method {
	_Atomic(const char *) path;
	atomic_uint_fast64_t codes[CODES];
	atomic_uint_fast64_t buckets[BUCKETS]; /* not cumulative; beyond the last: count - sum */
	atomic_uint_fast64_t count;
	atomic_uint_fast64_t sum_us;
};

static atomic_int_fast64_t values[METRIC_COUNT];
static struct method methods[METHODS];
static struct MHD_Daemon *http;

void metric_add(enum metric metric, int64_t delta)
{
	atomic_fetch_add_explicit(&values[metric], delta, memory_order_relaxed);
}

void metric_set(enum metric metric, int64_t value)
{
	atomic_store_explicit(&values[metric], value, memory_order_relaxed);
}

static struct method *find_method(const char *path)
{
	size_t slot = ((uintptr_t)path >> 3) * 2654435761u;

	for (size_t i = 0; i < METHODS; i++) {
		struct method *method = &methods[(slot + i) % METHODS];
		const char *expected = NULL;

		if (atomic_load(&method->path) == path ||
		    atomic_compare_exchange_strong(&method->path, &expected, path) || expected == path)
			return method;
	}
	return NULL;
}

static size_t code_index(const char *code)
{
	for (size_t i = 0; i < CODES; i++) {
		if (strcmp(pdk_code_name((enum pdk_code)i), code) == 0)
			return i;
	}
	return PDK_UNKNOWN;
}

void metric_call(const char *path, const char *code, uint64_t duration_ns)
{
	struct method *method = find_method(path);
	uint64_t us = duration_ns / 1000;
	size_t bucket = 0;

	if (!method)
		return;
	while (bucket < BUCKETS && us > buckets_us[bucket])
		bucket++;
	if (bucket < BUCKETS)
		atomic_fetch_add_explicit(&method->buckets[bucket], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&method->codes[code_index(code)], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&method->count, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&method->sum_us, us, memory_order_relaxed);
}

/* Text exposition */

static void print_values(FILE *out)
{
	for (int i = 0; i < METRIC_COUNT; i++) {
		const struct description *it = &descriptions[i];

		fprintf(out, "# HELP paddock_%s %s\n# TYPE paddock_%s %s\npaddock_%s %lld\n", it->name, it->help,
			it->name, it->type, it->name, (long long)atomic_load(&values[i]));
	}
	fprintf(out, "# HELP paddock_build_info The running version.\n# TYPE paddock_build_info gauge\n"
		     "paddock_build_info{version=\"" PADDOCK_VERSION "\"} 1\n");
}

static void print_codes(FILE *out)
{
	fprintf(out, "# HELP paddock_calls_total Calls by method and status.\n# TYPE paddock_calls_total counter\n");
	for (size_t m = 0; m < METHODS; m++) {
		const char *path = atomic_load(&methods[m].path);

		for (size_t i = 0; path && i < CODES; i++) {
			uint64_t n = atomic_load(&methods[m].codes[i]);

			if (n)
				fprintf(out, "paddock_calls_total{method=\"%s\",code=\"%s\"} %llu\n", path + 1,
					pdk_code_name((enum pdk_code)i), (unsigned long long)n);
		}
	}
}

static void print_histogram(FILE *out, const struct method *method, const char *path)
{
	uint64_t count = atomic_load(&method->count), below = 0;

	for (size_t i = 0; i < BUCKETS; i++) {
		below += atomic_load(&method->buckets[i]);
		fprintf(out, "paddock_call_seconds_bucket{method=\"%s\",le=\"%g\"} %llu\n", path,
			(double)buckets_us[i] / 1e6, (unsigned long long)below);
	}
	fprintf(out, "paddock_call_seconds_bucket{method=\"%s\",le=\"+Inf\"} %llu\n", path,
		(unsigned long long)(count > below ? count : below));
	fprintf(out, "paddock_call_seconds_sum{method=\"%s\"} %.6f\n", path,
		(double)atomic_load(&method->sum_us) / 1e6);
	fprintf(out, "paddock_call_seconds_count{method=\"%s\"} %llu\n", path,
		(unsigned long long)(count > below ? count : below));
}

static char *print_all(size_t *ret_length)
{
	char *text = NULL;
	FILE *out = open_memstream(&text, ret_length);

	if (!out)
		return NULL;
	print_values(out);
	print_codes(out);
	fprintf(out, "# HELP paddock_call_seconds How long calls took.\n# TYPE paddock_call_seconds histogram\n");
	for (size_t m = 0; m < METHODS; m++) {
		const char *path = atomic_load(&methods[m].path);

		if (path)
			print_histogram(out, &methods[m], path + 1);
	}
	if (fclose(out) != 0) {
		free(text);
		return NULL;
	}
	return text;
}

/* HTTP */

static enum MHD_Result respond(struct MHD_Connection *connection, unsigned int status, const char *type, char *text,
			       size_t length, enum MHD_ResponseMemoryMode mode)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(length, text, mode);
	enum MHD_Result result;

	if (!response)
		return MHD_NO;
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	result = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result handle(void *arg, struct MHD_Connection *connection, const char *url, const char *method,
			      const char *version, const char *upload_data, size_t *upload_data_size, void **state)
{
	static char not_found[] = "not found\n", not_allowed[] = "method not allowed\n", ok[] = "ok\n";
	size_t length = 0;
	char *text;

	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
		return respond(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "text/plain", not_allowed, strlen(not_allowed),
			       MHD_RESPMEM_PERSISTENT);
	if (strcmp(url, "/healthz") == 0)
		return respond(connection, MHD_HTTP_OK, "text/plain", ok, strlen(ok), MHD_RESPMEM_PERSISTENT);
	if (strcmp(url, "/metrics") != 0)
		return respond(connection, MHD_HTTP_NOT_FOUND, "text/plain", not_found, strlen(not_found),
			       MHD_RESPMEM_PERSISTENT);
	text = print_all(&length);
	if (!text)
		return MHD_NO;
	return respond(connection, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", text, length,
		       MHD_RESPMEM_MUST_FREE);
}

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

/* "127.0.0.1:7412", "localhost:7412" or "[::1]:7412"; anything that is not loopback is refused. */
static int parse_address(const char *text, union address *ret)
{
	const char *colon = strrchr(text, ':');
	char host[64];
	uint16_t port;

	if (!colon || (size_t)(colon - text) >= sizeof(host))
		return -EINVAL;
	snprintf(host, sizeof(host), "%.*s", (int)(colon - text), text);
	port = htons((uint16_t)atoi(colon + 1));
	*ret = (union address){};
	if (strcmp(host, "[::1]") == 0) {
		ret->v6 = (struct sockaddr_in6){
			.sin6_family = AF_INET6, .sin6_port = port, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
		return 0;
	}
	ret->v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = port};
	if (inet_pton(AF_INET, strcmp(host, "localhost") == 0 ? "127.0.0.1" : host, &ret->v4.sin_addr) != 1)
		return -EINVAL;
	return ntohl(ret->v4.sin_addr.s_addr) >> 24 == 127 ? 0 : -EPERM;
}

int metrics_start(const char *listen, struct pdk_error *err)
{
	unsigned int flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL;
	const union MHD_DaemonInfo *info;
	union address address;

	if (!*listen)
		return 0;
	if (parse_address(listen, &address) < 0)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "metrics_listen: must be a loopback address");
	if (address.any.sa_family == AF_INET6)
		flags |= MHD_USE_IPv6;
	errno = 0;
	http = MHD_start_daemon(flags, 0, NULL, NULL, handle, NULL, MHD_OPTION_SOCK_ADDR, &address.any,
				MHD_OPTION_CONNECTION_LIMIT, 16u, MHD_OPTION_CONNECTION_TIMEOUT, 10u,
				MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)16384, MHD_OPTION_END);
	if (!http)
		return pdk_fail(err, -EADDRNOTAVAIL, PDK_FAILED_PRECONDITION, "metrics_listen: cannot listen on %s: %s",
				listen, strerror(errno ? errno : EADDRINUSE));
	info = MHD_get_daemon_info(http, MHD_DAEMON_INFO_BIND_PORT);
	log_event(LOG_INFO, "metrics.listening", "address", listen, "port", info ? log_u64(info->port) : NULL, NULL);
	return 0;
}

void metrics_stop(void)
{
	if (http)
		MHD_stop_daemon(http);
	http = NULL;
}
