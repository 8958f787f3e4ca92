#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include <cmocka.h>

#include "preview/envelope.h"
#include "preview/http_chunk.h"
#include "preview/http_head.h"
#include "preview/multipart.h"
#include "preview/url.h"
#include "sandbox/base/cleanup.h"

/* The parsers of what strangers send, one at a time. tests/ingress/ has the whole list of odd heads, over a socket. */

static int parse(const char *text, struct http_head *ret)
{
	static char copy[70000];

	strcpy(copy, text);
	assert_int_equal(http_head_length(copy, strlen(copy)), strlen(copy));
	return http_head_parse(copy, strlen(copy), ret);
}

static void a_head_is_taken_apart(void **state)
{
	struct http_head head;

	assert_int_equal(parse("POST /a/%2F?b=c&d HTTP/1.1\r\nHost: x:1\r\nX-Empty:\r\nConnection: a, Upgrade\r\n"
			       "Upgrade: websocket\r\nContent-Length: 12\r\nx-two:  v w \t\r\n\r\n",
			       &head),
			 0);
	assert_string_equal(head.method, "POST");
	assert_string_equal(head.path, "/a/%2F");
	assert_string_equal(head.query, "b=c&d");
	assert_string_equal(head.host, "x:1");
	assert_int_equal(head.content_length, 12);
	assert_false(head.chunked);
	assert_true(head.upgrade);
	assert_true(head.keep_alive);
	assert_int_equal(head.n_fields, 6);
	assert_string_equal(http_head_get(&head, "X-TWO"), "v w");
	assert_string_equal(http_head_get(&head, "x-empty"), "");
	assert_null(http_head_get(&head, "x"));
	assert_int_equal(parse("GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, close\r\n\r\n", &head), 0);
	assert_false(head.keep_alive);
	assert_int_equal(parse("GET / HTTP/1.0\r\n\r\n", &head), 0);
	assert_false(head.keep_alive);
	assert_int_equal(parse("GET / HTTP/2.0\r\nHost: x\r\n\r\n", &head), 505);
	assert_int_equal(parse("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1234567890123456\r\n\r\n", &head), 400);
}

