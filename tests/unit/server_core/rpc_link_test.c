#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core_test.pb-c.h"
#include "paddock/internal/call.pb-c.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/link.h"
#include "sandbox/call/call.h"
#include "server/loop.h"
#include "server/rpc_internal.h"
#include "service.h"

/* The same methods as over gRPC, called over link by the client library, and by peers that break the rules. */

#define TEST "/paddock.test.Test/"
#define WAIT_MS 10000

static struct call_link *wire;
static char socket_path[128];

/* What a call brought. */
struct seen {
	unsigned int messages;
	uint64_t bytes;
	uint8_t last[512];
	size_t last_length;
	unsigned int refill; /* credit to give back for each message */
	bool ended, writable;
	enum pdk_code code;
	char text[512];
};

static void on_message(struct call *call, const uint8_t *bytes, size_t length, int *fds, unsigned int n_fds, void *arg)
{
	struct seen *seen = arg;

	seen->messages++;
	seen->bytes += length;
	seen->last_length = length < sizeof(seen->last) ? length : sizeof(seen->last);
	memcpy(seen->last, bytes, seen->last_length);
	call_credit(call, seen->refill);
}

static void on_writable(struct call *call, void *arg)
{
	((struct seen *)arg)->writable = true;
}

static void on_end(struct call *call, enum pdk_code code, const char *text, void *arg)
{
	struct seen *seen = arg;

	assert_false(seen->ended);
	seen->ended = true;
	seen->code = code;
	snprintf(seen->text, sizeof(seen->text), "%s", text);
}

static const struct call_events events = {.on_message = on_message, .on_writable = on_writable, .on_end = on_end};

/* One round: false when nothing came within `ms`. */
static bool turn(struct call_link *link, int ms)
{
	struct pollfd poll_fd = {.fd = call_link_fd(link), .events = POLLIN};
	int rc;

	if (call_link_events(link) & EPOLLOUT)
		poll_fd.events |= POLLOUT;
	if (poll(&poll_fd, 1, ms) <= 0)
		return false;
	do
		rc = call_link_io(link, (uint32_t)poll_fd.revents);
	while (rc == 1);
	assert_int_equal(rc, 0);
	return true;
}

#define UNTIL(condition)                                                                                               \
	do {                                                                                                           \
		while (!(condition))                                                                                   \
			assert_true(turn(wire, WAIT_MS));                                                              \
	} while (0)

/* Everything that comes within a tenth of a second. */
static void settle(void)
{
	while (turn(wire, 100))
		continue;
}

static struct call_open opening(const char *method, uint32_t credit)
{
	return (struct call_open){
		.method = method, .authorization = GOOD_KEY, .client_address = "203.0.113.9", .credit = credit};
}

static size_t pack_text(const char *text, uint8_t *packed)
{
	Paddock__Test__Text message = PADDOCK__TEST__TEXT__INIT;

	message.text = (char *)(uintptr_t)text;
	return paddock__test__text__pack(&message, packed);
}

static size_t pack_number(int64_t value, uint8_t *packed)
{
	Paddock__Test__Number message = PADDOCK__TEST__NUMBER__INIT;

	message.value = value;
	return paddock__test__number__pack(&message, packed);
}

static struct call *start_text(const struct call_open *open, const char *text, struct seen *seen)
{
	uint8_t packed[512];
	int rc;
	struct call *call = call_unary(wire, open, packed, pack_text(text, packed), &events, seen, &rc);

	assert_non_null(call);
	return call;
}

static struct seen echo(const char *method, const char *authorization, const char *text)
{
	struct call_open open = opening(method, 1);
	struct seen seen = {};

	open.authorization = authorization;
	start_text(&open, text, &seen);
	UNTIL(seen.ended);
	return seen;
}

static unsigned int active(void)
{
	unsigned int n;

	loop_lock();
	n = rpc_active();
	loop_unlock();
	return n;
}

static void nothing_is_left(void)
{
	for (int i = 0; i < 500 && active(); i++)
		usleep(10000);
	assert_int_equal(active(), 0);
	assert_int_equal(call_link_active(wire), 0);
}

