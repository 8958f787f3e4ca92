#include "fake_loop.h"

#include "faults.h"
#include "server/audit.h"
#include <errno.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *dir;

static int open_store(void **state)
{
	struct pdk_error err;

	dir = fake_make_dir();
	assert_int_equal(store_open(dir, &err), 0);
	loop_lock();
	return 0;
}

static int close_store(void **state)
{
	fault_data_errno = fault_sync_errno = fault_meta_errno = fault_space_gone = 0;
	loop_unlock();
	store_close();
	fake_remove_dir(dir);
	return 0;
}

static void reopen(void)
{
	struct pdk_error err;

	loop_unlock();
	store_close();
	assert_int_equal(store_open(dir, &err), 0);
	loop_lock();
}

static int put(const char *key, const char *value)
{
	struct store_batch *batch = store_batch_create();

	assert_int_equal(store_put(batch, STORE_SANDBOXES, key, strlen(key), value, strlen(value)), 0);
	store_audit(batch, &(struct audit_entry){.action = "test.put", .object = key});
	return commit_wait(batch);
}

struct listing {
	char text[512];
	int limit;
};

static int list_one(const void *key, size_t key_length, const void *value, size_t value_length, void *arg)
{
	struct listing *listing = arg;
	size_t used = strlen(listing->text);

	snprintf(listing->text + used, sizeof(listing->text) - used, "%.*s=%.*s ", (int)key_length, (const char *)key,
		 (int)value_length, (const char *)value);
	return --listing->limit == 0;
}

static void assert_holds(const char *from, int limit, const char *expected)
{
	struct listing listing = {.limit = limit};

	assert_int_equal(store_each(STORE_SANDBOXES, from, from ? strlen(from) : 0, list_one, &listing), 0);
	assert_string_equal(listing.text, expected);
}

static void test_put_delete_each(void **state)
{
	struct store_batch *batch = store_batch_create();

	assert_int_equal(put("b", "2"), 0);
	assert_int_equal(put("a", "1"), 0);
	assert_int_equal(put("c", "3"), 0);
	assert_holds(NULL, 0, "a=1 b=2 c=3 ");
	assert_holds("b", 0, "b=2 c=3 ");
	assert_holds("aa", 1, "b=2 ");
	store_delete(batch, STORE_SANDBOXES, "b", 1);
	store_delete(batch, STORE_SANDBOXES, "not there", 9);
	store_put(batch, STORE_SANDBOXES, "a", 1, "9", 1);
	assert_int_equal(commit_wait(batch), 0);
	assert_holds(NULL, 0, "a=9 c=3 ");
	reopen();
	assert_holds(NULL, 0, "a=9 c=3 ");
	assert_int_equal(store_audit_count(), 3);
}

static int order[100], order_count;

static void note_order(int rc, void *arg)
{
	assert_int_equal(rc, 0);
	order[order_count++] = (int)(intptr_t)arg;
}

static void test_order_of_callbacks(void **state)
{
	for (int i = 0; i < 99; i++) {
		struct store_batch *batch = store_batch_create();

		store_put(batch, STORE_META, "x", 1, &i, sizeof(i));
		store_commit(batch, note_order, (void *)(intptr_t)i);
	}
	order_count = 0;
	assert_int_equal(commit_wait(store_batch_create()), 0); /* an empty batch waits for its turn */
	assert_int_equal(order_count, 99);
	for (int i = 0; i < 99; i++)
		assert_int_equal(order[i], i);
}

/* Alone it is committed all the same; what is urgent takes it along, and it keeps its place. */
static void test_commit_later(void **state)
{
	struct store_batch *batch = store_batch_create();

	order_count = 0;
	store_put(batch, STORE_SANDBOXES, "a", 1, "1", 1);
	store_commit_later(batch, note_order, (void *)1);
	for (int i = 0; i < 2000 && !order_count; i++) {
		loop_unlock();
		usleep(1000);
		loop_lock();
	}
	assert_int_equal(order_count, 1);
	batch = store_batch_create();
	store_put(batch, STORE_SANDBOXES, "a", 1, "2", 1);
	store_commit_later(batch, note_order, (void *)2);
	assert_int_equal(put("a", "3"), 0);
	assert_int_equal(order_count, 2);
	assert_holds(NULL, 0, "a=3 ");
}

