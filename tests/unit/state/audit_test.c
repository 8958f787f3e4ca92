#include "fake_loop.h"

#include "paddock/v1/admin.pb-c.h"
#include "server/audit.h"
#include <errno.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What Verify must see: each test changes the log behind the store's back and names the first bad record. */

static char *dir;
static const atomic_bool go_on;

static void append(const char *object)
{
	struct store_batch *batch = store_batch_create();

	assert_int_equal(store_audit(batch, &(struct audit_entry){.tenant = "default",
								  .actor = "operator",
								  .action = "test.event",
								  .object = object,
								  .outcome = "OK",
								  .detail = "{\"n\":1}"}),
			 0);
	assert_int_equal(commit_wait(batch), 0);
}

static int open_with_ten(void **state)
{
	char object[16];

	dir = fake_make_dir();
	assert_int_equal(store_open(dir, &(struct pdk_error){0}), 0);
	loop_lock();
	for (int i = 1; i <= 10; i++) {
		snprintf(object, sizeof(object), "record %d", i);
		append(object);
	}
	return 0;
}

static void close_store(void)
{
	loop_unlock();
	store_close();
}

static void open_store(void)
{
	assert_int_equal(store_open(dir, &(struct pdk_error){0}), 0);
	loop_lock();
}

static int close_and_remove(void **state)
{
	close_store();
	fake_remove_dir(dir);
	return 0;
}

static void assert_whole(uint64_t records)
{
	struct audit_report report;

	assert_int_equal(audit_check(&report, &go_on), 0);
	assert_string_equal(report.ok ? "ok" : report.text, "ok");
	assert_int_equal(report.records, records);
	assert_int_equal(report.first_bad_sequence, 0);
	assert_int_equal(report.head.count, records);
}

static void assert_bad(uint64_t first_bad)
{
	struct audit_report report;

	assert_int_equal(audit_check(&report, &go_on), 0);
	assert_false(report.ok);
	assert_int_equal(report.first_bad_sequence, first_bad);
	assert_true(report.text[0] != '\0');
}

static void test_whole(void **state)
{
	assert_whole(10);
	close_store();
	open_store();
	assert_whole(10);
	append("after");
	assert_whole(11);
}

/* ---- behind the store's back ---- */

static MDB_txn *begin(MDB_env **env, MDB_dbi *dbi)
{
	char path[256];
	MDB_txn *txn;

	close_store();
	snprintf(path, sizeof(path), "%s/store", dir);
	assert_int_equal(mdb_env_create(env), 0);
	mdb_env_set_maxdbs(*env, 8);
	assert_int_equal(mdb_env_open(*env, path, 0, 0600), 0);
	assert_int_equal(mdb_txn_begin(*env, NULL, 0, &txn), 0);
	assert_int_equal(mdb_dbi_open(txn, "audit", 0, dbi), 0);
	return txn;
}

static void end(MDB_env *env, MDB_txn *txn)
{
	assert_int_equal(mdb_txn_commit(txn), 0);
	mdb_env_close(env);
	open_store();
}

static size_t get(MDB_txn *txn, MDB_dbi dbi, uint64_t sequence, uint8_t value[1024])
{
	uint8_t key[8];
	MDB_val found;

	audit_key(sequence, key);
	assert_int_equal(mdb_get(txn, dbi, &(MDB_val){8, key}, &found), 0);
	memcpy(value, found.mv_data, found.mv_size);
	return found.mv_size;
}

static void set(MDB_txn *txn, MDB_dbi dbi, uint64_t sequence, uint8_t *value, size_t length)
{
	uint8_t key[8];

	audit_key(sequence, key);
	if (value)
		assert_int_equal(mdb_put(txn, dbi, &(MDB_val){8, key}, &(MDB_val){length, value}, 0), 0);
	else
		assert_int_equal(mdb_del(txn, dbi, &(MDB_val){8, key}, NULL), 0);
}

static void test_flipped_bytes(void **state)
{
	static const size_t places[] = {0, 31, 32, 63, 70, 90}; /* hash, previous hash, record */

	for (unsigned int i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		uint8_t value[1024];
		MDB_env *env;
		MDB_dbi dbi;
		MDB_txn *txn = begin(&env, &dbi);
		size_t length = get(txn, dbi, 4, value);

		value[places[i]] ^= 1;
		set(txn, dbi, 4, value, length);
		end(env, txn);
		assert_bad(4);
		txn = begin(&env, &dbi);
		value[places[i]] ^= 1;
		set(txn, dbi, 4, value, length);
		end(env, txn);
		assert_whole(10);
	}
}

