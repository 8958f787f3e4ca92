#include "rpc_internal.h"

#include <stdlib.h>
#include <string.h>

/* The way out: what is prepared under the lock and started after it. See rpc_internal.h. */

/* How long the peer may take to accept what a call ended with, before the stream is reset. */
#define PATIENCE_NS (60 * (uint64_t)1000000000)
#define PATIENCE_CANCELLED_NS (2 * (uint64_t)1000000000)

#define CALL_OF(task_pointer, member) ((struct rpc_call *)((char *)(task_pointer)-offsetof(struct rpc_call, member)))

/* An operation that gRPC refuses to start is a mistake in this engine, never the peer's doing. After a start the call
 * belongs to whoever gets the completion: it is not touched again. */
static void start(struct rpc_call *call, const grpc_op *ops, size_t n_ops, enum rpc_operation operation)
{
	RPC_HAND_OVER(&call->tags[operation]);
	if (grpc_call_start_batch(call->grpc, ops, n_ops, &call->tags[operation], NULL) != GRPC_CALL_OK)
		abort();
}

static void run_close(struct loop_task *task)
{
	struct rpc_call *call = CALL_OF(task, close_task);

	start(call, &call->close_op, 1, RPC_OP_CLOSE);
}

void rpc_prepare_close(struct rpc_call *call)
{
	call->close_op.op = GRPC_OP_RECV_CLOSE_ON_SERVER;
	call->close_op.data.recv_close_on_server.cancelled = &call->close_cancelled;
	call->close_task.run = run_close;
	call->pending++;
	loop_after_unlock(&call->close_task);
}

static void run_read(struct loop_task *task)
{
	struct rpc_call *call = CALL_OF(task, read_task);

	start(call, &call->read_op, 1, RPC_OP_READ);
}

void rpc_prepare_read(struct rpc_call *call)
{
	call->read_op.op = GRPC_OP_RECV_MESSAGE;
	call->read_op.data.recv_message.recv_message = &call->read_buffer;
	call->read_task.run = run_read;
	call->reading = true;
	call->pending++;
	loop_after_unlock(&call->read_task);
}

static void run_send(struct loop_task *task)
{
	struct rpc_call *call = CALL_OF(task, send.task);
	grpc_slice details = call->send.details;

	start(call, call->send.ops, call->send.n_ops, RPC_OP_SEND);
	grpc_slice_unref(details);
}

static void add_headers(struct rpc_call *call)
{
	if (!call->headers_sent)
		call->send.ops[call->send.n_ops++] = (grpc_op){.op = GRPC_OP_SEND_INITIAL_METADATA};
	call->headers_sent = true;
}

static void add_message(struct rpc_call *call, grpc_byte_buffer *message)
{
	grpc_op *op = &call->send.ops[call->send.n_ops++];

	*op = (grpc_op){.op = GRPC_OP_SEND_MESSAGE};
	op->data.send_message.send_message = message;
	call->send.message = message;
}

static void add_status(struct rpc_call *call)
{
	grpc_op *op = &call->send.ops[call->send.n_ops++];

	*op = (grpc_op){.op = GRPC_OP_SEND_STATUS_FROM_SERVER};
	op->data.send_status_from_server.status = (grpc_status_code)call->end.code;
	if (call->end.code != PDK_OK) {
		call->send.details = grpc_slice_from_copied_string(call->end.text);
		op->data.send_status_from_server.status_details = &call->send.details;
	}
	call->send.has_status = true;
}

static void prepare_send(struct rpc_call *call)
{
	RPC_MUST(!call->sending);
	call->send.task.run = run_send;
	call->send.turn = loop_turn();
	call->send.n_ops = 0;
	call->send.message = NULL;
	call->send.details = grpc_empty_slice();
	call->sending = true;
	call->pending++;
	add_headers(call);
	loop_after_unlock(&call->send.task);
}