static void test_bad_operations(void **state)
{
	struct store_batch *batch = store_batch_create();
	char key[600] = "";

	memset(key, 'k', sizeof(key));
	assert_int_equal(store_put(batch, STORE_AUDIT, "k", 1, "v", 1), -EINVAL);
	assert_int_equal(store_delete(batch, STORE_AUDIT, "k", 1), -EINVAL);
	assert_int_equal(store_put(NULL, STORE_META, "k", 1, "v", 1), -ENOMEM);
	assert_int_equal(store_put(batch, STORE_SANDBOXES, "k", 1, "v", 1), 0);
	assert_int_equal(store_put(batch, STORE_SANDBOXES, key, 512, "v", 1), -EINVAL);
	/* an operation that was lost fails all of its batch, and only it */
	store_commit(batch, NULL, NULL);
	assert_int_equal(put("good", "1"), 0);
	assert_holds(NULL, 0, "good=1 ");
	batch = store_batch_create();
	assert_int_equal(store_put(batch, STORE_SANDBOXES, key, 511, "v", 1), 0);
	assert_int_equal(store_put(batch, STORE_SANDBOXES, "", 0, "v", 1), -EINVAL);
	assert_int_equal(commit_wait(batch), -EINVAL);
}

static void test_map_grows(void **state)
{
	size_t length = 1 << 20;
	char *value = calloc(1, length);

	for (int i = 0; i < 24; i += 3) {
		struct store_batch *batch = store_batch_create();

		for (int j = i; j < i + 3; j++) {
			memset(value, 'a' + j, length);
			assert_int_equal(store_put(batch, STORE_PROCESSES, &j, sizeof(j), value, length), 0);
		}
		assert_int_equal(commit_wait(batch), 0);
	}
	free(value);
	assert_int_equal(put("after", "1"), 0);
	reopen();
	assert_holds(NULL, 0, "after=1 ");
}

static void test_disk_full_passes(void **state)
{
	assert_int_equal(put("a", "1"), 0);
	fault_data_errno = ENOSPC;
	assert_int_equal(put("b", "2"), -ENOSPC);
	fault_data_errno = EIO; /* what LMDB makes of a short write */
	fault_space_gone = 1;
	assert_int_equal(put("c", "3"), -ENOSPC);
	fault_data_errno = fault_space_gone = 0;
	assert_int_equal(put("d", "4"), 0);
	assert_holds(NULL, 0, "a=1 d=4 ");
	assert_int_equal(store_audit_count(), 2);
	reopen();
	assert_holds(NULL, 0, "a=1 d=4 ");
}

static void test_failed_sync_is_the_end(void **state)
{
	assert_int_equal(put("a", "1"), 0);
	fault_sync_errno = EIO;
	assert_int_equal(put("b", "2"), -EIO);
	fault_sync_errno = 0;
	assert_int_equal(put("c", "3"), -EIO); /* although it would work now */
	assert_holds(NULL, 0, "a=1 ");
	reopen();
	assert_int_equal(put("d", "4"), 0);
	assert_holds(NULL, 0, "a=1 d=4 ");
}

static void test_failed_meta_page_is_the_end(void **state)
{
	assert_int_equal(put("a", "1"), 0);
	fault_meta_errno = EIO;
	assert_int_equal(put("b", "2"), -EIO);
	fault_meta_errno = 0;
	assert_int_equal(put("c", "3"), -EIO);
	reopen();
	assert_int_equal(put("d", "4"), 0);
}

static void note_failure(int rc, void *arg)
{
	assert_int_equal(rc, -ENOSPC);
	order_count++;
}