static void test_missing_in_the_middle(void **state)
{
	MDB_env *env;
	MDB_dbi dbi;
	MDB_txn *txn = begin(&env, &dbi);

	set(txn, dbi, 5, NULL, 0);
	end(env, txn);
	assert_bad(5);
}

static void test_swapped(void **state)
{
	uint8_t three[1024], seven[1024];
	MDB_env *env;
	MDB_dbi dbi;
	MDB_txn *txn = begin(&env, &dbi);
	size_t three_length = get(txn, dbi, 3, three), seven_length = get(txn, dbi, 7, seven);

	set(txn, dbi, 3, seven, seven_length);
	set(txn, dbi, 7, three, three_length);
	end(env, txn);
	assert_bad(3);
}

static void cut_tail(uint64_t from)
{
	MDB_env *env;
	MDB_dbi dbi;
	MDB_txn *txn = begin(&env, &dbi);

	for (uint64_t sequence = from; sequence <= 10; sequence++)
		set(txn, dbi, sequence, NULL, 0);
	end(env, txn);
}

static void test_cut_tail(void **state)
{
	cut_tail(9);
	assert_bad(9);
	/* going on does not launder it, not even past the old length, nor does a restart */
	for (int i = 0; i < 5; i++)
		append("new");
	assert_bad(10);
	close_store();
	open_store();
	assert_bad(10);
}

static void test_accepted_by_an_operator(void **state)
{
	char path[256];
	FILE *file;

	cut_tail(6);
	assert_bad(6);
	close_store();
	snprintf(path, sizeof(path), "%s/audit.accept", dir);
	file = fopen(path, "w");
	assert_non_null(file);
	fclose(file);
	open_store();
	assert_int_equal(commit_wait(store_batch_create()), 0);
	assert_whole(6); /* 5, and the record that it was accepted */
	assert_int_equal(access(path, F_OK), -1);
}

static void test_everything_gone(void **state)
{
	char command[512];

	close_store();
	snprintf(command, sizeof(command), "rm -r %s/store", dir);
	assert_int_equal(system(command), 0);
	open_store();
	assert_bad(1);
}

static void test_rolled_back(void **state)
{
	char command[1200];

	close_store();
	snprintf(command, sizeof(command), "cp -r %s/store %s/old", dir, dir);
	assert_int_equal(system(command), 0);
	open_store();
	append("eleven");
	close_store();
	snprintf(command, sizeof(command), "rm -r %s/store; mv %s/old %s/store", dir, dir, dir);
	assert_int_equal(system(command), 0);
	open_store();
	assert_bad(11);
}

/* The whole tail rewritten, with a good chain. */
static void test_rewritten(void **state)
{
	char path[256];
	FILE *file;

	snprintf(path, sizeof(path), "%s/audit.head", dir);
	cut_tail(8);
	for (int i = 8; i <= 12; i++)
		append("another story");
	assert_bad(10);
	/* without the anchor the history tells */
	close_store();
	assert_int_equal(unlink(path), 0);
	open_store();
	assert_bad(10);
	append("more");
	close_store();
	open_store();
	assert_bad(10);
	file = fopen(path, "w");
	fputs("paddock-audit-checkpoint 1 nonsense\n", file);
	fclose(file);
	assert_bad(10);
}

/* ---- checkpoints ---- */

static char *path_of(const char *name)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static void change_file(const char *name, const char *sed)
{
	char command[600];

	snprintf(command, sizeof(command), "sed -i '%s' %s/%s", sed, dir, name);
	assert_int_equal(system(command), 0);
}

static void test_checkpoints_are_counted(void **state)
{
	struct audit_report report;

	close_store(); /* writes one for the 10 records */
	open_store();
	assert_int_equal(audit_check(&report, &go_on), 0);
	assert_true(report.ok);
	assert_true(report.checkpoints >= 2);
}

static void test_checkpoint_files_missing(void **state)
{
	static const char *const names[] = {"audit.head", "audit.checkpoints"};

	for (unsigned int i = 0; i < 2; i++) {
		char *path = path_of(names[i]), aside[300];

		snprintf(aside, sizeof(aside), "%s.aside", path);
		close_store();
		assert_int_equal(rename(path, aside), 0);
		open_store();
		assert_bad(0);
		append("more"); /* writes nothing outside: what is missing stays missing */
		close_store();
		assert_int_equal(access(path, F_OK), -1);
		assert_int_equal(rename(aside, path), 0);
		open_store();
		assert_whole(11 + i);
	}
}

