#include "fixture.h"

#include "server/sandboxes.h"
#include <stdio.h>
#include <string.h>

/* What an image starts in its sandboxes: creates wait for it. */

#define START "/etc/paddock/start"
#define READY "/etc/paddock/ready"

static int setup(void **state)
{
	int rc = life_setup(state);

	fake_guest_starts = true;
	return rc;
}

static int teardown(void **state)
{
	assert_null(fake_local);
	fake_guest_starts = false;
	return life_teardown(state);
}

static struct rpc_call *create_until(const char *file)
{
	struct rpc_call *call = life_create("a");

	RUN_UNTIL(fake_local);
	assert_string_equal(fake_local_file, START);
	if (strcmp(file, READY) == 0) {
		fake_local_end(PDK_OK);
		assert_non_null(fake_local);
	}
	assert_string_equal(fake_local_file, file);
	fake_loop_settle();
	assert_false(call->finished);
	return call;
}

static void a_create_waits_until_it_is_ready(void **state)
{
	struct rpc_call *call = create_until(READY);

	fake_local_exit(0);
	assert_false(call->finished);
	fake_local_end(PDK_OK);
	life_free(life_sandbox(call));
	assert_int_equal(fake_store_count(STORE_SANDBOXES), 1);
}

static void one_that_is_never_ready_fails(void **state)
{
	struct rpc_call *call = create_until(READY);

	fake_local_exit(3);
	fake_local_end(PDK_OK);
	life_expect(call, PDK_UNAVAILABLE,
		    "sandbox could not be created: its image's /etc/paddock/ready ended with status 3");
	fake_loop_settle();
	assert_int_equal(fake_guests, 0);
	assert_int_equal(sandboxes_of_tenant("a"), 0);
}

static void one_that_does_not_start_fails(void **state)
{
	struct rpc_call *call = create_until(START);

	fake_local_end(PDK_INVALID_ARGUMENT);
	life_expect(call, PDK_UNAVAILABLE, "sandbox could not be created: its image's /etc/paddock/start because");
	fake_loop_settle();
	assert_int_equal(sandboxes_of_tenant("a"), 0);
}

static void nobody_waits_any_more(void **state)
{
	struct rpc_call *call = create_until(READY);

	fake_call_cancel(call);
	assert_null(fake_local);
	fake_call_free(call);
	fake_loop_settle();
	assert_int_equal(fake_guests, 0);
	assert_int_equal(sandboxes_of_tenant("a"), 0);
}

static void a_kill_comes_before(void **state)
{
	struct rpc_call *call = create_until(START), *killed;
	char id[32];

	snprintf(id, sizeof(id), "%s", fake_local_sandbox);
	killed = life_kill("a", id);
	life_expect(call, PDK_ABORTED, "sandbox was killed while it was created");
	life_free(life_sandbox(killed));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_create_waits_until_it_is_ready),
		TEST(one_that_is_never_ready_fails),
		TEST(one_that_does_not_start_fails),
		TEST(nobody_waits_any_more),
		TEST(a_kill_comes_before),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
