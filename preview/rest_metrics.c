#include <stdlib.h>
#include <string.h>

#include "json_time.h"
#include "rest_sandbox.h"
#include "sandbox/base/cleanup.h"
#include "server/loop.h"
#include "url.h"

/* Metrics in the words of the SDKs: memory without what is cache beside the cache, and numbers of processors. */

#define SAMPLE_JSON_MAX 512u
#define IDS_MAX 100u /* as ListMetrics takes */

static void put_sample(struct buffer *out, const Paddock__V1__SandboxSample *sample,
		       const Paddock__V1__Resources *limits)
{
	uint64_t used = sample->memory_bytes > sample->cache_bytes ? sample->memory_bytes - sample->cache_bytes : 0;
	int64_t seconds = sample->time_unix_ms / 1000;
	char text[JSON_TIME_SIZE];

	json_time_format_ms(sample->time_unix_ms, text);
	json_put_format(out, "{\"timestamp\":\"%s\",\"timestampUnix\":%lld,\"cpuCount\":%u,\"cpuUsedPct\":%.2f", text,
			(long long)seconds, (limits->cpu_millis + 999) / 1000, sample->cpu_percent);
	json_put_format(out, ",\"memUsed\":%llu,\"memTotal\":%llu,\"memCache\":%llu", (unsigned long long)used,
			(unsigned long long)limits->memory_bytes, (unsigned long long)sample->cache_bytes);
	json_put_format(out, ",\"diskUsed\":%llu,\"diskTotal\":%llu}", (unsigned long long)sample->disk_bytes,
			(unsigned long long)limits->disk_bytes);
}

static void show(struct rest *rest, const ProtobufCMessage *reply)
{
	const Paddock__V1__GetMetricsResponse *metrics = (const Paddock__V1__GetMetricsResponse *)reply;
	struct buffer out = BUFFER((metrics->n_samples + 1) * SAMPLE_JSON_MAX);

	json_put(&out, "[");
	for (size_t i = 0; metrics->resources && i < metrics->n_samples; i++) {
		if (i)
			json_put(&out, ",");
		put_sample(&out, metrics->samples[i], metrics->resources);
	}
	json_put(&out, "]");
	rest_answer(rest, 200, &out);
}

/* Unix seconds of the query; not there: -1. False: malformed, and answered. */
static bool read_second(struct rest *rest, const char *name, int64_t *ret)
{
	const char *text = rest_query_text(rest, name);

	if (!text || strlen(text) > 12 || strspn(text, "0123456789") != strlen(text)) {
		rest_fail(rest->exchange, 400, "start and end are Unix times in seconds");
		return false;
	}
	*ret = text[0] ? strtoll(text, NULL, 10) : -1;
	return true;
}

void rest_metrics(struct rest *rest)
{
	Paddock__V1__GetMetricsRequest request = PADDOCK__V1__GET_METRICS_REQUEST__INIT;
	int64_t start, end;

	if (!read_second(rest, "start", &start) || !read_second(rest, "end", &end))
		return;
	rest->id[strcspn(rest->id, "-")] = '\0';
	request.sandbox_id = rest->id;
	request.start_unix_ms = start > 0 ? start * 1000 : 0;
	request.end_unix_ms = end >= 0 ? end * 1000 + 999 : 0; /* all of that second */
	rest_call(rest, "/paddock.v1.Sandboxes/GetMetrics", &request.base,
		  &paddock__v1__get_metrics_response__descriptor, show);
}

static void show_several(struct rest *rest, const ProtobufCMessage *reply)
{
	const Paddock__V1__ListMetricsResponse *list = (const Paddock__V1__ListMetricsResponse *)reply;
	struct buffer out = BUFFER((list->n_sandboxes + 1) * SAMPLE_JSON_MAX);
	const char *comma = "";

	json_put(&out, "{\"sandboxes\":{");
	for (size_t i = 0; i < list->n_sandboxes; i++) {
		const Paddock__V1__ListMetricsResponse__Latest *one = list->sandboxes[i];

		if (!one->sample || !one->resources)
			continue;
		json_put(&out, comma);
		json_put_string(&out, one->sandbox_id, strlen(one->sandbox_id));
		json_put(&out, ":");
		put_sample(&out, one->sample, one->resources);
		comma = ",";
	}
	json_put(&out, "}}");
	rest_answer(rest, 200, &out);
}

void rest_metrics_several(struct rest *rest)
{
	Paddock__V1__ListMetricsRequest request = PADDOCK__V1__LIST_METRICS_REQUEST__INIT;
	char *text = rest_query_text(rest, "sandbox_ids"), *ids[IDS_MAX], *id, *rest_of = text;

	while (text && (id = strsep(&rest_of, ","))) {
		id[strcspn(id, "-")] = '\0';
		if (request.n_sandbox_ids < IDS_MAX)
			ids[request.n_sandbox_ids++] = id;
		else
			text = NULL;
	}
	if (!text || !text[0]) {
		rest_fail(rest->exchange, 400, "sandbox_ids: 1 to 100 ids, separated by commas");
		return;
	}
	request.sandbox_ids = ids;
	rest_call(rest, "/paddock.v1.Sandboxes/ListMetrics", &request.base,
		  &paddock__v1__list_metrics_response__descriptor, show_several);
}
