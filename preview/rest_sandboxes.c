#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_time.h"
#include "rest_sandbox.h"
#include "sandbox/base/cleanup.h"
#include "server/loop.h"
#include "url.h"

/* The routes of one sandbox, and the list. */

/* "<id>-<client>" as old SDKs have it. */
static char *sandbox_id(struct rest *rest)
{
	rest->id[strcspn(rest->id, "-")] = '\0';
	return rest->id;
}

void rest_get_first(struct rest *rest, rest_reply then)
{
	Paddock__V1__GetSandboxRequest request = PADDOCK__V1__GET_SANDBOX_REQUEST__INIT;

	request.sandbox_id = sandbox_id(rest);
	rest_call(rest, "/paddock.v1.Sandboxes/Get", &request.base, &paddock__v1__sandbox__descriptor, then);
}

static void show(struct rest *rest, const ProtobufCMessage *reply)
{
	struct buffer out = BUFFER(1 << 20);
	const Paddock__V1__Sandbox *sandbox = (const Paddock__V1__Sandbox *)reply;

	if (!rest_sandbox_lives(sandbox)) {
		rest_sandbox_not_found(rest);
		return;
	}
	rest_sandbox_put(&out, rest, sandbox, true);
	rest_answer(rest, 200, &out);
}

void rest_get(struct rest *rest)
{
	rest_get_first(rest, show);
}

/* Kill */

static void done(struct rest *rest, const ProtobufCMessage *reply)
{
	rest_answer_empty(rest, 204);
}

static void kill_living(struct rest *rest, const ProtobufCMessage *reply)
{
	Paddock__V1__KillSandboxRequest request = PADDOCK__V1__KILL_SANDBOX_REQUEST__INIT;

	if (!rest_sandbox_lives((const Paddock__V1__Sandbox *)reply)) {
		rest_sandbox_not_found(rest);
		return;
	}
	request.sandbox_id = rest->id;
	rest_call(rest, "/paddock.v1.Sandboxes/Kill", &request.base, &paddock__v1__sandbox__descriptor, done);
}

void rest_kill(struct rest *rest)
{
	rest_get_first(rest, kill_living);
}

/* Timeout */

static void set_timeout(struct rest *rest, int64_t seconds, rest_reply then)
{
	Paddock__V1__SetTimeoutRequest request = PADDOCK__V1__SET_TIMEOUT_REQUEST__INIT;

	request.sandbox_id = rest->id;
	request.timeout_ms = seconds < 0 ? 0 : (uint64_t)seconds * 1000;
	rest_call(rest, "/paddock.v1.Sandboxes/SetTimeout", &request.base, &paddock__v1__sandbox__descriptor, then);
}

static void change_timeout(struct rest *rest, const char *name)
{
	struct pdk_error err = {};
	int64_t seconds = -1;

	sandbox_id(rest);
	if (rest_read_seconds(rest, name, &seconds, &err) < 0 || !json_object_get(rest->json, name))
		rest_fail(rest->exchange, 400, err.text[0] ? err.text : "a number of seconds is missing");
	else
		set_timeout(rest, seconds, done);
}

void rest_set_timeout(struct rest *rest)
{
	change_timeout(rest, "timeout");
}

void rest_refresh(struct rest *rest)
{
	change_timeout(rest, "duration");
}

/* Connect: a running sandbox gets more time, never less; a paused one goes on. */

static void connected(struct rest *rest, const ProtobufCMessage *reply)
{
	rest_sandbox_answer(rest, 200, (const Paddock__V1__Sandbox *)reply);
}

static void resumed(struct rest *rest, const ProtobufCMessage *reply)
{
	rest_sandbox_answer(rest, 201, (const Paddock__V1__Sandbox *)reply);
}

static void resume(struct rest *rest)
{
	Paddock__V1__ResumeSandboxRequest request = PADDOCK__V1__RESUME_SANDBOX_REQUEST__INIT;

	request.sandbox_id = rest->id;
	request.timeout_ms = rest->number > 0 ? (uint64_t)rest->number * 1000 : 0;
	rest_call(rest, "/paddock.v1.Sandboxes/Resume", &request.base, &paddock__v1__sandbox__descriptor, resumed);
}

