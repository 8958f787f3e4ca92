/*
 * I04: parsers, buffers and encoders with the n-th allocation failing, for every n: each says -ENOMEM (or that there is
 * nothing), stays usable, and frees what it had. The build with sanitizers sees what is lost.
 */
#define FAILING_KEEP
#include "tests/unit/malloc/failing.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "paddock/internal/guest.pb-c.h"
#include "sandbox/base/buffer.h"
#include "sandbox/base/link.h"
#include "server/arena.h"
#include "server/audit.h"
#include "server/guest_unpack.h"
#include "server/output.h"
#include "server/store_batch.h"

#define N_MAX 200

/* Run `work` with the first, second, ... allocation failing until none does; `work` returns 0 or a negative errno. */
static void every_allocation(int (*work)(void), unsigned long least)
{
	unsigned long n = 0, count;
	int rc;

	do {
		failing_arm(++n);
		rc = work();
		count = failing_arm(0);
		if (count >= n)
			assert_int_equal(rc, -ENOMEM);
	} while (count >= n && n < N_MAX);
	assert_int_equal(rc, 0);
	assert_in_range(n, least + 1, N_MAX - 1);
}

static int fill_buffer(void)
{
	struct buffer buffer = BUFFER(1 << 20);
	char bytes[5000];
	int rc = 0;

	memset(bytes, 'x', sizeof(bytes));
	for (int i = 0; i < 20 && rc == 0; i++) {
		size_t before = buffer_length(&buffer);

		rc = buffer_append(&buffer, bytes, sizeof(bytes));
		if (rc < 0)
			assert_int_equal(buffer_length(&buffer), before);
	}
	buffer_free(&buffer);
	return rc;
}

static void test_buffer(void **state)
{
	every_allocation(fill_buffer, 2);
}

static int ignore_frame(struct link *link, struct link_frame *frame, void *arg)
{
	return 0;
}

static int use_link(void)
{
	static const uint8_t payload[100000];
	int pair[2], rc = 0;
	struct link *link;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	link = link_create(pair[0], 65536, ignore_frame, NULL);
	if (!link) {
		close(pair[0]);
		rc = -ENOMEM;
	}
	for (int i = 0; i < 10 && rc == 0; i++)
		rc = link_send(link, 1, LINK_REPLY, payload, sizeof(payload), NULL, 0);
	if (link)
		link_free(link);
	close(pair[1]);
	return rc;
}

static void test_link(void **state)
{
	every_allocation(use_link, 2);
}

static int use_arena(void)
{
	struct arena arena;
	int rc = 0;

	arena_init(&arena, 1 << 20);
	for (int i = 0; i < 30 && rc == 0; i++)
		rc = arena_alloc(&arena, 20000) ? 0 : -ENOMEM;
	arena_clear(&arena);
	return rc;
}

static void test_arena(void **state)
{
	every_allocation(use_arena, 2);
}

static int use_batch(void)
{
	struct store_batch *batch = store_batch_create();
	struct audit_entry entry = {.tenant = "t", .actor = "a", .action = "x", .outcome = "OK", .detail = "{}"};
	static char value[3000];
	const uint8_t *k, *v;
	struct store_op op;
	size_t offset = 0;
	int rc = store_put(batch, STORE_SANDBOXES, "key", 3, value, sizeof(value)), n = 0;

	if (rc == 0)
		rc = store_audit(batch, &entry);
	if (rc == 0)
		rc = store_put(batch, STORE_SANDBOXES, "two", 3, value, sizeof(value));
	if (batch)
		assert_int_equal(batch->error, rc); /* a part of it must not be committed */
	while (rc == 0 && store_batch_next(batch, &offset, &op, &k, &v))
		n++;
	if (rc == 0)
		assert_int_equal(n, 3);
	store_batch_free(batch);
	return rc;
}

static void test_batch(void **state)
{
	every_allocation(use_batch, 3);
}

static int unpack_reply(void)
{
	Paddock__Internal__GuestReply reply = PADDOCK__INTERNAL__GUEST_REPLY__INIT;
	Paddock__Internal__GuestStarted started = PADDOCK__INTERNAL__GUEST_STARTED__INIT;
	struct guest_arena arena;
	static uint8_t packed[70000];
	static char text[60000];
	size_t length;
	int rc;

	memset(text, 'x', sizeof(text) - 1);
	reply.text = text;
	reply.result_case = PADDOCK__INTERNAL__GUEST_REPLY__RESULT_STARTED;
	reply.started = &started;
	length = paddock__internal__guest_reply__pack(&reply, packed);
	guest_arena_init(&arena);
	rc = guest_unpack_reply(&arena, packed, length) ? 0 : -ENOMEM;
	guest_arena_free(&arena);
	return rc;
}

static void test_guest(void **state)
{
	every_allocation(unpack_reply, 1);
}

static char folder[] = "/tmp/paddock-malloc-XXXXXX";

static int use_output(void)
{
	struct output *output = output_create(folder, "iaaaaaaaaaaaaaaaaaaaa", 1, 4096, 4096);

	if (!output)
		return -ENOMEM;
	for (int i = 0; i < 10; i++)
		output_append(output, 1, "hello", 5);
	output_free(output);
	output_remove_sandbox(folder, "iaaaaaaaaaaaaaaaaaaaa");
	return 0;
}

static void test_output(void **state)
{
	char path[64];

	assert_non_null(mkdtemp(folder));
	every_allocation(use_output, 1);
	snprintf(path, sizeof(path), "%s/output", folder);
	rmdir(path);
	rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_buffer), cmocka_unit_test(test_link),  cmocka_unit_test(test_arena),
		cmocka_unit_test(test_batch),  cmocka_unit_test(test_guest), cmocka_unit_test(test_output),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