void rpc_send_status(struct rpc_call *call)
{
	if (call->closed)
		return;
	loop_timer_set(&call->timer, loop_now_ns() + (call->cancelled ? PATIENCE_CANCELLED_NS : PATIENCE_NS));
	if (call->sending && (call->send.turn != loop_turn() || call->reply)) {
		call->status_waits = true;
		return;
	}
	if (!call->sending)
		prepare_send(call);
	if (call->reply) {
		add_message(call, call->reply);
		call->reply = NULL;
	}
	add_status(call);
}

void rpc_sent(struct rpc_call *call, bool success)
{
	if (call->send.message)
		grpc_byte_buffer_destroy(call->send.message);
	loop_lock();
	call->sending = false;
	call->pending--;
	if (call->status_waits) {
		call->status_waits = false;
		rpc_send_status(call);
	} else if (success && !call->cancelled && call->state == RPC_RUNNING && call->events.on_sent) {
		call->events.on_sent(call);
	}
	rpc_call_settle(call);
	loop_unlock();
}

grpc_byte_buffer *rpc_pack(const ProtobufCMessage *message)
{
	grpc_slice slice = grpc_slice_malloc(protobuf_c_message_get_packed_size(message));
	grpc_byte_buffer *buffer;

	protobuf_c_message_pack(message, GRPC_SLICE_START_PTR(slice));
	buffer = grpc_raw_byte_buffer_create(&slice, 1);
	grpc_slice_unref(slice);
	return buffer;
}

bool rpc_can_send(const struct rpc_call *call)
{
	return call->state == RPC_RUNNING && !call->cancelled && !call->sending;
}

static bool may_send(const struct rpc_call *call)
{
	loop_assert_locked();
	if (call->cancelled || call->state != RPC_RUNNING)
		return false;
	RPC_MUST(!call->sending && call->method->kind != RPC_UNARY && call->method->kind != RPC_CLIENT_STREAM);
	return true;
}

void rpc_send(struct rpc_call *call, const ProtobufCMessage *message)
{
	if (!may_send(call))
		return;
	prepare_send(call);
	add_message(call, rpc_pack(message));
}

/* A message that is not sent after all is released as every other one is: without the lock. */
struct unsent {
	struct loop_task task;
	void (*release)(void *arg);
	void *arg;
};

static void run_release(struct loop_task *task)
{
	struct unsent *unsent = (struct unsent *)task;

	unsent->release(unsent->arg);
	free(unsent);
}

static void release_unsent(void (*release)(void *arg), void *arg)
{
	struct unsent *unsent = calloc(1, sizeof(*unsent));

	/* Without memory for a note of 32 bytes, a leak is the better end. */
	if (!unsent)
		return;
	*unsent = (struct unsent){.task.run = run_release, .release = release, .arg = arg};
	loop_after_unlock(&unsent->task);
}

static uint8_t *put_varint(uint8_t *out, uint64_t value)
{
	while (value >= 0x80) {
		*out++ = (uint8_t)(value | 0x80);
		value >>= 7;
	}
	*out++ = (uint8_t)value;
	return out;
}

void rpc_send_bytes(struct rpc_call *call, const void *head, size_t head_length, uint32_t field, const void *data,
		    size_t length, void (*release)(void *arg), void *arg)
{
	grpc_slice slices[2];
	uint8_t prefix[20];
	uint8_t *end;

	if (!may_send(call)) {
		release_unsent(release, arg);
		return;
	}
	end = put_varint(prefix, (uint64_t)field << 3 | 2);
	end = put_varint(end, length);
	slices[0] = grpc_slice_malloc(head_length + (size_t)(end - prefix));
	if (head_length)
		memcpy(GRPC_SLICE_START_PTR(slices[0]), head, head_length);
	memcpy(GRPC_SLICE_START_PTR(slices[0]) + head_length, prefix, (size_t)(end - prefix));
	slices[1] = grpc_slice_new_with_user_data((void *)(uintptr_t)data, length, release, arg);
	prepare_send(call);
	add_message(call, grpc_raw_byte_buffer_create(slices, 2));
	grpc_slice_unref(slices[0]);
	grpc_slice_unref(slices[1]);
}