static void connect_living(struct rest *rest, const ProtobufCMessage *reply)
{
	const Paddock__V1__Sandbox *sandbox = (const Paddock__V1__Sandbox *)reply;

	if (!rest_sandbox_lives(sandbox))
		rest_sandbox_not_found(rest);
	else if (sandbox->state != PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_RUNNING)
		resume(rest);
	else if (rest->number > 0 && loop_wall_ms() + rest->number * 1000 > sandbox->expires_unix_ms)
		set_timeout(rest, rest->number, connected);
	else
		connected(rest, reply);
}

void rest_connect(struct rest *rest)
{
	struct pdk_error err = {};

	if (rest_read_seconds(rest, "timeout", &rest->number, &err) < 0)
		rest_fail(rest->exchange, 400, err.text);
	else
		rest_get_first(rest, connect_living);
}

/* Pause */

static void pause_running(struct rest *rest, const ProtobufCMessage *reply)
{
	Paddock__V1__PauseSandboxRequest request = PADDOCK__V1__PAUSE_SANDBOX_REQUEST__INIT;
	const Paddock__V1__Sandbox *sandbox = (const Paddock__V1__Sandbox *)reply;

	if (!rest_sandbox_lives(sandbox)) {
		rest_sandbox_not_found(rest);
		return;
	}
	if (sandbox->state == PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_PAUSED) {
		rest_fail(rest->exchange, 409, "the sandbox is paused already");
		return;
	}
	request.sandbox_id = rest->id;
	request.mode = PADDOCK__V1__PAUSE_MODE__PAUSE_MODE_ANY;
	request.keep = true;
	rest_call(rest, "/paddock.v1.Sandboxes/Pause", &request.base, &paddock__v1__sandbox__descriptor, done);
}

void rest_pause(struct rest *rest)
{
	if (json_is_false(json_object_get(rest->json, "memory")))
		rest_fail(rest->exchange, 501, "pausing without the memory is not available on this server");
	else
		rest_get_first(rest, pause_running);
}

/* Quota. A size without a limit of its own is 0. */

static void quota(struct rest *rest, const ProtobufCMessage *reply)
{
	const Paddock__V1__TenantUsage *usage = (const Paddock__V1__TenantUsage *)reply;
	const Paddock__V1__Quota *quota = usage->quota;
	struct buffer out = BUFFER(4096);
	uint32_t cpus = usage->max_cpu_millis / 1000;

	if (!quota) {
		rest_fail(rest->exchange, 500, "the server's reply has no quota");
		return;
	}
	/* Processors have no sum of their own: it is what so many sandboxes can have. */
	json_put_format(&out, "{\"limit\":{\"concurrentInstances\":%u,\"concurrentVcpu\":%llu,\"concurrentRamMb\":%llu",
			quota->max_sandboxes, (unsigned long long)quota->max_sandboxes * cpus,
			(unsigned long long)(quota->total_memory_bytes >> 20));
	json_put_format(&out, ",\"maxLengthHours\":24,\"diskMb\":%llu,\"maxVcpu\":%u,\"maxRamMb\":%llu}",
			(unsigned long long)(quota->max_disk_bytes >> 20), cpus,
			(unsigned long long)(quota->max_memory_bytes >> 20));
	json_put_format(&out,
			",\"usage\":{\"concurrentInstances\":%u,\"concurrentVcpu\":%llu,\"concurrentRamMb\":%llu}}",
			usage->sandboxes, (unsigned long long)(usage->cpu_millis + 999) / 1000,
			(unsigned long long)(usage->memory_bytes >> 20));
	rest_answer(rest, 200, &out);
}

void rest_quota(struct rest *rest)
{
	Paddock__V1__GetQuotaRequest request = PADDOCK__V1__GET_QUOTA_REQUEST__INIT;

	rest_call(rest, "/paddock.v1.Sandboxes/GetQuota", &request.base, &paddock__v1__tenant_usage__descriptor, quota);
}
