#include "sandbox/base/link.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "sandbox/base/buffer.h"
#include "sandbox/base/cleanup.h"

struct seen {
	unsigned int frames;
	uint32_t stream;
	enum link_kind kind;
	uint32_t credit;
	size_t length;
	uint64_t sum;
	unsigned int n_fds;
	unsigned int with_fds;
	int kept_fd;
	int rc;
};

struct pair {
	struct link *a;
	struct link *b;
	struct seen at_a;
	struct seen at_b;
};

static int see(struct link *link, struct link_frame *frame, void *arg)
{
	struct seen *seen = arg;

	seen->frames++;
	seen->stream = frame->stream;
	seen->kind = frame->kind;
	seen->credit = frame->credit;
	seen->length = frame->length;
	for (size_t i = 0; i < frame->length; i++)
		seen->sum = seen->sum * 31 + frame->payload[i];
	seen->n_fds = frame->n_fds;
	if (frame->n_fds) {
		seen->with_fds++;
		cleanup_fd(&seen->kept_fd);
		seen->kept_fd = STEAL_FD(frame->fds[0]);
	}
	return seen->rc;
}

static int setup(void **state)
{
	struct pair *pair = calloc(1, sizeof(*pair));
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
	pair->a = link_create(fds[0], LINK_PAYLOAD_MAX, see, &pair->at_a);
	pair->b = link_create(fds[1], LINK_PAYLOAD_MAX, see, &pair->at_b);
	pair->at_a.kept_fd = pair->at_b.kept_fd = -1;
	*state = pair;
	return 0;
}

static int teardown(void **state)
{
	struct pair *pair = *state;

	link_free(pair->a);
	link_free(pair->b);
	cleanup_fd(&pair->at_a.kept_fd);
	cleanup_fd(&pair->at_b.kept_fd);
	free(pair);
	return 0;
}