static void unary_returns_the_reply(void **state)
{
	struct seen seen = echo(TEST "Echo", GOOD_KEY, "hello");
	uint8_t expected[64];
	size_t length = pack_text("hello", expected);

	assert_int_equal(seen.code, PDK_OK);
	assert_int_equal(seen.messages, 1);
	assert_int_equal(seen.last_length, length);
	assert_memory_equal(seen.last, expected, length);
	nothing_is_left();
}

static void failures_are_those_of_grpc(void **state)
{
	struct seen seen = echo(TEST "Echo", GOOD_KEY, "fail");

	assert_int_equal(seen.code, PDK_NOT_FOUND);
	assert_string_equal(seen.text, "no such \xe2\x9c\x93 thing\n%");
	assert_int_equal(echo(TEST "Nothing", GOOD_KEY, "x").code, PDK_UNIMPLEMENTED);
	/* The link itself is nobody: no operator without a key, and no other key's rights. */
	assert_int_equal(echo(TEST "Echo", NULL, "x").code, PDK_UNAUTHENTICATED);
	assert_int_equal(echo(TEST "Admin", NULL, "x").code, PDK_UNAUTHENTICATED);
	assert_int_equal(echo(TEST "Admin", GOOD_KEY, "x").code, PDK_PERMISSION_DENIED);
	assert_int_equal(echo(TEST "Echo", READ_KEY, "x").code, PDK_PERMISSION_DENIED);
	assert_int_equal(echo(TEST "Echo", "Bearer pdk_bad", "x").code, PDK_UNAUTHENTICATED);
	nothing_is_left();
}

static struct seen with_token(const char *method, const char *sandbox_id, const char *token, const char *key)
{
	struct call_open open = opening(method, 1);
	struct seen seen = {};

	open.authorization = key;
	open.sandbox_id = sandbox_id;
	open.access_token = token;
	start_text(&open, "x", &seen);
	UNTIL(seen.ended);
	return seen;
}

static void a_token_opens_what_is_for_tokens(void **state)
{
	assert_int_equal(with_token(TEST "Token", "box", "token", NULL).code, PDK_OK);
	assert_int_equal(with_token(TEST "Token", NULL, NULL, GOOD_KEY).code, PDK_OK);
	assert_int_equal(with_token(TEST "Echo", "box", "token", NULL).code, PDK_PERMISSION_DENIED);
	assert_int_equal(with_token(TEST "Token", "box", "wrong", NULL).code, PDK_UNAUTHENTICATED);
	assert_int_equal(with_token(TEST "Token", NULL, "token", NULL).code, PDK_UNAUTHENTICATED);
	assert_int_equal(with_token(TEST "Token", "box", NULL, NULL).code, PDK_UNAUTHENTICATED);
	/* A key does not make up for a wrong token. */
	assert_int_equal(with_token(TEST "Token", "box", "wrong", GOOD_KEY).code, PDK_UNAUTHENTICATED);
	nothing_is_left();
}

static void change_is_durable_and_names_the_client(void **state)
{
	int commits = atomic_load(&store_commits);

	assert_int_equal(echo(TEST "Change", GOOD_KEY, "x").code, PDK_OK);
	assert_int_equal(atomic_load(&store_commits), commits + 1);
	loop_lock();
	assert_string_equal(last_detail, "{\"client\":\"203.0.113.9\"}");
	loop_unlock();
	atomic_store(&store_result, -EIO);
	assert_int_equal(echo(TEST "Change", GOOD_KEY, "x").code, PDK_UNAVAILABLE);
	atomic_store(&store_result, 0);
}

static void bad_messages_are_refused(void **state)
{
	static const uint8_t garbage[] = {0xff, 0xff, 0xff};
	struct call_open open = opening(TEST "Echo", 1);
	_cleanup_free_ uint8_t *large = calloc(1, (64u << 10) + 1);
	struct seen bad = {}, huge = {}, none = {};
	struct call *call;
	int rc;

	call_unary(wire, &open, garbage, sizeof(garbage), &events, &bad, &rc);
	call_unary(wire, &open, large, (64u << 10) + 1, &events, &huge, &rc);
	call = call_open(wire, &open, &events, &none, &rc);
	call_half_close(call);
	UNTIL(bad.ended && huge.ended && none.ended);
	assert_int_equal(bad.code, PDK_INVALID_ARGUMENT);
	assert_int_equal(huge.code, PDK_RESOURCE_EXHAUSTED);
	assert_int_equal(none.code, PDK_INVALID_ARGUMENT);
	nothing_is_left();
}

