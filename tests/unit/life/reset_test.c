#include "fixture.h"

#include "server/sandbox_internal.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* A reset changes what the warden has of a sandbox, and a crash, a failure or a kill leave the old or the new one. */

#define STATE(name) PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_##name

static char id[32], kernel[32];

static const char *kernel_now(void)
{
	return sandbox_get(id)->kernel_id;
}

static bool is_linked(void)
{
	return sandbox_get(id)->guest && !sandbox_get(id)->private->adopting;
}

static void let_it_create(void)
{
	fake_warden_hold(0);
}

static void reset_now(void)
{
	Paddock__V1__Sandbox *sandbox = life_sandbox(life_reset("a", id));

	assert_int_equal(sandbox->state, STATE(RUNNING));
	assert_string_equal(sandbox->id, id);
	assert_true(sandbox->reset_unix_ms > 0);
	life_free(sandbox);
	RUN_UNTIL(fake_warden_living() == 1);
	snprintf(kernel, sizeof(kernel), "%s", kernel_now());
	assert_true(fake_warden_has(kernel));
}

static void the_old_one_goes(void **state)
{
	life_make(id);
	reset_now();
	assert_false(fake_warden_has(id));
	assert_string_not_equal(kernel, id);
	assert_int_equal(fake_previews_ended, 1);
	assert_int_equal(fake_processes_ended, 1);
	assert_int_equal(fake_audit_count("sandbox.reset"), 1);
	assert_int_equal(sandboxes_of_tenant("a"), 1);
	assert_int_equal(fake_store_count(STORE_SANDBOXES), 1);
	reset_now();
	life_free(life_sandbox(life_kill("a", id)));
	assert_int_equal(fake_warden_living(), 0);
}

static void a_restart_finds_the_new_one(void **state)
{
	life_make(id);
	reset_now();
	life_restart(NULL);
	RUN_UNTIL(is_linked());
	assert_int_equal(life_state("a", id), STATE(RUNNING));
	assert_string_equal(kernel_now(), kernel);
	assert_int_equal(fake_warden_living(), 1);
	fake_warden_hang_up();
	fake_loop_settle();
	assert_int_equal(life_state("a", id), STATE(RUNNING));
	/* What happens to it happens to the sandbox. */
	fake_warden_exit(kernel, 9, 0);
	RUN_UNTIL(life_state("a", id) == STATE(FAILED));
}

static void a_crash_before_it_leaves_the_old_one(void **state)
{
	struct rpc_call *call;

	life_make(id);
	fake_warden_hold(WARDEN_CREATE);
	call = life_reset("a", id);
	fake_call_cancel(call);
	fake_call_free(call);
	life_restart(let_it_create);
	RUN_UNTIL(is_linked());
	assert_int_equal(life_state("a", id), STATE(RUNNING));
	assert_string_equal(kernel_now(), id);
	RUN_UNTIL(fake_warden_living() == 1);
	assert_true(fake_warden_has(id));
	reset_now();
}

static void a_failure_leaves_the_old_one(void **state)
{
	life_make(id);
	fake_warden_fail(WARDEN_CREATE, 1, -EIO, "no");
	life_expect(life_reset("a", id), PDK_UNAVAILABLE, "sandbox could not be reset, and is as it was: no");
	assert_int_equal(life_state("a", id), STATE(RUNNING));
	assert_string_equal(kernel_now(), id);
	assert_int_equal(fake_processes_ended, 0);
	reset_now();
}

static void a_store_that_fails_says_so(void **state)
{
	life_make(id);
	fake_store_fails = true;
	life_expect(life_reset("a", id), PDK_UNAVAILABLE, "the server's store does not accept changes");
	fake_store_fails = false;
	/* Its record is that of the old one, which is still there. */
	assert_true(fake_warden_has(id));
	life_restart(NULL);
	RUN_UNTIL(is_linked());
	assert_string_equal(kernel_now(), id);
	RUN_UNTIL(fake_warden_living() == 1);
	reset_now();
}

/* A reset that waits for its twin. */
static struct rpc_call *begin_reset(void)
{
	life_make(id);
	fake_warden_hold(WARDEN_CREATE);
	return life_reset("a", id);
}

