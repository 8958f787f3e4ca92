#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "codec_test.pb-c.h"
#include "preview/json.h"
#include "preview/json_time.h"

/* Bounds: what json_oracle.py cannot ask its oracle. */

static int decode(const char *text, size_t length, size_t max, struct pdk_error *err)
{
	struct arena arena;
	ProtobufCMessage *message;
	int rc;

	arena_init(&arena, max);
	rc = json_decode(&codec_test__all__descriptor, text, length, &arena, &message, err);
	assert_true(arena.total <= max);
	arena_clear(&arena);
	return rc;
}

static void depth_is_bounded(void **state)
{
	char text[8192] = "";
	struct pdk_error err;

	for (int depth = 40; depth <= 100; depth += 60) {
		size_t n = 0;

		for (int i = 0; i < depth; i++)
			n += (size_t)sprintf(text + n, "{\"nested\":");
		n += (size_t)sprintf(text + n, "{}");
		for (int i = 0; i < depth; i++)
			n += (size_t)sprintf(text + n, "}");
		assert_int_equal(decode(text, n, 1 << 20, &err), depth == 40 ? 0 : -EINVAL);
	}
	/* A bracket inside of a string is no depth, an escaped quote does not end it. */
	memset(text, '\0', sizeof(text));
	strcpy(text, "{\"aString\":\"\\\"");
	memset(text + strlen(text), '[', 200);
	strcat(text, "\"}");
	assert_int_equal(decode(text, strlen(text), 1 << 20, &err), 0);
}

static void memory_is_bounded(void **state)
{
	size_t length = 300000;
	char *text = malloc(length + 20);
	struct pdk_error err = {};
	size_t n = (size_t)sprintf(text, "{\"leaves\":[{}");

	while (n < length)
		n += (size_t)sprintf(text + n, ",{}");
	n += (size_t)sprintf(text + n, "]}");
	assert_int_equal(decode(text, n, 4 << 20, &err), -ENOMEM);
	assert_int_equal(err.code, PDK_RESOURCE_EXHAUSTED);
	assert_int_equal(decode(text, n, 64 << 20, &err), 0);
	free(text);
}

static void output_is_bounded(void **state)
{
	struct buffer out = BUFFER(100);
	CodecTest__Leaf leaf = CODEC_TEST__LEAF__INIT;
	char name[200];

	memset(name, 'x', sizeof(name));
	name[50] = '\0';
	leaf.name = name;
	assert_int_equal(json_encode(&leaf.base, &out), 0);
	buffer_free(&out);
	name[50] = 'x';
	name[199] = '\0';
	assert_int_equal(json_encode(&leaf.base, &out), -ENOBUFS);
	buffer_free(&out);
}

static void text_is_made_safe(void **state)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{"plain", "\"plain\""},
		{"a\"b\\c", "\"a\\\"b\\\\c\""},
		{"\x01\x1f\n", "\"\\u0001\\u001f\\n\""},
		{"</script>", "\"\\u003c/script\\u003e\""},
		{"\xc3\xa9", "\"\xc3\xa9\""},
		{"a\xff z", "\"a\xef\xbf\xbd z\""},
		{"\xc0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\""},                 /* overlong */
		{"\xed\xa0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""}, /* a surrogate */
		{"\xe2\x82", "\"\xef\xbf\xbd\xef\xbf\xbd\""},                 /* cut */
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct buffer out = BUFFER(1000);

		assert_int_equal(json_put_string(&out, cases[i].in, strlen(cases[i].in)), 0);
		assert_int_equal(buffer_append(&out, "", 1), 0);
		assert_string_equal((const char *)buffer_data(&out), cases[i].out);
		buffer_free(&out);
	}
}

static void a_time_out_of_range_is_refused(void **state)
{
	char text[JSON_TIME_SIZE];

	assert_int_equal(json_time_format(0, 0, text), 0);
	assert_string_equal(text, "1970-01-01T00:00:00Z");
	assert_int_equal(json_time_format(253402300800, 0, text), -EINVAL);
	assert_int_equal(json_time_format(0, 1000000000, text), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(depth_is_bounded),
		cmocka_unit_test(memory_is_bounded),
		cmocka_unit_test(output_is_bounded),
		cmocka_unit_test(text_is_made_safe),
		cmocka_unit_test(a_time_out_of_range_is_refused),
	};

	json_start();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
