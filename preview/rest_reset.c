#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "paddock/v1/snapshots.pb-c.h"
#include "paddock/v1/templates.pb-c.h"
#include "rest_sandbox.h"
#include "sandbox/base/cleanup.h"

/* What only Novita's SDK asks for of a sandbox: to be set back, and to become a template. */

#define COMMIT_TTL_MS 600000 /* of the snapshot in between, should the client go away */

static void put_string(struct buffer *out, const char *before, const char *value)
{
	json_put(out, before);
	json_put_string(out, value, strlen(value));
}

/* --- reset: what was running is running again, unless `resume` is false --- */

static void reset_done(struct rest *rest, const ProtobufCMessage *reply)
{
	rest_sandbox_answer(rest, 200, (const Paddock__V1__Sandbox *)reply);
}

static void pause_again(struct rest *rest, const ProtobufCMessage *reply)
{
	Paddock__V1__PauseSandboxRequest request = PADDOCK__V1__PAUSE_SANDBOX_REQUEST__INIT;

	request.sandbox_id = rest->id;
	request.mode = PADDOCK__V1__PAUSE_MODE__PAUSE_MODE_ANY;
	request.keep = true;
	rest_call(rest, "/paddock.v1.Sandboxes/Pause", &request.base, &paddock__v1__sandbox__descriptor, reset_done);
}

/* It is there, and what it was made from is not: no 404, which would deny the sandbox. */
static bool reset_refused(struct rest *rest, enum pdk_code code, const char *text)
{
	if (code != PDK_FAILED_PRECONDITION)
		return false;
	rest_fail(rest->exchange, 400, text);
	return true;
}

static void reset_living(struct rest *rest, const ProtobufCMessage *reply)
{
	Paddock__V1__ResetSandboxRequest request = PADDOCK__V1__RESET_SANDBOX_REQUEST__INIT;

	if (!rest_sandbox_lives((const Paddock__V1__Sandbox *)reply)) {
		rest_sandbox_not_found(rest);
		return;
	}
	request.sandbox_id = rest->id;
	request.timeout_ms = (uint64_t)rest->number * 1000;
	request.port_access = (Paddock__V1__PortAccess)rest->status;
	rest->on_refusal = reset_refused;
	rest_call(rest, "/paddock.v1.Sandboxes/Reset", &request.base, &paddock__v1__sandbox__descriptor,
		  json_is_false(json_object_get(rest->json, "resume")) ? pause_again : reset_done);
}

/* PORT_ACCESS_UNSPECIFIED when nothing is said: it stays as it is. */
static int read_access(struct rest *rest, json_t *network, struct pdk_error *err)
{
	json_t *public = json_object_get(rest->json, "allowPublicTraffic");

	if (!public)
	public = json_object_get(network, "allowPublicTraffic");
	if (public && !json_is_boolean(public) && !json_is_null(public))
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "allowPublicTraffic: not a boolean");
	rest->status = json_is_true(public)    ? PADDOCK__V1__PORT_ACCESS__PORT_ACCESS_PUBLIC
		       : json_is_false(public) ? PADDOCK__V1__PORT_ACCESS__PORT_ACCESS_TOKEN
					       : PADDOCK__V1__PORT_ACCESS__PORT_ACCESS_UNSPECIFIED;
	return 0;
}

void rest_reset(struct rest *rest)
{
	json_t *resume = json_object_get(rest->json, "resume"), *network = json_object_get(rest->json, "network");
	const char *why = rest_network_refused(network);
	struct pdk_error err = {};
	int rc = why ? pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "%s", why) : 0;

	if (rc == 0 && resume && !json_is_boolean(resume) && !json_is_null(resume))
		rc = pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "resume: not a boolean");
	if (rc == 0 && json_is_string(json_object_get(network, "maskRequestHost")))
		rc = pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT,
			      "network.maskRequestHost: stays as it was when the sandbox was created");
	if (rc == 0)
		rc = read_access(rest, network, &err);
	if (rc == 0)
		rc = rest_read_seconds(rest, "timeout", &rest->number, &err);
	if (rc == 0 && rest->number < 0)
		rc = pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "Timeout must be greater than 0");
	if (rc < 0)
		rest_fail(rest->exchange, 400, err.text);
	else
		rest_get_first(rest, reset_living);
}

/* --- commit: a snapshot that is a template's alone --- */

struct commit {
	const char *snapshot;
	char *refusal; /* what is answered when the snapshot is gone again */
	int refusal_status;
	int64_t created_unix_ms;
	uint64_t memory_bytes, disk_bytes;
	uint32_t cpu_millis;
};

