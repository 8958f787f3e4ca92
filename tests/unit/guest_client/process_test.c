#include "fake.h"
#include "sandbox/base/cleanup.h"
#include "server/processes.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Start, exit, and the order in which the store, init and the client hear of them. */

static void free_event(Paddock__V1__ProcessEvent *event)
{
	paddock__v1__process_event__free_unpacked(event, NULL);
}

static void expect_case(struct rpc_call *call, size_t n, Paddock__V1__ProcessEvent__EventCase event_case)
{
	Paddock__V1__ProcessEvent *event = fake_event(call, n);

	assert_int_equal(event->event_case, event_case);
	free_event(event);
}

static void expect_exit(struct rpc_call *call, size_t n, uint32_t code, uint32_t signal)
{
	Paddock__V1__ProcessEvent *event = fake_event(call, n);

	assert_int_equal(event->event_case, PADDOCK__V1__PROCESS_EVENT__EVENT_EXITED);
	assert_int_equal(event->exited->exit_code, code);
	assert_int_equal(event->exited->signal, signal);
	free_event(event);
}

static void test_start_output_exit(void **state)
{
	struct rpc_call *call = fake_call();
	Paddock__Internal__StoredProcess *stored;
	Paddock__V1__ProcessEvent *event;
	struct request request;
	struct job job;

	fake_start(call, &job, NULL);
	event = fake_event(call, 0);
	assert_int_equal(event->event_case, PADDOCK__V1__PROCESS_EVENT__EVENT_STARTED);
	assert_int_equal(event->started->process_id, 1);
	assert_int_equal(event->started->pid, 42);
	free_event(event);
	assert_int_equal(call->commits, 1);
	assert_string_equal(call->object, "1");
	assert_string_equal(call->detail, "{\"argv\":[\"/bin/x\"],\"user\":\"user\",\"env\":[]}");

	assert_int_equal(write(job.out[1], "hello", 5), 5);
	event = fake_event(call, 1);
	assert_int_equal(event->event_case, PADDOCK__V1__PROCESS_EVENT__EVENT_OUTPUT);
	assert_int_equal(event->output->sequence, 0);
	assert_int_equal(event->output->stream, PADDOCK__V1__STREAM__STREAM_STDOUT);
	assert_int_equal(event->output->data.len, 5);
	assert_memory_equal(event->output->data.data, "hello", 5);
	free_event(event);
	assert_int_equal(write(job.err[1], "no", 2), 2);
	event = fake_event(call, 2);
	assert_int_equal(event->output->sequence, 5);
	assert_int_equal(event->output->stream, PADDOCK__V1__STREAM__STREAM_STDERR);
	free_event(event);

	fake_exit(&job, 3, 0);
	expect_exit(call, 3, 3, 0);
	fake_finished(call, PDK_OK);
	request = fake_next();
	assert_int_equal(request.message->op_case, PADDOCK__INTERNAL__GUEST_REQUEST__OP_FORGET);
	fake_ok(request.stream);
	fake_request_free(&request);
	stored = fake_stored(1);
	assert_int_equal(stored->exit->exit_code, 3);
	assert_int_equal(stored->output_bytes, 7);
	assert_string_equal(stored->cwd, "/home/user");
	paddock__internal__stored_process__free_unpacked(stored, NULL);
	fake_call_free(call);
}

/* -1: the store has none. */
static int stored_exit_code(uint64_t id)
{
	Paddock__Internal__StoredProcess *stored = fake_stored(id);
	int code = stored->exit ? (int)stored->exit->exit_code : -1;

	paddock__internal__stored_process__free_unpacked(stored, NULL);
	return code;
}

static void expect_forget(void)
{
	struct request request = fake_next();

	assert_int_equal(request.message->op_case, PADDOCK__INTERNAL__GUEST_REQUEST__OP_FORGET);
	fake_ok(request.stream);
	fake_request_free(&request);
}

