#include "fixture.h"

#include "server/sandboxes.h"
#include <errno.h>
#include <string.h>

#define STATE(name) PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_##name

static char id[32];

static void pause_now(void)
{
	Paddock__V1__Sandbox *sandbox = life_sandbox(life_pause("a", id));

	assert_int_equal(sandbox->state, STATE(PAUSED));
	assert_int_equal(sandbox->pause_mode, PADDOCK__V1__PAUSE_MODE__PAUSE_MODE_FREEZE);
	assert_true(sandbox->paused_unix_ms > 0);
	life_free(sandbox);
	assert_true(fake_warden_frozen(id));
}

static void resume_now(uint64_t timeout_ms)
{
	Paddock__V1__Sandbox *sandbox = life_sandbox(life_resume("a", id, timeout_ms));

	assert_int_equal(sandbox->state, STATE(RUNNING));
	assert_int_equal(sandbox->pause_mode, 0);
	assert_int_equal(sandbox->paused_unix_ms, 0);
	life_free(sandbox);
	assert_false(fake_warden_frozen(id));
}

static void init_hears_how_long_it_stood_still(void **state)
{
	life_make(id);
	assert_int_equal(fake_previews_suspended, 0);
	pause_now();
	assert_int_equal(fake_previews_suspended, 1);
	fake_loop_advance_ms(5000);
	resume_now(0);
	assert_int_equal(fake_guest_resumed, 1);
	assert_true(fake_guest_paused_ms >= 5000 && fake_guest_paused_ms < 6000);
	/* Both again: nothing is asked twice. */
	resume_now(0);
	assert_int_equal(fake_warden_requests(WARDEN_THAW), 1);
}

static void two_pause_at_once(void **state)
{
	struct rpc_call *first, *second;

	life_make(id);
	fake_warden_hold(WARDEN_FREEZE);
	first = life_pause("a", id);
	second = life_pause("a", id);
	fake_loop_settle();
	assert_int_equal(life_state("a", id), STATE(PAUSING));
	assert_false(first->finished || second->finished);
	fake_warden_hold(0);
	life_free(life_sandbox(first));
	life_free(life_sandbox(second));
	assert_int_equal(fake_warden_requests(WARDEN_FREEZE), 1);
	pause_now();
	assert_int_equal(fake_warden_requests(WARDEN_FREEZE), 1);
}

static void resume_waits_for_the_pause(void **state)
{
	struct rpc_call *pause, *resume;
	Paddock__V1__Sandbox *sandbox;

	life_make(id);
	fake_warden_hold(WARDEN_FREEZE);
	pause = life_pause("a", id);
	resume = life_resume("a", id, 0);
	fake_loop_settle();
	assert_false(pause->finished || resume->finished);
	fake_warden_hold(0);
	sandbox = life_sandbox(pause);
	assert_int_equal(sandbox->state, STATE(PAUSED));
	life_free(sandbox);
	sandbox = life_sandbox(resume);
	assert_int_equal(sandbox->state, STATE(RUNNING));
	life_free(sandbox);
	assert_false(fake_warden_frozen(id));
}

static void pause_waits_for_the_resume(void **state)
{
	struct rpc_call *pause, *resume;

	life_make(id);
	pause_now();
	fake_warden_hold(WARDEN_THAW);
	resume = life_resume("a", id, 0);
	pause = life_pause("a", id);
	fake_loop_settle();
	assert_int_equal(life_state("a", id), STATE(RESUMING));
	fake_warden_hold(0);
	life_free(life_sandbox(resume));
	life_free(life_sandbox(pause));
	assert_int_equal(life_state("a", id), STATE(PAUSED));
	assert_true(fake_warden_frozen(id));
}

static void kill_wins(void **state)
{
	struct rpc_call *pause;

	life_make(id);
	pause_now();
	life_free(life_sandbox(life_kill("a", id)));
	assert_int_equal(life_state("a", id), STATE(KILLED));
	life_expect(life_resume("a", id, 0), PDK_FAILED_PRECONDITION, "sandbox has ended");
	life_expect(life_pause("a", id), PDK_FAILED_PRECONDITION, "sandbox has ended");

	life_make(id);
	fake_warden_hold(WARDEN_FREEZE);
	pause = life_pause("a", id);
	fake_loop_settle();
	life_free(life_sandbox(life_kill("a", id)));
	life_expect(pause, PDK_ABORTED, "sandbox was ended");
	fake_warden_hold(0);
	fake_loop_settle();
	assert_int_equal(life_state("a", id), STATE(KILLED));
}