static void test_history_changed(void **state)
{
	close_store();
	open_store();
	assert_whole(10);
	change_file("audit.checkpoints", "$ s/ 10 / 9 /");
	assert_bad(0);
	change_file("audit.checkpoints", "$ s/ 9 / 10 /");
	assert_whole(10);
	change_file("audit.checkpoints", "$ d");
	assert_bad(0); /* the store has a newer one */
	change_file("audit.checkpoints", "$ s/^/x/");
	assert_bad(0);
}

/* A power cut in the middle of a line is no fault. */
static void test_torn_line(void **state)
{
	FILE *file;

	close_store();
	file = fopen(path_of("audit.checkpoints"), "a");
	fputs("paddock-audit-checkp", file);
	fclose(file);
	open_store();
	append("more");
	assert_whole(11);
	close_store();
	open_store();
	assert_whole(11);
}

/* Everything written anew by someone who does not have the key: the chain is whole, the signatures are not. */
static void test_rehashed_without_the_key(void **state)
{
	char command[1200];

	close_store();
	snprintf(command, sizeof(command), "mkdir %s/old && mv %s/store %s/audit.* %s/old", dir, dir, dir, dir);
	assert_int_equal(system(command), 0);
	open_store();
	for (int i = 0; i < 10; i++)
		append("another story");
	assert_whole(10);
	close_store();
	snprintf(command, sizeof(command), "cp %s/old/audit.key %s", dir, dir); /* the server's own again */
	assert_int_equal(system(command), 0);
	open_store();
	assert_bad(0);
	append("more");
	close_store();
	open_store();
	assert_bad(0);
}

static void test_key_of_others(void **state)
{
	struct pdk_error err;

	close_store();
	assert_int_equal(chmod(path_of("audit.key"), 0644), 0);
	assert_int_equal(store_open(dir, &err), -EPERM);
	assert_int_equal(chmod(path_of("audit.key"), 0600), 0);
	open_store();
	assert_whole(10);
	close_store();
	change_file("audit.key", "2 s/./x/g");
	assert_int_equal(store_open(dir, &err), -EBADMSG);
	loop_lock();
}

static void test_checkpoint_lines(void **state)
{
	struct audit_head head = {.count = 77, .hash = {1, 2, 3}}, back;
	char line[AUDIT_CHECKPOINT_MAX], changed[AUDIT_CHECKPOINT_MAX + 1];
	size_t length;

	assert_int_equal(audit_checkpoint_make(&head, 1234, line), 0);
	assert_int_equal(audit_checkpoint_read(line, &back), 0);
	assert_memory_equal(&back, &head, sizeof(head));
	length = strlen(line);
	for (size_t i = 0; i < length; i++) {
		strcpy(changed, line);
		changed[i] = changed[i] == '1' ? '2' : '1';
		assert_true(audit_checkpoint_read(changed, &back) < 0);
		memcpy(changed, line, i);
		changed[i] = '\0';
		assert_true(audit_checkpoint_read(changed, &back) < 0);
	}
	snprintf(changed, sizeof(changed), "%s0", line);
	assert_int_equal(audit_checkpoint_read(changed, &back), -EBADMSG);
	assert_non_null(strstr(audit_public_key(), "BEGIN PUBLIC KEY"));
}

/* ---- what is stored ---- */

static Paddock__V1__AuditRecord *unpack_entry(const struct audit_entry *entry)
{
	Paddock__V1__AuditRecord *record;
	uint8_t *packed;
	size_t length;

	assert_int_equal(audit_encode(entry, &packed, &length), 0);
	record = paddock__v1__audit_record__unpack(NULL, length, packed);
	free(packed);
	assert_non_null(record);
	return record;
}

static void assert_cleaned(const char *object, const char *expected)
{
	Paddock__V1__AuditRecord *record = unpack_entry(&(struct audit_entry){.object = object});

	assert_string_equal(record->object, expected);
	paddock__v1__audit_record__free_unpacked(record, NULL);
}

static void assert_detail(const char *detail, const char *expected)
{
	Paddock__V1__AuditRecord *record = unpack_entry(&(struct audit_entry){.detail = detail});

	assert_string_equal(record->detail, expected);
	paddock__v1__audit_record__free_unpacked(record, NULL);
}

#define BAD "\xef\xbf\xbd"

static void test_text_is_cleaned(void **state)
{
	assert_cleaned(NULL, "");
	assert_cleaned("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\xa7",
		       "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\xa7");
	assert_cleaned("a\xff"
		       "b",
		       "a" BAD "b");
	assert_cleaned("\xc3", BAD); /* cut short */
	assert_cleaned("\xe2\x82", BAD BAD);
	assert_cleaned("\xc0\xaf", BAD BAD);                 /* overlong */
	assert_cleaned("\xed\xa0\x80", BAD BAD BAD);         /* surrogate */
	assert_cleaned("\xf4\x90\x80\x80", BAD BAD BAD BAD); /* beyond U+10FFFF */
	assert_detail("{\"a\":\"\n\x1b[0m\"}", "{\"a\":\"\\u000a\\u001b[0m\"}");
}