static void streams_wait_for_credit(void **state)
{
	struct call_open open = opening(TEST "Count", 3);
	struct seen seen = {};
	uint8_t packed[16];
	struct call *call;
	int rc;

	call = call_unary(wire, &open, packed, pack_number(1000, packed), &events, &seen, &rc);
	settle();
	assert_int_equal(seen.messages, 3);
	assert_false(seen.ended);
	/* Another call is not held up. */
	assert_int_equal(echo(TEST "Echo", GOOD_KEY, "x").code, PDK_OK);
	seen.refill = 1;
	call_credit(call, 1);
	UNTIL(seen.ended);
	assert_int_equal(seen.code, PDK_OK);
	assert_int_equal(seen.messages, 1000);
	assert_int_equal(seen.last_length, pack_number(999, packed));
	assert_memory_equal(seen.last, packed, seen.last_length);
	nothing_is_left();
}

static void a_reply_waits_for_credit(void **state)
{
	struct call_open open = opening(TEST "Echo", 0);
	struct seen seen = {};
	struct call *call = start_text(&open, "hello", &seen);

	settle();
	assert_false(seen.ended);
	call_credit(call, 1);
	UNTIL(seen.ended);
	assert_int_equal(seen.code, PDK_OK);
	assert_int_equal(seen.messages, 1);
}

static void client_streams(void **state)
{
	struct call_open open = opening(TEST "Sum", 1);
	struct seen seen = {};
	int sent = 0, refused = 0, rc;
	struct call *call = call_open(wire, &open, &events, &seen, &rc);
	Paddock__Test__Number *sum;

	assert_non_null(call);
	while (sent < 1000) {
		uint8_t packed[16];

		rc = call_send(call, packed, pack_number(sent, packed));
		if (rc == 0) {
			sent++;
			continue;
		}
		assert_int_equal(rc, -EAGAIN);
		assert_false(call_can_send(call));
		refused++;
		seen.writable = false;
		UNTIL(seen.writable);
	}
	assert_true(refused > 0); /* four may wait, and the loop above is faster than the round trip at least once */
	call_half_close(call);
	UNTIL(seen.ended);
	assert_int_equal(seen.code, PDK_OK);
	sum = paddock__test__number__unpack(NULL, seen.last_length, seen.last);
	assert_int_equal(sum->value, 999 * 1000 / 2);
	paddock__test__number__free_unpacked(sum, NULL);
	nothing_is_left();
}

static void both_stream(void **state)
{
	struct call_open open = opening(TEST "Chat", 1);
	struct seen seen = {.refill = 1};
	uint8_t packed[64];
	int rc;
	struct call *call = call_open(wire, &open, &events, &seen, &rc);

	for (unsigned int i = 1; i <= 20; i++) {
		size_t length = pack_text(i % 2 ? "odd" : "even", packed);

		assert_int_equal(call_send(call, packed, length), 0);
		UNTIL(seen.messages == i);
		assert_memory_equal(seen.last, packed, length);
	}
	call_half_close(call);
	UNTIL(seen.ended);
	assert_int_equal(seen.code, PDK_OK);
	nothing_is_left();
}

static void bytes_arrive_whole(void **state)
{
	struct call_open open = opening(TEST "Bytes", 16);
	struct seen seen = {.refill = 1};
	int before = atomic_load(&releases), rc;
	uint8_t packed[16];

	call_unary(wire, &open, packed, pack_number(64 << 20, packed), &events, &seen, &rc);
	UNTIL(seen.ended);
	assert_int_equal(seen.code, PDK_OK);
	assert_int_equal(seen.messages, 256);
	assert_true(seen.bytes > 64 << 20);
	assert_int_equal(atomic_load(&releases), before + 256);
	nothing_is_left();
}

