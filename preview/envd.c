#include "envd.h"

#include <string.h>

#include "connect.h"
#include "json.h"
#include "rest_internal.h"
#include "sandbox/base/id.h"

/* {"sandboxId", "message", "code": 502}: how the SDKs learn that a sandbox is no more. */
static void not_found(struct http_exchange *exchange, const char *sandbox)
{
	struct buffer body = BUFFER(1024);

	json_put(&body, "{\"sandboxId\":");
	json_put_string(&body, sandbox, strlen(sandbox));
	json_put(&body, ",\"message\":\"The sandbox was not found\",\"code\":502}");
	http_reply(exchange, 502, "application/json; charset=utf-8", buffer_data(&body), buffer_length(&body));
	buffer_free(&body);
}

void envd_serve(struct http_exchange *exchange, const struct caller *caller, uint16_t port)
{
	const struct http_head *head = http_request(exchange);
	const struct method *method = method_find(head->path);

	if (!sandbox_id_valid(caller->sandbox))
		not_found(exchange, caller->sandbox);
	else if (port != ENVD_PORT)
		rest_fail(exchange, 501, "ports of sandboxes are not served on this server yet");
	else if (method && strncmp(head->path, "/paddock.", 9) != 0)
		connect_serve(exchange, method, caller);
	else
		rest_fail(exchange, 404, "there is nothing at this path");
}