static void test_text_is_cut(void **state)
{
	char text[8192];
	Paddock__V1__AuditRecord *record;

	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	text[511] = '\xc3'; /* a character across the limit is left out whole */
	text[512] = '\xbc';
	record = unpack_entry(&(struct audit_entry){text, text, text, text, text, text, text});
	assert_int_equal(strlen(record->tenant), 63);
	assert_int_equal(strlen(record->actor), 32);
	assert_int_equal(strlen(record->action), 128);
	assert_int_equal(strlen(record->sandbox_id), 21);
	assert_int_equal(strlen(record->object), 511);
	assert_int_equal(strlen(record->outcome), 32);
	assert_int_equal(strlen(record->detail), 4096);
	assert_memory_equal(record->detail, "{\"truncated\":\"xxx", 17);
	assert_memory_equal(record->detail + 4091, "xxx\"}", 6);
	paddock__v1__audit_record__free_unpacked(record, NULL);
	memset(text, '\n', 1000); /* fits as it is, but not escaped */
	text[1000] = '\0';
	record = unpack_entry(&(struct audit_entry){.detail = text});
	assert_memory_equal(record->detail, "{\"truncated\":\"\\u000a", 20);
	assert_true(strlen(record->detail) <= 4096);
	paddock__v1__audit_record__free_unpacked(record, NULL);
}

/* Stored bytes are what any protobuf implementation packs, and what the hash is of. */
static int check_canonical(const void *key, size_t key_length, const void *value, size_t value_length, void *arg)
{
	uint8_t packed[1024], hash[AUDIT_HASH_SIZE];
	Paddock__V1__AuditRecord *record;
	struct audit_view view;

	assert_int_equal(audit_view(key, key_length, value, value_length, &view), 0);
	record = paddock__v1__audit_record__unpack(NULL, view.stored_length, view.stored);
	assert_non_null(record);
	assert_int_equal(record->sequence, view.sequence);
	assert_true(record->time_unix_ms > 1700000000000 && record->monotonic_ns > 0);
	assert_int_equal(paddock__v1__audit_record__pack(record, packed), view.stored_length);
	assert_memory_equal(packed, view.stored, view.stored_length);
	assert_int_equal(audit_hash(view.previous, packed, view.stored_length, hash), 0);
	assert_memory_equal(hash, view.hash, AUDIT_HASH_SIZE);
	paddock__v1__audit_record__free_unpacked(record, NULL);
	++*(int *)arg;
	return 0;
}

static void test_canonical(void **state)
{
	int count = 0;

	assert_int_equal(store_each(STORE_AUDIT, NULL, 0, check_canonical, &count), 0);
	assert_int_equal(count, 10);
}

static void test_anchor_follows(void **state)
{
	struct audit_head anchor, head;

	store_audit_head(&head);
	assert_int_equal(audit_anchor_read(store_dir_fd(), &anchor), 0);
	assert_true(anchor.count < 10); /* within the second that was not over */
	for (int i = 0; i < 30 && anchor.count < 10; i++) {
		usleep(100000);
		audit_anchor_read(store_dir_fd(), &anchor);
	}
	assert_memory_equal(&anchor, &head, sizeof(head));
	append("x");
	close_store();
	open_store();
	audit_anchor_read(store_dir_fd(), &anchor);
	assert_int_equal(anchor.count, 11);
}

static void test_events(void **state)
{
	for (int i = 0; i < 1000; i++)
		audit_event(&(struct audit_entry){.action = "flood"});
	append("last");
	assert_whole(1011);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_with_ten, close_and_remove)
	const struct CMUnitTest tests[] = {
		TEST(test_whole),
		TEST(test_flipped_bytes),
		TEST(test_missing_in_the_middle),
		TEST(test_swapped),
		TEST(test_cut_tail),
		TEST(test_accepted_by_an_operator),
		TEST(test_everything_gone),
		TEST(test_rolled_back),
		TEST(test_rewritten),
		TEST(test_checkpoints_are_counted),
		TEST(test_checkpoint_files_missing),
		TEST(test_history_changed),
		TEST(test_torn_line),
		TEST(test_rehashed_without_the_key),
		TEST(test_key_of_others),
		TEST(test_checkpoint_lines),
		TEST(test_canonical),
		TEST(test_anchor_follows),
		TEST(test_events),
		cmocka_unit_test(test_text_is_cleaned),
		cmocka_unit_test(test_text_is_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
