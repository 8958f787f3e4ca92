#include "rest_sandbox.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "json_time.h"

static int put_text(struct buffer *out, const char *name, const char *value)
{
	int rc = json_put_format(out, "\"%s\":", name);

	return rc < 0 ? rc : json_put_string(out, value, strlen(value));
}

int rest_put_time(struct buffer *out, const char *name, int64_t unix_ms)
{
	char text[JSON_TIME_SIZE];

	json_time_format_ms(unix_ms, text);
	return json_put_format(out, ",\"%s\":\"%s\"", name, text);
}

static void with_access(struct rest *rest, const ProtobufCMessage *reply)
{
	const Paddock__V1__SandboxAccess *access = (const Paddock__V1__SandboxAccess *)reply;
	struct buffer out = BUFFER(16384);

	json_put(&out, "{");
	put_text(&out, "sandboxID", rest->id_of);
	json_put(&out, ",");
	put_text(&out, "templateID", rest->template_of);
	json_put(&out, ",");
	put_text(&out, "alias", rest->alias_of);
	json_put(&out, ",");
	put_text(&out, "domain", rest->domain);
	json_put(&out, ",");
	put_text(&out, "envdAccessToken", access->access_token);
	json_put(&out, ",\"clientID\":\"paddock\",\"envdVersion\":\"" ENVD_VERSION "\",\"trafficAccessToken\":");
	if (access->traffic_token[0])
		json_put_string(&out, access->traffic_token, strlen(access->traffic_token));
	else
		json_put(&out, "null");
	json_put(&out, "}");
	rest_answer(rest, rest->status, &out);
}

static const char *keep(struct rest *rest, const char *text)
{
	char *copy = arena_alloc(&rest->arena, strlen(text) + 1);

	return copy ? strcpy(copy, text) : "";
}

void rest_sandbox_answer(struct rest *rest, int status, const Paddock__V1__Sandbox *sandbox)
{
	Paddock__V1__GetAccessRequest request = PADDOCK__V1__GET_ACCESS_REQUEST__INIT;

	rest->status = status;
	rest->id_of = keep(rest, sandbox->id);
	rest->template_of = keep(rest, sandbox->template_);
	rest->alias_of = keep(rest, sandbox->template_name);
	request.sandbox_id = sandbox->id;
	rest_call(rest, "/paddock.v1.Sandboxes/GetAccess", &request.base, &paddock__v1__sandbox_access__descriptor,
		  with_access);
}

static int put_metadata(struct buffer *out, const Paddock__V1__Sandbox *sandbox)
{
	int rc = json_put(out, ",\"metadata\":{");

	for (size_t i = 0; rc == 0 && i < sandbox->n_metadata; i++) {
		const Paddock__V1__Sandbox__MetadataEntry *entry = sandbox->metadata[i];

		rc = i ? json_put(out, ",") : 0;
		if (rc == 0)
			rc = json_put_string(out, entry->key, strlen(entry->key));
		if (rc == 0)
			rc = json_put(out, ":");
		if (rc == 0)
			rc = json_put_string(out, entry->value, strlen(entry->value));
	}
	return rc < 0 ? rc : json_put(out, "}");
}

static int put_network(struct buffer *out, const Paddock__V1__Sandbox *sandbox)
{
	int rc = json_put_format(out, ",\"network\":{\"allowPublicTraffic\":%s",
				 sandbox->port_access == PADDOCK__V1__PORT_ACCESS__PORT_ACCESS_PUBLIC ? "true"
												      : "false");

	if (rc == 0 && sandbox->port_host_header[0])
		rc = json_put(out, ",");
	if (rc == 0 && sandbox->port_host_header[0])
		rc = put_text(out, "maskRequestHost", sandbox->port_host_header);
	return rc < 0 ? rc : json_put(out, "}");
}

static bool is_paused(const Paddock__V1__Sandbox *sandbox)
{
	return sandbox->state == PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_PAUSED ||
	       sandbox->state == PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_PAUSING;
}

int rest_sandbox_put(struct buffer *out, const struct rest *rest, const Paddock__V1__Sandbox *sandbox, bool detail)
{
	const Paddock__V1__Resources *resources = sandbox->resources;
	int rc;

	json_put(out, "{");
	put_text(out, "sandboxID", sandbox->id);
	json_put(out, ",");
	put_text(out, "templateID", sandbox->template_);
	json_put(out, ",");
	put_text(out, "alias", sandbox->template_name);
	rest_put_time(out, "startedAt", sandbox->created_unix_ms);
	/* One that stays paused has no end. */
	rest_put_time(out, "endAt", sandbox->expires_unix_ms ? sandbox->expires_unix_ms : sandbox->paused_unix_ms);
	/* Whole CPUs, rounded up: there is no fraction in this form. */
	json_put_format(out, ",\"state\":\"%s\",\"cpuCount\":%u,\"memoryMB\":%llu,\"diskSizeMB\":%llu",
			is_paused(sandbox) ? "paused" : "running", resources ? (resources->cpu_millis + 999) / 1000 : 0,
			resources ? (unsigned long long)(resources->memory_bytes >> 20) : 0,
			resources ? (unsigned long long)(resources->disk_bytes >> 20) : 0);
	rc = json_put(out, ",\"clientID\":\"paddock\",\"envdVersion\":\"" ENVD_VERSION "\"");
	if (rc == 0)
		rc = put_metadata(out, sandbox);
	if (rc == 0 && detail) {
		json_put(out, ",");
		put_text(out, "domain", rest->domain);
		rc = json_put_format(
			out, ",\"allowInternetAccess\":false,\"lifecycle\":{\"onTimeout\":\"%s\",\"autoResume\":%s}",
			sandbox->on_timeout == PADDOCK__V1__TIMEOUT_ACTION__TIMEOUT_ACTION_PAUSE ? "pause" : "kill",
			sandbox->auto_resume ? "true" : "false");
		if (rc == 0)
			rc = put_network(out, sandbox);
	}
	return rc < 0 ? rc : json_put(out, "}");
}

bool rest_sandbox_lives(const Paddock__V1__Sandbox *sandbox)
{
	switch (sandbox->state) {
	case PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_RUNNING:
	case PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_PAUSING:
	case PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_PAUSED:
	case PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_RESUMING:
		return true;
	case PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_UNSPECIFIED:
	case PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_CREATING:
	case PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_KILLING:
	case PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_KILLED:
	case PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_FAILED:
	case _PADDOCK__V1__SANDBOX_STATE_IS_INT_SIZE:
		break;
	}
	return false;
}

/* A paused sandbox is refused as such, and not as one that does not exist. */
bool rest_sandbox_runs(struct rest *rest, const Paddock__V1__Sandbox *sandbox)
{
	if (!rest_sandbox_lives(sandbox))
		rest_sandbox_not_found(rest);
	else if (sandbox->state != PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_RUNNING)
		rest_fail(rest->exchange, 409, "the sandbox is paused");
	else
		return true;
	return false;
}

void rest_sandbox_not_found(struct rest *rest)
{
	rest_fail(rest->exchange, 404, "the sandbox does not exist, or you have no access to it");
}

int rest_read_seconds(struct rest *rest, const char *name, int64_t *ret, struct pdk_error *err)
{
	json_t *value = json_object_get(rest->json, name);

	if (!value || json_is_null(value))
		return 0;
	if (!json_is_integer(value) || json_integer_value(value) > 31536000)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "%s: not a number of seconds", name);
	*ret = json_integer_value(value);
	return 0;
}
