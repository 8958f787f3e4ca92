#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sandbox/base/cleanup.h"
#include "server/config.h"

static int parse(struct config *config, const char *text, struct pdk_error *err)
{
	config_defaults(config);
	return config_parse(config, "test", text, strlen(text), err);
}

static void defaults_are_valid(void **state)
{
	struct config config;
	struct pdk_error err = {};

	config_defaults(&config);
	assert_int_equal(config_check(&config, &err), 0);
	assert_string_equal(config.listen, "127.0.0.1:7411");
	assert_int_equal(config.default_memory_bytes, 512u << 20);
	assert_int_equal(config.retention_ms, 3600000);
	assert_int_equal(config.shutdown_grace_ms, 5000);
	assert_true(config.memory_overcommit == 4.0);
	assert_true(config.sudo);
}

static void values_are_parsed(void **state)
{
	struct config config;
	struct pdk_error err = {};

	assert_int_equal(parse(&config,
			       "# a comment\n\n  data_dir=/srv/p \r\n\tlisten =\nreflection = true\n"
			       "default_memory_bytes = 3G\ndefault_max_inodes = 5000\nretention_ms = 2d\n"
			       "shutdown_grace_ms = 1500\nmemory_overcommit = 1.5\npool_size = 0",
			       &err),
			 0);
	assert_string_equal(config.data_dir, "/srv/p");
	assert_string_equal(config.listen, "");
	assert_true(config.reflection);
	assert_true(config.default_memory_bytes == (uint64_t)3 << 30);
	assert_int_equal(config.default_max_inodes, 5000);
	assert_true(config.retention_ms == (uint64_t)2 * 86400000);
	assert_int_equal(config.shutdown_grace_ms, 1500);
	assert_true(config.memory_overcommit == 1.5);
	assert_int_equal(config.pool_size, 0);
}

static void mistakes_name_their_line(void **state)
{
	static const struct {
		const char *text, *error;
	} cases[] = {
		{"x", "test:1: not of the form name = value"},
		{"\n\nnonsense = 1", "test:3: unknown name \"nonsense\""},
		{"sudo = true\nsudo = true", "test:2: sudo: is set a second time"},
		{"sudo = yes", "test:1: sudo: must be true or false"},
		{"pool_size = -1", "test:1: pool_size: must be a number"},
		{"pool_size = 4K", "test:1: pool_size: must be a number"},
		{"pool_size = 1001", "test:1: pool_size: must be 0 to 1000"},
		{"pool_size =", "test:1: pool_size: must be a number"},
		{"pool_size = 99999999999999999999", "test:1: pool_size: must be 0 to 1000"},
		{"default_memory_bytes = 12 M", "test:1: default_memory_bytes: must be a size (like 512M)"},
		{"default_memory_bytes = 99999999999T",
		 "test:1: default_memory_bytes: must be 16777216 to 4398046511104"},
		{"retention_ms = 5w", "test:1: retention_ms: must be a duration (like 90s)"},
		{"memory_overcommit = nan", "test:1: memory_overcommit: must be a factor (like 1.5)"},
		{"memory_overcommit = 0x2", "test:1: memory_overcommit: must be a factor (like 1.5)"},
		{"memory_overcommit = 2 3", "test:1: memory_overcommit: must be a factor (like 1.5)"},
		{"data_dir = /a\x01", "test:1: data_dir: must be a shorter text without control characters"},
		{"sudo = true\nlog_level = loud", "test:2: log_level: must be error, warn, info or debug"},
		{" = 3", "test:1: unknown name \"\""},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct config config;
		struct pdk_error err = {};

		assert_true(parse(&config, cases[i].text, &err) < 0);
		assert_int_equal(err.code, PDK_INVALID_ARGUMENT);
		assert_string_equal(err.text, cases[i].error);
	}
}

static void long_text_and_nul(void **state)
{
	struct config config;
	struct pdk_error err = {};
	char text[400];

	snprintf(text, sizeof(text), "data_dir = /%0300d", 0);
	assert_true(parse(&config, text, &err) < 0);
	assert_true(config_parse(&config, "test", "sudo = true\0\n", 13, &err) < 0);
	assert_string_equal(err.text, "test: has a NUL byte");
}

static void values_must_fit_together(void **state)
{
	static const char *const wrong[] = {
		"listen = 0.0.0.0:7411",
		"listen = 192.168.0.1:1",
		"listen = nothing",
		"listen = 127.0.0.1:65536",
		"listen = 127.0.0.1:",
		"metrics_listen = 0.0.0.0:7412",
		"tls_certificate = /c",
		"tls_key = /k",
		"preview_url = localhost",
		"preview_url = http://",
		"preview_url = http://A",
		"preview_url = http://a/",
		"preview_url = http://a:",
		"preview_url = http://a:123456",
		"preview_url = http://.a",
		"preview_url = ftp://a",
		"tls_client_ca = /a",
		"runtime_dir = run",
		"runtime_dir = /run/%41",
		"data_dir =",
		"default_template =",
		"user =",
		"listen = 127.0.0.1.evil.example:80",
	};
	static const char *const right[] = {
		"listen = 0.0.0.0:7411\ntls_certificate = /c\ntls_key = /k",
		"listen = [::1]:7411",
		"listen = localhost:0",
		"metrics_listen =",
	};
	struct config config;
	struct pdk_error err = {};

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		assert_int_equal(parse(&config, wrong[i], &err), 0);
		if (config_check(&config, &err) >= 0)
			fail_msg("accepted: %s", wrong[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(right); i++) {
		assert_int_equal(parse(&config, right[i], &err), 0);
		assert_int_equal(config_check(&config, &err), 0);
	}
}

static void file_that_everybody_can_write(void **state)
{
	char path[] = "/tmp/paddock-config.XXXXXX";
	struct config config;
	struct pdk_error err = {};
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, "sudo = false\n", 13), 13);
	close(fd);
	config_defaults(&config);
	assert_int_equal(config_load(&config, path, &err), 0);
	assert_false(config.sudo);
	assert_int_equal(chmod(path, 0646), 0);
	assert_true(config_load(&config, path, &err) < 0);
	assert_non_null(strstr(err.text, "everybody can write it"));
	unlink(path);
	assert_true(config_load(&config, path, &err) < 0);
	assert_int_equal(err.code, PDK_NOT_FOUND);
	assert_true(config_load(&config, "/tmp", &err) < 0);
	assert_true(config_load(&config, "/dev/zero", &err) < 0);
}

/* What is printed is what was parsed. */
static void print_and_parse_again(void **state)
{
	char path[] = "/tmp/paddock-config.XXXXXX";
	int fd = mkstemp(path), saved = dup(STDOUT_FILENO);
	struct config config, again;
	struct pdk_error err = {};

	assert_int_equal(parse(&config,
			       "retention_ms = 90s\nlisten =\nmemory_overcommit = 1.1\noutput_head_bytes = 300000",
			       &err),
			 0);
	fflush(stdout);
	dup2(fd, STDOUT_FILENO);
	config_print(&config);
	fflush(stdout);
	dup2(saved, STDOUT_FILENO);
	close(saved);
	close(fd);
	config_defaults(&again);
	assert_int_equal(config_load(&again, path, &err), 0);
	assert_memory_equal(&config, &again, sizeof(config));
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_are_valid),       cmocka_unit_test(values_are_parsed),
		cmocka_unit_test(mistakes_name_their_line), cmocka_unit_test(long_text_and_nul),
		cmocka_unit_test(values_must_fit_together), cmocka_unit_test(file_that_everybody_can_write),
		cmocka_unit_test(print_and_parse_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
