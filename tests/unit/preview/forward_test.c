#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "preview/forward.h"
#include "sandbox/base/cleanup.h"

/* What passes through a preview, in tables. tests/ingress/test_preview.py shows the same over sockets. */

#define HEX32 "0123456789abcdef0123456789abcdef"
#define COOKIE HEX32 HEX32 HEX32
#define TOKEN HEX32 HEX32

static struct http_head head;
static char copy[70000];

static void parse(const char *text)
{
	strcpy(copy, text);
	assert_int_equal(http_head_parse(copy, strlen(copy), &head), 0);
}

static void cookies_are_found_once(void **state)
{
	static const struct {
		const char *line;
		bool tls, found;
	} cases[] = {
		{"paddock-preview=" COOKIE, false, true},
		{"a=b; paddock-preview=" COOKIE " ;c", false, true},
		{"__Host-paddock-preview=" COOKIE, true, true},
		{"__Host-paddock-preview=" COOKIE, false, false},
		{"paddock-preview=" COOKIE, true, false},
		{"paddock-preview=" COOKIE "0", false, false},
		{"paddock-preview=" COOKIE "; paddock-preview=" COOKIE, false, false},
		{"paddock-preview=" COOKIE "; paddock-preview=x", false, false},
		{"Paddock-Preview=" COOKIE, false, false},
		{"x=paddock-preview=" COOKIE, false, false},
		{"paddock-preview", false, false},
		{"", false, false},
	};
	char text[1024], found[FORWARD_COOKIE_LEN + 1];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: x\r\nCookie: %s\r\n\r\n", cases[i].line);
		parse(text);
		assert_int_equal(forward_cookie(&head, cases[i].tls, found), cases[i].found);
		if (cases[i].found)
			assert_string_equal(found, COOKIE);
	}
	parse("GET / HTTP/1.1\r\nHost: x\r\nCookie: a=b\r\ncookie: paddock-preview=" COOKIE "\r\n\r\n");
	assert_true(forward_cookie(&head, false, found));
}

static void a_set_cookie_stays_with_its_host(void **state)
{
	static const struct {
		const char *value, *expected; /* NULL: left out */
	} cases[] = {
		{"a=1", "a=1"},
		{"a=1; Domain=x; Path=/", "a=1; Path=/"},
		{"a=1;domain=x;DOMAIN=y", "a=1"},
		{"a=1; domain", "a=1"},
		{"a=1; domains=x", "a=1; domains=x"},
		{"a=domain=x; b", "a=domain=x; b"},
		{"paddock-preview=1", NULL},
		{"  PADDOCK-preview  = 1; Path=/", NULL},
		{"__host-paddock-preview", NULL},
		{"xpaddock-preview=1", "xpaddock-preview=1"},
		{"", ""},
	};
	char text[64];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(forward_set_cookie(cases[i].value, text, sizeof(text)), cases[i].expected != NULL);
		if (cases[i].expected)
			assert_string_equal(text, cases[i].expected);
	}
	assert_false(forward_set_cookie("a=12345", text, 7));
	assert_true(forward_set_cookie("a=1234", text, 7));
}

static void a_token_is_cut_out(void **state)
{
	static const struct {
		const char *query;
		int rc;
		const char *rest;
	} cases[] = {
		{"", 0, ""},
		{"a=b", 0, "a=b"},
		{"paddock_token=" TOKEN, 1, ""},
		{"a=b&paddock_token=" TOKEN "&c=%20", 1, "a=b&c=%20"},
		{"paddock_token=" TOKEN "&c", 1, "c"},
		{"xpaddock_token=" TOKEN, 0, "xpaddock_token=" TOKEN},
		{"paddock_token=" TOKEN "0", -1, NULL},
		{"paddock_token=", -1, NULL},
		{"paddock_token=" TOKEN "&paddock_token=" TOKEN, -1, NULL},
		{"paddock_token=x" HEX32 "0123456789abcdef0123456789abcde", -1, NULL},
	};
	char token[FORWARD_TOKEN_LEN + 1], rest[256];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int rc = forward_token(cases[i].query, token, rest, sizeof(rest));

		assert_int_equal(rc < 0 ? -1 : rc, cases[i].rc);
		if (rc >= 0)
			assert_string_equal(rest, cases[i].rest);
		if (rc > 0)
			assert_string_equal(token, TOKEN);
	}
}

