#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "paddock/v1/sandboxes.pb-c.h"
#include "rest_internal.h"
#include "rest_sandbox.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/id.h"

/* POST /sandboxes. An option is understood and done, or it is refused; none is ignored. */

#define TIMEOUT_V1_S 15
#define TIMEOUT_V2_S 300

/* Options that ask for what this server does not have: refused when they are there and say something. */
static const struct {
	const char *name;
	const char *why;
} refused[] = {
	{"iam", "iam: identity tokens are not available on this server"},
	{"volumeMounts", "volumeMounts: volumes are not available on this server"},
	{"secrets", "secrets: secrets are not available on this server yet"},
	{"nodeID", "nodeID: this server has one node"},
	{"image", "image: import the image as a template first (`paddock template import`)"},
};

static const struct {
	const char *name;
	const char *why;
} refused_network[] = {
	{"allowOut", "network.allowOut: sandboxes on this server have no way out of their network yet"},
	{"rules", "network.rules: sandboxes on this server have no way out of their network yet"},
	{"egressProxy", "network.egressProxy: sandboxes on this server have no way out of their network yet"},
	{"httpsPorts", "network.httpsPorts: applications are spoken to in plain HTTP on this server"},
};

/* null, false, {} and [] ask for nothing; nor does {"enabled": false}. */
static bool says_something(json_t *value)
{
	if (!value || json_is_null(value) || json_is_false(value))
		return false;
	if (json_is_object(value) && json_object_size(value) == 1 && json_is_false(json_object_get(value, "enabled")))
		return false;
	if (json_is_object(value))
		return json_object_size(value) > 0;
	return !json_is_array(value) || json_array_size(value) > 0;
}

const char *rest_network_refused(json_t *network)
{
	for (size_t i = 0; i < ARRAY_SIZE(refused_network); i++) {
		if (says_something(json_object_get(network, refused_network[i].name)))
			return refused_network[i].why;
	}
	return NULL;
}

static const char *find_refused(struct rest *rest)
{
	const char *why;

	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		if (says_something(json_object_get(rest->json, refused[i].name)))
			return refused[i].why;
	}
	why = rest_network_refused(json_object_get(rest->json, "network"));
	if (why)
		return why;
	if (json_is_false(json_object_get(rest->json, "autoPauseMemory")))
		return "autoPauseMemory: a pause keeps the memory on this server";
	return NULL;
}

/* A string map as protobuf-c has it; both map types of the request have the same layout. */
static int read_map(struct rest *rest, const char *name, const ProtobufCMessageDescriptor *type, void *ret_entries,
		    size_t *ret_count, struct pdk_error *err)
{
	json_t *map = json_object_get(rest->json, name);
	size_t n = json_object_size(map), i = 0;
	ProtobufCMessage **entries;
	const char *key;
	json_t *value;

	*ret_count = 0;
	if (!map || json_is_null(map))
		return 0;
	entries = arena_alloc(&rest->arena, (n + 1) * sizeof(*entries));
	if (!json_is_object(map) || !entries)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "%s: not an object", name);
	json_object_foreach(map, key, value)
	{
		uint8_t *entry = arena_alloc(&rest->arena, type->sizeof_message);

		if (!json_is_string(value) || !entry)
			return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "%s: not a map of strings", name);
		protobuf_c_message_init(type, entry);
		*(const char **)(entry + type->fields[0].offset) = key;
		*(const char **)(entry + type->fields[1].offset) = json_string_value(value);
		entries[i++] = (ProtobufCMessage *)entry;
	}
	*(ProtobufCMessage ***)ret_entries = entries;
	*ret_count = n;
	return 0;
}

/* A snapshot's id may have the tag that every template has. */
static int read_template(struct rest *rest, char **ret, struct pdk_error *err)
{
	const char *name = json_string_value(json_object_get(rest->json, "templateID"));
	const char *tag = name ? strchr(name, ':') : NULL;
	size_t length = tag && strcmp(tag, ":default") == 0 ? (size_t)(tag - name) : name ? strlen(name) : 0;

	if (!length)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "templateID: missing");
	*ret = arena_alloc(&rest->arena, length + 1);
	if (!*ret)
		return pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "out of memory");
	memcpy(*ret, name, length);
	return 0;
}

