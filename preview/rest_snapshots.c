#include <errno.h>
#include <string.h>

#include "paddock/v1/snapshots.pb-c.h"
#include "rest_sandbox.h"
#include "sandbox/base/cleanup.h"

/* Snapshots and copies. A snapshot is named as a template is, by its id, with or without ":default". */

#define COUNT_MAX 100

static void put_string(struct buffer *out, const char *before, const char *value)
{
	json_put(out, before);
	json_put_string(out, value, strlen(value));
}

static void put_snapshot(struct buffer *out, const Paddock__V1__Snapshot *snapshot)
{
	put_string(out, "{\"snapshotID\":", snapshot->id);
	json_put(out, ",\"names\":[");
	if (snapshot->name[0])
		put_string(out, "", snapshot->name);
	json_put(out, "]}");
}

/* --- snapshots --- */

static void taken(struct rest *rest, const ProtobufCMessage *reply)
{
	struct buffer out = BUFFER(1024);

	put_snapshot(&out, (const Paddock__V1__Snapshot *)reply);
	rest_answer(rest, 201, &out);
}

static void take(struct rest *rest, const ProtobufCMessage *reply)
{
	Paddock__V1__CreateSnapshotRequest request = PADDOCK__V1__CREATE_SNAPSHOT_REQUEST__INIT;

	if (!rest_sandbox_runs(rest, (const Paddock__V1__Sandbox *)reply))
		return;
	request.sandbox_id = rest->id;
	request.name = rest->text;
	rest_call(rest, "/paddock.v1.Snapshots/Create", &request.base, &paddock__v1__snapshot__descriptor, taken);
}

void rest_snapshot(struct rest *rest)
{
	json_t *name = json_object_get(rest->json, "name");

	if (name && !json_is_null(name) && !json_is_string(name)) {
		rest_fail(rest->exchange, 400, "name: not a string");
		return;
	}
	rest->text = (char *)(uintptr_t)(json_is_string(name) ? json_string_value(name) : "");
	rest_get_first(rest, take);
}

static void listed(struct rest *rest, const ProtobufCMessage *reply)
{
	const Paddock__V1__ListSnapshotsResponse *list = (const Paddock__V1__ListSnapshotsResponse *)reply;
	struct buffer out = BUFFER(1 << 20);

	json_put(&out, "[");
	for (size_t i = 0; i < list->n_snapshots; i++) {
		if (i)
			json_put(&out, ",");
		put_snapshot(&out, list->snapshots[i]);
	}
	json_put(&out, "]");
	if (list->next_page_token[0])
		http_add_field(rest->exchange, "X-Next-Token", list->next_page_token);
	rest_answer(rest, 200, &out);
}

void rest_snapshot_list(struct rest *rest)
{
	Paddock__V1__ListSnapshotsRequest request = PADDOCK__V1__LIST_SNAPSHOTS_REQUEST__INIT;

	request.sandbox_id = rest_query_text(rest, "sandboxID");
	request.name = rest_query_text(rest, "name");
	request.page_token = rest_query_text(rest, "nextToken");
	if (!request.sandbox_id || !request.name || !request.page_token)
		rest_fail(rest->exchange, 400, "the query is malformed");
	else if (rest_read_limit(rest, &request.page_size) < 0)
		rest_fail(rest->exchange, 400, "limit: 1 to 100");
	else
		rest_call(rest, "/paddock.v1.Snapshots/List", &request.base,
			  &paddock__v1__list_snapshots_response__descriptor, listed);
}

static void removed(struct rest *rest, const ProtobufCMessage *reply)
{
	rest_answer_empty(rest, 204);
}

void rest_snapshot_remove(struct rest *rest)
{
	Paddock__V1__RemoveSnapshotRequest request = PADDOCK__V1__REMOVE_SNAPSHOT_REQUEST__INIT;
	char *tag = strchr(rest->id, ':');

	if (tag && strcmp(tag, ":default") == 0)
		*tag = '\0';
	request.snapshot = rest->id;
	rest_call(rest, "/paddock.v1.Snapshots/Remove", &request.base,
		  &paddock__v1__remove_snapshot_response__descriptor, removed);
}

/* --- copies --- */

static void put_traffic_token(struct buffer *out, const Paddock__V1__ForkResult *result)
{
	if (result->traffic_token[0])
		put_string(out, ",\"trafficAccessToken\":", result->traffic_token);
	else
		json_put(out, ",\"trafficAccessToken\":null");
}