static void origins(void **state)
{
	assert_true(forward_same_origin("https://p.x", "p.x", true));
	assert_true(forward_same_origin("https://p.x", "P.x:443", true));
	assert_true(forward_same_origin("http://p.x:7413", "p.x:7413", false));
	assert_false(forward_same_origin("http://p.x", "p.x", true));
	assert_false(forward_same_origin("https://p.x:444", "p.x", true));
	assert_false(forward_same_origin("https://p.x.evil", "p.x", true));
	assert_false(forward_same_origin("https://evil-p.x", "p.x", true));
	assert_false(forward_same_origin("https://p.x/", "p.x", true));
	assert_false(forward_same_origin("null", "p.x", true));
	assert_false(forward_same_origin("", "p.x", true));
}

static void the_host_of_the_application(void **state)
{
	char text[32];

	forward_host("", 80, text, sizeof(text));
	assert_string_equal(text, "");
	forward_host("localhost", 80, text, sizeof(text));
	assert_string_equal(text, "localhost");
	forward_host("a:${PORT}x", 65535, text, sizeof(text));
	assert_string_equal(text, "a:65535x");
}

static int response_of(const char *text, const char *method, struct http_response *ret)
{
	strcpy(copy, text);
	return http_response_parse(copy, strlen(copy), method, ret);
}

static void responses(void **state)
{
	struct http_response response;

	assert_int_equal(response_of("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: b\r\n\r\n", "GET", &response), 0);
	assert_int_equal(response.status, 200);
	assert_int_equal(response.body, HTTP_BODY_LENGTH);
	assert_true(response.keep_alive);
	assert_string_equal(http_response_get(&response, "a"), "b");
	assert_int_equal(response_of("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HEAD", &response), 0);
	assert_int_equal(response.body, HTTP_BODY_NONE);
	assert_int_equal(response.content_length, 5);
	assert_int_equal(response_of("HTTP/1.1 304 x\r\n\r\n", "GET", &response), 0);
	assert_int_equal(response.body, HTTP_BODY_NONE);
	assert_int_equal(response_of("HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\nConnection: close\r\n\r\n", "GET",
				     &response),
			 0);
	assert_int_equal(response.body, HTTP_BODY_CHUNKED);
	assert_false(response.keep_alive);
	assert_int_equal(response_of("HTTP/1.0 200 OK\r\n\r\n", "GET", &response), 0);
	assert_int_equal(response.body, HTTP_BODY_UNTIL_END);
	assert_false(response.keep_alive);
	assert_int_equal(response_of("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", "GET", &response), 0);
	assert_true(response.keep_alive);
}

static void hops_end_here(void **state)
{
	struct http_response response;

	assert_int_equal(
		response_of("HTTP/1.1 200 OK\r\nConnection: x-hop\r\nX-Hop: 1\r\nX-End: 1\r\nAlt-Svc: h3\r\n\r\n",
			    "GET", &response),
		0);
	assert_false(forward_response_field(&response, "X-Hop"));
	assert_false(forward_response_field(&response, "alt-svc"));
	assert_false(forward_response_field(&response, "Connection"));
	assert_true(forward_response_field(&response, "X-End"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cookies_are_found_once),
		cmocka_unit_test(a_set_cookie_stays_with_its_host),
		cmocka_unit_test(a_token_is_cut_out),
		cmocka_unit_test(origins),
		cmocka_unit_test(the_host_of_the_application),
		cmocka_unit_test(responses),
		cmocka_unit_test(hops_end_here),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