/* With all the credit there is, but nobody reading the socket. */
static void a_peer_that_does_not_read_stops_the_producer(void **state)
{
	struct call_open open = opening(TEST "Bytes", 1000000);
	struct seen seen = {};
	uint8_t packed[16];
	long long produced;
	int rc;

	call_unary(wire, &open, packed, pack_number((int64_t)1 << 30, packed), &events, &seen, &rc);
	call_link_flush(wire);
	usleep(500000);
	produced = atomic_load(&bytes_produced);
	assert_true(produced < 8 << 20);
	usleep(200000);
	assert_int_equal(atomic_load(&bytes_produced), produced);
	UNTIL(seen.ended);
	assert_int_equal(seen.code, PDK_OK);
	assert_true(seen.bytes > 1 << 30);
	nothing_is_left();
}

static void cancellation_reaches_the_handler(void **state)
{
	struct call_open open = opening(TEST "Hang", 1);
	struct seen seen = {};
	struct call *call;

	atomic_store(&hang_cancelled, -1);
	call = start_text(&open, "x", &seen);
	settle();
	assert_int_equal(active(), 1);
	call_cancel(call);
	UNTIL(call_link_active(wire) == 0);
	assert_int_equal(atomic_load(&hang_cancelled), PDK_CANCELLED);
	assert_false(seen.ended);
	nothing_is_left();
}

static void deadline_reaches_the_handler(void **state)
{
	struct call_open open = opening(TEST "Hang", 1);
	struct seen seen = {};

	open.timeout_ms = 50;
	start_text(&open, "x", &seen);
	UNTIL(seen.ended);
	assert_int_equal(seen.code, PDK_DEADLINE_EXCEEDED);
	assert_int_equal(atomic_load(&hang_cancelled), PDK_DEADLINE_EXCEEDED);
	nothing_is_left();
}

static void revoked_key_and_ended_sandbox_end_calls(void **state)
{
	struct call_open open = opening(TEST "Hang", 1);
	struct seen key = {}, sandbox = {};
	struct pdk_error gone;

	start_text(&open, "i0000", &sandbox);
	settle();
	pdk_fail(&gone, 0, PDK_FAILED_PRECONDITION, "the sandbox has ended");
	loop_lock();
	rpc_cancel_sandbox("i0000", &gone);
	loop_unlock();
	UNTIL(sandbox.ended);
	assert_int_equal(sandbox.code, PDK_FAILED_PRECONDITION);
	start_text(&open, "x", &key);
	settle();
	loop_lock();
	rpc_cancel_key("good");
	loop_unlock();
	UNTIL(key.ended);
	assert_int_equal(key.code, PDK_UNAUTHENTICATED);
	nothing_is_left();
}

static void many_calls_at_once(void **state)
{
	struct call_open open = opening(TEST "Change", 1);
	_cleanup_free_ struct seen *seen = calloc(3000, sizeof(*seen));

	for (int i = 0; i < 3000; i++)
		start_text(&open, "x", &seen[i]);
	for (int i = 0; i < 3000; i++) {
		UNTIL(seen[i].ended);
		assert_int_equal(seen[i].code, PDK_OK);
		assert_int_equal(seen[i].messages, 1);
	}
	nothing_is_left();
}

/* A link that goes takes its calls along, on both sides. */
static void a_lost_link_ends_its_calls(void **state)
{
	struct call_open open = opening(TEST "Hang", 1);
	struct seen seen = {};

	atomic_store(&hang_cancelled, -1);
	start_text(&open, "x", &seen);
	settle();
	call_link_free(wire);
	assert_true(seen.ended);
	assert_int_equal(seen.code, PDK_UNAVAILABLE);
	wire = call_link_connect(socket_path, NULL);
	assert_non_null(wire);
	nothing_is_left();
	assert_int_equal(atomic_load(&hang_cancelled), PDK_CANCELLED);
}

/* Peers that break the rules: each is cut off, and the honest one goes on. */

struct raw {
	struct link *link;
	bool gone;
};

static int ignore_frame(struct link *link, struct link_frame *frame, void *arg)
{
	return 0;
}

static void raw_connect(struct raw *raw)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, socket_path);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	*raw = (struct raw){.link = link_create(fd, LINK_PAYLOAD_MAX, ignore_frame, NULL)};
}