static void test_started_waits_for_the_store(void **state)
{
	struct rpc_call *call = fake_call();
	struct job job;

	fake_store_holds = true;
	fake_start(call, &job, NULL);
	fake_settle();
	assert_int_equal(call->n_sent, 0);
	fake_store_commit();
	expect_case(call, 0, PADDOCK__V1__PROCESS_EVENT__EVENT_STARTED);
	/* The exit is told at once: init keeps it until the store has it. */
	fake_exit(&job, 4, 0);
	expect_exit(call, 1, 4, 0);
	fake_finished(call, PDK_OK);
	fake_settle();
	assert_true(fake_nothing());
	fake_store_commit();
	expect_forget();
	fake_call_free(call);
}

static void test_exit_that_cannot_be_stored(void **state)
{
	struct rpc_call *call = fake_call();
	struct job job;

	fake_start(call, &job, NULL);
	expect_case(call, 0, PADDOCK__V1__PROCESS_EVENT__EVENT_STARTED);
	fake_store_rc = -ENOSPC;
	fake_exit(&job, 4, 0);
	expect_exit(call, 1, 4, 0);
	fake_finished(call, PDK_OK);
	fake_settle();
	assert_true(fake_nothing()); /* init goes on keeping it */
	assert_int_equal(stored_exit_code(1), -1);
	fake_call_free(call);
	/* With the sandbox goes the one who keeps it: then the store must have it. */
	fake_store_rc = 0;
	processes_end(&fake_sandbox);
	fake_settle();
	assert_int_equal(stored_exit_code(1), 4);
}

/* init gives the process up without an exit: nobody keeps how it ended, so it is stored before it is told. */
static void test_exit_that_nobody_keeps(void **state)
{
	struct rpc_call *call = fake_call();
	struct job job;

	fake_start(call, &job, NULL);
	expect_case(call, 0, PADDOCK__V1__PROCESS_EVENT__EVENT_STARTED);
	fake_store_holds = true;
	fake_job_close(&job);
	fake_end(job.stream);
	fake_settle();
	assert_int_equal(call->n_sent, 1);
	fake_store_commit();
	expect_exit(call, 1, 0, 9);
	fake_finished(call, PDK_OK);
	fake_call_free(call);
}

static void test_exit_before_the_start_is_stored(void **state)
{
	struct rpc_call *call = fake_call();
	struct job job;

	fake_store_holds = true;
	fake_start(call, &job, NULL);
	assert_int_equal(write(job.out[1], "x", 1), 1);
	fake_exit(&job, 0, 9);
	fake_settle();
	assert_int_equal(call->n_sent, 0);
	fake_store_commit();
	expect_case(call, 0, PADDOCK__V1__PROCESS_EVENT__EVENT_STARTED);
	expect_case(call, 1, PADDOCK__V1__PROCESS_EVENT__EVENT_OUTPUT);
	fake_store_commit();
	expect_exit(call, 2, 0, 9);
	fake_finished(call, PDK_OK);
	fake_call_free(call);
}

static void test_start_that_init_refuses(void **state)
{
	struct rpc_call *call = fake_call();
	Paddock__V1__StartProcessRequest start = PADDOCK__V1__START_PROCESS_REQUEST__INIT;
	char *argv[] = {(char *)"nothing"};
	struct request request;

	start.sandbox_id = fake_sandbox.id;
	start.argv = argv;
	start.n_argv = 1;
	processes_start(call, &start.base);
	request = fake_next();
	fake_error(request.stream, PDK_FAILED_PRECONDITION, "nothing: not found\n");
	fake_request_free(&request);
	fake_finished(call, PDK_FAILED_PRECONDITION);
	assert_string_equal(call->end.text, "nothing: not found?");
	assert_int_equal(fake_stored_count(), 0);
	fake_call_free(call);
}

