#include "fake.h"
#include "sandbox/base/cleanup.h"
#include "server/files.h"
#include "server/processes.h"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/*
 * security.md I02: an init that lies. Each case starts an honest process or file operation, then breaks one rule; the
 * sandbox must be given up, every call must end, and no descriptor may be left. test_honest is the positive control.
 */

typedef void (*lie)(struct job *job);

static void send_started(struct job *job, uint64_t handle, uint32_t pid, unsigned int claimed, const int *fds,
			 unsigned int n_fds)
{
	Paddock__Internal__GuestStarted started = PADDOCK__INTERNAL__GUEST_STARTED__INIT;
	Paddock__Internal__GuestReply reply = PADDOCK__INTERNAL__GUEST_REPLY__INIT;

	started.handle = handle;
	started.pid = pid;
	started.has_stdin = claimed > 0;
	started.has_stdout = claimed > 1;
	started.has_stderr = claimed > 2;
	reply.result_case = PADDOCK__INTERNAL__GUEST_REPLY__RESULT_STARTED;
	reply.started = &started;
	fake_reply(job->stream, LINK_REPLY, &reply, fds, n_fds);
}

static void send_exited(uint32_t stream, uint64_t handle, uint32_t code, uint32_t signal)
{
	Paddock__Internal__GuestExited exited = PADDOCK__INTERNAL__GUEST_EXITED__INIT;
	Paddock__Internal__GuestReply reply = PADDOCK__INTERNAL__GUEST_REPLY__INIT;

	exited.handle = handle;
	exited.exit_code = code;
	exited.signal = signal;
	reply.result_case = PADDOCK__INTERNAL__GUEST_REPLY__RESULT_EXITED;
	reply.exited = &exited;
	fake_reply(stream, LINK_REPLY, &reply, NULL, 0);
}

static void send_raw(const void *bytes, size_t length)
{
	assert_int_equal(send(fake_link_fd, bytes, length, MSG_NOSIGNAL), length);
}

static void send_header(uint32_t length, uint32_t stream, uint16_t kind, uint8_t fds)
{
	uint8_t header[16] = {(uint8_t)length,
			      (uint8_t)(length >> 8),
			      (uint8_t)(length >> 16),
			      (uint8_t)(length >> 24),
			      (uint8_t)stream,
			      (uint8_t)(stream >> 8),
			      (uint8_t)(stream >> 16),
			      (uint8_t)(stream >> 24),
			      (uint8_t)kind,
			      (uint8_t)(kind >> 8),
			      fds};

	send_raw(header, sizeof(header));
}

/* Lies about a start that is asked for */

static void wrong_handle(struct job *job)
{
	send_started(job, job->handle + 1, 42, 0, NULL, 0);
}

static void pid_one(struct job *job)
{
	send_started(job, job->handle, 1, 0, NULL, 0);
}

static void fewer_fds(struct job *job)
{
	int pair[2];

	assert_int_equal(pipe(pair), 0);
	send_started(job, job->handle, 42, 3, pair, 2);
	close(pair[0]);
	close(pair[1]);
}

static void more_fds(struct job *job)
{
	int pair[2];

	assert_int_equal(pipe(pair), 0);
	send_started(job, job->handle, 42, 1, pair, 2);
	close(pair[0]);
	close(pair[1]);
}

static void no_pipes(struct job *job)
{
	int fds[2] = {open("/dev/null", O_RDWR), open("/etc/passwd", O_RDONLY)};

	send_started(job, job->handle, 42, 2, fds, 2);
	close(fds[0]);
	close(fds[1]);
}

static void exit_before_start(struct job *job)
{
	send_exited(job->stream, job->handle, 0, 0);
}

static void reply_of_another_kind(struct job *job)
{
	Paddock__Internal__GuestFile file = PADDOCK__INTERNAL__GUEST_FILE__INIT;
	Paddock__Internal__GuestReply reply = PADDOCK__INTERNAL__GUEST_REPLY__INIT;

	file.type = 1;
	reply.result_case = PADDOCK__INTERNAL__GUEST_REPLY__RESULT_FILE;
	reply.file = &file;
	fake_reply(job->stream, LINK_REPLY, &reply, NULL, 0);
}

static void unknown_code(struct job *job)
{
	Paddock__Internal__GuestReply reply = PADDOCK__INTERNAL__GUEST_REPLY__INIT;

	reply.code = 17;
	fake_reply(job->stream, LINK_REPLY, &reply, NULL, 0);
}