static void a_pause_that_fails_leaves_it_running(void **state)
{
	life_make(id);
	fake_warden_fail(WARDEN_FREEZE, 1, -EIO, "freeze the sandbox: broken");
	life_expect(life_pause("a", id), PDK_UNAVAILABLE, "sandbox could not be paused: freeze the sandbox: broken");
	assert_int_equal(life_state("a", id), STATE(RUNNING));
	pause_now();
	fake_warden_fail(WARDEN_THAW, 1, -EIO, "thaw the sandbox: broken");
	life_expect(life_resume("a", id, 0), PDK_UNAVAILABLE, "sandbox could not be resumed: thaw");
	assert_int_equal(life_state("a", id), STATE(PAUSED));
	resume_now(0);
}

static void the_timeout_goes_on(void **state)
{
	life_make(id);
	pause_now();
	life_expect(life_resume("a", id, 999), PDK_INVALID_ARGUMENT, "timeout_ms:");
	fake_loop_advance_ms(200000);
	resume_now(300000);
	fake_loop_advance_ms(200000);
	fake_loop_settle();
	assert_int_equal(life_state("a", id), STATE(RUNNING));
	pause_now();
	life_free(life_sandbox(life_set_timeout("a", id, 5000)));
	fake_loop_advance_ms(5000);
	RUN_UNTIL(life_state("a", id) == STATE(KILLED));
}

static void others_do_not_find_it(void **state)
{
	life_make(id);
	life_expect(life_pause("b", id), PDK_NOT_FOUND, "sandbox not found");
	pause_now();
	life_expect(life_resume("b", id, 0), PDK_NOT_FOUND, "sandbox not found");
	assert_int_equal(life_state("a", id), STATE(PAUSED));
}

static void a_restart_keeps_it_paused(void **state)
{
	life_make(id);
	pause_now();
	fake_loop_advance_ms(1000);
	life_restart(NULL);
	assert_int_equal(life_state("a", id), STATE(PAUSED));
	fake_loop_settle();
	assert_int_equal(fake_processes_adopted, 0);
	assert_true(fake_warden_frozen(id));
	resume_now(0);
	assert_int_equal(fake_processes_adopted, 1);
	assert_true(fake_guest_paused_ms >= 1000);
}

static void freeze_it(void)
{
	fake_warden_freeze(id, true);
}

static void thaw_it(void)
{
	fake_warden_freeze(id, false);
}

/* A crash between the warden's part and the record: the record decides. */
static void the_record_decides(void **state)
{
	life_make(id);
	life_restart(freeze_it);
	RUN_UNTIL(!fake_warden_frozen(id));
	assert_int_equal(life_state("a", id), STATE(RUNNING));
	fake_loop_settle();
	pause_now();
	life_restart(thaw_it);
	RUN_UNTIL(fake_warden_frozen(id));
	assert_int_equal(life_state("a", id), STATE(PAUSED));
	resume_now(0);
}

static void a_lost_warden_leaves_the_old_state(void **state)
{
	struct rpc_call *call;

	life_make(id);
	fake_warden_hold(WARDEN_FREEZE);
	call = life_pause("a", id);
	fake_loop_settle();
	fake_warden_freeze(id, true); /* it did its part, but nobody heard */
	fake_warden_hang_up();
	life_expect(call, PDK_UNAVAILABLE, "sandbox could not be paused");
	fake_warden_hold(0);
	RUN_UNTIL(!fake_warden_frozen(id));
	assert_int_equal(life_state("a", id), STATE(RUNNING));
}

static void given_up_by_the_client(void **state)
{
	struct rpc_call *call;

	life_make(id);
	fake_warden_hold(WARDEN_FREEZE);
	call = life_pause("a", id);
	fake_loop_settle();
	fake_call_cancel(call);
	fake_call_free(call);
	fake_warden_hold(0);
	RUN_UNTIL(life_state("a", id) == STATE(PAUSED));
	fake_loop_settle();
	assert_int_equal(fake_audit_count("sandbox.paused"), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(init_hears_how_long_it_stood_still, life_setup, life_teardown),
		cmocka_unit_test_setup_teardown(two_pause_at_once, life_setup, life_teardown),
		cmocka_unit_test_setup_teardown(resume_waits_for_the_pause, life_setup, life_teardown),
		cmocka_unit_test_setup_teardown(pause_waits_for_the_resume, life_setup, life_teardown),
		cmocka_unit_test_setup_teardown(kill_wins, life_setup, life_teardown),
		cmocka_unit_test_setup_teardown(a_pause_that_fails_leaves_it_running, life_setup, life_teardown),
		cmocka_unit_test_setup_teardown(the_timeout_goes_on, life_setup, life_teardown),
		cmocka_unit_test_setup_teardown(others_do_not_find_it, life_setup, life_teardown),
		cmocka_unit_test_setup_teardown(a_restart_keeps_it_paused, life_setup, life_teardown),
		cmocka_unit_test_setup_teardown(the_record_decides, life_setup, life_teardown),
		cmocka_unit_test_setup_teardown(a_lost_warden_leaves_the_old_state, life_setup, life_teardown),
		cmocka_unit_test_setup_teardown(given_up_by_the_client, life_setup, life_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
