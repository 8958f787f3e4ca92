/* State files: what is written is read back, what is damaged or not ours is refused, removal leaves nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sandbox/warden/options.h"
#include "sandbox/warden/record.h"

struct options options;

#define ID "iabcdefghij0123456789"

static char directory[] = "/tmp/paddock-record-XXXXXX";
static unsigned int found_count;
static struct record sample = {
	.magic = RECORD_MAGIC, .slot = 7, .range_base = 0x10000000, .id = ID, .template_id = "t1"};

static void found(const char *id)
{
	assert_string_equal(id, ID);
	found_count++;
}

static int setup(void **state)
{
	options.runtime_dir = mkdtemp(directory);
	return options.runtime_dir ? record_setup() : -1;
}

static int teardown(void **state)
{
	char path[100];

	snprintf(path, sizeof(path), "%s/sandboxes", directory);
	return rmdir(path) < 0 || rmdir(directory) < 0 ? -1 : 0;
}

static void test_round_trip(void **state)
{
	struct record got;

	assert_int_equal(record_create(&sample), 0);
	assert_int_equal(record_create(&sample), -EEXIST);
	sample.ready = 1;
	assert_int_equal(record_update(&sample), 0);
	assert_int_equal(record_load(ID, &got), 0);
	assert_memory_equal(&got, &sample, sizeof(got));
	record_enumerate(found);
	assert_int_equal(found_count, 1);
}

static void test_damage(void **state)
{
	struct record got = {.slot = 99};
	char path[200];

	snprintf(path, sizeof(path), "%s/sandboxes/" ID "/state", directory);
	assert_int_equal(truncate(path, 20), 0);
	assert_int_equal(record_load(ID, &got), -EBADMSG);
	assert_int_equal(got.slot, 99);
	sample.magic++;
	assert_int_equal(record_update(&sample), 0);
	assert_int_equal(record_load(ID, &got), -EBADMSG);
	sample.magic--;
	sample.id[3]++;
	assert_int_equal(record_load(sample.id, &got), -ENOENT);
	sample.id[3]--;
	assert_int_equal(record_update(&sample), 0);
	memset(sample.template_id, 'x', sizeof(sample.template_id));
	assert_int_equal(record_update(&sample), 0);
	assert_int_equal(record_load(ID, &got), -EBADMSG);
}

static void test_socket(void **state)
{
	int listener = record_listen(ID), client, server;

	assert_true(listener >= 0);
	client = record_connect(ID);
	assert_true(client >= 0);
	server = accept(listener, NULL, NULL);
	assert_true(server >= 0);
	close(server);
	close(client);
	close(listener);
	assert_int_equal(record_connect(ID), -ECONNREFUSED);
}

static void test_remove(void **state)
{
	assert_int_equal(record_remove(ID), 0);
	assert_int_equal(record_remove(ID), 0);
	found_count = 0;
	record_enumerate(found);
	assert_int_equal(found_count, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_socket),
		cmocka_unit_test(test_remove),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
