#include "fake.h"
#include "sandbox/base/cleanup.h"
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The link itself: hello, setup, time-outs, being freed from inside a handler. */

static int ready_rc;
static unsigned int ready_calls;

static void on_ready(struct guest *guest, int rc, void *arg)
{
	ready_rc = rc;
	ready_calls++;
	if (rc < 0) {
		guest_free(guest);
		fake_sandbox.guest = NULL;
	}
}

/* A second link, whose other end the test keeps silent or closes. */
static int connect_raw(void)
{
	int pair[2];

	fake_disconnect();
	ready_calls = 0;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	fake_sandbox.guest = guest_create(&fake_sandbox, pair[0], NULL, 0, NULL, on_ready, NULL);
	assert_non_null(fake_sandbox.guest);
	return pair[1];
}

static void test_setup_says_everything(void **state)
{
	char *env[] = {(char *)"NAME=value", (char *)"OTHER="};
	struct request request;

	assert_int_equal(guest_setup(fake_sandbox.guest, env, 2, "other", NULL), 0);
	request = fake_next();
	assert_int_equal(request.message->op_case, PADDOCK__INTERNAL__GUEST_REQUEST__OP_SETUP);
	assert_int_equal(request.message->setup->n_env, 2);
	assert_string_equal(request.message->setup->env[1], "OTHER=");
	assert_string_equal(request.message->setup->hostname, "other");
	assert_true(request.message->setup->sudo);
	fake_ok(request.stream);
	fake_request_free(&request);
	fake_settle();
	assert_string_equal(fake_lost, "");
}

static void test_no_hello(void **state)
{
	int fd = connect_raw();

	fake_settle();
	assert_int_equal(ready_calls, 0);
	fake_advance(11000);
	fake_settle();
	assert_int_equal(ready_calls, 1);
	assert_true(ready_rc < 0);
	assert_string_equal(fake_lost, "");
	close(fd);
}

static void test_closed_before_hello(void **state)
{
	close(connect_raw());
	fake_settle();
	assert_int_equal(ready_calls, 1);
	assert_true(ready_rc < 0);
}

static void test_other_version(void **state)
{
	Paddock__Internal__GuestHelloResult hello = PADDOCK__INTERNAL__GUEST_HELLO_RESULT__INIT;
	Paddock__Internal__GuestReply reply = PADDOCK__INTERNAL__GUEST_REPLY__INIT;
	uint8_t bytes[64] = {};
	int fd = connect_raw();

	hello.version = GUEST_VERSION + 1;
	reply.result_case = PADDOCK__INTERNAL__GUEST_REPLY__RESULT_HELLO;
	reply.hello = &hello;
	bytes[0] = (uint8_t)paddock__internal__guest_reply__pack(&reply, bytes + 16);
	bytes[4] = 1;
	bytes[8] = LINK_REPLY;
	assert_int_equal(write(fd, bytes, 16u + bytes[0]), 16 + bytes[0]);
	fake_settle();
	assert_int_equal(ready_calls, 1);
	assert_true(ready_rc < 0);
	close(fd);
}

struct probe {
	unsigned int replies;
	unsigned int ends;
	enum pdk_code code;
	bool free_guest;
};

static void on_probe(const Paddock__Internal__GuestReply *reply, int *fds, unsigned int n_fds,
		     const struct pdk_error *err, void *arg)
{
	struct probe *probe = arg;

	probe->code = err->code;
	if (reply)
		probe->replies++;
	else
		probe->ends++;
	if (probe->free_guest) {
		guest_free(fake_sandbox.guest);
		fake_sandbox.guest = NULL;
	}
}

static uint32_t ask_forget(struct probe *probe)
{
	Paddock__Internal__GuestForget forget = PADDOCK__INTERNAL__GUEST_FORGET__INIT;
	Paddock__Internal__GuestRequest request = PADDOCK__INTERNAL__GUEST_REQUEST__INIT;
	struct request asked;
	int64_t stream;

	request.op_case = PADDOCK__INTERNAL__GUEST_REQUEST__OP_FORGET;
	request.forget = &forget;
	stream = guest_call(fake_sandbox.guest, &request, 0, on_probe, probe);
	assert_true(stream > 0 && stream % 2);
	asked = fake_next();
	assert_int_equal(asked.stream, stream);
	fake_request_free(&asked);
	return (uint32_t)stream;
}

static void test_reply_then_end(void **state)
{
	struct probe probe = {};

	fake_ok(ask_forget(&probe));
	fake_settle();
	assert_int_equal(probe.replies, 1);
	assert_int_equal(probe.ends, 1);
	assert_int_equal(probe.code, PDK_OK);
}

static void test_cancelled_stream_is_silent(void **state)
{
	struct probe probe = {};
	uint32_t stream = ask_forget(&probe);

	guest_cancel(fake_sandbox.guest, stream);
	fake_ok(stream);
	fake_settle();
	assert_int_equal(probe.replies + probe.ends, 0);
	assert_string_equal(fake_lost, "");
}

static void test_freed_inside_a_handler(void **state)
{
	struct probe first = {.free_guest = true}, second = {};
	uint32_t stream = ask_forget(&first);

	ask_forget(&second);
	fake_ok(stream);
	fake_settle();
	assert_int_equal(first.replies, 1);
	assert_int_equal(second.ends, 1);
	assert_int_equal(second.code, PDK_UNAVAILABLE);
	assert_string_equal(fake_lost, "");
}

static void test_lost_tells_every_stream(void **state)
{
	struct probe probes[3] = {};

	for (int i = 0; i < 3; i++)
		ask_forget(&probes[i]);
	link_free(STEAL_PTR(fake_link));
	fake_settle();
	for (int i = 0; i < 3; i++) {
		assert_int_equal(probes[i].ends, 1);
		assert_int_equal(probes[i].code, PDK_UNAVAILABLE);
	}
	assert_string_equal(fake_lost, "its init is gone");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_setup_says_everything, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_no_hello, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_closed_before_hello, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_other_version, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_reply_then_end, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_cancelled_stream_is_silent, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_freed_inside_a_handler, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_lost_tells_every_stream, fake_setup, fake_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
