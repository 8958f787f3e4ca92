#include "rpc_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "metrics.h"
#include "sandbox/base/cleanup.h"
#include "wire_text.h"

/* Calls from arrival to end, whatever they travel by. See rpc_internal.h for the theory of operation. */

#define YEAR_NS (365 * 86400 * (uint64_t)1000000000)

static struct rpc_call *calls;
static uint64_t calls_generation; /* changes when a call leaves the list */
static unsigned int n_calls;

/* Life of the object */

static void deadline_passed(void *arg);

void rpc_call_init(struct rpc_call *call, const struct rpc_transport *transport)
{
	call->transport = transport;
	call->reply_fd = -1;
	call->timer.handler = deadline_passed;
	call->timer.arg = call;
	arena_init(&call->arena, ARENA_MAX);
	arena_init(&call->message_arena, ARENA_MAX);
}

void rpc_call_clear(struct rpc_call *call)
{
	if (call->reply)
		call->transport->drop(call->reply);
	if (call->reply_fd >= 0)
		close(call->reply_fd);
	arena_clear(&call->arena);
	arena_clear(&call->message_arena);
}

static void run_free(struct loop_task *task)
{
	struct rpc_call *call = (struct rpc_call *)((char *)task - offsetof(struct rpc_call, free_task));

	call->transport->release(call);
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

static int arm_deadline(struct rpc_call *call, uint64_t timeout_ns, struct pdk_error *err)
{
	if (timeout_ns != RPC_NO_TIMEOUT)
		/* A year is as good as any longer time, and cannot overflow. */
		call->deadline_ns = call->arrived_ns + (timeout_ns < YEAR_NS ? timeout_ns : YEAR_NS);
	else if (call->method->default_deadline_ms)
		call->deadline_ns = call->arrived_ns + call->method->default_deadline_ms * (uint64_t)1000000;
	if (!call->deadline_ns || loop_timer_set(&call->timer, call->deadline_ns) >= 0)
		return 0;
	return pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "the server is out of memory");
}

static int accept_call(struct rpc_call *call, const struct rpc_arrival *arrival, struct pdk_error *err)
{
	if (n_calls > RPC_CALLS_MAX)
		return pdk_fail(err, -EAGAIN, PDK_RESOURCE_EXHAUSTED, "the server has too many calls under way");
	if (arrival->refused)
		return pdk_fail(err, -EAGAIN, PDK_RESOURCE_EXHAUSTED, "%s", arrival->refused);
	call->method = rpc_table_find(arrival->path, arrival->path_length);
	if (call->method && call->method->link_only && !arrival->own_process)
		call->method = NULL;
	if (!call->method)
		return pdk_fail(err, -ENOSYS, PDK_UNIMPLEMENTED, "unknown method");
	if (rpc_admit(call, arrival, err) < 0)
		return -EACCES;
	return arm_deadline(call, arrival->timeout_ns, err);
}

bool rpc_client_streams(const struct rpc_call *call)
{
	return call->method->kind == RPC_CLIENT_STREAM || call->method->kind == RPC_BIDI;
}

void rpc_arrive(struct rpc_call *call, const struct rpc_arrival *arrival)
{
	struct pdk_error err = {};

	call->arrived_ns = loop_now_ns();
	if (arrival->client_address && arrival->client_address[0])
		call->client_address = rpc_strdup(call, arrival->client_address);
	if (arrival->sandbox_id)
		call->sandbox_id = rpc_strdup(call, arrival->sandbox_id);
	if (arrival->user)
		call->client_user = rpc_strdup(call, arrival->user);
	list_add(call);
	if (accept_call(call, arrival, &err) < 0) {
		rpc_refuse(call, &err);
		return;
	}
	call->reading = true;
	call->transport->read(call);
	if (rpc_client_streams(call)) {
		call->state = RPC_RUNNING;
		call->method->start(call, NULL);
	}
}

/* Messages */

int rpc_unpack(struct rpc_call *call, const uint8_t *bytes, size_t length, ProtobufCMessage **ret,
	       struct pdk_error *err)
{
	const struct rpc_method *method = call->method;
	struct arena *arena = rpc_client_streams(call) ? &call->message_arena : &call->arena;

	if (length > method->max_request_bytes)
		return pdk_fail(err, -EMSGSIZE, PDK_RESOURCE_EXHAUSTED, "message is larger than %u bytes",
				method->max_request_bytes);
	arena->max = arena_max_for_message(length);
	*ret = protobuf_c_message_unpack(method->request, &arena->allocator, length, bytes);
	if (*ret)
		return wire_check_text(method->request, bytes, length, err);
	if (arena->refused)
		return pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "message needs too much memory to decode");
	return pdk_fail(err, -EBADMSG, PDK_INVALID_ARGUMENT, "malformed %s", method->request->short_name);
}

