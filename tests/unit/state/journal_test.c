#include "fake_loop.h"

#include "faults.h"
#include "server/audit.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* What was acknowledged and not yet stored outlives the process (server/store_journal.h). The process that dies is a child. */

#define BOOT_LENGTH 64 /* of the boot id at the head of the file */

static char *dir;
static char path[256];

static int set_up(void **state)
{
	dir = fake_make_dir();
	snprintf(path, sizeof(path), "%s/store.journal", dir);
	store_keep_journal(dir);
	return 0;
}

static int tear_down(void **state)
{
	fault_data_errno = fault_sync_errno = fault_meta_errno = fault_space_gone = 0;
	fake_remove_dir(dir);
	return 0;
}

static void open_store(void)
{
	struct pdk_error err = {0};

	if (store_open(dir, &err) < 0)
		fail_msg("%s", err.text);
	loop_lock();
}

static void close_store(void)
{
	loop_unlock();
	store_close();
}

static struct store_batch *make(const char *key, const char *value)
{
	struct store_batch *batch = store_batch_create();

	assert_int_equal(store_put(batch, STORE_SANDBOXES, key, strlen(key), value, strlen(value)), 0);
	assert_int_equal(store_audit(batch, &(struct audit_entry){.action = "test.put", .object = key}), 0);
	return batch;
}

static int list_one(const void *key, size_t key_length, const void *value, size_t value_length, void *arg)
{
	char *text = arg;

	snprintf(text + strlen(text), 100, "%.*s=%.*s ", (int)key_length, (const char *)key, (int)value_length,
		 (const char *)value);
	return 0;
}

static void assert_holds(const char *expected)
{
	char text[512] = "";

	assert_int_equal(store_each(STORE_SANDBOXES, NULL, 0, list_one, text), 0);
	assert_string_equal(text, expected);
}

/* A process that has stored `first` and dies when the others are in the journal. */
static void die_after(const char *first, const char *second, const char *third)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		open_store();
		if (commit_wait(make("a", first)) < 0)
			_exit(2);
		fault_sync_errno = EIO; /* it could not commit any more, should it come to that */
		if (!store_commit_kept(make("b", second)) || (third && !store_commit_kept(make("a", third))))
			_exit(3);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void it_is_there_after_a_death_once(void **state)
{
	die_after("1", "2", "3");
	for (int i = 0; i < 3; i++) {
		open_store();
		assert_holds("a=3 b=2 ");
		assert_int_equal(store_audit_count(), 3);
		assert_true(store_audit_trusted());
		close_store();
	}
	die_after("4", "5", NULL);
	open_store();
	assert_holds("a=4 b=5 ");
	assert_int_equal(store_audit_count(), 5);
	close_store();
}

static void it_is_stored_without_a_death(void **state)
{
	open_store();
	for (int i = 0; i < 50; i++) {
		assert_true(store_commit_kept(make("a", i % 2 ? "1" : "2")));
		assert_true(store_commit_kept(make("b", "3")));
		assert_int_equal(commit_wait(make("c", "4")), 0);
	}
	assert_holds("a=1 b=3 c=4 ");
	close_store();
	assert_int_equal(unlink(path), 0);
	open_store();
	assert_holds("a=1 b=3 c=4 ");
	assert_int_equal(store_audit_count(), 150);
	close_store();
}

static void change(off_t at, const void *bytes, size_t length)
{
	int fd = open(path, O_WRONLY);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, length, at), length);
	close(fd);
}

static void a_torn_end_is_left_out(void **state)
{
	struct stat st;

	die_after("1", "2", "3");
	assert_int_equal(stat(path, &st), 0);
	change(st.st_size - 1, "x", 1);
	open_store();
	assert_holds("a=1 b=2 ");
	close_store();
	die_after("1", "4", NULL);
	change(BOOT_LENGTH, "\0\0\0\0", 4); /* not even the first record begins as one */
	open_store();
	assert_holds("a=1 b=2 ");
	assert_true(store_commit_kept(make("a", "5")));
	close_store();
	open_store();
	assert_holds("a=5 b=2 ");
	close_store();
}

static void another_boot_and_another_owner_do_not_count(void **state)
{
	die_after("1", "2", "3");
	change(0, "00000000", 8);
	open_store();
	assert_holds("a=1 ");
	close_store();
	die_after("1", "2", NULL);
	assert_int_equal(chmod(path, 0660), 0);
	open_store();
	assert_holds("a=1 ");
	close_store();
	die_after("1", "2", NULL);
	assert_int_equal(rename(path, "/tmp/paddock-journal-test"), 0);
	assert_int_equal(symlink("/tmp/paddock-journal-test", path), 0);
	open_store();
	assert_holds("a=1 ");
	close_store();
	assert_int_equal(unlink("/tmp/paddock-journal-test"), 0);
}

static void wait_stored(const char *expected)
{
	char text[512] = "";

	for (int i = 0; i < 500 && strcmp(text, expected) != 0; i++) {
		loop_unlock();
		usleep(10000);
		loop_lock();
		text[0] = '\0';
		assert_int_equal(store_each(STORE_SANDBOXES, NULL, 0, list_one, text), 0);
	}
	assert_string_equal(text, expected);
}

static void a_full_disk_does_not_lose_it(void **state)
{
	struct store_batch *refused;

	open_store();
	assert_int_equal(commit_wait(make("a", "1")), 0);
	fault_data_errno = ENOSPC;
	assert_true(store_commit_kept(make("a", "2")));
	assert_int_equal(commit_wait(make("c", "1")), -ENOSPC);
	refused = make("a", "3");
	assert_false(store_commit_kept(refused)); /* whoever asks now hears of it */
	assert_int_equal(commit_wait(refused), -ENOSPC);
	assert_holds("a=1 ");
	fault_data_errno = 0;
	wait_stored("a=2 ");
	assert_int_equal(store_audit_count(), 2);
	assert_true(store_commit_kept(make("a", "4")));
	assert_int_equal(commit_wait(make("c", "2")), 0);
	assert_holds("a=4 c=2 ");
	close_store();
}

static void a_broken_store_leaves_it_to_the_next_start(void **state)
{
	open_store();
	assert_int_equal(commit_wait(make("a", "1")), 0);
	fault_sync_errno = EIO;
	assert_true(store_commit_kept(make("a", "2")));
	assert_int_equal(commit_wait(make("c", "1")), -EIO);
	fault_sync_errno = 0;
	assert_int_equal(commit_wait(make("c", "1")), -EIO);
	close_store();
	open_store();
	assert_holds("a=2 ");
	close_store();
}

static void without_room_or_without_a_journal_it_is_waited_for(void **state)
{
	static char large[2 << 20];
	struct store_batch *batch;

	memset(large, 'x', sizeof(large) - 1);
	open_store();
	batch = make("a", large);
	assert_false(store_commit_kept(batch));
	assert_int_equal(commit_wait(batch), 0);
	assert_true(store_commit_kept(make("a", "1")));
	close_store();
	store_keep_journal(NULL);
	open_store();
	batch = make("a", "2");
	assert_false(store_commit_kept(batch));
	assert_int_equal(commit_wait(batch), 0);
	close_store();
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(it_is_there_after_a_death_once),
		TEST(it_is_stored_without_a_death),
		TEST(a_torn_end_is_left_out),
		TEST(another_boot_and_another_owner_do_not_count),
		TEST(a_full_disk_does_not_lose_it),
		TEST(a_broken_store_leaves_it_to_the_next_start),
		TEST(without_room_or_without_a_journal_it_is_waited_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
