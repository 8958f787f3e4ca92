#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connect.h"
#include "rest_internal.h"
#include "sandbox/base/cleanup.h"
#include "url.h"

/* Routing, bodies, errors and calls of the control plane. What each route means is in rest_sandboxes.c and its
 * neighbours. */

#define NO_BUILD "this form of builds is not available on this server: use `POST /v3/templates`, as the SDKs do"
#define NO_PUBLISH "only the operator of this server makes public templates: `paddock template import --public`"
#define NO_NETWORK "sandboxes on this server have no network of their own; there are no rules to set"
#define NO_VOLUME "volumes are not available on this server"
#define NO_SECRET "secrets are not available on this server yet"

static const struct rest_route routes[] = {
	{"POST", "/sandboxes", rest_create, NULL},
	{"POST", "/v2/sandboxes", rest_create_v2, NULL},
	{"GET", "/sandboxes", rest_list_running, NULL},
	{"GET", "/v2/sandboxes", rest_list, NULL},
	{"GET", "/sandboxes/metrics", rest_metrics_several, NULL}, /* before what takes any name for an id */
	{"GET", "/sandboxes/quota", rest_quota, NULL},
	{"GET", "/sandboxes/events", rest_events, NULL},
	{"GET", "/sandboxes/{id}", rest_get, NULL},
	{"DELETE", "/sandboxes/{id}", rest_kill, NULL},
	{"POST", "/sandboxes/{id}/timeout", rest_set_timeout, NULL},
	{"POST", "/sandboxes/{id}/refreshes", rest_refresh, NULL},
	{"POST", "/sandboxes/{id}/connect", rest_connect, NULL},
	{"POST", "/v2/sandboxes/{id}/connect", rest_connect, NULL},
	{"POST", "/sandboxes/{id}/pause", rest_pause, NULL},
	{"POST", "/sandboxes/{id}/resume", rest_connect, NULL},
	{"GET", "/sandboxes/{id}/metrics", rest_metrics, NULL},
	{"GET", "/sandboxes/{id}/logs", rest_logs, NULL},
	{"GET", "/v2/sandboxes/{id}/logs", rest_logs_v2, NULL},
	{"GET", "/templates/aliases/{id}", rest_template_alias, NULL},
	{"GET", "/templates", rest_template_list, NULL},
	{"GET", "/v2/templates", rest_template_page, NULL},
	{"POST", "/sandboxes/{id}/snapshots", rest_snapshot, NULL},
	{"POST", "/sandboxes/{id}/fork", rest_fork, NULL},
	{"POST", "/sandboxes/{id}/clone", rest_clone, NULL},
	{"POST", "/sandboxes/{id}/reset", rest_reset, NULL},
	{"POST", "/sandboxes/{id}/commit", rest_commit, NULL},
	{"GET", "/snapshots", rest_snapshot_list, NULL},
	{"DELETE", "/templates/tags", rest_template_remove_tags, NULL},
	{"POST", "/templates/tags", rest_template_set_tags, NULL},
	{"GET", "/templates/{id}/tags", rest_template_tags, NULL},
	{"GET", "/templates/{id}", rest_template_get, NULL},
	{"DELETE", "/templates/{id}", rest_template_remove, NULL},
	{"POST", "/v3/templates", rest_build_create, NULL},
	{"POST", "/v2/templates", rest_build_create, NULL},
	{"GET", "/templates/{id}/files/{what}", rest_build_files, NULL},
	{"POST", "/v2/templates/{id}/builds/{what}", rest_build_start, NULL},
	{"GET", "/templates/{id}/builds/{what}/status", rest_build_status, NULL},

	{"PUT", "/sandboxes/{id}/network", NULL, NO_NETWORK},
	{"POST", "/sandboxes/{id}/hotplug-memory", NULL, "the memory of a sandbox is fixed when it is created"},
	{"POST", "/sandboxes/{id}/volume-mounts", NULL, NO_VOLUME},
	{"DELETE", "/sandboxes/{id}/volume-mounts", NULL, NO_VOLUME},
	{"POST", "/templates", NULL, NO_BUILD},
	{"PATCH", "/templates/{id}", NULL, NO_PUBLISH},
	{"PATCH", "/v2/templates/{id}", NULL, NO_PUBLISH},
	{"GET", "/volumes", NULL, NO_VOLUME},
	{"POST", "/volumes", NULL, NO_VOLUME},
	{"GET", "/secrets", NULL, NO_SECRET},
	{"POST", "/secrets", NULL, NO_SECRET},
};