static void error_with_a_result(struct job *job)
{
	Paddock__Internal__GuestStarted started = PADDOCK__INTERNAL__GUEST_STARTED__INIT;
	Paddock__Internal__GuestReply reply = PADDOCK__INTERNAL__GUEST_REPLY__INIT;

	reply.code = 9;
	reply.result_case = PADDOCK__INTERNAL__GUEST_REPLY__RESULT_STARTED;
	reply.started = &started;
	fake_reply(job->stream, LINK_REPLY, &reply, NULL, 0);
}

/* Lies about a process that runs */

static void exit_code_256(struct job *job)
{
	send_exited(job->stream, job->handle, 256, 0);
}

static void signal_65(struct job *job)
{
	send_exited(job->stream, job->handle, 0, 65);
}

static void exit_of_another(struct job *job)
{
	send_exited(job->stream, job->handle + 1, 0, 0);
}

static void two_exits(struct job *job)
{
	send_exited(job->stream, job->handle, 0, 0);
	send_exited(job->stream, job->handle, 1, 0);
}

static void reply_after_the_end(struct job *job)
{
	send_exited(job->stream, job->handle, 0, 0);
	fake_end(job->stream);
	send_exited(job->stream, job->handle, 0, 0);
}

static void stream_never_opened(struct job *job)
{
	send_exited(job->stream + 100, job->handle, 0, 0);
}

static void stream_of_its_own(struct job *job)
{
	Paddock__Internal__GuestReply reply = PADDOCK__INTERNAL__GUEST_REPLY__INIT;

	fake_reply(2, LINK_REQUEST, &reply, NULL, 0);
}

static void event_on_a_process(struct job *job)
{
	Paddock__Internal__GuestWatchEvent watch = PADDOCK__INTERNAL__GUEST_WATCH_EVENT__INIT;
	Paddock__Internal__GuestReply reply = PADDOCK__INTERNAL__GUEST_REPLY__INIT;

	watch.type = 1;
	reply.result_case = PADDOCK__INTERNAL__GUEST_REPLY__RESULT_WATCH;
	reply.watch = &watch;
	fake_reply(job->stream, LINK_EVENT, &reply, NULL, 0);
}

static void notice_of_another_kind(struct job *job)
{
	Paddock__Internal__GuestReply reply = PADDOCK__INTERNAL__GUEST_REPLY__INIT;

	fake_reply(0, LINK_EVENT, &reply, NULL, 0);
}

static void four_gigabytes(struct job *job)
{
	send_header(UINT32_MAX, job->stream, LINK_REPLY, 0);
}

static void unknown_kind(struct job *job)
{
	send_header(0, job->stream, 99, 0);
}

static void claims_fds(struct job *job)
{
	send_header(0, job->stream, LINK_REPLY, 4);
}

static void garbage(struct job *job)
{
	uint8_t bytes[4096];

	memset(bytes, 0xff, sizeof(bytes));
	send_header(sizeof(bytes), job->stream, LINK_REPLY, 0);
	send_raw(bytes, sizeof(bytes));
}

/* A message that needs fifty times its size: 300,000 empty files in a list. */
static void memory_bomb(struct job *job)
{
	size_t n = 300000, length = 0;
	uint8_t *bytes = malloc(16 + 2 * n);

	bytes[length++] = 7 << 3 | 2; /* GuestReply.files */
	bytes[length++] = (uint8_t)(2 * n | 0x80);
	bytes[length++] = (uint8_t)(2 * n >> 7 | 0x80);
	bytes[length++] = (uint8_t)(2 * n >> 14);
	for (size_t i = 0; i < n; i++) {
		bytes[length++] = 1 << 3 | 2;
		bytes[length++] = 0;
	}
	link_send(fake_link, job->stream, LINK_REPLY, bytes, length, NULL, 0);
	for (int i = 0; i < 200 && !fake_lost[0]; i++) {
		link_flush(fake_link);
		fake_turn(1);
	}
	free(bytes);
}

static void closes_within_a_frame(struct job *job)
{
	send_header(100, job->stream, LINK_REPLY, 0);
	send_raw("half", 4);
	link_free(STEAL_PTR(fake_link));
}

static void closes(struct job *job)
{
	link_free(STEAL_PTR(fake_link));
}

static void flood_of_fds(struct job *job)
{
	int fds[4];

	for (int i = 0; i < 4; i++)
		fds[i] = open("/dev/null", O_RDWR);
	for (int i = 0; i < 50; i++)
		link_send(fake_link, job->stream, LINK_REPLY, NULL, 0, fds, 4);
	for (int i = 0; i < 4; i++)
		close(fds[i]);
}

