#include <stdlib.h>
#include <string.h>

#include "envd.h"
#include "files.h"
#include "json.h"
#include "paddock/v1/sandboxes.pb-c.h"
#include "rest.h"
#include "sandbox/base/id.h"
#include "server/loop.h"

/* GET /metrics of a sandbox: what it uses now, as the program inside of the hosted sandboxes says it. */

#define REPLY_MAX (64u << 10)
#define MIB (1024u * 1024u)

struct metrics {
	struct http_exchange *exchange;
	struct caller caller;
	struct call *call;
	struct buffer reply;
};

static void answer(struct metrics *metrics)
{
	Paddock__V1__GetMetricsResponse *reply = paddock__v1__get_metrics_response__unpack(
		NULL, buffer_length(&metrics->reply), buffer_data(&metrics->reply));
	const Paddock__V1__SandboxSample *now = reply && reply->n_samples ? reply->samples[reply->n_samples - 1] : NULL;
	struct buffer body = BUFFER(4096);

	if (!now || !reply->resources) {
		envd_not_found(metrics->exchange, metrics->caller.sandbox);
	} else {
		uint64_t total = reply->resources->memory_bytes;
		uint64_t used = now->memory_bytes > now->cache_bytes ? now->memory_bytes - now->cache_bytes : 0;

		json_put_format(&body, "{\"ts\":%lld,\"cpu_count\":%u,\"cpu_used_pct\":%.2f",
				(long long)(now->time_unix_ms / 1000), (reply->resources->cpu_millis + 999) / 1000,
				now->cpu_percent);
		json_put_format(&body, ",\"mem_total\":%llu,\"mem_used\":%llu,\"mem_cache\":%llu",
				(unsigned long long)total, (unsigned long long)used,
				(unsigned long long)now->cache_bytes);
		json_put_format(&body, ",\"mem_total_mib\":%llu,\"mem_used_mib\":%llu",
				(unsigned long long)(total / MIB), (unsigned long long)(used / MIB));
		json_put_format(&body, ",\"disk_used\":%llu,\"disk_total\":%llu}", (unsigned long long)now->disk_bytes,
				(unsigned long long)reply->resources->disk_bytes);
		http_reply(metrics->exchange, 200, "application/json", buffer_data(&body), buffer_length(&body));
	}
	buffer_free(&body);
	if (reply)
		paddock__v1__get_metrics_response__free_unpacked(reply, NULL);
}

static void on_message(struct call *call, const uint8_t *bytes, size_t length, int *fds, unsigned int n_fds, void *arg)
{
	struct metrics *metrics = arg;

	buffer_append(&metrics->reply, bytes, length); /* what does not fit is no reply that can be read */
}

static void on_end(struct call *call, enum pdk_code code, const char *text, void *arg)
{
	struct metrics *metrics = arg;

	metrics->call = NULL;
	if (code == PDK_OK)
		answer(metrics);
	else if (code == PDK_FAILED_PRECONDITION || code == PDK_NOT_FOUND)
		envd_not_found(metrics->exchange, metrics->caller.sandbox);
	else
		files_fail(metrics->exchange, &metrics->caller, code, text ? text : "");
}

static void on_close(struct http_exchange *exchange, bool completed, void *arg)
{
	struct metrics *metrics = arg;

	if (metrics->call)
		upstream_cancel(metrics->call);
	buffer_free(&metrics->reply);
	explicit_bzero(&metrics->caller, sizeof(metrics->caller));
	free(metrics);
}

void envd_metrics(struct http_exchange *exchange, const struct caller *caller)
{
	static const struct call_events call_events = {.on_message = on_message, .on_end = on_end};
	static const struct http_events events = {.on_close = on_close};
	Paddock__V1__GetMetricsRequest request = PADDOCK__V1__GET_METRICS_REQUEST__INIT;
	uint8_t packed[128];
	struct metrics *metrics;
	struct pdk_error err = {};

	if (!caller->access_token[0]) {
		rest_fail(exchange, 401, "an access token is needed: X-Access-Token");
		return;
	}
	metrics = calloc(1, sizeof(*metrics));
	if (!metrics) {
		rest_fail(exchange, 503, "out of memory");
		return;
	}
	metrics->exchange = exchange;
	metrics->caller = *caller;
	metrics->reply = BUFFER(REPLY_MAX);
	http_own(exchange, &events, metrics);
	request.sandbox_id = metrics->caller.sandbox;
	request.start_unix_ms = loop_wall_ms() - 1000; /* the newest, which is no older */
	metrics->call =
		upstream_open(&metrics->caller, "/paddock.v1.Sandboxes/GetMetrics", 0, 1, &call_events, metrics, &err);
	if (!metrics->call ||
	    upstream_send(metrics->call, packed, paddock__v1__get_metrics_request__pack(&request, packed)) < 0)
		rest_fail(exchange, 503, err.text[0] ? err.text : "the server does not answer");
	else
		upstream_half_close(metrics->call);
}
