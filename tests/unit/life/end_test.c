#include "fixture.h"

#include "paddock/internal/store.pb-c.h"
#include "server/sandboxes.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STATE(name) PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_##name
#define REASON(name) PADDOCK__V1__END_REASON__END_REASON_##name

static char id[32];

static void expect_end(const char *tenant, Paddock__V1__SandboxState state, Paddock__V1__EndReason reason,
		       const char *text_start)
{
	Paddock__V1__Sandbox *sandbox;

	RUN_UNTIL(life_state(tenant, id) == state);
	sandbox = life_sandbox(life_get(tenant, id));
	assert_int_equal(sandbox->end_reason, reason);
	if (strncmp(sandbox->end_text, text_start, strlen(text_start)) != 0)
		fail_msg("%s", sandbox->end_text);
	assert_true(sandbox->ended_unix_ms > 0);
	life_free(sandbox);
	assert_false(fake_warden_has(id));
}

static void kill_answers_when_nothing_is_left(void **state)
{
	struct rpc_call *calls[10], *gone;

	life_make(id);
	fake_warden_hold(WARDEN_KILL);
	for (unsigned int i = 0; i < 10; i++)
		calls[i] = life_kill("a", id);
	gone = calls[9];
	fake_loop_settle();
	assert_int_equal(life_state("a", id), STATE(KILLING));
	assert_false(calls[0]->finished);
	fake_call_cancel(gone);
	fake_call_free(gone);
	assert_int_equal(fake_warden_requests(WARDEN_KILL), 1);
	fake_warden_hold(0);
	for (unsigned int i = 0; i < 9; i++) {
		Paddock__V1__Sandbox *sandbox = life_sandbox(calls[i]);

		assert_int_equal(sandbox->state, STATE(KILLED));
		assert_int_equal(sandbox->end_reason, REASON(KILLED));
		life_free(sandbox);
	}
	assert_int_equal(fake_processes_ended, 1);
	assert_int_equal(fake_previews_ended, 1);
	assert_int_equal(sandboxes_of_tenant("a"), 0);
	life_free(life_sandbox(life_kill("a", id)));
	assert_int_equal(fake_warden_requests(WARDEN_KILL), 1);
}

static void others_do_not_find_it(void **state)
{
	life_make(id);
	life_expect(life_kill("b", id), PDK_NOT_FOUND, "sandbox not found");
	life_expect(life_get("b", id), PDK_NOT_FOUND, "sandbox not found");
	life_expect(life_set_timeout("b", id, 0), PDK_NOT_FOUND, "sandbox not found");
	life_expect(life_get("a", "../../etc/passwd"), PDK_NOT_FOUND, "sandbox not found");
	life_expect(life_get("a", ""), PDK_NOT_FOUND, "sandbox not found");
	life_expect(life_watch("b", id, 0), PDK_NOT_FOUND, "sandbox not found");
	assert_int_equal(life_state("a", id), STATE(RUNNING));
}

static void the_timeout_kills_and_is_forgotten(void **state)
{
	life_make(id);
	fake_loop_advance_ms(300000);
	expect_end("a", STATE(KILLED), REASON(TIMEOUT), "its timeout");
	fake_loop_settle();
	assert_int_equal(fake_audit_count("sandbox.expired"), 1);
	fake_loop_advance_ms(3600000);
	fake_loop_settle();
	life_expect(life_get("a", id), PDK_NOT_FOUND, "sandbox not found");
	assert_int_equal(fake_store_count(STORE_SANDBOXES), 0);
	assert_int_equal(fake_processes_forgotten, 1);
}

static void set_timeout_extends_shortens_and_kills(void **state)
{
	Paddock__V1__Sandbox *sandbox;

	life_make(id);
	life_expect(life_set_timeout("a", id, 86400001), PDK_INVALID_ARGUMENT, "timeout_ms:");
	life_free(life_sandbox(life_set_timeout("a", id, 600000)));
	fake_loop_advance_ms(400000);
	fake_loop_settle();
	assert_int_equal(life_state("a", id), STATE(RUNNING));
	life_free(life_sandbox(life_set_timeout("a", id, 1000)));
	fake_loop_advance_ms(1000);
	expect_end("a", STATE(KILLED), REASON(TIMEOUT), "");
	life_expect(life_set_timeout("a", id, 1000), PDK_FAILED_PRECONDITION, "sandbox has ended");
	life_make(id);
	sandbox = life_sandbox(life_set_timeout("a", id, 0));
	assert_int_equal(sandbox->state, STATE(KILLED));
	life_free(sandbox);
}

static void a_dead_init_fails_the_sandbox(void **state)
{
	life_make(id);
	fake_warden_exit(id, 9, 2);
	expect_end("a", STATE(FAILED), REASON(INIT_DIED), "its init ended: out of memory");
	fake_loop_settle();
	assert_int_equal(fake_audit_count("sandbox.failed"), 1);
	life_make(id);
	fake_guest_break_all("spoke nonsense");
	expect_end("a", STATE(FAILED), REASON(INIT_DIED), "spoke nonsense");
	life_expect(life_set_timeout("a", id, 1000), PDK_FAILED_PRECONDITION, "sandbox has ended");
}