void rest_fail(struct http_exchange *exchange, int status, const char *text)
{
	struct buffer body = BUFFER(8192);

	json_put_format(&body, "{\"code\":%d,\"message\":", status);
	json_put_string(&body, text, strlen(text));
	json_put(&body, "}");
	http_reply(exchange, status, "application/json", buffer_data(&body), buffer_length(&body));
	buffer_free(&body);
}

static bool route_matches(const char *pattern, const char *path, char *ret_id, char *ret_what)
{
	while (*pattern) {
		char *ret = *pattern == '{' && pattern[1] == 'w' ? ret_what : ret_id;
		size_t length;

		if (*pattern != '{') {
			if (*pattern++ != *path++)
				return false;
			continue;
		}
		length = strcspn(path, "/");
		if (!length || length >= REST_PARAMETER_MAX)
			return false;
		memcpy(ret, path, length);
		ret[length] = '\0';
		path += length;
		pattern = strchr(pattern, '}') + 1;
	}
	return !*path;
}

/* NULL, and whether the path exists with another method. */
static const struct rest_route *find_route(const struct http_head *head, char *ret_id, char *ret_what, bool *ret_other)
{
	*ret_other = false;
	for (size_t i = 0; i < ARRAY_SIZE(routes); i++) {
		if (!route_matches(routes[i].path, head->path, ret_id, ret_what))
			continue;
		if (strcmp(routes[i].method, head->method) == 0)
			return &routes[i];
		*ret_other = true;
	}
	return NULL;
}

/* Calls */

/* The gRPC status of a failed call, as the control plane says it. */
int rest_status_of(enum pdk_code code)
{
	return code == PDK_RESOURCE_EXHAUSTED ? 429 : code == PDK_FAILED_PRECONDITION ? 404 : connect_http_status(code);
}

static void on_message(struct call *call, const uint8_t *bytes, size_t length, int *fds, unsigned int n_fds, void *arg)
{
	struct rest *rest = arg;

	rest->replied = buffer_append(&rest->reply, bytes, length) == 0;
}

static void on_end(struct call *call, enum pdk_code code, const char *text, void *arg)
{
	struct rest *rest = arg;
	rest_refusal refusal = rest->on_refusal;
	ProtobufCMessage *reply = NULL;
	struct arena arena;

	rest->call = NULL;
	rest->on_refusal = NULL;
	if (code != PDK_OK && refusal && refusal(rest, code, text ? text : ""))
		return;
	if (code != PDK_OK) {
		rest_fail(rest->exchange, rest_status_of(code), text ? text : "");
		return;
	}
	arena_init(&arena, arena_max_for_message(buffer_length(&rest->reply)));
	if (rest->replied)
		reply = protobuf_c_message_unpack(rest->reply_type, &arena.allocator, buffer_length(&rest->reply),
						  buffer_data(&rest->reply));
	buffer_free(&rest->reply);
	if (reply)
		rest->on_reply(rest, reply);
	else
		rest_fail(rest->exchange, 500, "the server's reply cannot be read");
	arena_clear(&arena);
}