static void raw_open(struct raw *raw, uint32_t stream, const char *method, const char *address, uint32_t credit)
{
	Paddock__Internal__CallOpen open = PADDOCK__INTERNAL__CALL_OPEN__INIT;
	Paddock__Internal__CallRequest request = PADDOCK__INTERNAL__CALL_REQUEST__INIT;
	uint8_t packed[512];

	open.method = (char *)(uintptr_t)method;
	open.authorization = (char *)GOOD_KEY;
	open.client_address = (char *)(uintptr_t)address;
	open.credit = credit;
	request.what_case = PADDOCK__INTERNAL__CALL_REQUEST__WHAT_OPEN;
	request.open = &open;
	link_send(raw->link, stream, LINK_REQUEST, packed, paddock__internal__call_request__pack(&request, packed),
		  NULL, 0);
}

static bool raw_is_cut(struct raw *raw)
{
	for (int i = 0; i < 20; i++) {
		struct pollfd poll_fd = {.fd = link_fd(raw->link), .events = POLLIN};

		if (poll(&poll_fd, 1, 100) > 0 && link_input(raw->link, 0) < 0)
			return true;
	}
	return false;
}

static void break_rule(struct raw *raw, int rule)
{
	static const uint8_t byte[] = {8, 1};
	int fd = STDERR_FILENO;

	raw_open(raw, 1, TEST "Sum", "", 1);
	switch (rule) {
	case 0: /* the positive control: nothing is wrong */
		link_send(raw->link, 1, LINK_EVENT, byte, sizeof(byte), NULL, 0);
		break;
	case 1: /* a message for a stream that was not opened */
		link_send(raw->link, 3, LINK_EVENT, byte, sizeof(byte), NULL, 0);
		break;
	case 2: /* even numbers are paddockd's */
		raw_open(raw, 2, TEST "Sum", "", 1);
		break;
	case 3: /* opened twice */
		raw_open(raw, 1, TEST "Sum", "", 1);
		break;
	case 4: /* a message behind the half close */
		link_send(raw->link, 1, LINK_END, NULL, 0, NULL, 0);
		link_send(raw->link, 1, LINK_EVENT, byte, sizeof(byte), NULL, 0);
		break;
	case 5: /* descriptors */
		link_send(raw->link, 1, LINK_EVENT, byte, sizeof(byte), &fd, 1);
		break;
	case 6: /* more credit than there is */
		link_send_credit(raw->link, 1, UINT32_MAX);
		break;
	case 7: /* an address that would break out of the audit record */
		raw_open(raw, 3, TEST "Sum", "1.2.3.4\",\"x\":\"", 1);
		break;
	case 8: /* a request that is none */
		link_send(raw->link, 3, LINK_REQUEST, "\xff\xff", 2, NULL, 0);
		break;
	case 9: /* a reply */
		link_send(raw->link, 1, LINK_REPLY, NULL, 0, NULL, 0);
		break;
	case 10: /* beyond the window: Hang takes its one message and reads no more */
		raw_open(raw, 3, TEST "Hang", "", 1);
		for (int i = 0; i < 8; i++)
			link_send(raw->link, 3, LINK_EVENT, "", 0, NULL, 0);
		break;
	default:
		break;
	}
}

static void rule_breakers_are_cut(void **state)
{
	for (int rule = 0; rule <= 10; rule++) {
		struct raw raw;

		raw_connect(&raw);
		break_rule(&raw, rule);
		if (raw_is_cut(&raw) != (rule > 0))
			fail_msg("rule %d", rule);
		link_free(raw.link);
		assert_int_equal(echo(TEST "Echo", GOOD_KEY, "x").code, PDK_OK);
	}
	nothing_is_left();
}

static void too_many_connections_are_refused(void **state)
{
	struct raw raws[8];

	for (int i = 0; i < 8; i++)
		raw_connect(&raws[i]);
	/* The test's own is one of the eight. */
	assert_true(raw_is_cut(&raws[7]));
	for (int i = 0; i < 8; i++)
		link_free(raws[i].link);
	nothing_is_left();
}

