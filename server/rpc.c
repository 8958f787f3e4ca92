#include "rpc_internal.h"

#include <errno.h>
#include <grpc/support/time.h>
#include <stdlib.h>
#include <string.h>

#include "metrics.h"
#include "sandbox/base/cleanup.h"
#include "wire_text.h"

/* The way in: arrivals, messages, cancellations. See rpc_internal.h for the theory of operation. */

static struct rpc_call *calls;
static uint64_t calls_generation; /* changes when a call leaves the list */
static unsigned int n_calls;

/* Life of the object */

static void deadline_passed(void *arg);

struct rpc_call *rpc_call_create(struct rpc_listener *listener)
{
	struct rpc_call *call = calloc(1, sizeof(*call));

	if (!call)
		return NULL;
	call->listener = listener;
	call->timer.handler = deadline_passed;
	call->timer.arg = call;
	for (int i = 0; i < RPC_OP_COUNT; i++)
		call->tags[i] = (struct rpc_tag){.call = call, .operation = i};
	grpc_call_details_init(&call->details);
	grpc_metadata_array_init(&call->metadata);
	arena_init(&call->arena, ARENA_MAX);
	arena_init(&call->message_arena, ARENA_MAX);
	return call;
}

void rpc_call_request(struct rpc_call *call)
{
	grpc_completion_queue *queue = call->listener->queue;

	RPC_HAND_OVER(&call->tags[RPC_OP_ARRIVAL]);
	if (grpc_server_request_call(call->listener->server, &call->grpc, &call->details, &call->metadata, queue, queue,
				     &call->tags[RPC_OP_ARRIVAL]) != GRPC_CALL_OK)
		abort();
}

static void call_free(struct rpc_call *call)
{
	struct rpc_listener *listener = call->slot_lost ? call->listener : NULL;

	if (call->grpc)
		grpc_call_unref(call->grpc);
	grpc_call_details_destroy(&call->details);
	grpc_metadata_array_destroy(&call->metadata);
	if (call->reply)
		grpc_byte_buffer_destroy(call->reply);
	arena_clear(&call->arena);
	arena_clear(&call->message_arena);
	free(call);
	call = listener ? rpc_call_create(listener) : NULL;
	if (call)
		rpc_call_request(call);
}

static void run_free(struct loop_task *task)
{
	call_free((struct rpc_call *)((char *)task - offsetof(struct rpc_call, free_task)));
}

static void list_add(struct rpc_call *call)
{
	call->next = calls;
	if (calls)
		calls->previous = call;
	calls = call;
	call->listed = true;
	n_calls++;
	metric_add(METRIC_CALLS_ACTIVE, 1);
}

static void list_remove(struct rpc_call *call)
{
	if (call->next)
		call->next->previous = call->previous;
	if (call->previous)
		call->previous->next = call->next;
	else
		calls = call->next;
	call->listed = false;
	n_calls--;
	calls_generation++;
	metric_add(METRIC_CALLS_ACTIVE, -1);
}

void rpc_call_settle(struct rpc_call *call)
{
	if (call->state != RPC_ENDED || call->pending || !call->listed)
		return;
	list_remove(call);
	loop_timer_cancel(&call->timer);
	call->free_task.run = run_free;
	loop_after_unlock(&call->free_task);
}

unsigned int rpc_active(void)
{
	return n_calls;
}

/* Arrivals */

static void set_deadline(struct rpc_call *call)
{
	gpr_timespec left;

	if (gpr_time_cmp(call->details.deadline, gpr_inf_future(call->details.deadline.clock_type)) < 0) {
		left = gpr_time_sub(call->details.deadline, gpr_now(call->details.deadline.clock_type));
		/* A year is as good as any longer time, and cannot overflow. */
		if (left.tv_sec > 365 * 86400)
			left.tv_sec = 365 * 86400;
		if (left.tv_sec < 0)
			left = gpr_time_0(GPR_TIMESPAN);
		call->deadline_ns = call->arrived_ns + (uint64_t)left.tv_sec * 1000000000u + (uint64_t)left.tv_nsec;
	} else if (call->method->default_deadline_ms) {
		call->deadline_ns = call->arrived_ns + call->method->default_deadline_ms * (uint64_t)1000000;
	}
}

