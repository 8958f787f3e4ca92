#include "forward.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "sandbox/base/cleanup.h"

bool forward_is_hex(const char *text, size_t length)
{
	return strspn(text, "0123456789abcdef") == length && !text[length];
}

/* Cookies */

static bool is_ours(const char *name, size_t length)
{
	static const char *const ours[] = {FORWARD_COOKIE_TLS, FORWARD_COOKIE_PLAIN};

	for (size_t i = 0; i < ARRAY_SIZE(ours); i++) {
		if (length == strlen(ours[i]) && strncasecmp(name, ours[i], length) == 0)
			return true;
	}
	return false;
}

/* The next "name=value" of a Cookie line. False: the line is over. */
static bool next_cookie(const char **line, const char **ret_pair, size_t *ret_name, size_t *ret_length)
{
	const char *at = *line + strspn(*line, " \t;");
	size_t length = strcspn(at, ";");
	const char *end = at + length;

	if (!*at)
		return false;
	*line = end;
	while (end > at && (end[-1] == ' ' || end[-1] == '\t'))
		end--;
	*ret_pair = at;
	*ret_length = (size_t)(end - at);
	*ret_name = strcspn(at, "=;");
	while (*ret_name && (at[*ret_name - 1] == ' ' || at[*ret_name - 1] == '\t'))
		--*ret_name;
	return true;
}

bool forward_cookie(const struct http_head *head, bool tls, char ret[FORWARD_COOKIE_LEN + 1])
{
	const char *wanted = tls ? FORWARD_COOKIE_TLS : FORWARD_COOKIE_PLAIN;
	size_t prefix = strlen(wanted) + 1;
	unsigned int found = 0;

	for (unsigned int i = 0; i < head->n_fields; i++) {
		const char *line = head->fields[i].value, *pair;
		size_t name, length;

		if (strcasecmp(head->fields[i].name, "cookie") != 0)
			continue;
		while (next_cookie(&line, &pair, &name, &length)) {
			if (name != prefix - 1 || strncmp(pair, wanted, name) != 0 || pair[name] != '=')
				continue;
			found++;
			if (length != prefix + FORWARD_COOKIE_LEN)
				return false;
			memcpy(ret, pair + prefix, FORWARD_COOKIE_LEN);
			ret[FORWARD_COOKIE_LEN] = '\0';
		}
	}
	return found == 1 && forward_is_hex(ret, FORWARD_COOKIE_LEN);
}

/* A Cookie line without ours. */
static int put_cookies(struct buffer *out, const char *field, const char *line)
{
	const char *pair;
	size_t name, length;
	bool begun = false;
	int rc = 0;

	while (rc == 0 && next_cookie(&line, &pair, &name, &length)) {
		if (is_ours(pair, name))
			continue;
		if (begun)
			rc = buffer_append(out, "; ", 2);
		if (rc == 0 && !begun)
			rc = buffer_append(out, field, strlen(field));
		if (rc == 0 && !begun)
			rc = buffer_append(out, ": ", 2);
		begun = true;
		if (rc == 0)
			rc = buffer_append(out, pair, length);
	}
	if (begun && rc == 0)
		rc = buffer_append(out, "\r\n", 2);
	return rc;
}

bool forward_set_cookie(const char *value, char *ret, size_t size)
{
	size_t length = strcspn(value, ";"), used = length, name = strcspn(value, "=;");
	const char *start = value + strspn(value, " \t");

	while (name > (size_t)(start - value) && (value[name - 1] == ' ' || value[name - 1] == '\t'))
		name--;
	if (is_ours(start, name - (size_t)(start - value)) || length >= size)
		return false;
	memcpy(ret, value, length);
	value += length;
	while (*value) {
		const char *attribute = value + 1 + strspn(value + 1, " \t");

		length = 1 + strcspn(value + 1, ";");
		if (strncasecmp(attribute, "domain", 6) != 0 || !strchr(" \t=;", attribute[6])) {
			if (used + length >= size)
				return false;
			memcpy(ret + used, value, length);
			used += length;
		}
		value += length;
	}
	ret[used] = '\0';
	return true;
}

/* The token */

