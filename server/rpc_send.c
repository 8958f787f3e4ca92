#include "rpc_internal.h"
#include "sandbox/base/varint.h"

#include <stdlib.h>

/* The way out, before it is the transport's. */

/* How long the peer may take to accept what a call ended with, before the stream is reset. */
#define PATIENCE_NS (60 * (uint64_t)1000000000)
#define PATIENCE_CANCELLED_NS (2 * (uint64_t)1000000000)

void rpc_send_end(struct rpc_call *call)
{
	if (call->closed)
		return;
	loop_timer_set(&call->timer, loop_now_ns() + (call->cancelled ? PATIENCE_CANCELLED_NS : PATIENCE_NS));
	call->transport->end(call);
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
	call->sending = true;
	call->transport->send(call, call->transport->pack(message));
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

void rpc_release_later(void (*release)(void *arg), void *arg)
{
	struct unsent *unsent = calloc(1, sizeof(*unsent));

	/* Without memory for a note of 32 bytes, a leak is the better end. */
	if (!unsent)
		return;
	*unsent = (struct unsent){.task.run = run_release, .release = release, .arg = arg};
	loop_after_unlock(&unsent->task);
}

size_t rpc_field_prefix(uint8_t prefix[RPC_FIELD_PREFIX_MAX], uint32_t field, size_t length)
{
	size_t n = varint_put(prefix, (uint64_t)field << 3 | 2);

	return n + varint_put(prefix + n, length);
}

void rpc_send_bytes(struct rpc_call *call, const void *head, size_t head_length, uint32_t field, const void *data,
		    size_t length, void (*release)(void *arg), void *arg)
{
	if (!may_send(call)) {
		rpc_release_later(release, arg);
		return;
	}
	call->sending = true;
	call->transport->send(call, call->transport->pack_bytes(head, head_length, field, data, length, release, arg));
}