static int arm_deadline(struct rpc_call *call, struct pdk_error *err)
{
	set_deadline(call);
	if (!call->deadline_ns || loop_timer_set(&call->timer, call->deadline_ns) >= 0)
		return 0;
	return pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "the server is out of memory");
}

static int accept_call(struct rpc_call *call, struct pdk_error *err)
{
	grpc_slice path = call->details.method;

	if (n_calls > RPC_CALLS_MAX)
		return pdk_fail(err, -EAGAIN, PDK_RESOURCE_EXHAUSTED, "the server has too many calls under way");
	if (call->slot_lost)
		return pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "the server is out of memory");
	call->method = rpc_table_find((const char *)GRPC_SLICE_START_PTR(path), GRPC_SLICE_LENGTH(path));
	if (!call->method)
		return pdk_fail(err, -ENOSYS, PDK_UNIMPLEMENTED, "unknown method");
	if (rpc_admit(call, err) < 0)
		return -EACCES;
	return arm_deadline(call, err);
}

static bool client_streams(const struct rpc_call *call)
{
	return call->method->kind == RPC_CLIENT_STREAM || call->method->kind == RPC_BIDI;
}

static void call_arrived(struct rpc_call *call)
{
	struct rpc_call *next = rpc_call_create(call->listener);
	struct pdk_error err = {};

	if (next)
		rpc_call_request(next);
	else
		call->slot_lost = true;
	call->arrived_ns = loop_now_ns();
	loop_lock();
	list_add(call);
	rpc_prepare_close(call);
	if (accept_call(call, &err) < 0) {
		rpc_refuse(call, &err);
	} else {
		rpc_prepare_read(call);
		if (client_streams(call)) {
			call->state = RPC_RUNNING;
			call->method->start(call, NULL);
		}
	}
	loop_unlock();
}

/* Messages */

/* The bytes of a message in one piece; `ret_copy` is to be freed. */
static const uint8_t *message_bytes(const grpc_slice_buffer *slices, uint8_t **ret_copy)
{
	uint8_t *copy, *to;

	*ret_copy = NULL;
	if (slices->count == 0)
		return (const uint8_t *)"";
	if (slices->count == 1)
		return GRPC_SLICE_START_PTR(slices->slices[0]);
	copy = to = malloc(slices->length + 1);
	if (!copy)
		return NULL;
	for (size_t i = 0; i < slices->count; i++) {
		memcpy(to, GRPC_SLICE_START_PTR(slices->slices[i]), GRPC_SLICE_LENGTH(slices->slices[i]));
		to += GRPC_SLICE_LENGTH(slices->slices[i]);
	}
	*ret_copy = copy;
	return copy;
}

static int message_unpack(struct rpc_call *call, struct arena *arena, ProtobufCMessage **ret, struct pdk_error *err)
{
	const grpc_byte_buffer *buffer = call->read_buffer;
	const grpc_slice_buffer *slices = &buffer->data.raw.slice_buffer;
	_cleanup_free_ uint8_t *copy = NULL;
	const uint8_t *bytes;

	if (buffer->data.raw.compression != GRPC_COMPRESS_NONE)
		return pdk_fail(err, -EOPNOTSUPP, PDK_UNIMPLEMENTED, "compressed messages are not accepted");
	if (slices->length > call->method->max_request_bytes)
		return pdk_fail(err, -EMSGSIZE, PDK_RESOURCE_EXHAUSTED, "message is larger than %u bytes",
				call->method->max_request_bytes);
	bytes = message_bytes(slices, &copy);
	if (!bytes)
		return pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "the server is out of memory");
	arena->max = arena_max_for_message(slices->length);
	*ret = protobuf_c_message_unpack(call->method->request, &arena->allocator, slices->length, bytes);
	if (*ret)
		return wire_check_text(call->method->request, bytes, slices->length, err);
	if (arena->refused)
		return pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "message needs too much memory to decode");
	return pdk_fail(err, -EBADMSG, PDK_INVALID_ARGUMENT, "malformed %s", call->method->request->short_name);
}

