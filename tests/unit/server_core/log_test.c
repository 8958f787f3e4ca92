#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/log.h"

/* What one log_event() wrote, without the time. */
static char line[8192];
static int fd, saved;

static const char *last_line(void)
{
	ssize_t n = pread(fd, line, sizeof(line) - 1, 0);

	assert_true(n >= 0);
	line[n] = '\0';
	assert_int_equal(ftruncate(fd, 0), 0);
	lseek(fd, 0, SEEK_SET);
	if (!n)
		return "";
	assert_true(n > 40);
	assert_memory_equal(line, "{\"time\":\"20", 11);
	return strstr(line, "\"level\"");
}

static void strings_are_escaped(void **state)
{
	log_event(LOG_INFO, "an.event", "text", "a\"b\\c\n\t\x01\x7f", "utf8", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80",
		  NULL);
	assert_string_equal(last_line(),
			    "\"level\":\"info\",\"event\":\"an.event\",\"text\":\"a\\\"b\\\\c\\u000a\\u0009\\u0001"
			    "\\u007f\",\"utf8\":\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\"}\n");
	/* A lone byte, an overlong form, a surrogate, a sequence cut by the end. */
	log_event(LOG_ERROR, "e", "bad",
		  "\xff"
		  "a\xc0\xaf\xed\xa0\x80"
		  "b\xe2\x82",
		  NULL);
	assert_string_equal(last_line(),
			    "\"level\":\"error\",\"event\":\"e\",\"bad\":\"\\ufffda\\ufffd\\ufffd\\ufffd\\ufffd"
			    "\\ufffdb\\ufffd\\ufffd\"}\n");
}

static void null_values_are_left_out(void **state)
{
	log_event(LOG_WARN, "e", "one", NULL, "two", log_i64(-5), "three", log_u64(UINT64_MAX), NULL);
	assert_string_equal(last_line(),
			    "\"level\":\"warn\",\"event\":\"e\",\"two\":\"-5\",\"three\":\"18446744073709551615\"}\n");
}

static void lines_are_bounded_and_whole(void **state)
{
	char *large = malloc(100001);
	size_t length;

	memset(large, '\n', 100000);
	large[100000] = '\0';
	log_event(LOG_INFO, "e", "a", large, "b", large, "c", large, "d", large, "e", large, "f", large, NULL);
	last_line();
	length = strlen(line);
	assert_true(length <= 4096);
	assert_string_equal(line + length - 3, "\"}\n");
	assert_ptr_equal(strchr(line, '\n'), line + length - 1);
	free(large);
}

static void level_decides(void **state)
{
	log_event(LOG_DEBUG, "e", NULL);
	assert_string_equal(last_line(), "");
	log_set_level(LOG_DEBUG);
	log_event(LOG_DEBUG, "e", NULL);
	assert_string_equal(last_line(), "\"level\":\"debug\",\"event\":\"e\"}\n");
	assert_int_equal(log_level_parse("warn"), LOG_WARN);
	assert_true(log_level_parse("WARN") < 0);
}

static int setup(void **state)
{
	char path[] = "/tmp/paddock-log.XXXXXX";

	saved = dup(STDERR_FILENO);
	fd = mkstemp(path);
	unlink(path);
	return dup2(fd, STDERR_FILENO) < 0;
}

static int teardown(void **state)
{
	dup2(saved, STDERR_FILENO);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(strings_are_escaped),
		cmocka_unit_test(null_values_are_left_out),
		cmocka_unit_test(lines_are_bounded_and_whole),
		cmocka_unit_test(level_decides),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