static unsigned int open_fds(void)
{
	unsigned int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void test_frame_arrives(void **state)
{
	struct pair *pair = *state;

	assert_int_equal(link_send(pair->a, 7, LINK_REQUEST, "hello", 5, NULL, 0), 0);
	assert_int_equal(link_send_credit(pair->a, 9, 77), 0);
	assert_int_equal(link_input(pair->b, 1), 1);
	assert_int_equal(pair->at_b.stream, 7);
	assert_int_equal(pair->at_b.kind, LINK_REQUEST);
	assert_int_equal(pair->at_b.length, 5);
	assert_int_equal(link_input(pair->b, 0), 0);
	assert_int_equal(pair->at_b.stream, 9);
	assert_int_equal(pair->at_b.credit, 77);
	assert_int_equal(pair->at_b.frames, 2);
	assert_int_equal(link_events(pair->a), EPOLLIN);
}

/* The last frame and its END, in one write or, when the socket is full, in as many as it takes. */
static void test_last_frames(void **state)
{
	struct pair *pair = *state;
	static uint8_t large[5000];
	unsigned int sent = 0;
	char bytes[64];

	assert_int_equal(link_send_last(pair->a, 7, LINK_REPLY, "bye", 3), 0);
	assert_int_equal(recv(link_fd(pair->b), bytes, sizeof(bytes), MSG_PEEK), 2 * LINK_HEADER_SIZE + 3);
	assert_int_equal(link_input(pair->b, 1), 1);
	assert_int_equal(pair->at_b.stream, 7);
	assert_int_equal(pair->at_b.kind, LINK_REPLY);
	assert_int_equal(pair->at_b.length, 3);
	assert_int_equal(link_input(pair->b, 1), 1);
	assert_int_equal(pair->at_b.stream, 7);
	assert_int_equal(pair->at_b.kind, LINK_END);
	for (; !(link_events(pair->a) & EPOLLOUT); sent++)
		assert_int_equal(link_send_last(pair->a, 9, LINK_REPLY, large, sent % 3 ? sizeof(large) : 0), 0);
	assert_int_equal(link_send_last(pair->a, 11, LINK_REPLY, NULL, 0), 0);
	while (pair->at_b.frames < 2 * (sent + 2)) {
		assert_true(link_input(pair->b, 0) >= 0);
		assert_int_equal(link_flush(pair->a), 0);
	}
	assert_int_equal(pair->at_b.stream, 11);
	assert_int_equal(pair->at_b.kind, LINK_END);
}

static ssize_t waits_in(int fd)
{
	static uint8_t bytes[1 << 16];

	return recv(fd, bytes, sizeof(bytes), MSG_PEEK | MSG_DONTWAIT);
}

/* Small frames leave together; a large one, and one with descriptors, take along what waits, in order. */
static void test_gathered_frames(void **state)
{
	struct pair *pair = *state;
	static uint8_t large[5000];
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	link_gather(pair->a);
	assert_int_equal(link_send(pair->a, 7, LINK_EVENT, "hello", 5, NULL, 0), 0);
	assert_int_equal(link_send_last(pair->a, 7, LINK_REPLY, "bye", 3), 0);
	assert_int_equal(waits_in(link_fd(pair->b)), -1);
	assert_int_equal(link_events(pair->a), EPOLLIN | EPOLLOUT);
	assert_int_equal(link_flush(pair->a), 0);
	assert_int_equal(link_events(pair->a), EPOLLIN);
	assert_int_equal(waits_in(link_fd(pair->b)), 3 * LINK_HEADER_SIZE + 8);
	assert_int_equal(link_input(pair->b, 0), 0);
	assert_int_equal(pair->at_b.frames, 3);
	assert_int_equal(pair->at_b.kind, LINK_END);

	assert_int_equal(link_send(pair->a, 9, LINK_EVENT, "x", 1, NULL, 0), 0);
	assert_int_equal(link_send(pair->a, 9, LINK_EVENT, large, sizeof(large), NULL, 0), 0);
	assert_int_equal(waits_in(link_fd(pair->b)), 2 * LINK_HEADER_SIZE + 1 + sizeof(large));
	assert_int_equal(link_send(pair->a, 9, LINK_EVENT, "y", 1, NULL, 0), 0);
	assert_int_equal(link_send(pair->a, 11, LINK_EVENT, "z", 1, &fd, 1), 0);
	assert_int_equal(link_input(pair->b, 0), 0);
	assert_int_equal(pair->at_b.frames, 7);
	assert_int_equal(pair->at_b.stream, 11);
	assert_int_equal(pair->at_b.n_fds, 1);
	close(fd);
}

/* More than the socket takes, with descriptors in between: all of it arrives, each set with its frame. */
static void test_gathered_frames_wait(void **state)
{
	struct pair *pair = *state;
	unsigned int before = open_fds(), sent = 0;
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	link_gather(pair->a);
	for (; sent < 3000; sent++) {
		bool with_fd = sent % 16 == 5;

		assert_int_equal(link_send(pair->a, 1, LINK_EVENT, "0123456789", 10, with_fd ? &fd : NULL, with_fd), 0);
	}
	assert_true(link_events(pair->a) & EPOLLOUT);
	while (pair->at_b.frames < sent) {
		assert_int_equal(link_flush(pair->a), 0);
		assert_true(link_input(pair->b, 0) >= 0);
	}
	assert_int_equal(pair->at_b.with_fds, (3000 - 5 + 15) / 16);
	cleanup_fd(&pair->at_b.kept_fd);
	pair->at_b.kept_fd = -1;
	close(fd);
	assert_int_equal(open_fds(), before);
}

static void test_large_frames_wait(void **state)
{
	struct pair *pair = *state;
	static uint8_t large[LINK_PAYLOAD_MAX];
	int sent = 0;

	memset(large, 'x', sizeof(large));
	assert_int_equal(link_send(pair->a, 1, LINK_REPLY, large, sizeof(large) + 1, NULL, 0), -EMSGSIZE);
	while (link_send(pair->a, 1, LINK_REPLY, large, sizeof(large), NULL, 0) == 0)
		sent++;
	assert_int_equal(link_send(pair->a, 1, LINK_REPLY, large, sizeof(large), NULL, 0), -ENOBUFS);
	assert_true(sent >= 3 && sent <= 5);
	assert_int_equal(link_events(pair->a), EPOLLIN | EPOLLOUT);
	for (int i = 0; i < 10000 && pair->at_b.frames < (unsigned int)sent; i++) {
		assert_int_equal(link_input(pair->b, 0), 0);
		assert_int_equal(link_flush(pair->a), 0);
	}
	assert_int_equal(pair->at_b.frames, sent);
	assert_int_equal(pair->at_b.length, sizeof(large));
	assert_int_equal(link_events(pair->a), EPOLLIN);
}

/* Descriptors keep to their frame, written at once or queued, and those nobody takes are closed. */
static void test_descriptors(void **state)
{
	struct pair *pair = *state;
	static uint8_t large[600000];
	_cleanup_fd_ int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	_cleanup_fd_ int zero = open("/dev/zero", O_RDWR | O_CLOEXEC);
	int fds[2] = {zero, null};
	unsigned int before = open_fds();
	struct stat a, b;

	assert_int_equal(link_send(pair->a, 1, LINK_REPLY, large, sizeof(large), NULL, 0), 0);
	assert_int_equal(link_send(pair->a, 3, LINK_REPLY, "ab", 2, fds, 2), 0);
	assert_int_equal(link_send(pair->a, 5, LINK_REPLY, large, sizeof(large), fds, 1), 0);
	for (int i = 0; i < 100 && pair->at_b.frames < 2; i++) {
		assert_true(link_input(pair->b, 1) >= 0);
		assert_int_equal(link_flush(pair->a), 0);
	}
	assert_int_equal(pair->at_b.stream, 3);
	assert_int_equal(pair->at_b.n_fds, 2);
	for (int i = 0; i < 100 && pair->at_b.frames < 3; i++) {
		assert_true(link_input(pair->b, 1) >= 0);
		assert_int_equal(link_flush(pair->a), 0);
	}
	assert_int_equal(pair->at_b.n_fds, 1);
	assert_int_equal(fstat(pair->at_b.kept_fd, &a), 0);
	assert_int_equal(fstat(zero, &b), 0);
	assert_int_equal(a.st_rdev, b.st_rdev);
	assert_true(fcntl(pair->at_b.kept_fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(open_fds(), before + 1);
}

static void send_raw(int fd, const uint8_t *bytes, size_t length, const int *fds, unsigned int n_fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * 8)];
	} control = {};
	struct iovec iov = {(void *)(uintptr_t)bytes, length};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

	if (n_fds) {
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		control.align = (struct cmsghdr){CMSG_LEN(sizeof(int) * n_fds), SOL_SOCKET, SCM_RIGHTS};
		memcpy(CMSG_DATA(&control.align), fds, sizeof(int) * n_fds);
	}
	assert_int_equal(sendmsg(fd, &message, MSG_NOSIGNAL), length);
}

