#include "fake.h"
#include "sandbox/base/cleanup.h"
#include "server/processes.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A daemon that starts again: memory is gone, the store, the files of output and init are there. */

static int adopted_rc;

static void adopted(struct sandbox *sandbox, int rc)
{
	adopted_rc = rc;
}

/* Forget what memory holds as kill -9 would: the list leaks on purpose into `old`, to be taken apart at the end. */
static struct process_list *crash(void)
{
	struct process_list *old = fake_sandbox.processes;

	fake_disconnect();
	fake_sandbox.processes = NULL;
	fake_connect();
	return old;
}

/* Let the leaked list go, without touching the store. */
static void bury(struct process_list *old)
{
	struct process_list *now = fake_sandbox.processes;

	fake_sandbox.processes = old;
	processes_end(&fake_sandbox);
	fake_settle();
	fake_sandbox.processes = now;
}

static void answer_list(const uint64_t *handles, size_t n)
{
	Paddock__Internal__GuestProcesses processes = PADDOCK__INTERNAL__GUEST_PROCESSES__INIT;
	Paddock__Internal__GuestReply reply = PADDOCK__INTERNAL__GUEST_REPLY__INIT;
	struct request asked = fake_next();

	assert_int_equal(asked.message->op_case, PADDOCK__INTERNAL__GUEST_REQUEST__OP_ADOPT);
	assert_int_equal(asked.message->adopt->handle, 0);
	processes.handle = (uint64_t *)handles;
	processes.n_handle = n;
	reply.result_case = PADDOCK__INTERNAL__GUEST_REPLY__RESULT_PROCESSES;
	reply.processes = &processes;
	fake_reply(asked.stream, LINK_REPLY, &reply, NULL, 0);
	fake_end(asked.stream);
	fake_request_free(&asked);
}

static struct rpc_call *start_detached(struct job *job)
{
	Paddock__V1__StartProcessRequest start = PADDOCK__V1__START_PROCESS_REQUEST__INIT;
	struct rpc_call *call = fake_call();

	start.detach = true;
	fake_start(call, job, &start);
	fake_finished(call, PDK_OK);
	return call;
}

static struct rpc_call *attach(uint64_t id)
{
	Paddock__V1__AttachRequest request = PADDOCK__V1__ATTACH_REQUEST__INIT;
	struct rpc_call *call = fake_call();

	request.sandbox_id = fake_sandbox.id;
	request.process_id = id;
	processes_attach(call, &request.base);
	return call;
}

static void test_running_process_is_taken_over(void **state)
{
	const uint64_t handles[] = {1};
	struct job before, after;
	struct rpc_call *call = start_detached(&before);
	Paddock__V1__ProcessEvent *event;
	struct process_list *old;
	struct request asked;

	fake_call_free(call);
	assert_int_equal(write(before.out[1], "before ", 7), 7);
	fake_settle();
	old = crash();
	adopted_rc = 1;
	processes_adopt(&fake_sandbox, adopted);
	answer_list(handles, 1);
	asked = fake_next();
	assert_int_equal(asked.message->adopt->handle, 1);
	assert_int_equal(adopted_rc, 0);
	after = (struct job){.stream = asked.stream, .handle = 1};
	fake_request_free(&asked);
	fake_answer_start(&after, false);
	fake_settle();
	call = attach(1);
	event = fake_event(call, 1);
	assert_int_equal(event->output->data.len, 7);
	assert_memory_equal(event->output->data.data, "before ", 7);
	paddock__v1__process_event__free_unpacked(event, NULL);
	assert_int_equal(write(after.out[1], "after", 5), 5);
	event = fake_event(call, 2);
	assert_int_equal(event->output->sequence, 7);
	assert_memory_equal(event->output->data.data, "after", 5);
	paddock__v1__process_event__free_unpacked(event, NULL);
	fake_exit(&after, 0, 0);
	fake_finished(call, PDK_OK);
	fake_call_free(call);
	fake_job_close(&before);
	bury(old);
	processes_forget(&(struct sandbox){.processes = old, .id = "i00000000000000000000"});
}

/* The link to init breaks between an exit that was told and its commit: init is not made to forget it before that. */
static void test_exit_under_way_is_kept(void **state)
{
	const uint64_t handles[] = {1};
	struct job job;
	struct rpc_call *call = start_detached(&job);
	struct request asked;

	fake_call_free(call);
	fake_store_holds = true;
	call = attach(1);
	fake_exit(&job, 3, 0);
	fake_finished(call, PDK_OK);
	fake_call_free(call);
	fake_disconnect();
	fake_connect();
	processes_adopt(&fake_sandbox, adopted);
	answer_list(handles, 1);
	fake_settle();
	assert_true(fake_nothing());
	fake_store_commit();
	asked = fake_next();
	assert_int_equal(asked.message->op_case, PADDOCK__INTERNAL__GUEST_REQUEST__OP_FORGET);
	assert_int_equal(asked.message->forget->handle, 1);
	fake_ok(asked.stream);
	fake_request_free(&asked);
}

static void test_lost_and_unknown(void **state)
{
	const uint64_t handles[] = {77};
	struct job job;
	struct rpc_call *call = start_detached(&job);
	Paddock__V1__ProcessEvent *event;
	struct process_list *old;
	struct request asked;
	struct job unwanted;

	fake_call_free(call);
	old = crash();
	processes_adopt(&fake_sandbox, adopted);
	answer_list(handles, 1);
	/* 77 was never acknowledged: it is killed, and forgotten when it has ended. */
	asked = fake_next();
	assert_int_equal(asked.message->op_case, PADDOCK__INTERNAL__GUEST_REQUEST__OP_SIGNAL);
	assert_int_equal(asked.message->signal->signal, 9);
	fake_ok(asked.stream);
	fake_request_free(&asked);
	asked = fake_next();
	unwanted = (struct job){.stream = asked.stream, .handle = 77};
	fake_request_free(&asked);
	fake_answer_start(&unwanted, true);
	fake_exit(&unwanted, 0, 9);
	asked = fake_next();
	assert_int_equal(asked.message->op_case, PADDOCK__INTERNAL__GUEST_REQUEST__OP_FORGET);
	while (asked.message->forget->handle != 77) {
		fake_ok(asked.stream);
		fake_request_free(&asked);
		asked = fake_next();
	}
	fake_ok(asked.stream);
	fake_request_free(&asked);
	/* 1 has ended, and nobody saw how. */
	call = attach(1);
	fake_finished(call, PDK_OK);
	event = fake_event(call, 1);
	assert_int_equal(event->exited->signal, 9);
	assert_true(event->exited->sandbox_ended);
	paddock__v1__process_event__free_unpacked(event, NULL);
	fake_call_free(call);
	/* Numbers are not used again, not even those that only init knew. */
	call = start_detached(&unwanted);
	assert_int_equal(unwanted.handle, 78);
	fake_call_free(call);
	fake_exit(&unwanted, 0, 0);
	fake_settle();
	fake_job_close(&job);
	bury(old);
	processes_forget(&(struct sandbox){.processes = old, .id = "i00000000000000000000"});
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_running_process_is_taken_over, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_exit_under_way_is_kept, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_lost_and_unknown, fake_setup, fake_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
