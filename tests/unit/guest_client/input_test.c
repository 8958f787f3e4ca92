#include "fake.h"
#include "server/loop.h"
#include "server/processes.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* SendInput, CloseStdin, Interact, Signal, Resize. */

#define MEGABYTE (1u << 20)

static uint8_t bytes[MEGABYTE];

static struct rpc_call *send_input(size_t length, uint64_t deadline_ms)
{
	/* The message lives as long as the call: see rpc.h. */
	static Paddock__V1__SendInputRequest request;
	struct rpc_call *call = fake_call();

	paddock__v1__send_input_request__init(&request);
	request.sandbox_id = fake_sandbox.id;
	request.process_id = 1;
	request.data = (ProtobufCBinaryData){.len = length, .data = bytes};
	call->deadline_ns = deadline_ms ? loop_now_ns() + deadline_ms * 1000000 : 0;
	processes_send_input(call, &request.base);
	return call;
}

static struct rpc_call *start_with_stdin(struct job *job)
{
	Paddock__V1__StartProcessRequest start = PADDOCK__V1__START_PROCESS_REQUEST__INIT;
	struct rpc_call *call = fake_call();

	start.open_stdin = true;
	fake_start(call, job, &start);
	fake_settle();
	fcntl(job->in[0], F_SETFL, O_NONBLOCK);
	return call;
}

static size_t drain(int fd)
{
	static uint8_t data[65536];
	size_t total = 0;
	ssize_t n;

	while ((n = read(fd, data, sizeof(data))) > 0)
		total += (size_t)n;
	return total;
}

static void end(struct rpc_call *call, struct job *job)
{
	fake_exit(job, 0, 0);
	fake_finished(call, PDK_OK);
	fake_call_free(call);
}

static void test_input_waits_for_the_pipe(void **state)
{
	struct job job;
	struct rpc_call *started = start_with_stdin(&job), *call;
	Paddock__V1__SendInputResponse *reply;
	size_t total = 0;

	call = send_input(MEGABYTE, 0);
	fake_settle();
	assert_false(call->finished);
	while (!call->finished) {
		total += drain(job.in[0]);
		fake_turn(1);
	}
	total += drain(job.in[0]);
	assert_int_equal(total, MEGABYTE);
	reply = paddock__v1__send_input_response__unpack(NULL, call->reply.length, call->reply.bytes);
	assert_int_equal(reply->bytes, MEGABYTE);
	paddock__v1__send_input_response__free_unpacked(reply, NULL);
	fake_call_free(call);
	end(started, &job);
}

static void test_deadline_says_what_was_taken(void **state)
{
	struct job job;
	struct rpc_call *started = start_with_stdin(&job), *call;
	char expected[64];

	call = send_input(MEGABYTE, 50);
	fake_finished(call, PDK_DEADLINE_EXCEEDED);
	snprintf(expected, sizeof(expected), "%zu of %u bytes were taken", drain(job.in[0]), MEGABYTE);
	assert_string_equal(call->end.text, expected);
	fake_call_free(call);
	/* The next input begins where it was left. */
	call = send_input(100, 0);
	fake_finished(call, PDK_OK);
	assert_int_equal(drain(job.in[0]), 100);
	fake_call_free(call);
	end(started, &job);
}

static void test_errors(void **state)
{
	struct rpc_call *started = fake_call(), *call;
	struct job job;

	fake_start(started, &job, NULL);
	fake_settle();
	call = send_input(1, 0);
	fake_finished(call, PDK_FAILED_PRECONDITION);
	assert_string_equal(call->end.text, "stdin is off");
	fake_call_free(call);
	end(started, &job);
	call = send_input(1, 0);
	fake_finished(call, PDK_FAILED_PRECONDITION);
	fake_call_free(call);
}