static void give_message(struct rpc_call *call, const ProtobufCMessage *message)
{
	struct pdk_error err = {};

	if (client_streams(call)) {
		if (message && call->events.on_message)
			call->events.on_message(call, message);
		else if (!message && call->events.on_half_close)
			call->events.on_half_close(call);
	} else if (message) {
		call->state = RPC_RUNNING;
		call->method->start(call, message);
	} else {
		pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "the request message is missing");
		rpc_refuse(call, &err);
	}
}

/* `success` is false, or gRPC says that the read failed, when the stream broke: `close` follows and says why. */
static void call_read(struct rpc_call *call, bool success)
{
	bool broken = !success || (!call->read_buffer && grpc_call_failed_before_recv_message(call->grpc));
	struct arena *arena = client_streams(call) ? &call->message_arena : &call->arena;
	struct pdk_error err = {};
	ProtobufCMessage *message = NULL;
	int rc = 0;

	if (call->read_buffer) {
		rc = message_unpack(call, arena, &message, &err);
		grpc_byte_buffer_destroy(call->read_buffer);
		call->read_buffer = NULL;
	}
	loop_lock();
	call->pending--;
	call->reading = false;
	if (!broken && call->state < RPC_FINISHED && !call->cancelled) {
		if (rc < 0)
			rpc_cancel(call, &err);
		else
			give_message(call, message);
	}
	if (arena == &call->message_arena)
		arena_clear(arena);
	rpc_call_settle(call);
	loop_unlock();
}

void rpc_read(struct rpc_call *call)
{
	RPC_MUST(client_streams(call));
	if (!call->reading && !call->cancelled && call->state < RPC_FINISHED)
		rpc_prepare_read(call);
}

/* Ends */

void rpc_cancel(struct rpc_call *call, const struct pdk_error *why)
{
	if (call->cancelled || call->state >= RPC_FINISHED)
		return;
	call->cancelled = true;
	call->why = *why;
	if (call->state == RPC_ARRIVED)
		rpc_refuse(call, why);
	else if (call->events.on_cancel)
		call->events.on_cancel(call, why);
	else
		rpc_fail(call, why);
}

static void cancel_with(struct rpc_call *call, enum pdk_code code, const char *text)
{
	struct pdk_error err;

	pdk_fail(&err, 0, code, "%s", text);
	rpc_cancel(call, &err);
}

static void run_cancel(struct loop_task *task)
{
	struct rpc_call *call = (struct rpc_call *)((char *)task - offsetof(struct rpc_call, cancel_task));

	grpc_call_cancel(call->grpc, NULL);
	loop_lock();
	call->pending--;
	rpc_call_settle(call);
	loop_unlock();
}

/* The timer of a call: first its deadline, after the end how long the peer may take to accept the status. */
static void deadline_passed(void *arg)
{
	struct rpc_call *call = arg;

	if (call->state < RPC_FINISHED) {
		cancel_with(call, PDK_DEADLINE_EXCEEDED, "the deadline has passed");
	} else if (call->state == RPC_ENDED) {
		call->pending++;
		call->cancel_task.run = run_cancel;
		loop_after_unlock(&call->cancel_task);
	}
}

/* A client whose deadline passes resets the stream, and that can be here before our own timer, because the timeout
 * is rounded up on the wire. */
