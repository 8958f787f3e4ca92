#include "gateway.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "connect.h"
#include "envd.h"
#include "files.h"
#include "preview.h"
#include "published.h"
#include "rest.h"
#include "sandbox/base/cleanup.h"
#include "url.h"

static const char *our_domain = "localhost";
static const char *advertised = "localhost";

void gateway_start(const char *domain, const char *advertise)
{
	our_domain = domain;
	advertised = advertise;
}

/* The key of the control plane: X-API-KEY, or a bearer token. */
static void read_key(const struct http_head *head, struct caller *ret)
{
	const char *key = http_head_get(head, "x-api-key");
	const char *given = http_head_get(head, "authorization");

	if (!key && given && strncasecmp(given, "Bearer ", 7) == 0)
		key = given + 7;
	/* One that does not fit is none. */
	if (key && strlen(key) + sizeof("Bearer ") <= sizeof(ret->authorization))
		snprintf(ret->authorization, sizeof(ret->authorization), "Bearer %s", key);
}

static void add_common_fields(struct http_exchange *exchange)
{
	http_add_field(exchange, "Access-Control-Allow-Origin", "*");
	http_add_field(exchange, "Access-Control-Expose-Headers",
		       "X-Next-Token, X-Total-Running, Retry-After, Location, Connect-Content-Encoding, Grpc-Status, "
		       "Grpc-Message");
	http_add_field(exchange, "X-Content-Type-Options", "nosniff");
}

/* No cookie is ever looked at here and every call carries its key, so any origin may ask. */
static void preflight(struct http_exchange *exchange)
{
	http_add_field(exchange, "Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE");
	http_add_field(exchange, "Access-Control-Allow-Headers",
		       "*, Authorization, Content-Type, X-API-Key, X-Access-Token, E2b-Sandbox-Id, E2b-Sandbox-Port, "
		       "Novita-Sandbox-Id, Novita-Sandbox-Port, Connect-Protocol-Version, Connect-Timeout-Ms, "
		       "Keepalive-Ping-Interval, browser, lang, lang_version, package_version, publisher, sdk_runtime, "
		       "system");
	http_add_field(exchange, "Access-Control-Max-Age", "7200");
	http_reply(exchange, 204, NULL, NULL, 0);
}

/* The pair of headers, if it is there. 1, 0, or -EINVAL: only one of them, or not a sandbox and a port. */
static int route_of_headers(const struct http_head *head, struct url_host *ret)
{
	static const char *const names[][2] = {{"e2b-sandbox-id", "e2b-sandbox-port"},
					       {"novita-sandbox-id", "novita-sandbox-port"}};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const char *id = http_head_get(head, names[i][0]);
		const char *port = http_head_get(head, names[i][1]);
		size_t length;

		if (!id && !port)
			continue;
		if (!id || !port)
			return -EINVAL;
		length = strcspn(id, "-"); /* "<id>-<client>" */
		ret->port = url_parse_port(port, strlen(port));
		if (!ret->port || length >= sizeof(ret->sandbox))
			return -EINVAL;
		memcpy(ret->sandbox, id, length);
		ret->sandbox[length] = '\0';
		ret->is_sandbox = true;
		return 1;
	}
	return 0;
}

static void serve_control(struct http_exchange *exchange, struct caller *caller)
{
	const struct http_head *head = http_request(exchange);
	const struct method *method = method_find(head->path);

	if (files_is_signed(head)) {
		files_serve(exchange, caller);
		return;
	}
	if (rest_upload_serve(exchange, caller))
		return;
	read_key(head, caller);
	if (method)
		connect_serve(exchange, method, caller);
	else if (strcmp(head->path, "/healthz") == 0 || strcmp(head->path, "/health") == 0)
		http_reply(exchange, 200, "text/plain", "ok\n", 3);
	else
		rest_serve(exchange, caller, advertised);
}

/* "Basic base64(NAME:)" names whom to act as; it is no credential. Any other form names nobody. */
static void read_user(const struct http_head *head, struct caller *ret)
{
	const char *given = http_head_get(head, "authorization");
	uint8_t text[sizeof(ret->user) + 4];
	int length;

	if (!given || strncasecmp(given, "Basic ", 6) != 0 || strlen(given + 6) > 4 * (sizeof(ret->user) / 3))
		return;
	length = EVP_DecodeBlock(text, (const unsigned char *)given + 6, (int)strlen(given + 6));
	if (length <= 0)
		return;
	text[length] = '\0';
	text[strcspn((char *)text, ":")] = '\0';
	if (strlen((char *)text) < sizeof(ret->user))
		strcpy(ret->user, (char *)text);
}

static void serve_sandbox(struct http_exchange *exchange, struct caller *caller, const struct url_host *host)
{
	const char *token = http_head_get(http_request(exchange), "x-access-token");

	if (token && strlen(token) < sizeof(caller->access_token))
		strcpy(caller->access_token, token);
	strcpy(caller->sandbox, host->sandbox);
	read_user(http_request(exchange), caller);
	envd_serve(exchange, caller);
}

bool gateway_takes_grpc(const char *host)
{
	struct url_host route;

	return url_parse_host(host, our_domain, &route) == 0 && !route.is_grant && !route.is_sandbox;
}

void gateway_serve(struct http_exchange *exchange, void *arg)
{
	const struct http_head *head = http_request(exchange);
	struct caller caller = {};
	struct url_host host;
	int rc = url_parse_host(head->host, our_domain, &host);

	if (rc == 0 && host.is_grant) {
		preview_serve(exchange, host.label);
		return;
	}
	if (rc == 0 && !host.is_sandbox && preview_is_name(head->host)) {
		preview_misplaced(exchange, our_domain);
		return;
	}
	if (rc == 0 && !host.is_sandbox)
		rc = route_of_headers(head, &host);
	if (rc >= 0 && host.is_sandbox && host.port != ENVD_PORT) {
		published_serve(exchange, host.sandbox, host.port);
		return;
	}
	add_common_fields(exchange);
	snprintf(caller.address, sizeof(caller.address), "%s", http_client_address(exchange));
	if (rc < 0)
		rest_fail(exchange, 400, "the host, or the headers that name a sandbox and its port, are malformed");
	else if (strcmp(head->method, "OPTIONS") == 0)
		preflight(exchange);
	else if (host.is_sandbox)
		serve_sandbox(exchange, &caller, &host);
	else
		serve_control(exchange, &caller);
	explicit_bzero(&caller, sizeof(caller));
}