static void half_a_head_is_none(void **state)
{
	static const char text[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

	for (size_t n = 0; n < sizeof(text) - 1; n++)
		assert_int_equal(http_head_length(text, n), 0);
	assert_int_equal(http_head_length(text, sizeof(text) - 1), sizeof(text) - 1);
}

static void chunks_in_every_cut(void **state)
{
	static const char text[] = "5\r\nhello\r\n0A\r\n, world!!!\r\n0\r\n\r\nGET";

	for (size_t cut = 1; cut < sizeof(text); cut++) {
		struct http_chunk chunk = {};
		enum http_chunk_result result = HTTP_CHUNK_MORE;
		char body[64];
		size_t at = 0, end = cut, n = 0;

		while (result != HTTP_CHUNK_END) {
			size_t used = 0, data = 0;

			result = http_chunk_feed(&chunk, (const uint8_t *)text + at, end - at, &used, &data);
			assert_int_not_equal(result, HTTP_CHUNK_BAD);
			at += used;
			memcpy(body + n, text + at - data, data);
			n += data;
			if (result == HTTP_CHUNK_MORE)
				end = sizeof(text) - 1;
		}
		assert_int_equal(n, 15);
		assert_memory_equal(body, "hello, world!!!", 15);
		assert_string_equal(text + at, "GET");
	}
}

static void hosts_name_what_they_say(void **state)
{
	static const struct {
		const char *host;
		int rc;
		unsigned int port;
		const char *label;
	} cases[] = {
		{"80-iaaaaaaaaaaaaaaaaaaaa.d.test", 0, 80, ""},
		{"65535-Iaaaaaaaaaaaaaaaaaaaa.D.test.:443", 0, 65535, ""},
		{"80-iaaaaaaaaaaaaaaaaaaaa-client.d.test", 0, 80, ""},
		{"d.test", 0, 0, ""},
		{"api.d.test", 0, 0, ""},
		{"other", 0, 0, ""},
		{"", 0, 0, ""},
		{"xd.test", 0, 0, ""},
		{"0123abcdef.d.test", 0, 0, "0123abcdef"},
		{"080-iaaaaaaaaaaaaaaaaaaaa.d.test", -EINVAL, 0, ""},
		{"65536-iaaaaaaaaaaaaaaaaaaaa.d.test", -EINVAL, 0, ""},
		{"80-iaaaaaaaaaaaaaaaaaaa.d.test", -EINVAL, 0, ""},
		{"80-iaaaaaaaaaaaaaaaaaaaaa.d.test", -EINVAL, 0, ""},
		{"a.b.d.test", -EINVAL, 0, ""},
		{".d.test", -EINVAL, 0, ""},
		{"d.test:x", -EINVAL, 0, ""},
		{"d.test:080", -EINVAL, 0, ""},
		{"d\xc3\xa9.test", -EINVAL, 0, ""},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct url_host host;

		assert_int_equal(url_parse_host(cases[i].host, "d.test", &host), cases[i].rc);
		if (cases[i].rc < 0)
			continue;
		assert_int_equal(host.is_sandbox, cases[i].port > 0);
		assert_int_equal(host.port, cases[i].port);
		assert_int_equal(host.is_grant, cases[i].label[0] != '\0');
		assert_string_equal(host.label, cases[i].label);
		if (host.is_sandbox)
			assert_string_equal(host.sandbox, "iaaaaaaaaaaaaaaaaaaaa");
	}
}

static void queries_are_decoded(void **state)
{
	char value[16];

	assert_int_equal(url_query("a=1&bc=x%20y+z%2B&d", "bc", value, sizeof(value)), 0);
	assert_string_equal(value, "x y z+");
	assert_int_equal(url_query("a=1&bc=2", "b", value, sizeof(value)), -ENOENT);
	assert_int_equal(url_query("a=%0", "a", value, sizeof(value)), -EINVAL);
	assert_int_equal(url_query("a=%00", "a", value, sizeof(value)), -EINVAL);
	assert_int_equal(url_query("a=%zz", "a", value, sizeof(value)), -EINVAL);
	assert_int_equal(url_query("a=aaaaaaaaaaaaaaaa", "a", value, sizeof(value)), -ENAMETOOLONG);
	assert_int_equal(url_query("a=", "a", value, sizeof(value)), 0);
	assert_string_equal(value, "");
}

static void envelopes_are_whole_or_not_there(void **state)
{
	struct buffer in = BUFFER(100);
	struct envelope envelope;
	struct pdk_error err;

	for (size_t n = 0; n < 8; n++) {
		assert_int_equal(envelope_next(&in, &envelope, &err), 0);
		assert_int_equal(buffer_append(&in, &"\0\0\0\0\003abc"[n], 1), 0);
	}
	assert_int_equal(envelope_next(&in, &envelope, &err), 1);
	assert_int_equal(envelope.length, 3);
	assert_memory_equal(envelope.bytes, "abc", 3);
	buffer_free(&in);
	buffer_append(&in, "\0\xff\xff\xff\xff", 5);
	assert_int_equal(envelope_next(&in, &envelope, &err), -EMSGSIZE);
	buffer_free(&in);
	buffer_append(&in, "\2\0\0\0\0", 5);
	assert_int_equal(envelope_next(&in, &envelope, &err), -EINVAL);
	buffer_free(&in);
}

/* `text` many times, compressed: -> the length. */
static size_t compress_many(uint8_t *to, size_t size, unsigned int times)
{
	static char block[1000];
	z_stream stream = {.next_out = to, .avail_out = (unsigned int)size};

	deflateInit2(&stream, 9, Z_DEFLATED, 16 + MAX_WBITS, 9, Z_DEFAULT_STRATEGY);
	for (unsigned int i = 0; i < times; i++) {
		stream.next_in = (uint8_t *)block;
		stream.avail_in = sizeof(block);
		deflate(&stream, Z_NO_FLUSH);
	}
	deflate(&stream, Z_FINISH);
	deflateEnd(&stream);
	return size - stream.avail_out;
}

static void gzip_is_bounded(void **state)
{
	static uint8_t packed[100000];
	struct buffer out = BUFFER(100000);
	struct pdk_error err;
	size_t length = compress_many(packed, sizeof(packed), 50);

	assert_int_equal(envelope_gunzip(packed, length, &out, &err), 0);
	assert_int_equal(buffer_length(&out), 50000);
	buffer_free(&out);
	assert_int_equal(envelope_gunzip(packed, length - 1, &out, &err), -EINVAL);
	buffer_free(&out);
	packed[length] = 'x';
	assert_int_equal(envelope_gunzip(packed, length + 1, &out, &err), -EINVAL);
	buffer_free(&out);
	length = compress_many(packed, sizeof(packed), 50000);
	assert_int_equal(envelope_gunzip(packed, length, &out, &err), -EMSGSIZE);
	buffer_free(&out);
}

static void a_form_is_taken_apart(void **state)
{
	static const char body[] =
		"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"d/a %22b\"\r\n\r\none\r\n--"
		"cx\r\n--b\r\ncontent-disposition: form-data; name=\"other\"\r\n\r\n\r\n--b--\r\n";
	enum multipart_event wanted[] = {MULTIPART_PART, MULTIPART_DATA,     MULTIPART_PART_END,
					 MULTIPART_PART, MULTIPART_PART_END, MULTIPART_END};
	struct multipart multipart;
	struct multipart_part part;
	const uint8_t *bytes;
	size_t length, n = 0;

	assert_int_equal(multipart_start(&multipart, "multipart/form-data; boundary=b"), 0);
	buffer_append(&multipart.in, body, sizeof(body) - 1);
	for (;; n++) {
		enum multipart_event event = multipart_next(&multipart, &part, &bytes, &length);

		assert_int_equal(event, wanted[n]);
		if (n == 0)
			assert_string_equal(part.filename, "d/a %22b");
		if (n == 3)
			assert_false(part.has_filename);
		if (event == MULTIPART_DATA) {
			assert_int_equal(length, 9);
			assert_memory_equal(bytes, "one\r\n--cx", 9);
			multipart_take(&multipart, length);
		}
		if (event == MULTIPART_END)
			break;
	}
	assert_int_equal(n, 5);
	multipart_free(&multipart);
	assert_int_equal(multipart_start(&multipart, "multipart/form-data"), -EINVAL);
	assert_int_equal(multipart_start(&multipart, "multipart/mixed; boundary=b"), -EINVAL);
	assert_int_equal(multipart_start(&multipart, "multipart/form-data; boundary=a\x01"), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_head_is_taken_apart), cmocka_unit_test(half_a_head_is_none),
		cmocka_unit_test(chunks_in_every_cut),   cmocka_unit_test(hosts_name_what_they_say),
		cmocka_unit_test(queries_are_decoded),   cmocka_unit_test(envelopes_are_whole_or_not_there),
		cmocka_unit_test(gzip_is_bounded),       cmocka_unit_test(a_form_is_taken_apart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