int forward_token(const char *query, char ret_token[FORWARD_TOKEN_LEN + 1], char *ret_rest, size_t size)
{
	static const char name[] = FORWARD_TOKEN_PARAMETER "=";
	size_t used = 0;
	int found = 0;

	if (strlen(query) >= size)
		return -EINVAL;
	while (*query) {
		size_t length = strcspn(query, "&"), prefix = sizeof(name) - 1;

		if (length >= prefix && strncmp(query, name, prefix) == 0) {
			if (found++ || length != prefix + FORWARD_TOKEN_LEN)
				return -EINVAL;
			memcpy(ret_token, query + prefix, FORWARD_TOKEN_LEN);
			ret_token[FORWARD_TOKEN_LEN] = '\0';
			if (!forward_is_hex(ret_token, FORWARD_TOKEN_LEN))
				return -EINVAL;
		} else {
			if (used)
				ret_rest[used++] = '&';
			memcpy(ret_rest + used, query, length);
			used += length;
		}
		query += length + (query[length] == '&');
	}
	ret_rest[used] = '\0';
	return found;
}

/* Origins */

bool forward_same_origin(const char *origin, const char *host, bool tls)
{
	const char *scheme = tls ? "https://" : "http://";
	const char *port = tls ? ":443" : ":80";
	size_t length = strlen(host);

	if (strncmp(origin, scheme, strlen(scheme)) != 0)
		return false;
	origin += strlen(scheme);
	/* A browser leaves the scheme's own port out. */
	if (length > strlen(port) && strcmp(host + length - strlen(port), port) == 0)
		length -= strlen(port);
	return strncasecmp(origin, host, length) == 0 && !origin[length];
}

static bool is_safe(const char *method)
{
	return strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0 || strcmp(method, "OPTIONS") == 0;
}

bool forward_is_foreign(const struct http_head *head, bool tls)
{
	const char *origin = http_head_get(head, "origin");
	const char *site = http_head_get(head, "sec-fetch-site");
	const char *mode = http_head_get(head, "sec-fetch-mode");
	const char *dest = http_head_get(head, "sec-fetch-dest");
	bool elsewhere = site && strcmp(site, "same-origin") != 0 && strcmp(site, "none") != 0;

	if (origin && !forward_same_origin(origin, head->host, tls))
		return true;
	if (head->upgrade)
		return !origin; /* browsers always say it of a websocket */
	if (!elsewhere)
		return false;
	return !is_safe(head->method) || !mode || strcmp(mode, "navigate") != 0 || !dest ||
	       strcmp(dest, "document") != 0;
}

/* Requests */

/* Names are compared as CGI does: '_' is '-'. */
static bool same_name(const char *a, const char *b)
{
	for (; *a && *b; a++, b++) {
		char x = *a == '_' ? '-' : *a;

		if (x >= 'A' && x <= 'Z')
			x = (char)(x + 32);
		if (x != *b)
			return false;
	}
	return *a == *b;
}

static bool in_list(const char *name, const char *const *list)
{
	for (; *list; list++) {
		if (same_name(name, *list))
			return true;
	}
	return false;
}

/* Of the connection, or said anew by us, or ours. In lower case. */
static const char *const dropped_requests[] = {"connection",
					       "keep-alive",
					       "proxy-connection",
					       "proxy-authorization",
					       "proxy-authenticate",
					       "te",
					       "trailer",
					       "transfer-encoding",
					       "upgrade",
					       "content-length",
					       "host",
					       "expect",
					       "http2-settings",
					       "forwarded",
					       "via",
					       "x-forwarded-for",
					       "x-forwarded-host",
					       "x-forwarded-proto",
					       "x-forwarded-port",
					       "x-forwarded-server",
					       "x-forwarded-prefix",
					       "x-forwarded-ssl",
					       "x-real-ip",
					       "x-client-ip",
					       "client-ip",
					       "true-client-ip",
					       "cf-connecting-ip",
					       "x-original-url",
					       "x-rewrite-url",
					       "x-original-host",
					       "x-host",
					       "e2b-sandbox-id",
					       "e2b-sandbox-port",
					       "novita-sandbox-id",
					       "novita-sandbox-port",
					       "e2b-traffic-access-token",
					       "novita-traffic-access-token",
					       "x-access-token",
					       "x-api-key",
					       NULL};