static void give_message(struct rpc_call *call, const ProtobufCMessage *message)
{
	struct pdk_error err = {};

	if (rpc_client_streams(call)) {
		if (message && call->events.on_message)
			call->events.on_message(call, message);
		else if (!message && call->events.on_half_close)
			call->events.on_half_close(call);
	} else if (message) {
		call->state = RPC_RUNNING;
		call->request = message;
		call->method->start(call, message);
	} else {
		pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "the request message is missing");
		rpc_refuse(call, &err);
	}
}

void rpc_received(struct rpc_call *call, const ProtobufCMessage *message, int rc, const struct pdk_error *err)
{
	call->reading = false;
	if (call->state < RPC_FINISHED && !call->cancelled) {
		if (rc < 0)
			rpc_cancel(call, err);
		else
			give_message(call, message);
	}
	if (rpc_client_streams(call))
		arena_clear(&call->message_arena);
}

void rpc_sent(struct rpc_call *call, bool success)
{
	call->sending = false;
	if (success && !call->cancelled && call->state == RPC_RUNNING && call->events.on_sent)
		call->events.on_sent(call);
}

void rpc_read(struct rpc_call *call)
{
	RPC_MUST(rpc_client_streams(call));
	if (call->reading || call->cancelled || call->state >= RPC_FINISHED)
		return;
	call->reading = true;
	call->transport->read(call);
}

/* Parking */

bool rpc_can_park(const struct rpc_call *call)
{
	return call->request && call->state == RPC_RUNNING && !call->cancelled && !call->parked;
}

void rpc_park(struct rpc_call *call)
{
	RPC_MUST(rpc_can_park(call));
	call->parked = true;
}

void rpc_unpark(struct rpc_call *call)
{
	RPC_MUST(call->parked);
	call->parked = false;
	call->events = (struct rpc_events){0};
	call->user = NULL;
	call->method->start(call, call->request);
}

void rpc_unpark_fail(struct rpc_call *call, const struct pdk_error *err)
{
	RPC_MUST(call->parked);
	call->parked = false;
	rpc_fail(call, err);
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

/* The timer of a call: first its deadline, after the end how long the peer may take to accept the status. */
static void deadline_passed(void *arg)
{
	struct rpc_call *call = arg;

	if (call->state < RPC_FINISHED) {
		cancel_with(call, PDK_DEADLINE_EXCEEDED, "the deadline has passed");
	} else if (call->state == RPC_ENDED) {
		call->transport->reset(call);
	}
}

/* A client whose deadline passes resets the stream, and that can be here before our own timer, because the timeout
 * is rounded up on the wire. */
static bool about_deadline(const struct rpc_call *call)
{
	uint64_t slack = 20000000u + (call->deadline_ns - call->arrived_ns) / 64;

	return call->deadline_ns && loop_now_ns() + slack >= call->deadline_ns;
}

void rpc_closed(struct rpc_call *call, bool cancelled)
{
	call->closed = true;
	if (!cancelled || call->state >= RPC_FINISHED)
		return;
	if (about_deadline(call))
		cancel_with(call, PDK_DEADLINE_EXCEEDED, "the deadline has passed");
	else
		cancel_with(call, PDK_CANCELLED, "the client has gone away");
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

const char *rpc_sandbox_id(const struct rpc_call *call)
{
	return call->sandbox_id;
}

bool rpc_file_allowed(const struct rpc_call *call, const ProtobufCBinaryData *path, const char *user)
{
	if (!call->signed_path)
		return true;
	if (strcmp(call->signed_user, user) != 0)
		return false;
	/* Without a path it was signed for an upload that names its files itself. */
	return (!call->signed_path[0] && call->method->kind == RPC_CLIENT_STREAM) ||
	       (strlen(call->signed_path) == path->len && memcmp(call->signed_path, path->data, path->len) == 0);
}

bool rpc_is_signed_file(const struct rpc_call *call)
{
	return call->signed_path;
}

const char *rpc_client_address(const struct rpc_call *call)
{
	return call->client_address ? call->client_address : "";
}

const char *rpc_client_user(const struct rpc_call *call)
{
	return call->client_user ? call->client_user : "";
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

struct arena *rpc_arena(struct rpc_call *call)
{
	return &call->arena;
}

char *rpc_strdup(struct rpc_call *call, const char *text)
{
	size_t size = strlen(text) + 1;
	char *copy = rpc_alloc(call, size);

	return copy ? memcpy(copy, text, size) : NULL;
}
