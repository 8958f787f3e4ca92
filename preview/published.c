#include "published.h"

#include <stdio.h>
#include <string.h>

#include "envd.h"
#include "json.h"
#include "pages.h"
#include "preview.h"

static void reply(struct http_exchange *exchange, const struct visit_key *key, int status, const char *message,
		  bool with_port)
{
	struct buffer body = BUFFER(1024);

	page_add_fields(exchange);
	json_put(&body, "{\"sandboxId\":");
	json_put_string(&body, key->sandbox, strlen(key->sandbox));
	json_put_format(&body, ",\"message\":\"%s\",", message);
	if (with_port)
		json_put_format(&body, "\"port\":%u,", key->port);
	json_put_format(&body, "\"code\":%d}", status);
	http_reply(exchange, status, "application/json; charset=utf-8", buffer_data(&body), buffer_length(&body));
	buffer_free(&body);
}

void published_refuse(struct http_exchange *exchange, const struct visit_key *key, visit_refusal why)
{
	static const struct page forbidden = {403, "This sandbox is not open to everybody",
					      "Its ports want a traffic access token.", 0};
	static const struct page none = {502, "There is no sandbox here",
					 "It has ended, is paused, or opens no port. This page does not look again.",
					 0};
	bool html = page_wants_html(http_request(exchange));

	if (html)
		page_reply(exchange, why == VISIT(FORBIDDEN) ? &forbidden : &none);
	else if (why == VISIT(FORBIDDEN))
		reply(exchange, key, 403, "The traffic access token is missing or wrong", false);
	else
		reply(exchange, key, 502, "The sandbox was not found", false);
}

void published_closed(struct http_exchange *exchange, const struct visit_key *key)
{
	char text[160];
	struct page page = {502, "Nothing listens on this port yet", text, 2};

	snprintf(text, sizeof(text),
		 "The sandbox runs, but no program in it listens on port %u. This page looks again by itself.",
		 key->port);
	if (page_wants_html(http_request(exchange)))
		page_reply(exchange, &page);
	else
		reply(exchange, key, 502, "The sandbox is running but port is not open", true);
}

/* The address of the visitor without its port. */
static void read_client(const struct http_exchange *exchange, char ret[INET6_ADDRSTRLEN])
{
	const char *address = http_client_address(exchange), *colon = strrchr(address, ':');

	snprintf(ret, INET6_ADDRSTRLEN, "%.*s", colon ? (int)(colon - address) : (int)strlen(address), address);
	/* No byte behind the end may differ: keys are compared as bytes. */
	memset(ret + strlen(ret), 0, INET6_ADDRSTRLEN - strlen(ret));
}

void published_serve(struct http_exchange *exchange, const char *sandbox, uint16_t port)
{
	const struct http_head *head = http_request(exchange);
	const char *token = http_head_get(head, "e2b-traffic-access-token");
	struct visit_key key = {.port = port};

	if (!token)
		token = http_head_get(head, "novita-traffic-access-token");
	snprintf(key.sandbox, sizeof(key.sandbox), "%s", sandbox);
	read_client(exchange, key.client);
	if (token && forward_is_hex(token, FORWARD_TOKEN_LEN))
		memcpy(key.traffic_token, token, FORWARD_TOKEN_LEN);
	if (!sandbox_id_valid(sandbox))
		envd_not_found(exchange, sandbox);
	else
		preview_visit(exchange, &key);
	explicit_bzero(&key, sizeof(key));
}