static const char *const dropped_responses[] = {"connection",
						"keep-alive",
						"proxy-connection",
						"proxy-authenticate",
						"proxy-authorization",
						"te",
						"trailer",
						"transfer-encoding",
						"upgrade",
						"content-length",
						"date",
						"alt-svc",
						"clear-site-data",
						"set-cookie2",
						"strict-transport-security",
						"public-key-pins",
						"set-cookie",
						NULL};

/* Named by a Connection line: of this connection only. But for a websocket, "Upgrade" is ours to say. */
static bool is_hop(const struct http_field *fields, unsigned int n, const char *name)
{
	for (unsigned int i = 0; i < n; i++) {
		if (strcasecmp(fields[i].name, "connection") == 0 && http_list_has(fields[i].value, name))
			return true;
	}
	return false;
}

static int put(struct buffer *out, const char *name, const char *value)
{
	int rc = buffer_append(out, name, strlen(name));

	if (rc == 0)
		rc = buffer_append(out, ": ", 2);
	if (rc == 0)
		rc = buffer_append(out, value, strlen(value));
	return rc < 0 ? rc : buffer_append(out, "\r\n", 2);
}

static int put_line(struct buffer *out, const struct http_head *head)
{
	int rc = buffer_append(out, head->method, strlen(head->method));

	if (rc == 0)
		rc = buffer_append(out, " ", 1);
	if (rc == 0)
		rc = buffer_append(out, head->path, strlen(head->path));
	if (rc == 0 && head->query[0])
		rc = buffer_append(out, "?", 1);
	if (rc == 0)
		rc = buffer_append(out, head->query, strlen(head->query));
	return rc < 0 ? rc : buffer_append(out, " HTTP/1.1\r\n", 11);
}

/* "203.0.113.9:4711" -> "203.0.113.9"; "[2001:db8::1]:4711" -> "2001:db8::1" */
static void bare_address(const char *address, char *ret, size_t size)
{
	const char *colon = strrchr(address, ':');
	size_t length = colon ? (size_t)(colon - address) : strlen(address);

	if (length > 1 && address[0] == '[') {
		address++;
		length -= 2;
	}
	snprintf(ret, size, "%.*s", (int)length, address);
}

static int put_ours(struct buffer *out, const struct forward_request *request)
{
	const struct http_head *head = request->head;
	char text[64];
	int rc;

	bare_address(request->address, text, sizeof(text));
	rc = put(out, "X-Forwarded-For", text);
	if (rc == 0)
		rc = put(out, "X-Forwarded-Host", head->host);
	if (rc == 0)
		rc = put(out, "X-Forwarded-Proto", request->tls ? "https" : "http");
	if (rc == 0 && request->upgrade)
		rc = put(out, "Connection", "Upgrade");
	if (rc == 0 && request->upgrade)
		rc = put(out, "Upgrade", "websocket");
	if (rc == 0 && head->chunked)
		rc = put(out, "Transfer-Encoding", "chunked");
	if (rc == 0 && head->content_length >= 0) {
		snprintf(text, sizeof(text), "%lld", (long long)head->content_length);
		rc = put(out, "Content-Length", text);
	}
	return rc;
}

int forward_request(const struct forward_request *request, struct buffer *out)
{
	const struct http_head *head = request->head;
	int rc = put_line(out, head);

	if (rc == 0)
		rc = put(out, "Host", request->host);
	for (unsigned int i = 0; rc == 0 && i < head->n_fields; i++) {
		const struct http_field *field = &head->fields[i];

		if (in_list(field->name, dropped_requests) || is_hop(head->fields, head->n_fields, field->name))
			continue;
		if (same_name(field->name, "cookie"))
			rc = put_cookies(out, field->name, field->value);
		else
			rc = put(out, field->name, field->value);
	}
	if (rc == 0)
		rc = put_ours(out, request);
	return rc < 0 ? rc : buffer_append(out, "\r\n", 2);
}

void forward_host(const char *pattern, unsigned int port, char *ret, size_t size)
{
	const char *at = strstr(pattern, "${PORT}");

	if (at)
		snprintf(ret, size, "%.*s%u%s", (int)(at - pattern), pattern, port, at + 7);
	else
		snprintf(ret, size, "%s", pattern);
}

/* Responses */

bool forward_response_field(const struct http_response *response, const char *name)
{
	return !in_list(name, dropped_responses) && !is_hop(response->fields, response->n_fields, name);
}