/* Who may reach its ports: everybody, unless the client says otherwise. */
static int read_ports(struct rest *rest, Paddock__V1__CreateSandboxRequest *request, struct pdk_error *err)
{
	json_t *network = json_object_get(rest->json, "network");
	json_t *public = json_object_get(network, "allowPublicTraffic"),
	       *host = json_object_get(network, "maskRequestHost");

	if ((public && !json_is_boolean(public) && !json_is_null(public)) ||
	    (host && !json_is_string(host) && !json_is_null(host)))
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT,
				"network: allowPublicTraffic is a boolean, maskRequestHost a string");
	request->port_access = json_is_false(public) ? PADDOCK__V1__PORT_ACCESS__PORT_ACCESS_TOKEN
						     : PADDOCK__V1__PORT_ACCESS__PORT_ACCESS_PUBLIC;
	if (json_is_string(host))
		request->port_host_header = (char *)(uintptr_t)json_string_value(host);
	return 0;
}

/* What is to be made: a sandbox of a template, or a copy of what a snapshot holds, which is named in the same place. */
static int read_origin(struct rest *rest, Paddock__V1__CreateSandboxRequest *request, struct pdk_error *err)
{
	char *name = NULL;
	int rc = read_template(rest, &name, err);

	if (rc < 0)
		return rc;
	if (snapshot_id_valid(name))
		request->snapshot = name;
	else
		request->template_ = name;
	return 0;
}

static bool is_enabled(json_t *value)
{
	return json_is_true(value) || json_is_true(json_object_get(value, "enabled"));
}

static void created(struct rest *rest, const ProtobufCMessage *reply)
{
	rest_sandbox_answer(rest, 201, (const Paddock__V1__Sandbox *)reply);
}

/* Which one, and how to come by it: it is the first thing that is missing on a new server. */
static bool create_refused(struct rest *rest, enum pdk_code code, const char *text)
{
	const char *name = json_string_value(json_object_get(rest->json, "templateID"));
	char why[512];

	if (code != PDK_NOT_FOUND || strcmp(text, "template not found") != 0)
		return false;
	snprintf(why, sizeof(why), "template not found: %.128s%s", name,
		 strcmp(name, "code-interpreter-v1") == 0
			 ? "; the operator makes it with `paddock template build code-interpreter`"
			 : "");
	rest_fail(rest->exchange, 404, why);
	return true;
}

static void create(struct rest *rest, int64_t default_timeout_s)
{
	Paddock__V1__CreateSandboxRequest request = PADDOCK__V1__CREATE_SANDBOX_REQUEST__INIT;
	const char *why = find_refused(rest);
	struct pdk_error err = {};
	int64_t seconds = default_timeout_s;
	int rc = why ? pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "%s", why) : read_origin(rest, &request, &err);

	if (is_enabled(json_object_get(rest->json, "autoPause")))
		request.on_timeout = PADDOCK__V1__TIMEOUT_ACTION__TIMEOUT_ACTION_PAUSE;
	request.auto_resume = is_enabled(json_object_get(rest->json, "autoResume"));
	if (rc == 0)
		rc = rest_read_seconds(rest, "timeout", &seconds, &err);
	if (rc == 0)
		rc = read_map(rest, "metadata", &paddock__v1__create_sandbox_request__metadata_entry__descriptor,
			      &request.metadata, &request.n_metadata, &err);
	if (rc == 0)
		rc = read_map(rest, "envVars", &paddock__v1__create_sandbox_request__env_entry__descriptor,
			      &request.env, &request.n_env, &err);
	if (rc == 0)
		rc = read_ports(rest, &request, &err);
	if (rc == 0 && seconds <= 0)
		rc = pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "Timeout must be greater than 0");
	if (rc < 0) {
		rest_fail(rest->exchange, 400, err.text);
		return;
	}
	request.timeout_ms = (uint64_t)seconds * 1000;
	rest->on_refusal = create_refused;
	rest_call(rest, "/paddock.v1.Sandboxes/Create", &request.base, &paddock__v1__sandbox__descriptor, created);
}

void rest_create(struct rest *rest)
{
	create(rest, TIMEOUT_V1_S);
}

void rest_create_v2(struct rest *rest)
{
	create(rest, TIMEOUT_V2_S);
}
