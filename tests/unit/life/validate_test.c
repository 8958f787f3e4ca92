#include "fixture.h"

#include "server/validate.h"
#include <stdlib.h>
#include <string.h>

static void utf8_is_strict(void **state)
{
	static const struct {
		const char *text;
		bool valid;
	} rows[] = {
		{"", true},
		{"plain", true},
		{"\xc3\xa4", true},
		{"\xe2\x82\xac", true},
		{"\xf0\x9f\x98\x80", true},
		{"\xf4\x8f\xbf\xbf", true},
		{"\x80", false},
		{"\xc0\xaf", false},
		{"\xc1\xbf", false},
		{"\xe0\x80\xaf", false},
		{"\xed\xa0\x80", false},
		{"\xf0\x80\x80\xaf", false},
		{"\xf4\x90\x80\x80", false},
		{"\xf5\x80\x80\x80", false},
		{"\xe2\x82", false},
		{"\xc3", false},
		{"a\xff", false},
		{"\xe2\x28\xa1", false},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		assert_int_equal(utf8_valid(rows[i].text, strlen(rows[i].text)), rows[i].valid);
}

static void hostnames_are_labels(void **state)
{
	char long_name[65];
	struct pdk_error err;

	memset(long_name, 'a', 64);
	long_name[64] = '\0';
	assert_true(validate_hostname("hostname", long_name, &err) < 0);
	long_name[63] = '\0';
	assert_int_equal(validate_hostname("hostname", long_name, &err), 0);
	assert_int_equal(validate_hostname("hostname", "", &err), 0);
	assert_int_equal(validate_hostname("hostname", "A-1", &err), 0);
	assert_true(validate_hostname("hostname", "-a", &err) < 0);
	assert_true(validate_hostname("hostname", "a-", &err) < 0);
	assert_true(validate_hostname("hostname", "a.b", &err) < 0);
	assert_true(validate_hostname("hostname", "a b", &err) < 0);
	assert_int_equal(strncmp(err.text, "hostname:", 9), 0);
	assert_int_equal(err.code, PDK_INVALID_ARGUMENT);
}

static int check_path(const void *data, size_t length)
{
	ProtobufCBinaryData path = {.data = (uint8_t *)data, .len = length};

	return validate_path("path", &path, NULL);
}

static void paths_have_limits(void **state)
{
	char *path = malloc(5000);

	memset(path, 'a', 5000);
	assert_true(check_path(path, 0) < 0);
	assert_int_equal(check_path(path, 255), 0);
	assert_true(check_path(path, 256) < 0);
	for (size_t i = 200; i < 5000; i += 200)
		path[i] = '/';
	assert_int_equal(check_path(path, 4095), 0);
	assert_true(check_path(path, 4096) < 0);
	path[10] = '\0';
	assert_true(check_path(path, 20) < 0);
	free(path);
	assert_int_equal(check_path("\xff\xfe", 2), 0);
	assert_true(validate_path_text("cwd", "relative", true, NULL) < 0);
	assert_int_equal(validate_path_text("cwd", "", true, NULL), 0);
	assert_int_equal(validate_path_text("cwd", "/a//b/../c", true, NULL), 0);
}

static void maps_have_limits(void **state)
{
	struct validate_entry pair = {.key = (char *)"k", .value = (char *)"v"}, second = pair;
	const struct validate_entry *entries[] = {&pair, &second};

	assert_int_equal(validate_map("m", entries, 2, 2, 1, 1, NULL), 0);
	assert_true(validate_map("m", entries, 2, 1, 1, 1, NULL) < 0);
	assert_true(validate_entry_repeated(entries, 2, 0));
	assert_false(validate_entry_repeated(entries, 2, 1));
	pair.key = (char *)"";
	assert_true(validate_map("m", entries, 2, 2, 9, 9, NULL) < 0);
	pair.key = (char *)"long";
	assert_true(validate_map("m", entries, 2, 2, 3, 9, NULL) < 0);
	pair.key = (char *)"a\n";
	assert_true(validate_map("m", entries, 2, 2, 3, 9, NULL) < 0);
	pair.key = (char *)"k";
	pair.value = (char *)"\xff";
	assert_true(validate_map("m", entries, 2, 2, 3, 9, NULL) < 0);
	pair.value = (char *)"";
	assert_int_equal(validate_env("env", entries, 2, NULL), 0);
	pair.key = (char *)"A=B";
	assert_true(validate_env("env", entries, 2, NULL) < 0);
	pair.key = (char *)"_x9";
	assert_int_equal(validate_env("env", entries, 2, NULL), 0);
}

static void command_lines_have_limits(void **state)
{
	char *argv[2] = {(char *)"ls", NULL};
	char *large = malloc(140000);
	char *many[9];

	memset(large, 'x', 140000);
	assert_true(validate_argv("argv", argv, 0, NULL) < 0);
	assert_int_equal(validate_argv("argv", argv, 1, NULL), 0);
	argv[1] = large;
	large[131071] = '\0';
	assert_int_equal(validate_argv("argv", argv, 2, NULL), 0);
	for (unsigned int i = 0; i < 9; i++)
		many[i] = large;
	assert_true(validate_argv("argv", many, 9, NULL) < 0);
	large[131071] = 'x';
	large[131072] = '\0';
	assert_true(validate_argv("argv", argv, 2, NULL) < 0);
	argv[0] = (char *)"";
	assert_true(validate_argv("argv", argv, 1, NULL) < 0);
	free(large);
}

static void template_names_match(void **state)
{
	assert_int_equal(validate_template_name("name", "base-1.0_x", NULL), 0);
	assert_int_equal(validate_template_name("name", "0", NULL), 0);
	assert_true(validate_template_name("name", "", NULL) < 0);
	assert_true(validate_template_name("name", ".hidden", NULL) < 0);
	assert_true(validate_template_name("name", "a/b", NULL) < 0);
	assert_true(validate_template_name("name", "Base", NULL) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(utf8_is_strict),
		cmocka_unit_test(hostnames_are_labels),
		cmocka_unit_test(paths_have_limits),
		cmocka_unit_test(maps_have_limits),
		cmocka_unit_test(command_lines_have_limits),
		cmocka_unit_test(template_names_match),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