static void drop_link(void)
{
	link_free(STEAL_PTR(fake_link));
	fake_disconnect();
}

static struct rpc_call *ask_start(struct job *job)
{
	Paddock__V1__StartProcessRequest start = PADDOCK__V1__START_PROCESS_REQUEST__INIT;
	struct rpc_call *call = fake_call();
	char *argv[] = {(char *)"/bin/x"};
	struct request asked;

	start.sandbox_id = fake_sandbox.id;
	start.argv = argv;
	start.n_argv = 1;
	processes_start(call, &start.base);
	asked = fake_next();
	*job = (struct job){.stream = asked.stream, .handle = asked.message->start->handle};
	fake_request_free(&asked);
	return call;
}

static void expect_lost(struct rpc_call *call, struct job *job, unsigned int fds_before)
{
	for (int i = 0; i < 1000 && !fake_lost[0]; i++)
		fake_turn(2);
	assert_string_not_equal(fake_lost, "");
	assert_null(fake_sandbox.guest);
	processes_end(&fake_sandbox);
	for (int i = 0; i < 1000 && !call->finished; i++)
		fake_turn(2);
	assert_true(call->finished);
	fake_settle();
	fake_job_close(job);
	drop_link();
	assert_int_equal(fake_open_fds(), fds_before);
	fake_call_free(call);
}

static void expect_lie_about_start(lie tell)
{
	unsigned int fds = fake_open_fds() - 2; /* the link's */
	struct job job;
	struct rpc_call *call = ask_start(&job);

	tell(&job);
	expect_lost(call, &job, fds);
}

static void expect_lie_while_running(lie tell)
{
	unsigned int fds = fake_open_fds() - 2;
	struct rpc_call *call = fake_call();
	struct job job;

	fake_start(call, &job, NULL);
	fake_settle();
	assert_string_equal(fake_lost, "");
	tell(&job);
	expect_lost(call, &job, fds);
}

static void test_honest(void **state)
{
	unsigned int fds = fake_open_fds();
	struct rpc_call *call = fake_call();
	struct job job;

	fake_start(call, &job, NULL);
	fake_exit(&job, 255, 0);
	fake_finished(call, PDK_OK);
	fake_call_free(call);
	assert_string_equal(fake_lost, "");
	assert_int_equal(fake_open_fds(), fds);
}

static void test_lies_about_a_start(void **state)
{
	static const lie lies[] = {wrong_handle, pid_one,
				   fewer_fds,    more_fds,
				   no_pipes,     exit_before_start,
				   unknown_code, four_gigabytes,
				   unknown_kind, reply_of_another_kind,
				   garbage,      error_with_a_result,
				   memory_bomb,  claims_fds,
				   closes,       closes_within_a_frame,
				   flood_of_fds};

	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		expect_lie_about_start(lies[i]);
		fake_teardown(state);
		fake_setup(state);
	}
}

static void test_lies_about_a_process(void **state)
{
	static const lie lies[] = {exit_code_256,
				   signal_65,
				   exit_of_another,
				   two_exits,
				   reply_after_the_end,
				   garbage,
				   stream_never_opened,
				   stream_of_its_own,
				   event_on_a_process,
				   closes,
				   notice_of_another_kind,
				   four_gigabytes,
				   flood_of_fds,
				   closes_within_a_frame,
				   memory_bomb};

	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		expect_lie_while_running(lies[i]);
		fake_teardown(state);
		fake_setup(state);
	}
}

/* Not hostile: many answers in one piece, and then silence. All are heard. */
static void test_many_answers_at_once(void **state)
{
	Paddock__V1__StatRequest request = PADDOCK__V1__STAT_REQUEST__INIT;
	struct rpc_call *calls[130];
	uint32_t streams[130];

	request.sandbox_id = fake_sandbox.id;
	request.path = (ProtobufCBinaryData){.len = 2, .data = (uint8_t *)"/x"};
	for (unsigned int i = 0; i < 130; i++) {
		struct request asked;

		calls[i] = fake_call();
		files_stat(calls[i], &request.base);
		asked = fake_next();
		streams[i] = asked.stream;
		fake_request_free(&asked);
	}
	for (unsigned int i = 0; i < 130; i++)
		fake_error(streams[i], PDK_NOT_FOUND, "no such file");
	for (unsigned int i = 0; i < 130; i++) {
		fake_finished(calls[i], PDK_NOT_FOUND);
		fake_call_free(calls[i]);
	}
	assert_string_equal(fake_lost, "");
}

