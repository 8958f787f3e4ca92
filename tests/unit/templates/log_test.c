#include "fakes.h"

#include "sandbox/base/cleanup.h"
#include "server/build_log.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The log of a build, in memory and on disk: its bounds, its pages, and what a restart finds. */

#define ID "baaaaaaaaaaaaaaaaaaaa"
#define OTHER "bbbbbbbbbbbbbbbbbbbbb"

static bool only_id(const char *id)
{
	return strcmp(id, ID) == 0;
}

static int setup(void **state)
{
	struct pdk_error err;

	fake_setup(state);
	assert_int_equal(build_log_files_start(only_id, &err), 0);
	return 0;
}

static int teardown(void **state)
{
	fake_work();
	build_log_files_stop();
	return fake_teardown(state);
}

static unsigned int shown;
static size_t shown_n;
static uint64_t shown_total;
static char shown_first[64], shown_last[64];

static void take_page(struct rpc_call *call, const char *id, const struct build_log_page *page)
{
	assert_string_equal(id, ID);
	shown++;
	shown_n = page->n;
	shown_total = page->total;
	snprintf(shown_first, sizeof(shown_first), "%.60s", page->n ? page->entries[0]->message : "");
	snprintf(shown_last, sizeof(shown_last), "%.60s", page->n ? page->entries[page->n - 1]->message : "");
}

static void show(const struct build_log *log, uint64_t offset)
{
	struct rpc_call *call = fake_call();
	unsigned int before = shown;

	build_log_show(call, log, offset, take_page);
	fake_work();
	assert_int_equal(shown, before + 1);
	fake_call_free(call);
}

static void add(struct build_log *log, const char *text)
{
	build_log_add(log, "1", false, text, strlen(text));
}

static struct build_log *ended_with(unsigned int lines)
{
	struct build_log *log = build_log_create(ID, false);
	char text[32];

	for (unsigned int i = 0; i < lines; i++) {
		snprintf(text, sizeof(text), "line %u", i);
		add(log, text);
		if (i % 7 == 0)
			fake_work();
	}
	build_log_end(log);
	return log;
}

static void it_is_the_same_from_memory_and_from_disk(void **state)
{
	struct build_log *log = ended_with(250);

	for (unsigned int i = 0; i < 2; i++) {
		show(log, 0);
		assert_int_equal(shown_n, BUILD_LOG_PAGE);
		assert_int_equal(shown_total, 250);
		assert_string_equal(shown_first, "line 0");
		assert_string_equal(shown_last, "line 99");
		show(log, 200);
		assert_int_equal(shown_n, 50);
		assert_string_equal(shown_last, "line 249");
		show(log, 250);
		assert_int_equal(shown_n, 0);
		fake_work(); /* from now on from the disk */
	}
	add(log, "after its end");
	show(log, 250);
	assert_int_equal(shown_total, 250);
	build_log_free(log, true);
	fake_work();
	assert_int_equal(fake_files_in("build-logs"), 0);
}

static void a_restart_finds_it(void **state)
{
	struct build_log *log = ended_with(10);
	struct build_log_page page;

	fake_work();
	build_log_free(log, false);
	assert_int_equal(build_log_file_read(ID, 3, &page), 0);
	assert_int_equal(page.n, 7);
	assert_string_equal(page.last_step, "1");
	assert_string_equal(page.entries[0]->level, "info");
	build_log_page_clear(&page);
	log = build_log_create(ID, true);
	build_log_add(log, "2", true, "cut", 3);
	build_log_end(log);
	show(log, 0);
	assert_int_equal(shown_total, 11);
	assert_string_equal(shown_last, "cut");
	assert_int_equal(build_log_file_read(ID, 0, &page), 0);
	assert_string_equal(page.last_step, "2");
	assert_string_equal(page.entries[10]->level, "error");
	build_log_page_clear(&page);
	build_log_free(log, true);
}

static void what_is_torn_is_left_out(void **state)
{
	struct build_log *log = ended_with(10);
	struct build_log_page page;
	long size;

	fake_work();
	size = fake_file_size("build-logs", ID);
	for (long left = size; left > 0; left--) {
		fake_truncate("build-logs", ID, left);
		assert_int_equal(build_log_file_read(ID, 0, &page), 0);
		assert_int_equal(page.total, page.n);
		assert_true(left == size ? page.n == 10 : page.n < 10);
		assert_string_equal(page.last_step, page.n ? "1" : "");
		build_log_page_clear(&page);
	}
	build_log_free(log, true);
}

static void it_has_bounds(void **state)
{
	struct build_log *log = build_log_create(ID, false);
	_cleanup_free_ char *large = malloc(BUILD_LOG_MESSAGE_MAX * 2);

	memset(large, 'x', BUILD_LOG_MESSAGE_MAX * 2 - 1);
	large[BUILD_LOG_MESSAGE_MAX * 2 - 1] = '\0';
	for (unsigned int i = 0; i < 2 * BUILD_LOG_ENTRIES_MAX; i++)
		add(log, "x");
	show(log, BUILD_LOG_ENTRIES_MAX - 1);
	assert_int_equal(shown_total, BUILD_LOG_ENTRIES_MAX);
	assert_string_equal(shown_first, "(the log is full: what follows is not kept)");
	build_log_free(log, true);
	fake_work();
	log = build_log_create(ID, false);
	for (unsigned int i = 0; i < 1000; i++)
		add(log, large);
	build_log_end(log);
	fake_work();
	show(log, 0);
	assert_true(shown_total > 200 && shown_total < 300);
	assert_true(fake_file_size("build-logs", ID) < (BUILD_LOG_BYTES_MAX * 5) / 4);
	build_log_free(log, true);
}

static void a_client_that_goes_away_hears_nothing(void **state)
{
	struct build_log *log = ended_with(3);
	struct rpc_call *call = fake_call();
	unsigned int before = shown;

	fake_work();
	build_log_show(call, log, 0, take_page);
	fake_call_cancel(call);
	fake_work();
	assert_int_equal(shown, before);
	assert_true(fake_call_failed(call));
	fake_call_free(call);
	build_log_free(log, true);
}

static void files_of_nobody_are_removed(void **state)
{
	struct pdk_error err;
	struct build_log *log = ended_with(3), *other = build_log_create(OTHER, false);

	add(other, "x");
	fake_work();
	build_log_free(log, false);
	build_log_free(other, false);
	assert_int_equal(fake_files_in("build-logs"), 2);
	build_log_files_stop();
	assert_int_equal(build_log_files_start(only_id, &err), 0);
	assert_int_equal(fake_files_in("build-logs"), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(it_is_the_same_from_memory_and_from_disk),
		TEST(a_restart_finds_it),
		TEST(what_is_torn_is_left_out),
		TEST(it_has_bounds),
		TEST(a_client_that_goes_away_hears_nothing),
		TEST(files_of_nobody_are_removed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