static void put_sandbox(struct buffer *out, const struct rest *rest, const Paddock__V1__ForkResult *result)
{
	put_string(out, "{\"sandboxID\":", result->sandbox->id);
	put_string(out, ",\"templateID\":", result->sandbox->template_);
	put_string(out, ",\"alias\":", result->sandbox->template_name);
	put_string(out, ",\"domain\":", rest->domain);
	put_string(out, ",\"envdAccessToken\":", result->access_token);
	put_traffic_token(out, result);
	json_put(out, ",\"clientID\":\"paddock\",\"envdVersion\":\"" ENVD_VERSION "\"}");
}

static void forked(struct rest *rest, const ProtobufCMessage *reply)
{
	const Paddock__V1__ForkResponse *fork = (const Paddock__V1__ForkResponse *)reply;
	struct buffer out = BUFFER(1 << 20);

	json_put(&out, "[");
	for (size_t i = 0; i < fork->n_results; i++) {
		const Paddock__V1__ForkResult *result = fork->results[i];

		json_put(&out, i ? ",{" : "{");
		if (result->sandbox) {
			json_put(&out, "\"sandbox\":");
			put_sandbox(&out, rest, result);
		} else {
			json_put_format(&out, "\"error\":{\"code\":%d,\"message\":",
					result->code == PDK_RESOURCE_EXHAUSTED ? 429 : 500);
			put_string(&out, "", result->message);
			json_put(&out, "}");
		}
		json_put(&out, "}");
	}
	json_put(&out, "]");
	rest_answer(rest, 201, &out);
}

/* Novita's form: no errors in it, and no client id, so that the SDK takes the id as it is. */
static void cloned(struct rest *rest, const ProtobufCMessage *reply)
{
	const Paddock__V1__ForkResponse *fork = (const Paddock__V1__ForkResponse *)reply;
	struct buffer out = BUFFER(1 << 20);
	bool first = true;

	json_put(&out, "{\"sandboxes\":[");
	for (size_t i = 0; i < fork->n_results; i++) {
		const Paddock__V1__ForkResult *result = fork->results[i];

		if (!result->sandbox)
			continue;
		put_string(&out, first ? "{\"sandboxID\":" : ",{\"sandboxID\":", result->sandbox->id);
		put_string(&out, ",\"templateID\":", result->sandbox->template_);
		put_string(&out, ",\"domain\":", rest->domain);
		put_string(&out, ",\"envdAccessToken\":", result->access_token);
		put_traffic_token(&out, result);
		json_put(&out, ",\"envdVersion\":\"" ENVD_VERSION "\"}");
		first = false;
	}
	json_put(&out, "],\"snapshotTemplateId\":\"\"}");
	rest_answer(rest, 201, &out);
}

static void fork_running(struct rest *rest, const ProtobufCMessage *reply, bool all, rest_reply then)
{
	Paddock__V1__ForkRequest request = PADDOCK__V1__FORK_REQUEST__INIT;
	int64_t seconds = 0;
	struct pdk_error err;

	if (!rest_sandbox_runs(rest, (const Paddock__V1__Sandbox *)reply))
		return;
	if (rest_read_seconds(rest, "timeout", &seconds, &err) < 0 || seconds < 0) {
		rest_fail(rest->exchange, 400, "Timeout must be greater than 0");
		return;
	}
	request.sandbox_id = rest->id;
	request.count = (uint32_t)rest->number;
	request.timeout_ms = (uint64_t)seconds * 1000;
	request.all = all;
	/* As of what this API creates without a word about it. */
	request.port_access = PADDOCK__V1__PORT_ACCESS__PORT_ACCESS_PUBLIC;
	rest_call(rest, "/paddock.v1.Snapshots/Fork", &request.base, &paddock__v1__fork_response__descriptor, then);
}

static void fork_first(struct rest *rest, const ProtobufCMessage *reply)
{
	fork_running(rest, reply, false, forked);
}

static void clone_first(struct rest *rest, const ProtobufCMessage *reply)
{
	fork_running(rest, reply, json_is_true(json_object_get(rest->json, "strict")), cloned);
}

static void copy(struct rest *rest, rest_reply then)
{
	json_t *count = json_object_get(rest->json, "count");

	rest->number = json_is_integer(count) ? json_integer_value(count) : count && !json_is_null(count) ? 0 : 1;
	if (rest->number < 1)
		rest_fail(rest->exchange, 400, "Count must be at least 1");
	else if (rest->number > COUNT_MAX)
		rest_fail(rest->exchange, 400, "Count cannot be greater than 100");
	else
		rest_get_first(rest, then);
}

void rest_fork(struct rest *rest)
{
	copy(rest, fork_first);
}

void rest_clone(struct rest *rest)
{
	copy(rest, clone_first);
}
