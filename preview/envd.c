#include "envd.h"

#include <stdlib.h>
#include <string.h>

#include "connect.h"
#include "files.h"
#include "json.h"
#include "paddock/v1/sandboxes.pb-c.h"
#include "rest.h"
#include "sandbox/base/id.h"

/* {"sandboxId", "message", "code": 502}: how the SDKs learn that a sandbox is no more. */
void envd_not_found(struct http_exchange *exchange, const char *sandbox)
{
	struct buffer body = BUFFER(1024);

	json_put(&body, "{\"sandboxId\":");
	json_put_string(&body, sandbox, strlen(sandbox));
	json_put(&body, ",\"message\":\"The sandbox was not found\",\"code\":502}");
	http_reply(exchange, 502, "application/json; charset=utf-8", buffer_data(&body), buffer_length(&body));
	buffer_free(&body);
}

/* GET /health: 204 while the sandbox runs, 502 for everything else. */

struct health {
	struct http_exchange *exchange;
	struct call *call;
	char sandbox[SANDBOX_ID_SIZE];
	bool running;
};

static void on_message(struct call *call, const uint8_t *bytes, size_t length, int *fds, unsigned int n_fds, void *arg)
{
	struct health *health = arg;
	Paddock__V1__Sandbox *sandbox = paddock__v1__sandbox__unpack(NULL, length, bytes);

	health->running = sandbox && sandbox->state == PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_RUNNING;
	if (sandbox)
		paddock__v1__sandbox__free_unpacked(sandbox, NULL);
}

static void on_end(struct call *call, enum pdk_code code, const char *text, void *arg)
{
	struct health *health = arg;

	health->call = NULL;
	if (code == PDK_OK && health->running)
		http_reply(health->exchange, 204, NULL, NULL, 0);
	else
		envd_not_found(health->exchange, health->sandbox);
}

static void on_close(struct http_exchange *exchange, bool completed, void *arg)
{
	struct health *health = arg;

	if (health->call)
		upstream_cancel(health->call);
	free(health);
}

static void serve_health(struct http_exchange *exchange, const struct caller *caller)
{
	static const struct call_events call_events = {.on_message = on_message, .on_end = on_end};
	static const struct http_events events = {.on_close = on_close};
	Paddock__V1__GetSandboxRequest request = PADDOCK__V1__GET_SANDBOX_REQUEST__INIT;
	struct health *health = calloc(1, sizeof(*health));
	struct pdk_error err = {};
	uint8_t packed[64];

	if (!health) {
		envd_not_found(exchange, caller->sandbox);
		return;
	}
	health->exchange = exchange;
	strcpy(health->sandbox, caller->sandbox);
	http_own(exchange, &events, health);
	request.sandbox_id = health->sandbox;
	health->call = upstream_open(caller, "/paddock.v1.Sandboxes/Get", 0, 1, &call_events, health, &err);
	if (!health->call ||
	    upstream_send(health->call, packed, paddock__v1__get_sandbox_request__pack(&request, packed)) < 0)
		envd_not_found(exchange, caller->sandbox);
	else
		upstream_half_close(health->call);
}

void envd_serve(struct http_exchange *exchange, const struct caller *caller)
{
	const struct http_head *head = http_request(exchange);
	const struct method *method = method_find(head->path);

	if (!sandbox_id_valid(caller->sandbox))
		envd_not_found(exchange, caller->sandbox);
	else if (strcmp(head->path, "/health") == 0)
		serve_health(exchange, caller);
	else if (strcmp(head->path, "/metrics") == 0 && strcmp(head->method, "GET") == 0)
		envd_metrics(exchange, caller);
	else if (strcmp(head->path, "/files") == 0)
		files_serve(exchange, caller);
	else if (method && strncmp(head->path, "/paddock.", 9) != 0)
		connect_serve(exchange, method, caller);
	else
		rest_fail(exchange, 404, "there is nothing at this path");
}
