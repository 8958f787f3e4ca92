#include "rpc_grpc.h"

#include <stdlib.h>
#include <string.h>

#include "sandbox/base/cleanup.h"

/* The way out: what is prepared under the lock and started after it. See rpc_grpc.h. */

#define CALL_OF(task_pointer, member)                                                                                  \
	((struct rpc_grpc_call *)((char *)(task_pointer)-offsetof(struct rpc_grpc_call, member)))

/* An operation that gRPC refuses to start is a mistake in this engine, never the peer's doing. After a start the call
 * belongs to whoever gets the completion: it is not touched again. */
static void start(struct rpc_grpc_call *call, const grpc_op *ops, size_t n_ops, enum rpc_operation operation)
{
	RPC_HAND_OVER(&call->tags[operation]);
	if (grpc_call_start_batch(call->grpc, ops, n_ops, &call->tags[operation], NULL) != GRPC_CALL_OK)
		abort();
}

static void run_close(struct loop_task *task)
{
	struct rpc_grpc_call *call = CALL_OF(task, close_task);

	start(call, &call->close_op, 1, RPC_OP_CLOSE);
}

void rpc_grpc_prepare_close(struct rpc_grpc_call *call)
{
	call->close_op.op = GRPC_OP_RECV_CLOSE_ON_SERVER;
	call->close_op.data.recv_close_on_server.cancelled = &call->close_cancelled;
	call->close_task.run = run_close;
	call->call.pending++;
	loop_after_unlock(&call->close_task);
}

static void run_read(struct loop_task *task)
{
	struct rpc_grpc_call *call = CALL_OF(task, read_task);

	start(call, &call->read_op, 1, RPC_OP_READ);
}

void rpc_grpc_prepare_read(struct rpc_call *base)
{
	struct rpc_grpc_call *call = rpc_grpc_of(base);

	call->read_op.op = GRPC_OP_RECV_MESSAGE;
	call->read_op.data.recv_message.recv_message = &call->read_buffer;
	call->read_task.run = run_read;
	base->pending++;
	loop_after_unlock(&call->read_task);
}

static void run_send(struct loop_task *task)
{
	struct rpc_grpc_call *call = CALL_OF(task, send.task);
	grpc_slice details = call->send.details;

	start(call, call->send.ops, call->send.n_ops, RPC_OP_SEND);
	grpc_slice_unref(details);
}

static void add_headers(struct rpc_grpc_call *call)
{
	if (!call->headers_sent)
		call->send.ops[call->send.n_ops++] = (grpc_op){.op = GRPC_OP_SEND_INITIAL_METADATA};
	call->headers_sent = true;
}

static void add_message(struct rpc_grpc_call *call, grpc_byte_buffer *message)
{
	grpc_op *op = &call->send.ops[call->send.n_ops++];

	*op = (grpc_op){.op = GRPC_OP_SEND_MESSAGE};
	op->data.send_message.send_message = message;
	call->send.message = message;
}

static void add_status(struct rpc_grpc_call *call)
{
	grpc_op *op = &call->send.ops[call->send.n_ops++];

	*op = (grpc_op){.op = GRPC_OP_SEND_STATUS_FROM_SERVER};
	op->data.send_status_from_server.status = (grpc_status_code)call->call.end.code;
	if (call->call.end.code != PDK_OK) {
		call->send.details = grpc_slice_from_copied_string(call->call.end.text);
		op->data.send_status_from_server.status_details = &call->send.details;
	}
}

static void prepare_send(struct rpc_grpc_call *call)
{
	call->send.task.run = run_send;
	call->send.turn = loop_turn();
	call->send.n_ops = 0;
	call->send.message = NULL;
	call->send.details = grpc_empty_slice();
	call->call.pending++;
	add_headers(call);
	loop_after_unlock(&call->send.task);
}

void rpc_grpc_end(struct rpc_call *call)
{
	struct rpc_grpc_call *grpc = rpc_grpc_of(call);

	if (call->sending && (grpc->send.turn != loop_turn() || call->reply)) {
		grpc->status_waits = true;
		return;
	}
	if (!call->sending) {
		call->sending = true;
		prepare_send(grpc);
	}
	if (call->reply)
		add_message(grpc, STEAL_PTR(call->reply));
	add_status(grpc);
}

void rpc_grpc_sent(struct rpc_grpc_call *grpc, bool success)
{
	struct rpc_call *call = &grpc->call;

	if (grpc->send.message)
		grpc_byte_buffer_destroy(grpc->send.message);
	loop_lock();
	call->pending--;
	if (grpc->status_waits) {
		grpc->status_waits = false;
		call->sending = false;
		rpc_send_end(call);
	} else {
		rpc_sent(call, success);
	}
	rpc_call_settle(call);
	loop_unlock();
}

void rpc_grpc_send(struct rpc_call *call, void *packed)
{
	prepare_send(rpc_grpc_of(call));
	add_message(rpc_grpc_of(call), packed);
}

void *rpc_grpc_pack(const ProtobufCMessage *message)
{
	grpc_slice slice = grpc_slice_malloc(protobuf_c_message_get_packed_size(message));
	grpc_byte_buffer *buffer;

	protobuf_c_message_pack(message, GRPC_SLICE_START_PTR(slice));
	buffer = grpc_raw_byte_buffer_create(&slice, 1);
	grpc_slice_unref(slice);
	return buffer;
}

void *rpc_grpc_pack_bytes(const void *head, size_t head_length, uint32_t field, const void *data, size_t length,
			  void (*release)(void *arg), void *arg)
{
	uint8_t prefix[RPC_FIELD_PREFIX_MAX];
	size_t prefix_length = rpc_field_prefix(prefix, field, length);
	grpc_byte_buffer *buffer;
	grpc_slice slices[2];

	slices[0] = grpc_slice_malloc(head_length + prefix_length);
	if (head_length)
		memcpy(GRPC_SLICE_START_PTR(slices[0]), head, head_length);
	memcpy(GRPC_SLICE_START_PTR(slices[0]) + head_length, prefix, prefix_length);
	slices[1] = grpc_slice_new_with_user_data((void *)(uintptr_t)data, length, release, arg);
	buffer = grpc_raw_byte_buffer_create(slices, 2);
	grpc_slice_unref(slices[0]);
	grpc_slice_unref(slices[1]);
	return buffer;
}

void rpc_grpc_drop(void *packed)
{
	grpc_byte_buffer_destroy(packed);
}