static void test_store_that_fails(void **state)
{
	struct rpc_call *call = fake_call();
	struct request request;
	struct job job;

	fake_store_rc = -5;
	fake_start(call, &job, NULL);
	fake_finished(call, PDK_UNAVAILABLE);
	request = fake_next();
	assert_int_equal(request.message->op_case, PADDOCK__INTERNAL__GUEST_REQUEST__OP_SIGNAL);
	assert_int_equal(request.message->signal->signal, 9);
	fake_ok(request.stream);
	fake_request_free(&request);
	fake_exit(&job, 0, 9);
	fake_settle();
	fake_store_rc = 0;
	fake_call_free(call);
}

static void expect_invalid(Paddock__V1__StartProcessRequest *request, const char *field)
{
	struct rpc_call *call = fake_call();

	request->sandbox_id = fake_sandbox.id;
	processes_start(call, &request->base);
	assert_true(call->finished);
	assert_int_equal(call->end.code, PDK_INVALID_ARGUMENT);
	assert_int_equal(strncmp(call->end.text, field, strlen(field)), 0);
	fake_call_free(call);
}

static void test_limits(void **state)
{
	Paddock__V1__StartProcessRequest good = PADDOCK__V1__START_PROCESS_REQUEST__INIT;
	Paddock__V1__TerminalSize size = PADDOCK__V1__TERMINAL_SIZE__INIT;
	Paddock__V1__StartProcessRequest bad;
	char *argv[] = {(char *)"x"};
	char tag[130];

	expect_invalid(&good, "argv");
	good.argv = argv;
	good.n_argv = 1;
	bad = good;
	bad.cwd = (char *)"relative";
	expect_invalid(&bad, "cwd");
	bad = good;
	bad.user = (char *)"daemon";
	expect_invalid(&bad, "user");
	bad = good;
	bad.terminal = &size;
	expect_invalid(&bad, "terminal.columns");
	size.columns = 80;
	expect_invalid(&bad, "terminal.rows");
	bad = good;
	bad.timeout_ms = 86400001;
	expect_invalid(&bad, "timeout_ms");
	bad = good;
	bad.grace_ms = 60001;
	expect_invalid(&bad, "grace_ms");
	memset(tag, 'a', 129);
	tag[129] = '\0';
	bad = good;
	bad.tag = tag;
	expect_invalid(&bad, "tag");
	assert_true(fake_nothing());
}

static void test_detach(void **state)
{
	Paddock__V1__StartProcessRequest start = PADDOCK__V1__START_PROCESS_REQUEST__INIT;
	Paddock__V1__WaitRequest wait = PADDOCK__V1__WAIT_REQUEST__INIT;
	struct rpc_call *call = fake_call();
	Paddock__V1__ProcessExit *exited;
	struct job job;

	start.detach = true;
	fake_start(call, &job, &start);
	fake_finished(call, PDK_OK);
	assert_int_equal(call->n_sent, 1);
	fake_call_free(call);

	call = fake_call();
	wait.sandbox_id = fake_sandbox.id;
	wait.process_id = 1;
	processes_wait(call, &wait.base);
	fake_settle();
	assert_false(call->finished);
	fake_exit(&job, 7, 0);
	fake_finished(call, PDK_OK);
	exited = paddock__v1__process_exit__unpack(NULL, call->reply.length, call->reply.bytes);
	assert_int_equal(exited->exit_code, 7);
	paddock__v1__process_exit__free_unpacked(exited, NULL);
	fake_call_free(call);
}

static void test_cancelled_start_lives_on(void **state)
{
	struct rpc_call *call = fake_call();
	Paddock__Internal__StoredProcess *stored;
	struct job job;

	fake_store_holds = true;
	fake_start(call, &job, NULL);
	fake_cancel(call, PDK_CANCELLED);
	fake_settle();
	assert_false(call->finished);
	fake_store_holds = false;
	fake_store_commit();
	fake_finished(call, PDK_CANCELLED);
	fake_call_free(call);
	fake_exit(&job, 0, 0);
	fake_settle();
	stored = fake_stored(1);
	assert_non_null(stored->exit);
	paddock__internal__stored_process__free_unpacked(stored, NULL);
}