static void put_commit(struct buffer *out, const struct rest *rest)
{
	const struct commit *commit = rest->state;

	put_string(out, "{\"templateID\":", rest->text);
	put_string(out, ",\"buildID\":", commit->snapshot);
	put_string(out, ",\"buildStatus\":\"ready\",\"buildCount\":1,\"aliases\":[", rest->text);
	put_string(out, "],\"names\":[", rest->text);
	put_string(out, "],\"templateType\":\"snapshot_template\",\"public\":false,\"envdVersion\":", ENVD_VERSION);
	json_put_format(out, ",\"cpuCount\":%u,\"memoryMB\":%llu,\"diskSizeMB\":%llu",
			(commit->cpu_millis + 999) / 1000, (unsigned long long)(commit->memory_bytes >> 20),
			(unsigned long long)(commit->disk_bytes >> 20));
	rest_put_time(out, "createdAt", commit->created_unix_ms);
	rest_put_time(out, "updatedAt", commit->created_unix_ms);
	json_put(out, "}");
}

static void commit_done(struct rest *rest, const ProtobufCMessage *reply)
{
	const struct commit *commit = rest->state;
	struct buffer out = BUFFER(8192);

	if (commit->refusal) {
		rest_fail(rest->exchange, commit->refusal_status, commit->refusal);
		return;
	}
	put_commit(&out, rest);
	rest_answer(rest, 201, &out);
}

static void remove_snapshot(struct rest *rest, rest_reply then)
{
	Paddock__V1__RemoveSnapshotRequest request = PADDOCK__V1__REMOVE_SNAPSHOT_REQUEST__INIT;
	const struct commit *commit = rest->state;

	request.snapshot = (char *)(uintptr_t)commit->snapshot;
	rest_call(rest, "/paddock.v1.Snapshots/Remove", &request.base,
		  &paddock__v1__remove_snapshot_response__descriptor, then);
}

/* The template needs it; nobody else does. */
static void committed(struct rest *rest, const ProtobufCMessage *reply)
{
	remove_snapshot(rest, commit_done);
}

static bool commit_refused(struct rest *rest, enum pdk_code code, const char *text)
{
	struct commit *commit = rest->state;

	commit->refusal = arena_alloc(&rest->arena, strlen(text) + 1);
	if (!commit->refusal)
		return false;
	strcpy(commit->refusal, text);
	commit->refusal_status = rest_status_of(code);
	remove_snapshot(rest, commit_done);
	return true;
}

static void commit_taken(struct rest *rest, const ProtobufCMessage *reply)
{
	Paddock__V1__CreateTemplateFromSnapshotRequest request =
		PADDOCK__V1__CREATE_TEMPLATE_FROM_SNAPSHOT_REQUEST__INIT;
	const Paddock__V1__Snapshot *snapshot = (const Paddock__V1__Snapshot *)reply;
	struct commit *commit = arena_alloc(&rest->arena, sizeof(*commit));
	char *id = arena_alloc(&rest->arena, strlen(snapshot->id) + 1);
	char *name = arena_alloc(&rest->arena, strlen(snapshot->id) + sizeof("commit-"));

	if (!commit || !id || !name) {
		rest_fail(rest->exchange, 503, "out of memory");
		return;
	}
	strcpy(stpcpy(name, "commit-"), snapshot->id);
	*commit = (struct commit){.snapshot = strcpy(id, snapshot->id), .created_unix_ms = snapshot->created_unix_ms};
	if (snapshot->resources) {
		commit->memory_bytes = snapshot->resources->memory_bytes;
		commit->disk_bytes = snapshot->resources->disk_bytes;
		commit->cpu_millis = snapshot->resources->cpu_millis;
	}
	rest->state = commit;
	rest->text = rest->text ? rest->text : name;
	request.snapshot = id;
	request.name = rest->text;
	rest->on_refusal = commit_refused;
	rest_call(rest, "/paddock.v1.Templates/CreateFromSnapshot", &request.base, &paddock__v1__template__descriptor,
		  committed);
}

static void commit_running(struct rest *rest, const ProtobufCMessage *reply)
{
	Paddock__V1__CreateSnapshotRequest request = PADDOCK__V1__CREATE_SNAPSHOT_REQUEST__INIT;

	if (!rest_sandbox_runs(rest, (const Paddock__V1__Sandbox *)reply))
		return;
	request.sandbox_id = rest->id;
	request.ttl_ms = COMMIT_TTL_MS;
	rest_call(rest, "/paddock.v1.Snapshots/Create", &request.base, &paddock__v1__snapshot__descriptor,
		  commit_taken);
}

void rest_commit(struct rest *rest)
{
	json_t *alias = json_object_get(rest->json, "alias");

	if (alias && !json_is_null(alias) && !json_is_string(alias)) {
		rest_fail(rest->exchange, 400, "alias: not a string");
		return;
	}
	rest->text = (char *)(uintptr_t)json_string_value(alias);
	rest_get_first(rest, commit_running);
}