/* Events beyond the credit. */
static void test_event_flood(void **state)
{
	Paddock__Internal__GuestWatchEvent watch = PADDOCK__INTERNAL__GUEST_WATCH_EVENT__INIT;
	Paddock__Internal__GuestReply reply = PADDOCK__INTERNAL__GUEST_REPLY__INIT;
	Paddock__V1__WatchRequest request = PADDOCK__V1__WATCH_REQUEST__INIT;
	struct rpc_call *call = fake_call();
	struct request asked;

	call->slow = true;
	request.sandbox_id = fake_sandbox.id;
	request.path = (ProtobufCBinaryData){.len = 4, .data = (uint8_t *)"/tmp"};
	files_watch(call, &request.base);
	asked = fake_next();
	watch.type = 2;
	reply.result_case = PADDOCK__INTERNAL__GUEST_REPLY__RESULT_WATCH;
	reply.watch = &watch;
	for (int i = 0; i < 256; i++)
		fake_reply(asked.stream, LINK_EVENT, &reply, NULL, 0);
	fake_settle();
	assert_string_equal(fake_lost, "");
	fake_reply(asked.stream, LINK_EVENT, &reply, NULL, 0);
	fake_finished(call, PDK_UNAVAILABLE);
	assert_string_not_equal(fake_lost, "");
	fake_request_free(&asked);
	fake_call_free(call);
}

/* sudo notices are recorded, but not without bound. */
static void test_sudo_flood(void **state)
{
	Paddock__Internal__GuestSudo sudo = PADDOCK__INTERNAL__GUEST_SUDO__INIT;
	Paddock__Internal__GuestReply reply = PADDOCK__INTERNAL__GUEST_REPLY__INIT;
	char *argv[] = {(char *)"apt\n\"", (char *)"update\xff"};

	sudo.argv = argv;
	sudo.n_argv = 2;
	sudo.caller_pid = 7;
	sudo.allowed = true;
	reply.result_case = PADDOCK__INTERNAL__GUEST_REPLY__RESULT_SUDO;
	reply.sudo = &sudo;
	for (int i = 0; i < 2000; i++) {
		fake_reply(0, LINK_EVENT, &reply, NULL, 0);
		fake_turn(0);
	}
	fake_settle();
	assert_string_equal(fake_lost, "");
	assert_true(fake_audits >= 200 && fake_audits < 400);
	assert_string_equal(fake_audit_action, "process.sudo");
	assert_string_equal(fake_audit_outcome, "OK");
	assert_string_equal(fake_audit_detail,
			    "{\"argv\":[\"apt\\u000a\\\"\",\"update\\u00ff\"],\"cwd\":\"\",\"caller_pid\":7}");
}

/* An init that clears O_NONBLOCK on its side cannot make the daemon wait. */
static void test_blocking_pipe(void **state)
{
	struct rpc_call *call = fake_call();
	struct job job;

	fake_start(call, &job, NULL); /* its pipes are blocking ones */
	fake_settle();
	assert_int_equal(write(job.out[1], "x", 1), 1);
	fake_settle();
	assert_int_equal(call->n_sent, 2);
	fake_exit(&job, 0, 0);
	fake_finished(call, PDK_OK);
	fake_call_free(call);
}

/* An init that does not read: the queue is bounded and the link is given up. */
static void test_init_that_does_not_read(void **state)
{
	static uint8_t path[4000];
	Paddock__V1__StatRequest request = PADDOCK__V1__STAT_REQUEST__INIT;
	struct rpc_call *calls[4096];
	unsigned int n = 0;

	memset(path, '/', sizeof(path));
	request.sandbox_id = fake_sandbox.id;
	request.path = (ProtobufCBinaryData){.len = sizeof(path), .data = path};
	while (n < ARRAY_SIZE(calls) && fake_sandbox.guest) {
		calls[n] = fake_call();
		files_stat(calls[n++], &request.base);
		if (n % 16 == 0)
			fake_turn(0);
	}
	fake_settle();
	assert_string_not_equal(fake_lost, "");
	for (unsigned int i = 0; i < n; i++) {
		assert_true(calls[i]->finished);
		fake_call_free(calls[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_honest, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_lies_about_a_start, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_lies_about_a_process, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_many_answers_at_once, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_event_flood, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_sudo_flood, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_blocking_pipe, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_init_that_does_not_read, fake_setup, fake_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
