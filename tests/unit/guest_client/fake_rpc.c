#include "fake.h"
#include "server/loop.h"
#include <stdlib.h>
#include <string.h>

/* server/rpc.h for tests: what is sent is kept, completions come from the loop. */

struct block {
	struct block *next;
	_Alignas(16) char bytes[];
};

struct rpc_call *fake_call(void)
{
	struct rpc_call *call = calloc(1, sizeof(*call));

	call->keep = true;
	call->want_read = true;
	return call;
}

void fake_call_free(struct rpc_call *call)
{
	struct block *block = call->arena;

	assert_true(call->finished);
	fake_settle(); /* a message of it may be on its way */
	while (block) {
		struct block *next = block->next;

		free(block);
		block = next;
	}
	for (size_t i = 0; i < call->n_sent; i++)
		free(call->sent[i].bytes);
	free(call->sent);
	free(call->reply.bytes);
	free(call->object);
	free(call->detail);
	free(call);
}

void rpc_set_events(struct rpc_call *call, const struct rpc_events *events, void *user)
{
	call->events = *events;
	call->user = user;
}

void *rpc_user(const struct rpc_call *call)
{
	return call->user;
}

uint64_t rpc_deadline_ns(const struct rpc_call *call)
{
	return call->deadline_ns;
}

bool rpc_is_signed_file(const struct rpc_call *call)
{
	return false;
}

bool rpc_file_allowed(const struct rpc_call *call, const ProtobufCBinaryData *path, const char *user)
{
	return true;
}

const struct principal *rpc_principal(const struct rpc_call *call)
{
	static const struct principal nobody;

	return &nobody;
}

bool rpc_is_cancelled(const struct rpc_call *call)
{
	return call->cancelled;
}

void *rpc_alloc(struct rpc_call *call, size_t size)
{
	struct block *block = calloc(1, sizeof(*block) + size);

	block->next = call->arena;
	call->arena = block;
	return block->bytes;
}

char *rpc_strdup(struct rpc_call *call, const char *text)
{
	return strcpy(rpc_alloc(call, strlen(text) + 1), text);
}

void rpc_read(struct rpc_call *call)
{
	assert_false(call->finished);
	call->want_read = true;
}

bool rpc_can_send(const struct rpc_call *call)
{
	return !call->finished && !call->cancelled && !call->sending;
}

static void left(void *arg)
{
	struct rpc_call *call = arg;

	if (call->sending && !call->slow)
		fake_sent(call);
}

void fake_sent(struct rpc_call *call)
{
	assert_true(call->sending);
	call->sending = false;
	if (!call->finished && !call->cancelled && call->events.on_sent)
		call->events.on_sent(call);
}

static void keep(struct rpc_call *call, uint8_t *bytes, size_t length)
{
	assert_false(call->finished);
	assert_false(call->sending);
	call->sending = true;
	call->sent_bytes += length;
	if (call->keep) {
		call->sent = reallocarray(call->sent, call->n_sent + 1, sizeof(call->sent[0]));
		call->sent[call->n_sent++] = (struct sent){bytes, length};
	} else {
		free(bytes);
	}
	if (!call->slow)
		loop_defer(left, call);
}

void rpc_send(struct rpc_call *call, const ProtobufCMessage *message)
{
	size_t length = protobuf_c_message_get_packed_size(message);
	uint8_t *bytes = malloc(length + 1);

	if (call->cancelled) {
		free(bytes);
		return;
	}
	protobuf_c_message_pack(message, bytes);
	keep(call, bytes, length);
}

static size_t put_varint(uint8_t *out, uint64_t value)
{
	size_t n = 0;

	for (; value >= 0x80; value >>= 7)
		out[n++] = (uint8_t)(value | 0x80);
	out[n++] = (uint8_t)value;
	return n;
}