void rest_call(struct rest *rest, const char *method, const ProtobufCMessage *request,
	       const ProtobufCMessageDescriptor *reply_type, rest_reply on_reply)
{
	static const struct call_events events = {.on_message = on_message, .on_end = on_end};
	size_t length = protobuf_c_message_get_packed_size(request);
	uint8_t *packed = arena_alloc(&rest->arena, length + 1);
	struct pdk_error err = {};

	rest->reply_type = reply_type;
	rest->on_reply = on_reply;
	rest->replied = false;
	rest->call = packed ? upstream_open(&rest->caller, method, 0, 1, &events, rest, &err) : NULL;
	if (!rest->call) {
		rest_fail(rest->exchange, 503, err.text[0] ? err.text : "out of memory");
		return;
	}
	protobuf_c_message_pack(request, packed);
	if (upstream_send(rest->call, packed, length) < 0) {
		upstream_cancel(rest->call);
		rest->call = NULL;
		rest_fail(rest->exchange, 400, "the request is too large");
		return;
	}
	upstream_half_close(rest->call);
}

void rest_answer(struct rest *rest, int status, struct buffer *json)
{
	http_reply(rest->exchange, status, "application/json", buffer_data(json), buffer_length(json));
	buffer_free(json);
}

void rest_answer_empty(struct rest *rest, int status)
{
	http_reply(rest->exchange, status, NULL, NULL, 0);
}

/* Requests */

static void on_close(struct http_exchange *exchange, bool completed, void *arg)
{
	struct rest *rest = arg;

	if (rest->call)
		upstream_cancel(rest->call);
	buffer_free(&rest->body);
	buffer_free(&rest->reply);
	arena_clear(&rest->arena);
	explicit_bzero(&rest->caller, sizeof(rest->caller));
	free(rest);
}

static void on_body(struct http_exchange *exchange, const uint8_t *bytes, size_t length, void *arg)
{
	struct rest *rest = arg;

	if (buffer_append(&rest->body, bytes, length) < 0)
		rest_fail(exchange, 413, "the body is larger than 1 MiB");
}

static void on_body_end(struct http_exchange *exchange, void *arg)
{
	static const char nothing[] = "{}";
	struct rest *rest = arg;
	struct pdk_error err = {};
	size_t length = buffer_length(&rest->body);
	int rc;

	if (rest->route->refused) {
		rest_fail(exchange, 501, rest->route->refused);
		return;
	}
	rc = json_read(length ? (const char *)buffer_data(&rest->body) : nothing, length ? length : 2, &rest->arena,
		       &rest->json, &err);
	if (rc == 0 && !json_is_object(rest->json))
		rc = pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "the body is not a JSON object");
	if (rc < 0)
		rest_fail(exchange, 400, err.text);
	else
		rest->route->handler(rest);
}

static const struct http_events events = {.on_body = on_body, .on_body_end = on_body_end, .on_close = on_close};

void rest_serve(struct http_exchange *exchange, const struct caller *caller, const char *domain)
{
	char id[REST_PARAMETER_MAX] = "", what[REST_PARAMETER_MAX] = "";
	bool other;
	const struct rest_route *route = find_route(http_request(exchange), id, what, &other);
	struct rest *rest;

	if (!route || url_decode(id, false) < 0 || url_decode(what, false) < 0) {
		rest_fail(exchange, other ? 405 : 404,
			  other ? "this method is not allowed here" : "there is nothing at this path");
		return;
	}
	if (!caller->authorization[0]) {
		rest_fail(exchange, 401, "an API key is needed: X-API-KEY");
		return;
	}
	rest = calloc(1, sizeof(*rest));
	if (!rest) {
		rest_fail(exchange, 503, "out of memory");
		return;
	}
	rest->exchange = exchange;
	rest->route = route;
	rest->domain = domain;
	rest->body = BUFFER(REST_BODY_MAX);
	rest->reply = BUFFER(4u << 20);
	arena_init(&rest->arena, arena_max_for_message(REST_BODY_MAX));
	memcpy(rest->id, id, sizeof(id));
	memcpy(rest->what, what, sizeof(what));
	rest->caller = *caller;
	http_own(exchange, &events, rest);
}