static void test_grandchild_holds_the_pipe(void **state)
{
	struct rpc_call *call = fake_call();
	struct job job;
	int held;

	fake_start(call, &job, NULL);
	held = dup(job.out[1]);
	fake_exit(&job, 0, 0);
	fake_settle();
	assert_int_equal(call->n_sent, 1);
	fake_advance(250);
	expect_exit(call, 1, 0, 0);
	fake_finished(call, PDK_OK);
	fake_call_free(call);
	/* What the grandchild says later is still kept. */
	assert_int_equal(write(held, "late", 4), 4);
	close(held);
	fake_settle();
	call = fake_call();
	processes_attach(call,
			 &(Paddock__V1__AttachRequest){.base.descriptor = &paddock__v1__attach_request__descriptor,
						       .sandbox_id = fake_sandbox.id,
						       .process_id = 1,
						       .tag = (char *)"",
						       .from_sequence = 0}
				  .base);
	fake_finished(call, PDK_OK);
	expect_case(call, 1, PADDOCK__V1__PROCESS_EVENT__EVENT_OUTPUT);
	expect_exit(call, 2, 0, 0);
	fake_call_free(call);
}

static void test_sandbox_ends(void **state)
{
	struct rpc_call *call = fake_call();
	Paddock__V1__ProcessEvent *event;
	struct job job;

	fake_start(call, &job, NULL);
	fake_settle();
	assert_int_equal(write(job.out[1], "last words", 10), 10);
	fake_disconnect();
	fake_job_close(&job);
	processes_end(&fake_sandbox);
	fake_finished(call, PDK_OK);
	expect_case(call, 1, PADDOCK__V1__PROCESS_EVENT__EVENT_OUTPUT);
	event = fake_event(call, 2);
	assert_true(event->exited->sandbox_ended);
	assert_int_equal(event->exited->signal, 9);
	free_event(event);
	fake_call_free(call);
}

static void test_list_and_trim(void **state)
{
	Paddock__V1__ListProcessesRequest list = PADDOCK__V1__LIST_PROCESSES_REQUEST__INIT;
	Paddock__V1__ListProcessesResponse *reply;
	struct rpc_call *call;
	struct job job;

	for (int i = 0; i < 260; i++) {
		struct request request;

		call = fake_call();
		fake_start(call, &job, NULL);
		fake_exit(&job, 0, 0);
		fake_finished(call, PDK_OK);
		fake_call_free(call);
		request = fake_next();
		fake_ok(request.stream);
		fake_request_free(&request);
	}
	call = fake_call();
	fake_start(call, &job, NULL);
	fake_settle();
	assert_int_equal(fake_stored_count(), 257);
	list.sandbox_id = fake_sandbox.id;
	for (int ended = 0; ended < 2; ended++) {
		struct rpc_call *listing = fake_call();

		list.include_ended = ended;
		processes_list(listing, &list.base);
		fake_finished(listing, PDK_OK);
		reply = paddock__v1__list_processes_response__unpack(NULL, listing->reply.length, listing->reply.bytes);
		assert_int_equal(reply->n_processes, ended ? 257 : 1);
		assert_int_equal(reply->processes[0]->process_id, ended ? 5 : 261);
		paddock__v1__list_processes_response__free_unpacked(reply, NULL);
		fake_call_free(listing);
	}
	fake_exit(&job, 0, 0);
	fake_finished(call, PDK_OK);
	fake_call_free(call);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_start_output_exit, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_started_waits_for_the_store, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_exit_before_the_start_is_stored, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_exit_that_cannot_be_stored, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_exit_that_nobody_keeps, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_start_that_init_refuses, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_store_that_fails, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_limits, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_detach, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_cancelled_start_lives_on, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_grandchild_holds_the_pipe, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_sandbox_ends, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_list_and_trim, fake_setup, fake_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
