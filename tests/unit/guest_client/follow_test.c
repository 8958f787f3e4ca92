#include "fake.h"
#include "server/processes.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Followers: replay, gaps, back-pressure, many clients. */

static uint8_t pattern(uint64_t sequence)
{
	return (uint8_t)(sequence * 2654435761u >> 13);
}

/* Write up to `length` bytes of the pattern; stops when the pipe is full. Returns the bytes written. */
static uint64_t produce(int fd, uint64_t from, uint64_t length)
{
	static uint8_t data[65536];
	uint64_t done = 0;

	fcntl(fd, F_SETFL, O_NONBLOCK);
	while (done < length) {
		size_t step = length - done < sizeof(data) ? (size_t)(length - done) : sizeof(data);
		ssize_t n;

		for (size_t i = 0; i < step; i++)
			data[i] = pattern(from + done + i);
		n = write(fd, data, step);
		if (n < 0)
			break;
		done += (uint64_t)n;
	}
	return done;
}

static uint64_t produce_all(int fd, uint64_t length)
{
	uint64_t done = 0;

	for (int idle = 0; done < length && idle < 20;) {
		uint64_t n = produce(fd, done, length - done);

		done += n;
		idle = n ? 0 : idle + 1;
		fake_turn(1);
	}
	return done;
}

/* Check every output message of a call against the pattern. Returns the next sequence; gaps are added up. */
static uint64_t check_output(struct rpc_call *call, uint64_t from, uint64_t *ret_gap)
{
	uint64_t at = from;

	*ret_gap = 0;
	for (size_t i = 0; i < call->n_sent; i++) {
		Paddock__V1__ProcessEvent *event = fake_event(call, i);

		if (event->event_case == PADDOCK__V1__PROCESS_EVENT__EVENT_GAP) {
			assert_int_equal(event->gap->sequence, at);
			at += event->gap->dropped_bytes;
			*ret_gap += event->gap->dropped_bytes;
		} else if (event->event_case == PADDOCK__V1__PROCESS_EVENT__EVENT_OUTPUT) {
			assert_int_equal(event->output->sequence, at);
			assert_true(event->output->data.len <= 1 << 20);
			for (size_t j = 0; j < event->output->data.len; j++) {
				if (event->output->data.data[j] != pattern(at + j))
					fail_msg("wrong byte at %llu", (unsigned long long)(at + j));
			}
			at += event->output->data.len;
		}
		paddock__v1__process_event__free_unpacked(event, NULL);
	}
	return at;
}

static struct rpc_call *attach(uint64_t from, enum pdk_code code)
{
	Paddock__V1__AttachRequest request = PADDOCK__V1__ATTACH_REQUEST__INIT;
	struct rpc_call *call = fake_call();

	request.sandbox_id = fake_sandbox.id;
	request.process_id = 1;
	request.from_sequence = from;
	processes_attach(call, &request.base);
	if (code != PDK_OK) {
		assert_true(call->finished);
		assert_int_equal(call->end.code, code);
	}
	return call;
}

static void test_slow_client_holds_the_process(void **state)
{
	const uint64_t all = 24 << 20;
	struct rpc_call *call = fake_call();
	uint64_t done, gap;
	struct job job;

	call->slow = true;
	fake_start(call, &job, NULL);
	paddock__v1__process_event__free_unpacked(fake_event(call, 0), NULL);
	done = produce_all(job.out[1], all);
	/* The window, the pipe, and one piece more. */
	assert_true(done >= 4 << 20 && done <= 6 << 20);
	while (done < all) {
		if (call->sending)
			fake_sent(call);
		done += produce(job.out[1], done, all - done);
		fake_turn(0);
	}
	call->slow = false;
	fake_sent(call);
	fake_settle();
	fake_exit(&job, 0, 0);
	fake_finished(call, PDK_OK);
	assert_int_equal(check_output(call, 0, &gap), all);
	assert_int_equal(gap, 0);
	fake_call_free(call);
}

static void test_late_client_sees_a_gap(void **state)
{
	Paddock__V1__StartProcessRequest start = PADDOCK__V1__START_PROCESS_REQUEST__INIT;
	const uint64_t all = 8 << 20;
	struct rpc_call *call = fake_call();
	struct job job;
	uint64_t gap;

	start.detach = true;
	fake_start(call, &job, &start);
	fake_finished(call, PDK_OK);
	fake_call_free(call);
	/* Nobody follows: nothing holds the process. */
	assert_int_equal(produce_all(job.out[1], all), all);
	fake_settle();
	fake_call_free(attach(all + 1, PDK_OUT_OF_RANGE));
	call = attach(0, PDK_OK);
	fake_settle();
	assert_int_equal(check_output(call, 0, &gap), all);
	assert_true(gap > 0 && gap <= all - (256 << 10) - (1 << 20));
	fake_cancel(call, PDK_CANCELLED);
	fake_call_free(call);
	call = attach(all - 1000, PDK_OK);
	fake_settle();
	assert_int_equal(check_output(call, all - 1000, &gap), all);
	assert_int_equal(gap, 0);
	fake_exit(&job, 0, 0);
	fake_finished(call, PDK_OK);
	fake_call_free(call);
	/* After the end too. */
	call = attach(all, PDK_OK);
	fake_finished(call, PDK_OK);
	assert_int_equal(call->n_sent, 2);
	fake_call_free(call);
}

