#include "rpc_link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "paddock/internal/call.pb-c.h"
#include "sandbox/base/cleanup.h"

/* Calls over link: see rpc_link.h. All of it under the lock, but release(). */

#define REQUEST_MAX (64u << 10) /* of the frames that are ours */

static void pump(struct rpc_link_call *call);
static void send_end(struct rpc_link_call *call);

static struct rpc_link_call *link_of(struct rpc_call *call)
{
	return (struct rpc_link_call *)call;
}

/* Streams */

struct rpc_link_call **rpc_link_slot(struct rpc_link_peer *peer, uint32_t stream)
{
	struct rpc_link_call **slot = &peer->buckets[(stream >> 1) % RPC_LINK_BUCKETS];

	while (*slot && (*slot)->stream != stream)
		slot = &(*slot)->next;
	return slot;
}

static void leave_line(struct rpc_link_call *call)
{
	struct rpc_link_call **at = &call->peer->waiting;

	if (!call->waiting)
		return;
	while (*at != call)
		at = &(*at)->next_waiting;
	*at = call->next_waiting;
	if (!call->next_waiting)
		call->peer->last_waiting = at;
	call->waiting = false;
}

static void drop_out(struct rpc_link_call *call)
{
	leave_line(call);
	free(STEAL_PTR(call->out));
}

static struct rpc_packet *take_in(struct rpc_link_call *call)
{
	struct rpc_packet *packet = STEAL_PTR(call->in[call->in_first]);

	call->in_first = (call->in_first + 1) % RPC_LINK_WINDOW;
	call->n_in--;
	call->peer->queued -= packet->length;
	return packet;
}

/* The stream is over for both sides: only the object is left. */
static void stream_over(struct rpc_link_call *call)
{
	struct rpc_link_peer *peer = call->peer;

	drop_out(call);
	while (call->n_in)
		free(take_in(call));
	*rpc_link_slot(peer, call->stream) = call->next;
	peer->n_calls--;
	call->peer = NULL;
}

static void stream_closed(struct rpc_link_call *call, bool cancelled)
{
	stream_over(call);
	rpc_closed(&call->call, cancelled);
	call->call.pending--;
	rpc_call_settle(&call->call);
}

void rpc_link_lost(struct rpc_link_call *call)
{
	stream_closed(call, true);
}

/* What handlers wait for */

/* Give the handler what it asked for. */
static void deliver(struct rpc_link_call *call)
{
	ProtobufCMessage *message = NULL;
	struct rpc_packet *packet;
	struct pdk_error err = {};
	int rc;

	if (!call->call.reading || !call->peer || call->call.state >= RPC_FINISHED)
		return;
	if (!call->n_in) {
		if (call->half_closed)
			rpc_received(&call->call, NULL, 0, NULL);
		return;
	}
	packet = take_in(call);
	rc = rpc_unpack(&call->call, packet->bytes, packet->length, &message, &err);
	free(packet);
	if (!call->half_closed && ++call->owed == RPC_LINK_CREDIT_AT_ONCE) {
		call->window += call->owed;
		rpc_link_write_credit(call->peer, call->stream, call->owed);
		call->owed = 0;
	}
	rpc_received(&call->call, message, rc, &err);
	if (call->call.reading && (call->n_in || call->half_closed))
		call->task.due = true;
}

static void tell_sent(struct rpc_link_call *call)
{
	struct pdk_error err;

	if (call->sent) {
		call->sent = false;
		rpc_sent(&call->call, true);
	}
	if (call->out_lost) {
		call->out_lost = false;
		call->call.sending = false;
		pdk_fail(&err, -EMSGSIZE, PDK_RESOURCE_EXHAUSTED, "the reply is too large for this connection");
		rpc_cancel(&call->call, &err);
	}
}

static void serve(struct rpc_call *call)
{
	tell_sent(link_of(call));
	deliver(link_of(call));
}

/* deliver() from outside the task: what is left for later needs the task. */
static void deliver_now(struct rpc_link_call *call)
{
	call->call.pending++;
	deliver(call);
	if (call->task.due)
		rpc_task_wake(&call->task);
	call->call.pending--;
	rpc_call_settle(&call->call);
}

static void read_next(struct rpc_call *call)
{
	struct rpc_link_call *link_call = link_of(call);

	if (link_call->n_in || link_call->half_closed)
		rpc_task_wake(&link_call->task);
}

/* The way out */

static void *pack(const ProtobufCMessage *message)
{
	return rpc_packet_of(message, LINK_PAYLOAD_MAX);
}

static void *pack_bytes(const void *head, size_t head_length, uint32_t field, const void *data, size_t length,
			void (*done)(void *arg), void *arg)
{
	struct rpc_packet *packet = rpc_packet_of_bytes(head, head_length, field, data, length, LINK_PAYLOAD_MAX);

	rpc_release_later(done, arg);
	return packet;
}