/* What a hostile peer may put in a header; each ends the link and leaks no descriptor. */
static void test_protocol_violations(void **state)
{
	static const struct {
		const char *name;
		uint8_t header[LINK_HEADER_SIZE];
		unsigned int n_fds;
	} cases[] = {
		{"too long", {1, 0, 0x20, 0, 1, 0, 0, 0, 1}, 0},
		{"huge", {255, 255, 255, 255, 1, 0, 0, 0, 1}, 0},
		{"kind 0", {0, 0, 0, 0, 1, 0, 0, 0, 0}, 0},
		{"kind 6", {0, 0, 0, 0, 1, 0, 0, 0, 6}, 0},
		{"kind 257", {0, 0, 0, 0, 1, 0, 0, 0, 1, 1}, 0},
		{"reserved", {0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1}, 0},
		{"END with payload", {1, 0, 0, 0, 1, 0, 0, 0, 5}, 0},
		{"CREDIT with payload", {1, 0, 0, 0, 1, 0, 0, 0, 4}, 0},
		{"credit without CREDIT", {0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1}, 0},
		{"claims more than it brings", {0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 2, 0}, 1},
		{"brings what it did not claim", {0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, 0}, 2},
		{"brings too many", {0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 4, 0}, 5},
		{"claims too many", {0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 5, 0}, 4},
		{"unclaimed, in a payload", {9, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0}, 1},
	};
	unsigned int before = open_fds();

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct seen seen = {.kept_fd = -1};
		int fds[2], some[5] = {0, 0, 0, 0, 0};
		struct link *link;

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
		link = link_create(fds[0], LINK_PAYLOAD_MAX, see, &seen);
		send_raw(fds[1], cases[i].header, LINK_HEADER_SIZE, some, cases[i].n_fds);
		if (link_input(link, 0) != -EPROTO)
			fail_msg("%s: not refused", cases[i].name);
		assert_int_equal(link_input(link, 0), -EPROTO);
		assert_int_equal(link_send(link, 1, LINK_END, NULL, 0, NULL, 0), -EPIPE);
		link_free(link);
		cleanup_fd(&seen.kept_fd);
		close(fds[1]);
	}
	assert_int_equal(open_fds(), before);
}