/* While a client replays, the process waits, so that what it is reading is not overwritten. */
static void test_replay_is_not_overtaken(void **state)
{
	Paddock__V1__StartProcessRequest start = PADDOCK__V1__START_PROCESS_REQUEST__INIT;
	const uint64_t first = 1 << 20, all = 12 << 20;
	struct rpc_call *call = fake_call();
	uint64_t done, gap;
	struct job job;

	start.detach = true;
	fake_start(call, &job, &start);
	fake_finished(call, PDK_OK);
	fake_call_free(call);
	done = produce_all(job.out[1], first);
	fake_settle();
	call = fake_call();
	call->slow = true;
	{
		Paddock__V1__AttachRequest request = PADDOCK__V1__ATTACH_REQUEST__INIT;

		request.sandbox_id = fake_sandbox.id;
		request.process_id = 1;
		processes_attach(call, &request.base);
	}
	while (done < all) {
		if (call->sending)
			fake_sent(call);
		done += produce(job.out[1], done, all - done);
		fake_turn(0);
	}
	call->slow = false;
	fake_sent(call);
	fake_settle();
	fake_exit(&job, 0, 0);
	fake_finished(call, PDK_OK);
	assert_int_equal(check_output(call, 0, &gap), all);
	assert_int_equal(gap, 0);
	fake_call_free(call);
}

static void test_two_clients(void **state)
{
	const uint64_t all = 10 << 20;
	struct rpc_call *fast = fake_call(), *slow;
	uint64_t done, gap;
	struct job job;

	fake_start(fast, &job, NULL);
	paddock__v1__process_event__free_unpacked(fake_event(fast, 0), NULL);
	slow = attach(0, PDK_OK);
	fake_settle();
	slow->slow = true;
	done = produce_all(job.out[1], all);
	assert_true(done < all);
	/* The slow one goes: the other gets everything. */
	fake_cancel(slow, PDK_CANCELLED);
	fake_call_free(slow);
	while (done < all) {
		done += produce(job.out[1], done, all - done);
		fake_turn(1);
	}
	fake_exit(&job, 0, 0);
	fake_finished(fast, PDK_OK);
	assert_int_equal(check_output(fast, 0, &gap), all);
	assert_int_equal(gap, 0);
	fake_call_free(fast);
}

/* One byte each of stdout and stderr in turn: the memory of chunks is what holds the process, not the bytes. */
static void test_tiny_pieces_are_bounded(void **state)
{
	struct rpc_call *call = fake_call();
	struct job job;
	int n = 0;

	call->slow = true;
	fake_start(call, &job, NULL);
	paddock__v1__process_event__free_unpacked(fake_event(call, 0), NULL);
	fcntl(job.out[1], F_SETFL, O_NONBLOCK);
	fcntl(job.err[1], F_SETFL, O_NONBLOCK);
	for (; n < 20000; n++) {
		if (write(n % 2 ? job.out[1] : job.err[1], "x", 1) < 0)
			break;
		fake_turn(0);
	}
	assert_true(n > 200);
	call->slow = false;
	fake_sent(call);
	fake_exit(&job, 0, 0);
	fake_finished(call, PDK_OK);
	fake_call_free(call);
}

static void test_keepalive(void **state)
{
	struct rpc_call *call = fake_call();
	Paddock__V1__ProcessEvent *event;
	struct job job;

	fake_start(call, &job, NULL);
	paddock__v1__process_event__free_unpacked(fake_event(call, 0), NULL);
	fake_settle();
	fake_advance(31000);
	event = fake_event(call, 1);
	assert_int_equal(event->event_case, PADDOCK__V1__PROCESS_EVENT__EVENT_KEEPALIVE);
	paddock__v1__process_event__free_unpacked(event, NULL);
	fake_exit(&job, 0, 0);
	fake_finished(call, PDK_OK);
	fake_call_free(call);
}

static void test_attach_errors(void **state)
{
	Paddock__V1__AttachRequest request = PADDOCK__V1__ATTACH_REQUEST__INIT;
	struct rpc_call *call;

	fake_call_free(attach(0, PDK_NOT_FOUND));
	call = fake_call();
	request.sandbox_id = fake_sandbox.id;
	processes_attach(call, &request.base);
	assert_int_equal(call->end.code, PDK_INVALID_ARGUMENT);
	fake_call_free(call);
	call = fake_call();
	request.sandbox_id = (char *)"i11111111111111111111";
	processes_attach(call, &request.base);
	assert_int_equal(call->end.code, PDK_NOT_FOUND);
	fake_call_free(call);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_slow_client_holds_the_process, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_late_client_sees_a_gap, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_replay_is_not_overtaken, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_two_clients, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_tiny_pieces_are_bounded, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_keepalive, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_attach_errors, fake_setup, fake_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
