#include "fakes.h"

#include "server/build_files.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Room for uploads: who loses what when it is short, and what is on disk. */

#define MIB (1ull << 20)

static int setup(void **state)
{
	struct pdk_error err;

	fake_setup(state);
	build_files_limits.tenant_bytes = 40 * MIB;
	build_files_limits.bytes = 100 * MIB;
	build_files_limits.keep_free = 0;
	build_files_limits.tenant_files = 8;
	build_files_limits.files = 16;
	assert_int_equal(build_files_start(&err), 0);
	build_files_set_disk_free(1000 * MIB);
	return 0;
}

static int teardown(void **state)
{
	fake_work();
	build_files_stop();
	return fake_teardown(state);
}

static const char *hash_of(unsigned int n)
{
	static char hash[BUILD_HASH_LEN + 1];

	snprintf(hash, sizeof(hash), "%064x", n);
	return hash;
}

/* What build_upload.c does for one whole upload. */
static int upload(const char *tenant, unsigned int n, uint64_t bytes)
{
	struct build_file *file = build_file_create(tenant, hash_of(n));
	struct pdk_error err;
	int fd, rc;

	assert_non_null(file);
	fake_now_ns++;
	rc = build_file_grow(file, bytes, &err);
	if (rc < 0) {
		build_file_drop(file);
		return rc;
	}
	fd = build_file_open_new();
	assert_true(fd >= 0);
	assert_int_equal(write(fd, tenant, 1), 1);
	assert_int_equal(build_file_link(fd, file->number), 0);
	close(fd);
	build_file_keep(file);
	return 0;
}

static bool has(const char *tenant, unsigned int n)
{
	fake_now_ns++; /* it is used by this */
	return build_files_find(tenant, hash_of(n)) != 0;
}

static void the_one_who_holds_most_loses_first(void **state)
{
	/* A holds its 40, B 40: 20 are left. C gets its share of a third, of what the others have too much. */
	for (unsigned int n = 0; n < 4; n++) {
		assert_int_equal(upload("a", n, 10 * MIB), 0);
		assert_int_equal(upload("b", n, 10 * MIB), 0);
	}
	for (unsigned int n = 0; n < 3; n++)
		assert_int_equal(upload("c", n, 10 * MIB), 0);
	assert_true(has("c", 0) && has("c", 1) && has("c", 2));
	assert_true(has("a", 0) + has("b", 0) == 1);
	assert_true(has("a", 1) && has("b", 1));
	/* More of it is at the cost of its own, as nobody holds more. */
	assert_int_equal(upload("c", 3, 10 * MIB), 0);
	assert_int_equal(upload("c", 4, 10 * MIB), 0);
	assert_false(has("c", 0));
	assert_true(has("c", 4));
	assert_true(has("a", 1) && has("b", 1) && has("a", 3) && has("b", 3));
}

static void what_is_small_stays(void **state)
{
	assert_int_equal(upload("small", 0, MIB), 0);
	for (unsigned int round = 0; round < 3; round++)
		for (unsigned int n = 0; n < 4; n++)
			for (const char *tenant = "abcde"; *tenant; tenant++)
				assert_int_equal(upload((char[]){*tenant, '\0'}, n, 10 * MIB), 0);
	assert_true(has("small", 0));
	/* The control: there was not room for all. */
	assert_false(has("a", 0) && has("b", 0) && has("c", 0) && has("d", 0) && has("e", 0));
}

static void an_upload_under_way_is_not_taken(void **state)
{
	struct build_file *all = build_file_create("a", hash_of(0)), *other = build_file_create("b", hash_of(0));
	struct pdk_error err;

	assert_int_equal(build_file_grow(all, 40 * MIB, &err), 0);
	assert_int_equal(build_file_grow(all, 1, &err), -ENOSPC);
	assert_string_equal(err.text, "files for builds: the tenant's room is full");
	assert_int_equal(build_file_grow(other, 40 * MIB, &err), 0);
	build_files_limits.bytes = 80 * MIB;
	assert_int_equal(build_file_grow(other, 0, &err), 0);
	build_files_limits.bytes = 70 * MIB;
	assert_int_equal(build_file_grow(other, 0, &err), -ENOSPC);
	build_file_drop(all);
	assert_int_equal(build_file_grow(other, 0, &err), 0);
	build_file_drop(other);
}

static void numbers_are_shared_too(void **state)
{
	for (unsigned int n = 0; n < 20; n++)
		assert_int_equal(upload("many", n, 1), 0);
	assert_false(has("many", 11));
	assert_true(has("many", 12));
	for (unsigned int n = 0; n < 8; n++) {
		assert_int_equal(upload("few", n, 1), 0);
		assert_int_equal(upload("third", n, 1), 0);
	}
	for (unsigned int n = 3; n < 8; n++)
		assert_true(has("few", n));
	assert_true(has("many", 19));
	fake_work();
	assert_int_equal(fake_files_in("builds"), 16);
}

static void a_full_disk_counts(void **state)
{
	assert_int_equal(upload("a", 0, 10 * MIB), 0);
	build_files_limits.keep_free = 500 * MIB;
	build_files_set_disk_free(495 * MIB);
	assert_int_equal(upload("b", 0, MIB), 0); /* a's make room */
	assert_false(has("a", 0));
	build_files_set_disk_free(400 * MIB);
	assert_int_equal(upload("b", 1, MIB), -ENOSPC);
	build_files_set_disk_free(600 * MIB);
	assert_int_equal(upload("b", 1, MIB), 0);
}

static void files_are_those_that_are_found(void **state)
{
	char byte;
	int fd;

	assert_int_equal(upload("a", 0, 1), 0);
	assert_int_equal(upload("b", 0, 1), 0);
	assert_int_equal(upload("a", 0, 1), 0); /* instead of the first */
	fake_work();
	assert_int_equal(fake_files_in("builds"), 2);
	fd = build_files_open(build_files_find("b", hash_of(0)));
	assert_true(fd >= 0);
	assert_int_equal(read(fd, &byte, 1), 1);
	assert_int_equal(byte, 'b');
	close(fd);
	assert_false(has("c", 0));
	build_files_remove_tenant("a");
	assert_false(has("a", 0));
	assert_true(has("b", 0));
	fake_work();
	assert_int_equal(fake_files_in("builds"), 1);
	fake_now_ns += 86401ull * 1000000000;
	assert_false(has("b", 0));
	fake_work();
	assert_int_equal(fake_files_in("builds"), 0);
	assert_int_equal(build_files_open(12345), -ENOENT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_one_who_holds_most_loses_first),
		TEST(what_is_small_stays),
		TEST(an_upload_under_way_is_not_taken),
		TEST(numbers_are_shared_too),
		TEST(a_full_disk_counts),
		TEST(files_are_those_that_are_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