static void test_byte_by_byte(void **state)
{
	struct pair *pair = *state;
	static const uint8_t bytes[] = {3,   0, 0, 0, 5, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 'a', 'b',
					'c', 0, 0, 0, 0, 5, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0};

	for (size_t i = 0; i < sizeof(bytes); i++) {
		assert_int_equal(link_feed(pair->a, bytes + i, 1), 0);
		assert_int_equal(pair->at_a.frames, (i >= 18) + (i >= 34));
	}
	assert_int_equal(pair->at_a.kind, LINK_END);
}

static void test_peer_gone(void **state)
{
	struct pair *pair = *state;

	assert_int_equal(link_send(pair->a, 1, LINK_EVENT, "x", 1, NULL, 0), 0);
	link_free(STEAL_PTR(pair->a));
	assert_int_equal(link_input(pair->b, 0), 0);
	assert_int_equal(link_input(pair->b, 0), -ECONNRESET);
	assert_int_equal(pair->at_b.frames, 1);
	assert_int_equal(link_send(pair->b, 1, LINK_EVENT, "x", 1, NULL, 0), -EPIPE);
}

/* A peer that answers and leaves while we still write to it: its answer arrives, whichever comes first. */
static void test_last_words(void **state)
{
	struct pair *pair = *state;

	assert_int_equal(link_send(pair->a, 1, LINK_REPLY, "why", 3, NULL, 0), 0);
	assert_int_equal(link_send(pair->a, 1, LINK_END, NULL, 0, NULL, 0), 0);
	link_free(STEAL_PTR(pair->a));
	assert_int_equal(link_send(pair->b, 1, LINK_REQUEST, NULL, 0, NULL, 0), -EPIPE);
	assert_int_equal(link_flush(pair->b), 0);
	assert_int_equal(link_events(pair->b) & EPOLLOUT, 0);
	assert_int_equal(link_input(pair->b, 0), 0);
	assert_int_equal(link_input(pair->b, 0), -ECONNRESET);
	assert_int_equal(pair->at_b.frames, 2);
	assert_int_equal(pair->at_b.kind, LINK_END);
}

static void test_handler_ends_link(void **state)
{
	struct pair *pair = *state;

	pair->at_b.rc = -EBADMSG;
	assert_int_equal(link_send(pair->a, 1, LINK_REQUEST, "x", 1, NULL, 0), 0);
	assert_int_equal(link_send(pair->a, 3, LINK_REQUEST, "x", 1, NULL, 0), 0);
	assert_int_equal(link_input(pair->b, 0), -EBADMSG);
	assert_int_equal(pair->at_b.frames, 1);
}

static void test_buffer(void **state)
{
	struct buffer buffer = BUFFER(10000);
	char chunk[700];
	size_t in = 0, out = 0;

	for (int i = 0; i < 200; i++) {
		for (size_t j = 0; j < sizeof(chunk); j++)
			chunk[j] = (char)(in + j);
		if (buffer_append(&buffer, chunk, sizeof(chunk)) == 0)
			in += sizeof(chunk);
		else
			assert_true(buffer_room(&buffer) < sizeof(chunk));
		assert_true(buffer_length(&buffer) <= 10000);
		for (int j = 0; j < 333 && buffer_length(&buffer); j++, out++) {
			assert_int_equal((char)out, (char)*buffer_data(&buffer));
			buffer_take(&buffer, 1);
		}
	}
	assert_int_equal(in - out, buffer_length(&buffer));
	buffer_take(&buffer, in - out);
	assert_null(buffer.bytes);
	assert_int_equal(buffer_append(&buffer, chunk, 0), 0);
	buffer_free(&buffer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_frame_arrives, setup, teardown),
		cmocka_unit_test_setup_teardown(test_last_frames, setup, teardown),
		cmocka_unit_test_setup_teardown(test_gathered_frames, setup, teardown),
		cmocka_unit_test_setup_teardown(test_gathered_frames_wait, setup, teardown),
		cmocka_unit_test_setup_teardown(test_large_frames_wait, setup, teardown),
		cmocka_unit_test_setup_teardown(test_descriptors, setup, teardown),
		cmocka_unit_test(test_protocol_violations),
		cmocka_unit_test_setup_teardown(test_byte_by_byte, setup, teardown),
		cmocka_unit_test_setup_teardown(test_peer_gone, setup, teardown),
		cmocka_unit_test_setup_teardown(test_last_words, setup, teardown),
		cmocka_unit_test_setup_teardown(test_handler_ends_link, setup, teardown),
		cmocka_unit_test(test_buffer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