static void test_reader_goes(void **state)
{
	struct job job;
	struct rpc_call *started = start_with_stdin(&job), *call;

	call = send_input(MEGABYTE, 0);
	close(job.in[0]);
	job.in[0] = -1;
	fake_finished(call, PDK_FAILED_PRECONDITION);
	assert_string_equal(call->end.text, "stdin is closed");
	fake_call_free(call);
	end(started, &job);
}

static void test_close_comes_after_what_waits(void **state)
{
	Paddock__V1__CloseStdinRequest request = PADDOCK__V1__CLOSE_STDIN_REQUEST__INIT;
	struct job job;
	struct rpc_call *started = start_with_stdin(&job), *input, *closing = fake_call();
	struct request asked;
	size_t total = 0;

	request.sandbox_id = fake_sandbox.id;
	request.process_id = 1;
	input = send_input(MEGABYTE, 0);
	processes_close_stdin(closing, &request.base);
	fake_settle();
	assert_false(closing->finished);
	for (int i = 0; i < 1000 && !closing->finished; i++) {
		total += drain(job.in[0]);
		fake_turn(1);
	}
	fake_finished(closing, PDK_OK);
	asked = fake_next();
	assert_int_equal(asked.message->op_case, PADDOCK__INTERNAL__GUEST_REQUEST__OP_CLOSE_STDIN);
	fake_ok(asked.stream);
	fake_request_free(&asked);
	total += drain(job.in[0]);
	assert_int_equal(total, MEGABYTE);
	assert_int_equal(read(job.in[0], bytes, 1), 0);
	assert_true(input->finished);
	fake_call_free(input);
	fake_call_free(closing);
	/* Idempotent. */
	closing = fake_call();
	processes_close_stdin(closing, &request.base);
	fake_finished(closing, PDK_OK);
	fake_call_free(closing);
	end(started, &job);
}

static void interact_start(struct rpc_call *call, struct job *job)
{
	Paddock__V1__StartProcessRequest start = PADDOCK__V1__START_PROCESS_REQUEST__INIT;
	Paddock__V1__TerminalSize size = PADDOCK__V1__TERMINAL_SIZE__INIT;
	Paddock__V1__InteractRequest message = PADDOCK__V1__INTERACT_REQUEST__INIT;
	char *argv[] = {(char *)"/bin/sh"};
	struct request asked;

	processes_interact(call, NULL);
	size.columns = 80;
	size.rows = 24;
	start.sandbox_id = fake_sandbox.id;
	start.argv = argv;
	start.n_argv = 1;
	start.terminal = &size;
	message.message_case = PADDOCK__V1__INTERACT_REQUEST__MESSAGE_START;
	message.start = &start;
	fake_message(call, &message.base);
	asked = fake_next();
	assert_int_equal(asked.message->start->columns, 80);
	assert_true(asked.message->start->open_stdin);
	*job = (struct job){.stream = asked.stream, .handle = asked.message->start->handle};
	fake_request_free(&asked);
	fake_answer_start(job, true);
	fcntl(job->in[0], F_SETFL, O_NONBLOCK);
}

static void test_interact(void **state)
{
	Paddock__V1__InteractRequest message = PADDOCK__V1__INTERACT_REQUEST__INIT;
	Paddock__V1__TerminalSize size = PADDOCK__V1__TERMINAL_SIZE__INIT;
	struct rpc_call *call = fake_call();
	struct request asked;
	size_t total = 0;
	struct job job;

	interact_start(call, &job);
	message.message_case = PADDOCK__V1__INTERACT_REQUEST__MESSAGE_INPUT;
	message.input = (ProtobufCBinaryData){.len = MEGABYTE, .data = bytes};
	fake_message(call, &message.base);
	fake_settle();
	/* Nothing more is read of the call before the pipe has taken this. */
	assert_false(call->want_read);
	while (!call->want_read) {
		total += drain(job.in[0]);
		fake_turn(1);
	}
	assert_int_equal(total + drain(job.in[0]), MEGABYTE);
	size.columns = 100;
	size.rows = 50;
	message.message_case = PADDOCK__V1__INTERACT_REQUEST__MESSAGE_RESIZE;
	message.resize = &size;
	fake_message(call, &message.base);
	asked = fake_next();
	assert_int_equal(asked.message->resize->columns, 100);
	fake_ok(asked.stream);
	fake_request_free(&asked);
	message.message_case = PADDOCK__V1__INTERACT_REQUEST__MESSAGE_SIGNAL;
	message.signal = 2;
	fake_message(call, &message.base);
	asked = fake_next();
	assert_int_equal(asked.message->signal->signal, 2);
	fake_ok(asked.stream);
	fake_request_free(&asked);
	fake_half_close(call);
	assert_int_equal(write(job.out[1], "$ ", 2), 2);
	fake_settle();
	fake_exit(&job, 0, 0);
	fake_finished(call, PDK_OK);
	assert_int_equal(call->n_sent, 3);
	fake_call_free(call);
}