static void test_every_batch_of_a_failed_group_fails(void **state)
{
	order_count = 0;
	fault_data_errno = ENOSPC;
	for (int i = 0; i < 20; i++) {
		struct store_batch *batch = store_batch_create();

		store_put(batch, STORE_SANDBOXES, &i, sizeof(i), "1", 1);
		store_commit(batch, note_failure, NULL);
	}
	assert_int_equal(put("last", "1"), -ENOSPC);
	assert_int_equal(order_count, 20);
	fault_data_errno = 0;
	assert_int_equal(put("y", "1"), 0);
	assert_holds(NULL, 0, "y=1 ");
	assert_int_equal(store_audit_count(), 1);
}

static void assert_refused(enum pdk_code code)
{
	struct pdk_error err;

	assert_true(store_open(dir, &err) < 0);
	assert_int_equal(err.code, code);
	assert_null(strstr(err.text, dir));
}

static void in_dir(char path[256], const char *name)
{
	snprintf(path, 256, "%s/%s", dir, name);
}

static void write_schema(const char *schema)
{
	char path[256];
	MDB_env *env;
	MDB_txn *txn;
	MDB_dbi dbi;

	in_dir(path, "store");
	assert_int_equal(mdb_env_create(&env), 0);
	mdb_env_set_maxdbs(env, 8);
	assert_int_equal(mdb_env_open(env, path, 0, 0600), 0);
	assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
	assert_int_equal(mdb_dbi_open(txn, "meta", 0, &dbi), 0);
	assert_int_equal(
		mdb_put(txn, dbi, &(MDB_val){6, (void *)"schema"}, &(MDB_val){strlen(schema), (void *)schema}, 0), 0);
	assert_int_equal(mdb_txn_commit(txn), 0);
	mdb_env_close(env);
}

static void test_refusals(void **state)
{
	char path[256];
	struct pdk_error err;
	struct stat st;

	in_dir(path, "store");
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	loop_unlock();
	store_close();

	assert_int_equal(chmod(path, 0770), 0);
	assert_refused(PDK_FAILED_PRECONDITION);
	assert_int_equal(chmod(path, 0700), 0);
	in_dir(path, "store/data.mdb");
	assert_int_equal(chmod(path, 0666), 0);
	assert_refused(PDK_FAILED_PRECONDITION);
	assert_int_equal(chmod(path, 0600), 0);
	write_schema("2");
	assert_refused(PDK_FAILED_PRECONDITION);
	write_schema("x");
	assert_refused(PDK_DATA_LOSS);
	write_schema("1");
	assert_int_equal(store_open(dir, &err), 0);
	loop_lock();
}

static void test_only_one(void **state)
{
	char command[512];

	/* flock belongs to the open file, so another open of ours is as good as another process */
	snprintf(command, sizeof(command), "flock -n %s/store.lock true", dir);
	assert_int_not_equal(system(command), 0);
}

static void test_half_made_store(void **state)
{
	char path[256];
	FILE *file;

	loop_unlock();
	store_close();
	fake_remove_dir(dir);
	dir = fake_make_dir();
	in_dir(path, "store.new");
	assert_int_equal(mkdir(path, 0700), 0);
	in_dir(path, "store.new/data.mdb");
	file = fopen(path, "w");
	assert_non_null(file);
	fputs("torn", file);
	fclose(file);
	assert_int_equal(store_open(dir, &(struct pdk_error){0}), 0);
	loop_lock();
	assert_int_equal(put("a", "1"), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_store, close_store)
	const struct CMUnitTest tests[] = {
		TEST(test_put_delete_each),
		TEST(test_order_of_callbacks),
		TEST(test_commit_later),
		TEST(test_bad_operations),
		TEST(test_map_grows),
		TEST(test_disk_full_passes),
		TEST(test_failed_sync_is_the_end),
		TEST(test_failed_meta_page_is_the_end),
		TEST(test_every_batch_of_a_failed_group_fails),
		TEST(test_refusals),
		TEST(test_only_one),
		TEST(test_half_made_store),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