static void stand_in_line(struct rpc_link_call *call)
{
	struct rpc_link_peer *peer = call->peer;

	if (call->waiting)
		return;
	call->waiting = true;
	call->next_waiting = NULL;
	*peer->last_waiting = call;
	peer->last_waiting = &call->next_waiting;
}

/* Send what waits, as far as credit and room go. */
static void pump(struct rpc_link_call *call)
{
	if (!call->out || !call->credit || call->waiting)
		return;
	if (link_queued(call->peer->link) > RPC_LINK_ROOM) {
		stand_in_line(call);
		return;
	}
	call->credit--;
	rpc_link_write_fd(call->peer, call->stream, LINK_EVENT, call->out->bytes, call->out->length,
			  call->end_waits ? call->call.reply_fd : -1);
	free(STEAL_PTR(call->out));
	if (call->end_waits)
		send_end(call);
	else if (call->call.sending) {
		call->sent = true;
		rpc_task_wake(&call->task);
	}
}

void rpc_link_pump(struct rpc_link_peer *peer)
{
	while (peer->waiting && link_queued(peer->link) <= RPC_LINK_ROOM) {
		struct rpc_link_call *call = peer->waiting;

		leave_line(call);
		call->call.pending++;
		pump(call);
		call->call.pending--;
		rpc_call_settle(&call->call);
	}
}

static void send_message(struct rpc_call *call, void *packed)
{
	struct rpc_link_call *link_call = link_of(call);

	if (!link_call->peer) {
		free(packed);
		return;
	}
	if (!packed) {
		link_call->out_lost = true;
		rpc_task_wake(&link_call->task);
		return;
	}
	link_call->out = packed;
	pump(link_call);
}

static void send_end(struct rpc_link_call *call)
{
	Paddock__Internal__CallEnd end = PADDOCK__INTERNAL__CALL_END__INIT;
	Paddock__Internal__CallReply reply = PADDOCK__INTERNAL__CALL_REPLY__INIT;
	uint8_t packed[PDK_ERROR_TEXT_MAX + 64];

	end.code = call->call.end.code;
	end.message = call->call.end.code == PDK_OK ? (char *)"" : call->call.end.text;
	reply.what_case = PADDOCK__INTERNAL__CALL_REPLY__WHAT_END;
	reply.end = &end;
	call->end_waits = false;
	call->ended = true;
	rpc_link_write(call->peer, call->stream, LINK_REPLY, packed,
		       paddock__internal__call_reply__pack(&reply, packed));
	rpc_link_write(call->peer, call->stream, LINK_END, NULL, 0);
	if (call->half_closed)
		stream_closed(call, false);
}

static void end(struct rpc_call *call)
{
	struct rpc_link_call *link_call = link_of(call);

	/* Nobody waits for the rest of a call that was cancelled. */
	if (call->cancelled || link_call->abandoned)
		drop_out(link_call);
	if (call->reply && link_call->abandoned)
		free(STEAL_PTR(call->reply));
	if (call->reply) { /* a call with a reply has sent no messages */
		RPC_MUST(!link_call->out);
		link_call->out = STEAL_PTR(call->reply);
	}
	if (link_call->out) {
		link_call->end_waits = true;
		pump(link_call);
		return;
	}
	send_end(link_call);
}

/* The peer gave no credit for the reply, or has not ended its side. */
static void reset(struct rpc_call *call)
{
	struct rpc_link_call *link_call = link_of(call);

	if (!link_call->peer)
		return;
	if (link_call->ended) {
		rpc_link_fail_later(link_call->peer, -ETIMEDOUT);
		return;
	}
	drop_out(link_call);
	pdk_fail(&call->end, 0, PDK_CANCELLED, "the reply was not taken in time");
	rpc_send_end(call);
}

static void release(struct rpc_call *call)
{
	struct rpc_link_call *link_call = link_of(call);

	rpc_call_clear(call);
	free(link_call->out);
	free(link_call);
}

static const struct rpc_transport transport = {
	.name = "link",
	.read = read_next,
	.pack = pack,
	.pack_bytes = pack_bytes,
	.drop = free,
	.send = send_message,
	.end = end,
	.reset = reset,
	.release = release,
};

/* Frames */

static Paddock__Internal__CallRequest *unpack(struct arena *arena, const uint8_t *payload, size_t length)
{
	arena_init(arena, arena_max_for_message(length));
	if (length > REQUEST_MAX)
		return NULL;
	return paddock__internal__call_request__unpack(&arena->allocator, length, payload);
}