static void test_interact_that_breaks_while_input_waits(void **state)
{
	Paddock__V1__InteractRequest message = PADDOCK__V1__INTERACT_REQUEST__INIT;
	struct rpc_call *call = fake_call();
	struct job job;

	interact_start(call, &job);
	message.message_case = PADDOCK__V1__INTERACT_REQUEST__MESSAGE_INPUT;
	message.input = (ProtobufCBinaryData){.len = MEGABYTE, .data = bytes};
	fake_message(call, &message.base);
	fake_cancel(call, PDK_CANCELLED);
	assert_true(call->finished);
	fake_call_free(call);
	drain(job.in[0]);
	fake_settle();
	assert_int_equal(drain(job.in[0]), 0);
	fake_exit(&job, 0, 0);
	fake_settle();
}

static void test_interact_bad_messages(void **state)
{
	Paddock__V1__InteractRequest message = PADDOCK__V1__INTERACT_REQUEST__INIT;
	struct rpc_call *call = fake_call();

	processes_interact(call, NULL);
	fake_message(call, &message.base);
	assert_int_equal(call->end.code, PDK_INVALID_ARGUMENT);
	fake_call_free(call);
	call = fake_call();
	processes_interact(call, NULL);
	fake_half_close(call);
	assert_int_equal(call->end.code, PDK_INVALID_ARGUMENT);
	fake_call_free(call);
}

static struct rpc_call *signal_process(uint32_t number)
{
	Paddock__V1__SignalRequest request = PADDOCK__V1__SIGNAL_REQUEST__INIT;
	struct rpc_call *call = fake_call();

	request.sandbox_id = fake_sandbox.id;
	request.process_id = 1;
	request.signal = number;
	processes_signal(call, &request.base);
	return call;
}

static void test_signal(void **state)
{
	static const uint32_t bad[] = {0, 65, 1u << 31};
	struct rpc_call *started = fake_call(), *call;
	struct request asked;
	struct job job;

	fake_start(started, &job, NULL);
	fake_settle();
	for (int i = 0; i < 3; i++) {
		call = signal_process(bad[i]);
		fake_finished(call, PDK_INVALID_ARGUMENT);
		fake_call_free(call);
	}
	call = signal_process(15);
	asked = fake_next();
	fake_ok(asked.stream);
	fake_request_free(&asked);
	fake_finished(call, PDK_OK);
	fake_call_free(call);
	call = signal_process(15);
	fake_cancel(call, PDK_CANCELLED);
	fake_call_free(call);
	asked = fake_next();
	fake_ok(asked.stream);
	fake_request_free(&asked);
	end(started, &job);
	call = signal_process(15);
	fake_finished(call, PDK_NOT_FOUND);
	fake_call_free(call);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_input_waits_for_the_pipe, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_deadline_says_what_was_taken, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_errors, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_reader_goes, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_close_comes_after_what_waits, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_interact, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_interact_that_breaks_while_input_waits, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_interact_bad_messages, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_signal, fake_setup, fake_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