static void only_one_at_a_time(void **state)
{
	struct rpc_call *first = begin_reset();

	life_expect(life_reset("a", id), PDK_ABORTED, "sandbox is being reset already");
	fake_warden_hold(0);
	life_free(life_sandbox(first));
	reset_now();
}

static void a_kill_wins(void **state)
{
	struct rpc_call *reset = begin_reset();

	fake_loop_settle();
	life_free(life_sandbox(life_kill("a", id)));
	life_expect(reset, PDK_ABORTED, "sandbox was ended meanwhile");
	fake_warden_hold(0);
	RUN_UNTIL(fake_warden_living() == 0);
	life_expect(life_reset("a", id), PDK_FAILED_PRECONDITION, "sandbox has ended");
}

static void a_pause_wins(void **state)
{
	struct rpc_call *reset = begin_reset(), *pause;

	fake_loop_settle();
	fake_warden_hold(0);
	fake_warden_hold(WARDEN_FREEZE);
	pause = life_pause("a", id);
	life_expect(reset, PDK_ABORTED, "sandbox is being paused or resumed");
	fake_warden_hold(0);
	life_free(life_sandbox(pause));
	RUN_UNTIL(fake_warden_living() == 1);
	assert_true(fake_warden_frozen(id));
	/* Paused, it can be. */
	reset_now();
}

static void others_do_not_find_it(void **state)
{
	life_make(id);
	life_expect(life_reset("b", id), PDK_NOT_FOUND, "sandbox not found");
	assert_int_equal(fake_warden_requests(WARDEN_CREATE), 1);
}

static void small_pool(void)
{
	server_config.pool_size = 1;
}

static void one_that_is_ready_is_taken(void **state)
{
	life_restart(small_pool);
	life_make(id);
	RUN_UNTIL(fake_warden_living() == 2);
	fake_loop_settle();
	/* A new one could not be made now. */
	fake_warden_hold(WARDEN_CREATE);
	life_free(life_sandbox(life_reset("a", id)));
	fake_warden_hold(0);
	assert_string_not_equal(kernel_now(), id);
}

static void the_box_needs_room_for_both(void **state)
{
	struct rpc_call *call;

	life_make(id);
	server_config.max_sandboxes = 1;
	life_expect(life_reset("a", id), PDK_RESOURCE_EXHAUSTED, "server max_sandboxes");
	assert_string_equal(kernel_now(), id);
	server_config.max_sandboxes = 2;
	fake_warden_hold(WARDEN_CREATE);
	call = life_reset("a", id);
	/* It is taken while the twin is made, and free again when the old one is gone. */
	life_expect(life_create("b"), PDK_RESOURCE_EXHAUSTED, "server max_sandboxes");
	fake_warden_hold(0);
	life_free(life_sandbox(call));
	RUN_UNTIL(fake_warden_living() == 1);
	fake_loop_settle();
	life_free(life_sandbox(life_create("b")));
}

static void a_client_that_goes_away_does_not_stop_it(void **state)
{
	struct rpc_call *call;

	life_make(id);
	fake_warden_hold(WARDEN_CREATE);
	call = life_reset("a", id);
	fake_call_cancel(call);
	fake_call_free(call);
	fake_warden_hold(0);
	RUN_UNTIL(strcmp(kernel_now(), id) != 0 && is_linked());
	assert_int_equal(life_state("a", id), STATE(RUNNING));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, life_setup, life_teardown)
	const struct CMUnitTest tests[] = {
		TEST(the_old_one_goes),
		TEST(a_restart_finds_the_new_one),
		TEST(a_crash_before_it_leaves_the_old_one),
		TEST(a_failure_leaves_the_old_one),
		TEST(a_store_that_fails_says_so),
		TEST(only_one_at_a_time),
		TEST(a_kill_wins),
		TEST(a_pause_wins),
		TEST(others_do_not_find_it),
		TEST(one_that_is_ready_is_taken),
		TEST(the_box_needs_room_for_both),
		TEST(a_client_that_goes_away_does_not_stop_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