static void kill_while_creating(void **state)
{
	struct rpc_call *create, *kill;
	Paddock__V1__ListSandboxesRequest request = PADDOCK__V1__LIST_SANDBOXES_REQUEST__INIT;
	Paddock__V1__ListSandboxesResponse *list;

	fake_warden_hold(WARDEN_CREATE);
	create = life_create("a");
	fake_loop_settle();
	kill = life_list("a", &request);
	list = paddock__v1__list_sandboxes_response__unpack(NULL, kill->reply_length, kill->reply);
	assert_int_equal(list->n_sandboxes, 1);
	assert_int_equal(list->sandboxes[0]->state, STATE(CREATING));
	strcpy(id, list->sandboxes[0]->id);
	paddock__v1__list_sandboxes_response__free_unpacked(list, NULL);
	fake_call_free(kill);
	kill = life_kill("a", id);
	life_expect(create, PDK_ABORTED, "sandbox was killed");
	fake_loop_settle();
	assert_false(kill->finished);
	assert_int_equal(fake_warden_requests(WARDEN_KILL), 0);
	fake_warden_hold(0);
	life_free(life_sandbox(kill));
	expect_end("a", STATE(KILLED), REASON(KILLED), "");
}

static void a_failed_removal_is_repeated(void **state)
{
	struct rpc_call *call;

	life_make(id);
	fake_warden_fail(WARDEN_KILL, 3, -EBUSY, "busy");
	call = life_kill("a", id);
	for (unsigned int i = 0; i < 4; i++) {
		fake_loop_settle();
		fake_loop_advance_ms(1000);
	}
	life_free(life_sandbox(call));
	assert_int_equal(fake_warden_requests(WARDEN_KILL), 4);
}

static void kill_outlasts_a_lost_warden(void **state)
{
	struct rpc_call *call;

	life_make(id);
	fake_warden_hold(WARDEN_KILL);
	call = life_kill("a", id);
	fake_loop_settle();
	fake_warden_hang_up();
	fake_loop_settle();
	fake_warden_hold(0);
	fake_loop_advance_ms(200);
	life_free(life_sandbox(call));
	assert_int_equal(fake_warden_living(), 0);
}

static void count_done(void *arg)
{
	++*(unsigned int *)arg;
}

static void a_tenant_is_killed(void **state)
{
	static unsigned int done;

	life_make(id);
	life_make(id);
	life_free(life_sandbox(life_create("b")));
	sandboxes_kill_tenant("a", count_done, &done);
	assert_int_equal(done, 0);
	RUN_UNTIL(done == 1);
	assert_int_equal(sandboxes_of_tenant("a"), 0);
	assert_int_equal(sandboxes_of_tenant("b"), 1);
	sandboxes_kill_tenant("nobody", count_done, &done);
	assert_int_equal(done, 2);
}

static void usage_comes_from_the_warden(void **state)
{
	Paddock__V1__GetUsageRequest request = PADDOCK__V1__GET_USAGE_REQUEST__INIT;
	struct rpc_call *call = fake_call("a");
	Paddock__V1__SandboxUsage *usage;

	life_make(id);
	request.sandbox_id = id;
	sandboxes_get_usage(call, &request.base);
	RUN_UNTIL(call->finished);
	usage = paddock__v1__sandbox_usage__unpack(NULL, call->reply_length, call->reply);
	assert_int_equal(usage->memory_bytes, 4711);
	paddock__v1__sandbox_usage__free_unpacked(usage, NULL);
	fake_call_free(call);
	fake_warden_hold(WARDEN_USAGE);
	call = fake_call("a");
	sandboxes_get_usage(call, &request.base);
	fake_loop_settle();
	fake_call_cancel(call);
	fake_call_free(call);
	fake_warden_hold(0);
	fake_loop_settle();
	life_free(life_sandbox(life_kill("a", id)));
	call = fake_call("a");
	sandboxes_get_usage(call, &request.base);
	life_expect(call, PDK_FAILED_PRECONDITION, "sandbox is not running");
}

/* --- what a crash leaves --- */

static void a_restart_adopts_what_runs(void **state)
{
	struct rpc_call *call;
	Paddock__V1__Sandbox *before, *after;

	life_make(id);
	before = life_sandbox(life_get("a", id));
	fake_warden_add("istrangerstrangerstra");
	life_restart(NULL);
	RUN_UNTIL(fake_processes_adopted == 1);
	after = life_sandbox(life_get("a", id));
	assert_int_equal(after->state, STATE(RUNNING));
	assert_int_equal(after->expires_unix_ms, before->expires_unix_ms);
	assert_string_equal(after->template_, before->template_);
	life_free(before);
	life_free(after);
	assert_int_equal(sandboxes_of_tenant("a"), 1);
	assert_int_equal(sandboxes_of_template(BASE_ID), 1);
	RUN_UNTIL(fake_audit_count("sandbox.adopted") == 1);
	RUN_UNTIL(!fake_warden_has("istrangerstrangerstra"));
	assert_int_equal(fake_audit_count("sandbox.removed"), 1);
	call = life_kill("a", id);
	life_free(life_sandbox(call));
}