/* Another user, who can open the file (as root can), is not the ingress. */
static void another_user_is_refused(void **state)
{
	int status;
	pid_t pid;

	if (geteuid() != 0)
		skip();
	assert_int_equal(chmod(service_folder(), 0755), 0);
	assert_int_equal(chmod(socket_path, 0666), 0);
	pid = fork();
	if (pid == 0) {
		struct raw raw;

		if (setresuid(65534, 65534, 65534) < 0)
			_exit(2);
		raw_connect(&raw);
		_exit(raw_is_cut(&raw) ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void random_endings_leave_nothing(void **state)
{
	static const char *const methods[] = {TEST "Echo", TEST "Change", TEST "Hang", TEST "Chat", TEST "Bytes"};
	struct seen *seen = calloc(400, sizeof(*seen));
	struct call *calls[400];

	srandom(1);
	for (int i = 0; i < 400; i++) {
		struct call_open open = opening(methods[random() % 5], (uint32_t)(random() % 3));

		open.timeout_ms = random() % 2 ? 0 : (uint64_t)(random() % 20 + 1);
		seen[i].refill = random() % 2;
		calls[i] = start_text(&open, "x", &seen[i]);
		if (random() % 3 == 0)
			turn(wire, 1);
		if (random() % 2 && !seen[i].ended) {
			call_cancel(calls[i]);
			seen[i].ended = true;
		}
	}
	for (int i = 0; i < 400; i++) {
		if (!seen[i].ended)
			call_cancel(calls[i]);
	}
	UNTIL(call_link_active(wire) == 0);
	free(seen);
	nothing_is_left();
}

static void adjust(struct config *config)
{
	strcpy(config->ingress_user, getpwuid(geteuid())->pw_name);
}

static int setup(void **state)
{
	struct stat st;

	service_start(adjust);
	snprintf(socket_path, sizeof(socket_path), "%s/ingress.sock", service_folder());
	wire = call_link_connect(socket_path, NULL);
	return wire && stat(socket_path, &st) == 0 && (st.st_mode & 0777) == 0600 ? 0 : -1;
}

static int teardown(void **state)
{
	call_link_free(wire);
	service_stop(1000);
	return access(socket_path, F_OK) < 0 ? 0 : -1;
}

/* A stop ends what hangs, and a link that stays open does not keep it. */
static void stop_ends_calls(void **state)
{
	struct call_open open = opening(TEST "Hang", 1);
	struct seen seen = {};

	assert_int_equal(setup(NULL), 0);
	start_text(&open, "x", &seen);
	settle();
	service_stop(0);
	while (!seen.ended && call_link_io(wire, EPOLLIN) >= 0)
		continue;
	call_link_free(wire);
	assert_int_equal(seen.code, PDK_UNAVAILABLE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(unary_returns_the_reply),
		cmocka_unit_test(failures_are_those_of_grpc),
		cmocka_unit_test(a_token_opens_what_is_for_tokens),
		cmocka_unit_test(change_is_durable_and_names_the_client),
		cmocka_unit_test(bad_messages_are_refused),
		cmocka_unit_test(streams_wait_for_credit),
		cmocka_unit_test(a_reply_waits_for_credit),
		cmocka_unit_test(client_streams),
		cmocka_unit_test(both_stream),
		cmocka_unit_test(bytes_arrive_whole),
		cmocka_unit_test(a_peer_that_does_not_read_stops_the_producer),
		cmocka_unit_test(cancellation_reaches_the_handler),
		cmocka_unit_test(deadline_reaches_the_handler),
		cmocka_unit_test(revoked_key_and_ended_sandbox_end_calls),
		cmocka_unit_test(many_calls_at_once),
		cmocka_unit_test(a_lost_link_ends_its_calls),
		cmocka_unit_test(rule_breakers_are_cut),
		cmocka_unit_test(too_many_connections_are_refused),
		cmocka_unit_test(another_user_is_refused),
		cmocka_unit_test(random_endings_leave_nothing),
	};
	const struct CMUnitTest stops[] = {cmocka_unit_test(stop_ends_calls)};

	return cmocka_run_group_tests(tests, setup, teardown) + cmocka_run_group_tests(stops, NULL, NULL);
}
