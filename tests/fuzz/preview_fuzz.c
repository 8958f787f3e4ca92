#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "preview/forward.h"
#include "preview/url.h"

/* What a visitor, or an application in a sandbox, can send through a preview. The first byte chooses: a request and
 * what is made of it for the application; a response; a Set-Cookie; a query with a token; a Host. What comes out must
 * hold up when it is read again, and must not have in it what is ours. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition)                                                                                                \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			__builtin_trap();                                                                              \
	} while (0)

static char *text_of(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);

	memcpy(text, data, size);
	text[size] = '\0';
	return text;
}

static unsigned int count(const struct http_head *head, const char *name)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < head->n_fields; i++)
		n += strcasecmp(head->fields[i].name, name) == 0;
	return n;
}

/* What the application gets is read again: it means the same, and is nobody's but ours where that is promised. */
static void check_forwarded(const struct http_head *head, struct buffer *out)
{
	static struct http_head again;
	static char cookie[FORWARD_COOKIE_LEN + 1];
	char *text = text_of(buffer_data(out), buffer_length(out));

	MUST(http_head_length(text, buffer_length(out)) == buffer_length(out));
	MUST(http_head_parse(text, buffer_length(out), &again) == 0);
	MUST(strcmp(again.method, head->method) == 0 && strcmp(again.path, head->path) == 0);
	MUST(again.chunked == head->chunked && again.content_length == head->content_length);
	MUST(strcmp(again.host, "app.test") == 0 && !again.upgrade);
	MUST(count(&again, "x-forwarded-for") == 1 && count(&again, "x-forwarded-host") == 1);
	MUST(!count(&again, "connection") && !count(&again, "x-api-key") && !count(&again, "e2b-traffic-access-token"));
	MUST(strcmp(http_head_get(&again, "x-forwarded-for"), "192.0.2.1") == 0);
	MUST(!forward_cookie(&again, true, cookie) && !forward_cookie(&again, false, cookie));
	free(text);
}

static void fuzz_request(const uint8_t *data, size_t size)
{
	static struct http_head head;
	char cookie[FORWARD_COOKIE_LEN + 1];
	size_t length = http_head_length((const char *)data, size);
	char *text = text_of(data, length);
	struct buffer out = BUFFER(HTTP_HEAD_MAX + 2048);

	/* With a hundred fields, ours come on top: more than is read again. */
	if (length && length <= HTTP_HEAD_MAX && http_head_parse(text, length, &head) == 0 && head.n_fields < 90) {
		struct forward_request request = {.head = &head, .host = "app.test", .address = "192.0.2.1:4711"};

		if (forward_cookie(&head, true, cookie))
			MUST(forward_is_hex(cookie, FORWARD_COOKIE_LEN));
		(void)forward_is_foreign(&head, true);
		if (head.path[0] == '/' && forward_request(&request, &out) == 0)
			check_forwarded(&head, &out);
	}
	buffer_free(&out);
	free(text);
}

static void fuzz_response(const uint8_t *data, size_t size)
{
	static struct http_response response;
	size_t length = http_head_length((const char *)data, size);
	char *text = text_of(data, length);

	if (length && http_response_parse(text, length, "GET", &response) == 0) {
		MUST(response.status >= 100 && response.status <= 999);
		MUST((response.body == HTTP_BODY_LENGTH) <= (response.content_length >= 0));
		for (unsigned int i = 0; i < response.n_fields; i++) {
			if (forward_response_field(&response, response.fields[i].name))
				MUST(strcasecmp(response.fields[i].name, "connection") != 0 &&
				     strcasecmp(response.fields[i].name, "content-length") != 0);
		}
	}
	free(text);
}

static void fuzz_set_cookie(const uint8_t *data, size_t size)
{
	char *text = text_of(data, size), *ret = malloc(size + 1);

	if (forward_set_cookie(text, ret, size + 1)) {
		char *at = ret + strcspn(ret, ";");

		MUST(strlen(ret) <= strlen(text));
		for (; *at; at += strcspn(at, ";")) {
			at++;
			at += strspn(at, " \t");
			MUST(strncasecmp(at, "domain", 6) != 0 || (at[6] && !strchr(" \t=;", at[6])));
		}
	}
	free(ret);
	free(text);
}

static void fuzz_token(const uint8_t *data, size_t size)
{
	char *text = text_of(data, size), *rest = malloc(size + 1);
	char token[FORWARD_TOKEN_LEN + 1];
	int rc = forward_token(text, token, rest, size + 1);

	if (rc >= 0) {
		MUST(rc == 0 || forward_is_hex(token, FORWARD_TOKEN_LEN));
		MUST(strlen(rest) <= strlen(text));
		MUST(forward_token(rest, token, text, size + 1) == 0);
	}
	free(rest);
	free(text);
}

static void fuzz_host(const uint8_t *data, size_t size)
{
	char *text = text_of(data, size);
	struct url_host host;
	char out[300];

	if (url_parse_host(text, "d.test", &host) == 0) {
		MUST(!(host.is_grant && host.is_sandbox));
		if (host.is_grant)
			MUST(strlen(host.label) < 64 && !strchr(host.label, '.'));
		if (host.is_sandbox)
			MUST(host.port && sandbox_id_valid(host.sandbox));
	}
	(void)forward_same_origin(text, "p.d.test:80", false);
	forward_host(text, 65535, out, sizeof(out));
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const parsers[])(const uint8_t *data, size_t size) = {fuzz_request, fuzz_response,
									    fuzz_set_cookie, fuzz_token, fuzz_host};

	if (size)
		parsers[data[0] % 5](data + 1, size - 1);
	return 0;
}