static void lose_it(void)
{
	fake_warden_forget(id);
}

static void a_restart_says_what_is_lost(void **state)
{
	life_make(id);
	life_restart(lose_it);
	expect_end("a", STATE(FAILED), REASON(HOST_LOST), "it was gone");
	assert_int_equal(sandboxes_of_tenant("a"), 0);
	fake_loop_settle();
	assert_int_equal(fake_audit_count("sandbox.failed"), 1);
	/* Ended ones survive a restart too, until retention is over. */
	life_restart(NULL);
	assert_int_equal(life_state("a", id), STATE(FAILED));
	fake_loop_advance_ms(3600000);
	fake_loop_settle();
	life_expect(life_get("a", id), PDK_NOT_FOUND, "");
}

static void sleep_long(void)
{
	fake_loop_advance_ms(400000);
}

static void what_expired_meanwhile_is_killed_at_once(void **state)
{
	life_make(id);
	life_restart(sleep_long);
	expect_end("a", STATE(KILLED), REASON(TIMEOUT), "");
}

static void put_half_made(void)
{
	Paddock__Internal__StoredSandbox record = PADDOCK__INTERNAL__STORED_SANDBOX__INIT;
	struct store_batch *batch = store_batch_create();
	uint8_t packed[512];
	size_t length;

	record.id = (char *)"ihalfmadehalfmadehalf";
	record.tenant = (char *)"a";
	record.template_id = (char *)BASE_ID;
	record.template_name = (char *)"base";
	record.state = STATE(CREATING);
	record.intent = PADDOCK__INTERNAL__SANDBOX_INTENT__SANDBOX_INTENT_CREATE;
	length = paddock__internal__stored_sandbox__pack(&record, packed);
	store_put(batch, STORE_SANDBOXES, record.id, strlen(record.id), packed, length);
	record.id = (char *)"ihalfdeadhalfdeadhalf";
	record.state = STATE(KILLING);
	record.end_reason = REASON(KILLED);
	record.end_text = (char *)"killed on request";
	record.intent = PADDOCK__INTERNAL__SANDBOX_INTENT__SANDBOX_INTENT_KILL;
	length = paddock__internal__stored_sandbox__pack(&record, packed);
	store_put(batch, STORE_SANDBOXES, record.id, strlen(record.id), packed, length);
	store_put(batch, STORE_SANDBOXES, "garbage", 7, "\xff\xff", 2);
	store_commit(batch, NULL, NULL);
	fake_loop_turn(0);
	fake_warden_add("ihalfmadehalfmadehalf");
	fake_warden_add("ihalfdeadhalfdeadhalf");
}

static void intents_are_finished(void **state)
{
	life_restart(put_half_made);
	life_expect(life_get("a", "ihalfmadehalfmadehalf"), PDK_NOT_FOUND, "sandbox not found");
	RUN_UNTIL(fake_warden_living() == 0);
	strcpy(id, "ihalfdeadhalfdeadhalf");
	expect_end("a", STATE(KILLED), REASON(KILLED), "killed on request");
	fake_loop_settle();
	assert_int_equal(fake_audit_count("sandbox.removed"), 1);
	assert_int_equal(fake_store_count(STORE_SANDBOXES), 2);
}

static void a_reconnect_finds_what_is_gone(void **state)
{
	char other[32];

	life_make(id);
	life_make(other);
	fake_warden_hang_up();
	fake_warden_forget(id);
	fake_loop_settle();
	fake_loop_advance_ms(200);
	expect_end("a", STATE(FAILED), REASON(HOST_LOST), "it was gone");
	assert_int_equal(life_state("a", other), STATE(RUNNING));
	assert_int_equal(fake_processes_adopted, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, life_setup, life_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(kill_answers_when_nothing_is_left),
		TEST(others_do_not_find_it),
		TEST(the_timeout_kills_and_is_forgotten),
		TEST(set_timeout_extends_shortens_and_kills),
		TEST(a_dead_init_fails_the_sandbox),
		TEST(kill_while_creating),
		TEST(a_failed_removal_is_repeated),
		TEST(kill_outlasts_a_lost_warden),
		TEST(a_tenant_is_killed),
		TEST(usage_comes_from_the_warden),
		TEST(a_restart_adopts_what_runs),
		TEST(a_restart_says_what_is_lost),
		TEST(what_expired_meanwhile_is_killed_at_once),
		TEST(intents_are_finished),
		TEST(a_reconnect_finds_what_is_gone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
