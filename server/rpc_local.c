#include "rpc_local.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rpc_packet.h"
#include "rpc_task.h"
#include "sandbox/base/cleanup.h"

/* The third transport: see rpc_local.h. `task` brings everything, to the callee and to the caller. */

struct rpc_local {
	struct rpc_call call;
	struct rpc_packet *request;
	struct rpc_packet *out;
	bool taken; /* rpc_local_next(): on_sent is due */
	bool lost;  /* no memory for a message */
	bool wanted, half_closed;
	bool ended;
	const struct rpc_local_events *events; /* NULL: nobody listens any more */
	void *arg;
	struct rpc_task task;
};

static struct rpc_local *local_of(struct rpc_call *call)
{
	return (struct rpc_local *)call;
}

static void *pack(const ProtobufCMessage *message)
{
	return rpc_packet_of(message, SIZE_MAX);
}

static void *pack_bytes(const void *head, size_t head_length, uint32_t field, const void *data, size_t length,
			void (*done)(void *arg), void *arg)
{
	struct rpc_packet *packet = rpc_packet_of_bytes(head, head_length, field, data, length, SIZE_MAX);

	rpc_release_later(done, arg);
	return packet;
}

/* To the callee: its request, and that its message was taken. */
static void serve_callee(struct rpc_local *local)
{
	struct rpc_packet *request = NULL;
	ProtobufCMessage *message = NULL;
	struct pdk_error err = {};
	int rc;

	if (local->call.reading && local->request) {
		request = STEAL_PTR(local->request);
		rc = rpc_unpack(&local->call, request->bytes, request->length, &message, &err);
		free(request);
		rpc_received(&local->call, message, rc, &err);
	}
	if (local->call.reading && !local->request && local->half_closed)
		rpc_received(&local->call, NULL, 0, &err);
	if (local->lost) {
		local->lost = local->call.sending = false;
		pdk_fail(&err, 0, PDK_RESOURCE_EXHAUSTED, "the server is out of memory");
		rpc_cancel(&local->call, &err);
	}
	if (local->taken) {
		local->taken = false;
		rpc_sent(&local->call, true);
	}
}

/* False: there was no memory to decode it. */
static bool tell_message(struct rpc_local *local, struct rpc_packet *packet)
{
	const struct rpc_method *method = local->call.method;
	ProtobufCMessage *message;
	struct arena arena;
	bool decoded;

	arena_init(&arena, arena_max_for_message(packet->length));
	message = protobuf_c_message_unpack(method->response, &arena.allocator, packet->length, packet->bytes);
	decoded = message != NULL;
	if (message && local->events)
		local->events->on_message(local->arg, message);
	arena_clear(&arena);
	free(packet);
	return decoded;
}

/* To the caller: messages and the end. */
static void serve_caller(struct rpc_local *local)
{
	const struct rpc_local_events *events;

	if (local->call.reading && !local->request && !local->half_closed && !local->wanted && !local->ended &&
	    local->events && local->events->on_want) {
		local->wanted = true;
		local->events->on_want(local->arg);
	}
	if (local->out && !tell_message(local, STEAL_PTR(local->out)))
		local->lost = local->task.due = true;
	if (!local->ended)
		return;
	local->ended = false;
	if (local->call.reply && !tell_message(local, STEAL_PTR(local->call.reply)))
		pdk_fail(&local->call.end, 0, PDK_RESOURCE_EXHAUSTED, "the server is out of memory");
	events = STEAL_PTR(local->events);
	if (events)
		events->on_end(local->arg, &local->call.end);
	rpc_closed(&local->call, false);
	local->call.pending--; /* the stream */
}

static void serve(struct rpc_call *call)
{
	serve_callee(local_of(call));
	serve_caller(local_of(call));
}

static void read_next(struct rpc_call *call)
{
	rpc_task_wake(&local_of(call)->task);
}

static void send_message(struct rpc_call *call, void *packed)
{
	struct rpc_local *local = local_of(call);

	local->out = packed;
	local->lost = !packed;
	rpc_task_wake(&local->task);
}

static void end(struct rpc_call *call)
{
	local_of(call)->ended = true;
	rpc_task_wake(&local_of(call)->task);
}

static void reset(struct rpc_call *call)
{
}

static void release(struct rpc_call *call)
{
	struct rpc_local *local = local_of(call);

	rpc_call_clear(call);
	free(local->request);
	free(local->out);
	free(local);
}

static const struct rpc_transport transport = {
	.name = "local",
	.read = read_next,
	.pack = pack,
	.pack_bytes = pack_bytes,
	.drop = free,
	.send = send_message,
	.end = end,
	.reset = reset,
	.release = release,
};

static uint64_t time_left(const struct rpc_call *call)
{
	uint64_t now = loop_now_ns();

	if (!call->deadline_ns)
		return RPC_NO_TIMEOUT;
	return call->deadline_ns > now ? call->deadline_ns - now : 0;
}

static struct rpc_local *open_call(const struct rpc_arrival *arrival, const ProtobufCMessage *request,
				   const struct rpc_local_events *events, void *arg)
{
	struct rpc_local *local = calloc(1, sizeof(*local));

	if (local)
		local->request = pack(request);
	if (!local || !local->request) {
		free(local);
		return NULL;
	}
	rpc_call_init(&local->call, &transport);
	local->task = (struct rpc_task){.call = &local->call, .serve = serve};
	local->events = events;
	local->arg = arg;
	local->call.pending = 1; /* the stream */
	rpc_arrive(&local->call, arrival);
	return local;
}

struct rpc_local *rpc_local_open(struct rpc_call *outer, const char *path, const ProtobufCMessage *request,
				 const struct rpc_local_events *events, void *arg)
{
	struct rpc_arrival arrival = {
		.path = path,
		.path_length = strlen(path),
		.timeout_ns = time_left(outer),
		.principal = &outer->principal,
		.client_address = outer->client_address,
	};

	return open_call(&arrival, request, events, arg);
}

struct rpc_local *rpc_local_open_as(const struct principal *principal, const char *path,
				    const ProtobufCMessage *request, const struct rpc_local_events *events, void *arg)
{
	struct rpc_arrival arrival = {
		.path = path,
		.path_length = strlen(path),
		.timeout_ns = RPC_NO_TIMEOUT,
		.principal = principal,
	};

	return open_call(&arrival, request, events, arg);
}

int rpc_local_send(struct rpc_local *local, const ProtobufCMessage *message)
{
	struct rpc_packet *packet = pack(message);

	if (!packet)
		return -ENOMEM;
	free(local->request);
	local->request = packet;
	local->wanted = false;
	rpc_task_wake(&local->task);
	return 0;
}

void rpc_local_half_close(struct rpc_local *local)
{
	local->half_closed = true;
	rpc_task_wake(&local->task);
}

void rpc_local_next(struct rpc_local *local)
{
	local->taken = true;
	rpc_task_wake(&local->task);
}

void rpc_local_detach(struct rpc_local *local)
{
	if (local->call.state >= RPC_FINISHED)
		return;
	local->call.deadline_ns = 0;
	loop_timer_cancel(&local->call.timer);
}

void rpc_local_cancel(struct rpc_local *local)
{
	struct pdk_error why;

	if (!local)
		return;
	local->events = NULL;
	pdk_fail(&why, 0, PDK_CANCELLED, "the client has gone away");
	rpc_cancel(&local->call, &why);
}