void rpc_send_bytes(struct rpc_call *call, const void *head, size_t head_length, uint32_t field, const void *data,
		    size_t length, void (*release)(void *arg), void *arg)
{
	uint8_t *bytes = malloc(head_length + 20 + length);
	size_t n = head_length;

	if (head_length)
		memcpy(bytes, head, head_length);
	n += put_varint(bytes + n, field << 3 | 2);
	n += put_varint(bytes + n, length);
	if (length)
		memcpy(bytes + n, data, length);
	release(arg);
	if (call->cancelled)
		free(bytes);
	else
		keep(call, bytes, n + length);
}

void rpc_audit_object(struct rpc_call *call, const char *sandbox_id, const char *object)
{
	strcpy(call->sandbox, sandbox_id);
	if (object) {
		free(call->object);
		call->object = strdup(object);
	}
}

void rpc_audit_detail(struct rpc_call *call, const char *json)
{
	free(call->detail);
	call->detail = strdup(json);
}

void rpc_finish(struct rpc_call *call, const ProtobufCMessage *reply)
{
	assert_false(call->finished);
	call->finished = true;
	if (!reply)
		return;
	call->reply.length = protobuf_c_message_get_packed_size(reply);
	call->reply.bytes = malloc(call->reply.length + 1);
	protobuf_c_message_pack(reply, call->reply.bytes);
}

void rpc_fail(struct rpc_call *call, const struct pdk_error *err)
{
	assert_false(call->finished);
	assert_int_not_equal(err->code, PDK_OK);
	call->finished = true;
	call->end = *err;
}

struct commit {
	struct rpc_call *call;
	void (*done)(struct rpc_call *call, int rc);
};

static void committed(int rc, void *arg)
{
	struct commit *commit = arg;

	commit->done(commit->call, rc);
	free(commit);
}

void rpc_commit(struct rpc_call *call, struct store_batch *batch, void (*done)(struct rpc_call *call, int rc))
{
	struct commit *commit = malloc(sizeof(*commit));

	*commit = (struct commit){call, done};
	call->commits++;
	store_commit(batch, committed, commit);
}

void fake_cancel(struct rpc_call *call, enum pdk_code code)
{
	struct pdk_error why;

	pdk_fail(&why, 0, code, "cancelled by the test");
	call->cancelled = true;
	if (call->events.on_cancel)
		call->events.on_cancel(call, &why);
	else
		rpc_fail(call, &why);
}

void fake_message(struct rpc_call *call, const ProtobufCMessage *message)
{
	size_t length = protobuf_c_message_get_packed_size(message);
	uint8_t *bytes = malloc(length + 1);
	ProtobufCMessage *copy;

	for (int i = 0; i < 1000 && !call->want_read && !call->finished; i++)
		fake_turn(2);
	assert_true(call->want_read || call->finished);
	protobuf_c_message_pack(message, bytes);
	copy = protobuf_c_message_unpack(message->descriptor, NULL, length, bytes);
	free(bytes);
	call->want_read = false;
	if (!call->finished)
		call->events.on_message(call, copy);
	protobuf_c_message_free_unpacked(copy, NULL);
}

void fake_half_close(struct rpc_call *call)
{
	for (int i = 0; i < 1000 && !call->want_read && !call->finished; i++)
		fake_turn(2);
	call->want_read = false;
	if (!call->finished)
		call->events.on_half_close(call);
}

void fake_finished(struct rpc_call *call, enum pdk_code code)
{
	for (int i = 0; i < 1000 && !call->finished; i++)
		fake_turn(2);
	assert_true(call->finished);
	if (call->end.code != code)
		fail_msg("%s: %s", pdk_code_name(call->end.code), call->end.text);
	fake_settle();
}

Paddock__V1__ProcessEvent *fake_event(struct rpc_call *call, size_t n)
{
	Paddock__V1__ProcessEvent *event;

	for (int i = 0; i < 1000 && call->n_sent <= n; i++)
		fake_turn(2);
	assert_true(call->n_sent > n);
	event = paddock__v1__process_event__unpack(NULL, call->sent[n].length, call->sent[n].bytes);
	assert_non_null(event);
	return event;
}