static bool about_deadline(const struct rpc_call *call)
{
	uint64_t slack = 20000000u + (call->deadline_ns - call->arrived_ns) / 64;

	return call->deadline_ns && loop_now_ns() + slack >= call->deadline_ns;
}

static void call_closed(struct rpc_call *call)
{
	loop_lock();
	call->pending--;
	call->closed = true;
	if (call->close_cancelled && call->state < RPC_FINISHED) {
		if (about_deadline(call))
			cancel_with(call, PDK_DEADLINE_EXCEEDED, "the deadline has passed");
		else
			cancel_with(call, PDK_CANCELLED, "the client has gone away");
	}
	rpc_call_settle(call);
	loop_unlock();
}

/* Cancel every call that `match` accepts. Handlers may finish other calls meanwhile, also ones that leave the
 * list at once, so the walk starts again whenever one did; a call is cancelled only once. */
static void cancel_matching(bool (*match)(const struct rpc_call *call, const char *id), const char *id,
			    const struct pdk_error *why)
{
	struct rpc_call *call = calls;

	while (call) {
		uint64_t generation = calls_generation;

		if (!call->cancelled && call->state < RPC_FINISHED && match(call, id))
			rpc_cancel(call, why);
		call = generation == calls_generation ? call->next : calls;
	}
}

static bool match_key(const struct rpc_call *call, const char *id)
{
	return call->principal.key_id[0] && strcmp(call->principal.key_id, id) == 0;
}

static bool match_sandbox(const struct rpc_call *call, const char *id)
{
	return strcmp(call->audit_sandbox, id) == 0;
}

static bool match_all(const struct rpc_call *call, const char *id)
{
	return true;
}

void rpc_cancel_key(const char *key_id)
{
	struct pdk_error why;

	pdk_fail(&why, 0, PDK_UNAUTHENTICATED, "a valid API key is needed");
	cancel_matching(match_key, key_id, &why);
}

void rpc_cancel_sandbox(const char *sandbox_id, const struct pdk_error *err)
{
	if (sandbox_id[0])
		cancel_matching(match_sandbox, sandbox_id, err);
}

void rpc_cancel_all(const struct pdk_error *why)
{
	cancel_matching(match_all, NULL, why);
}

void rpc_event(const struct rpc_tag *tag, bool success)
{
	RPC_TAKE_OVER(tag);
	switch (tag->operation) {
	case RPC_OP_ARRIVAL:
		if (success)
			call_arrived(tag->call);
		else
			call_free(tag->call); /* the server is shutting down */
		break;
	case RPC_OP_CLOSE:
		call_closed(tag->call);
		break;
	case RPC_OP_READ:
		call_read(tag->call, success);
		break;
	case RPC_OP_SEND:
		rpc_sent(tag->call, success);
		break;
	case RPC_OP_COUNT:
		break;
	}
}

/* What handlers ask */

void rpc_set_events(struct rpc_call *call, const struct rpc_events *events, void *user)
{
	call->events = *events;
	call->user = user;
}

void *rpc_user(const struct rpc_call *call)
{
	return call->user;
}

const struct rpc_method *rpc_method(const struct rpc_call *call)
{
	return call->method;
}

const struct principal *rpc_principal(const struct rpc_call *call)
{
	return &call->principal;
}

uint64_t rpc_deadline_ns(const struct rpc_call *call)
{
	return call->deadline_ns;
}

bool rpc_is_cancelled(const struct rpc_call *call)
{
	return call->cancelled;
}

ProtobufCAllocator *rpc_allocator(struct rpc_call *call)
{
	return &call->arena.allocator;
}

void *rpc_alloc(struct rpc_call *call, size_t size)
{
	return arena_alloc(&call->arena, size);
}

char *rpc_strdup(struct rpc_call *call, const char *text)
{
	size_t size = strlen(text) + 1;
	char *copy = rpc_alloc(call, size);

	return copy ? memcpy(copy, text, size) : NULL;
}
