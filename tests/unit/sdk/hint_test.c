#include "test.h"

#include "sdk/cli/hint.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *hint(enum pdk_code code, const char *text)
{
	static char buffer[HINT_SIZE];
	struct pdk_error err = {.code = code};

	snprintf(err.text, sizeof(err.text), "%s", text);
	return error_hint(&err, buffer);
}

static void names_the_option_of_a_field(void **state)
{
	assert_string_equal(hint(PDK_INVALID_ARGUMENT, "resources.memory_bytes: must be 16777216 to 4294967296"),
			    "--memory takes 16 MiB to 4 GiB");
	assert_string_equal(hint(PDK_INVALID_ARGUMENT, "resources.cpu_millis: must be 10 to 2000"),
			    "--cpu takes 0.01 to 2");
	assert_string_equal(hint(PDK_INVALID_ARGUMENT, "resources.max_pids: must be 1 to 512"),
			    "--pids takes 1 to 512");
	assert_null(hint(PDK_INVALID_ARGUMENT, "cwd: /nope does not exist"));
	assert_null(hint(PDK_INVALID_ARGUMENT, "unknown.field: must be 1 to 2"));
}

static void a_full_disk_is_not_a_full_server(void **state)
{
	assert_null(hint(PDK_RESOURCE_EXHAUSTED, "cannot write the output: No space left on device"));
	assert_null(hint(PDK_RESOURCE_EXHAUSTED, "/home/user/x: Disk quota exceeded"));
	assert_non_null(strstr(hint(PDK_RESOURCE_EXHAUSTED, "memory is exhausted"), "makes room"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_the_option_of_a_field),
		cmocka_unit_test(a_full_disk_is_not_a_full_server),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
