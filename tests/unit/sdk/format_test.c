#include "test.h"

#include "sandbox/base/cleanup.h"
#include "sdk/cli/format.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void sizes_are_read(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
		int rc;
	} rows[] = {
		{"0", 0, 0},
		{"4096", 4096, 0},
		{"1K", 1024, 0},
		{"512M", 512ull << 20, 0},
		{"1.5G", 3ull << 29, 0},
		{"2GiB", 2ull << 30, 0},
		{"1kb", 1024, 0},
		{"1T", 1ull << 40, 0},
		{"10b", 10, 0},
		{"", 0, -EINVAL},
		{"M", 0, -EINVAL},
		{"-1", 0, -EINVAL},
		{"1X", 0, -EINVAL},
		{"0x10", 0, -EINVAL},
		{"1e999", 0, -EINVAL},
		{"nan", 0, -EINVAL},
		{"99999999P", 0, -ERANGE},
		{"1 M", 0, -EINVAL},
		{"+1", 0, -EINVAL},
		{"1MM", 0, -EINVAL},
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		uint64_t bytes = 7;

		assert_int_equal(parse_size(rows[i].text, &bytes), rows[i].rc);
		assert_int_equal(bytes, rows[i].rc ? 7 : rows[i].bytes);
	}
}

static void durations_are_read(void **state)
{
	static const struct {
		const char *text;
		uint64_t ms;
		int rc;
	} rows[] = {
		{"500ms", 500, 0},    {"30s", 30000, 0},
		{"45", 45000, 0},     {"1h30m", 5400000, 0},
		{"2d", 172800000, 0}, {"0", 0, 0},
		{"1.5s", 1500, 0},    {"1m1s", 61000, 0},
		{"", 0, -EINVAL},     {"s", 0, -EINVAL},
		{"1y", 0, -EINVAL},   {"-5s", 0, -EINVAL},
		{"1h30", 0, -EINVAL}, {"99999999999999999d", 0, -ERANGE},
		{"1 s", 0, -EINVAL},
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		uint64_t ms = 7;

		assert_int_equal(parse_duration(rows[i].text, &ms), rows[i].rc);
		assert_int_equal(ms, rows[i].rc ? 7 : rows[i].ms);
	}
}

static void sizes_and_durations_are_shown(void **state)
{
	char text[FORMAT_SIZE];

	assert_string_equal(format_size(text, 0), "0 B");
	assert_string_equal(format_size(text, 1023), "1023 B");
	assert_string_equal(format_size(text, 1536), "1.5 KiB");
	assert_string_equal(format_size(text, 512ull << 20), "512 MiB");
	assert_string_equal(format_size(text, UINT64_MAX), "16 EiB");
	assert_string_equal(format_duration(text, 999), "999ms");
	assert_string_equal(format_duration(text, 61000), "1m 1s");
	assert_string_equal(format_duration(text, 7200000), "2h");
	assert_string_equal(format_duration(text, 90000000), "1d 1h");
	assert_string_equal(format_age(text, 0), "-");
	assert_string_equal(format_time(text, 0), "-");
	assert_string_equal(format_age(text, now_unix_ms() - 125000), "2m 5s ago");
}

static void hostile_text_cannot_steer_the_terminal(void **state)
{
	static const struct {
		const char *in;
		size_t length;
		const char *out;
	} rows[] = {
		{"plain", 5, "plain"},
		{"\033[2J", 4, "\\x1b[2J"},
		{"a\nb\r\t", 5, "a\\x0ab\\x0d\\x09"},
		{"nul\0x", 5, "nul\\x00x"},
		{"\x7f", 1, "\\x7f"},
		{"caf\xc3\xa9", 5, "caf\xc3\xa9"},
		{"\xc2\x9b", 2, "\\xc2\\x9b"},          /* C1: CSI in one character */
		{"\xe2\x80\xae", 3, "\\xe2\\x80\\xae"}, /* right-to-left override */
		{"\xe2\x81\xa6", 3, "\\xe2\\x81\\xa6"}, /* isolate */
		{"\xff\xfe", 2, "\\xff\\xfe"},
		{"\xc0\xaf", 2, "\\xc0\\xaf"}, /* overlong */
		{"\xe0\x80\xaf", 3, "\\xe0\\x80\\xaf"},
		{"\xed\xa0\x80", 3, "\\xed\\xa0\\x80"},          /* surrogate */
		{"\xf4\x90\x80\x80", 4, "\\xf4\\x90\\x80\\x80"}, /* beyond Unicode */
		{"cut\xe2\x82", 5, "cut\\xe2\\x82"},
		{"\xf0\x9f\x90\xb4", 4, "\xf0\x9f\x90\xb4"},
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		char *safe = text_safe(rows[i].in, rows[i].length);

		assert_string_equal(safe, rows[i].out);
		free(safe);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_are_read),
		cmocka_unit_test(durations_are_read),
		cmocka_unit_test(sizes_and_durations_are_shown),
		cmocka_unit_test(hostile_text_cannot_steer_the_terminal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