static bool address_valid(const char *text)
{
	static const char allowed[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.:[]%-_";

	return strlen(text) <= RPC_LINK_ADDRESS_MAX && text[strspn(text, allowed)] == '\0';
}

static int open_call(struct rpc_link_peer *peer, uint32_t stream, const Paddock__Internal__CallOpen *open)
{
	struct rpc_file_signature file = {};
	struct rpc_link_call *call;
	struct rpc_arrival arrival = {
		.path = open->method,
		.path_length = strlen(open->method),
		.timeout_ns = open->timeout_ms ? RPC_NO_TIMEOUT - 1 : RPC_NO_TIMEOUT,
		.authorization = open->authorization[0] ? open->authorization : NULL,
		.access_token = open->access_token[0] ? open->access_token : NULL,
		.sandbox_id = open->sandbox_id[0] ? open->sandbox_id : NULL,
		.user = open->user[0] ? open->user : NULL,
		.own_process = true,
		.client_address = open->client_address,
	};

	if (open->file) {
		file.path = open->file->path;
		file.user = open->file->user;
		file.signature = open->file->signature;
		file.expires = open->file->expires;
		file.expires_unix_s = open->file->expires_unix_s;
		arrival.file = &file;
	}
	if (!address_valid(open->client_address) || open->credit > RPC_LINK_CREDIT_MAX)
		return -EPROTO;
	call = peer->n_calls < RPC_LINK_CALLS_HARD_MAX ? calloc(1, sizeof(*call)) : NULL;
	if (!call)
		return -ENOBUFS;
	if (open->timeout_ms < UINT64_MAX / 1000000)
		arrival.timeout_ns = open->timeout_ms ? open->timeout_ms * 1000000 : RPC_NO_TIMEOUT;
	if (peer->n_calls >= RPC_LINK_CALLS_MAX)
		arrival.refused = "the connection has too many calls under way";
	rpc_call_init(&call->call, &transport);
	call->task = (struct rpc_task){.call = &call->call, .serve = serve};
	call->peer = peer;
	call->stream = stream;
	call->credit = open->credit;
	call->window = RPC_LINK_WINDOW;
	call->call.pending = 2; /* the stream, and this function */
	*rpc_link_slot(peer, stream) = call;
	peer->n_calls++;
	rpc_arrive(&call->call, &arrival);
	call->call.pending--;
	rpc_call_settle(&call->call);
	return 0;
}

int rpc_link_open(struct rpc_link_peer *peer, uint32_t stream, const uint8_t *payload, size_t length)
{
	Paddock__Internal__CallRequest *request;
	struct arena arena;
	int rc = -EPROTO;

	request = unpack(&arena, payload, length);
	if (request && request->what_case == PADDOCK__INTERNAL__CALL_REQUEST__WHAT_OPEN)
		rc = open_call(peer, stream, request->open);
	else if (request && request->what_case == PADDOCK__INTERNAL__CALL_REQUEST__WHAT_CANCEL)
		rc = 0; /* it has crossed the status of a call that was half-closed */
	arena_clear(&arena);
	return rc;
}

int rpc_link_control(struct rpc_link_call *call, const uint8_t *payload, size_t length)
{
	Paddock__Internal__CallRequest *request;
	struct pdk_error err;
	struct arena arena;
	bool cancel;

	request = unpack(&arena, payload, length);
	cancel = request && request->what_case == PADDOCK__INTERNAL__CALL_REQUEST__WHAT_CANCEL;
	arena_clear(&arena);
	if (!cancel)
		return -EPROTO;
	pdk_fail(&err, -ECANCELED, PDK_CANCELLED, "the client has gone away");
	call->abandoned = true;
	rpc_cancel(&call->call, &err);
	if (call->end_waits) { /* the status stands behind a message that nobody wants any more */
		drop_out(call);
		send_end(call);
	}
	return 0;
}

int rpc_link_message(struct rpc_link_call *call, const uint8_t *bytes, size_t length)
{
	struct rpc_packet *packet;
	struct pdk_error err;

	if (call->half_closed || !call->window)
		return -EPROTO;
	call->window--;
	if (call->call.state >= RPC_FINISHED || call->call.cancelled)
		return 0; /* too late, which the peer cannot know */
	packet = call->peer->queued + length > RPC_LINK_QUEUE_MAX ? NULL : rpc_packet_create(length, LINK_PAYLOAD_MAX);
	if (!packet) {
		pdk_fail(&err, -ENOBUFS, PDK_RESOURCE_EXHAUSTED, "the connection has too many messages under way");
		rpc_cancel(&call->call, &err);
		return 0;
	}
	memcpy(packet->bytes, bytes, length);
	call->in[(call->in_first + call->n_in++) % RPC_LINK_WINDOW] = packet;
	call->peer->queued += length;
	deliver_now(call);
	return 0;
}

int rpc_link_credit(struct rpc_link_call *call, uint32_t credit)
{
	if (credit > RPC_LINK_CREDIT_MAX - call->credit)
		return -EPROTO;
	call->credit += credit;
	if (!call->ended)
		pump(call);
	return 0;
}

int rpc_link_half_close(struct rpc_link_call *call)
{
	if (call->half_closed)
		return -EPROTO;
	call->half_closed = true;
	if (call->ended)
		stream_closed(call, false);
	else
		deliver_now(call);
	return 0;
}
