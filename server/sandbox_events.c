#include "rpc.h"
#include "sandbox/base/cleanup.h"
#include "sandbox_internal.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/*
 * WatchEvents. The last RING_MAX events are kept in a ring, each packed and in an allocation of its own size;
 * RING_BYTES_MAX bounds what large metadata could make of that. Sequence numbers start from the wall clock, so
 * that a number from before a restart is older than anything in the ring and is answered with OUT_OF_RANGE.
 *
 * A watcher holds only the number of the next event that it has not seen. It sends one, waits until that has
 * left, and goes on; one that reads too slowly falls out of the ring and is told so. Nothing is queued per
 * watcher.
 */

#define RING_MAX 65536u
#define RING_BYTES_MAX (64u << 20)
#define SCAN_MAX 4096u

struct event {
	uint32_t length;
	char sandbox_id[SANDBOX_ID_SIZE];
	char tenant[TENANT_NAME_MAX + 1];
	uint8_t packed[];
};

struct watcher {
	struct watcher *next, **slot;
	struct rpc_call *call;
	uint64_t sequence; /* of the next event to look at */
	bool scanning;
	char tenant[TENANT_NAME_MAX + 1]; /* empty: any (the operator, looking at one sandbox) */
	char sandbox_id[SANDBOX_ID_SIZE]; /* empty: all of the tenant */
};

static struct event **ring; /* grows to RING_MAX slots */
static uint32_t ring_slots;
static uint64_t ring_first, ring_next; /* sequences: the oldest kept, the next to be given */
static uint64_t ring_bytes;
static struct watcher *watchers;

static struct event **ring_slot(uint64_t sequence)
{
	return &ring[sequence % ring_slots];
}

static size_t event_size(const struct event *event)
{
	return sizeof(*event) + event->length;
}

static void drop_oldest(void)
{
	struct event **slot = ring_slot(ring_first++);

	ring_bytes -= event_size(*slot);
	free(STEAL_PTR(*slot));
}

/* Double the slots; every event moves to its place in the larger ring. */
static bool ring_grow(void)
{
	uint32_t slots = ring_slots ? ring_slots * 2 : 256;
	struct event **larger = calloc(slots, sizeof(*larger));

	if (!larger)
		return false;
	for (uint64_t i = ring_first; i < ring_next; i++)
		larger[i % slots] = *ring_slot(i);
	free(ring);
	ring = larger;
	ring_slots = slots;
	return true;
}

static struct event *event_pack(const struct sandbox *sandbox, Paddock__V1__SandboxEvent__Type type, uint64_t sequence)
{
	Paddock__V1__SandboxEvent message = PADDOCK__V1__SANDBOX_EVENT__INIT;
	_cleanup_free_ void *block = calloc(1, sandbox_message_size(sandbox));
	struct event *event;
	size_t length;

	if (!block)
		return NULL;
	message.sequence = sequence;
	message.time_unix_ms = loop_wall_ms();
	message.type = type;
	message.sandbox = sandbox_message(sandbox, block);
	length = paddock__v1__sandbox_event__get_packed_size(&message);
	event = malloc(sizeof(*event) + length);
	if (!event)
		return NULL;
	event->length = (uint32_t)length;
	memcpy(event->sandbox_id, sandbox->id, sizeof(event->sandbox_id));
	memcpy(event->tenant, sandbox->tenant, sizeof(event->tenant));
	paddock__v1__sandbox_event__pack(&message, event->packed);
	return event;
}

static bool wants(const struct watcher *watcher, const struct event *event)
{
	if (watcher->tenant[0] && strcmp(watcher->tenant, event->tenant) != 0)
		return false;
	return !watcher->sandbox_id[0] || strcmp(watcher->sandbox_id, event->sandbox_id) == 0;
}

static void watcher_remove(struct watcher *watcher)
{
	*watcher->slot = watcher->next;
	if (watcher->next)
		watcher->next->slot = watcher->slot;
}

static void watcher_fail(struct watcher *watcher, enum pdk_code code, const char *text)
{
	struct pdk_error err;

	pdk_fail(&err, -ERANGE, code, "%s", text);
	watcher_remove(watcher);
	rpc_fail(watcher->call, &err);
}

/* True when it went out. */
static bool watcher_send(struct watcher *watcher, const struct event *event)
{
	Paddock__V1__SandboxEvent *message = paddock__v1__sandbox_event__unpack(NULL, event->length, event->packed);

	if (!message) {
		watcher_fail(watcher, PDK_RESOURCE_EXHAUSTED, "the server is out of memory");
		return false;
	}
	rpc_send(watcher->call, &message->base);
	paddock__v1__sandbox_event__free_unpacked(message, NULL);
	return true;
}

static void on_sent(struct rpc_call *call);

/* A long replay of other tenants' events goes on from a fresh turn of the loop. */
static void go_on(void *arg)
{
	for (struct watcher *watcher = watchers, *next; watcher; watcher = next) {
		next = watcher->next;
		if (watcher->scanning) {
			watcher->scanning = false;
			on_sent(watcher->call);
		}
	}
}

static void pump(struct watcher *watcher)
{
	unsigned int scanned = 0;

	while (watcher->sequence < ring_next && rpc_can_send(watcher->call)) {
		const struct event *event;

		if (watcher->sequence < ring_first) {
			watcher_fail(watcher, PDK_OUT_OF_RANGE,
				     "this stream was read too slowly: events were dropped; list and watch again");
			return;
		}
		event = *ring_slot(watcher->sequence++);
		if (wants(watcher, event) && !watcher_send(watcher, event))
			return;
		if (++scanned >= SCAN_MAX) {
			watcher->scanning = loop_defer(go_on, NULL) >= 0;
			return;
		}
	}
}

static void on_sent(struct rpc_call *call)
{
	pump(rpc_user(call));
}

void sandbox_event(const struct sandbox *sandbox, Paddock__V1__SandboxEvent__Type type)
{
	struct event *event;

	if (ring_next - ring_first >= RING_MAX)
		drop_oldest();
	if (ring_next - ring_first >= ring_slots && !ring_grow()) {
		if (ring_slots == 0)
			return;
		drop_oldest();
	}
	event = event_pack(sandbox, type, ring_next);
	if (!event) {
		/* Better a gap that watchers are told of than one that they are not. */
		while (ring_first < ring_next)
			drop_oldest();
		ring_first = ++ring_next;
		return;
	}
	*ring_slot(ring_next++) = event;
	ring_bytes += event_size(event);
	while (ring_bytes > RING_BYTES_MAX)
		drop_oldest();
	for (struct watcher *watcher = watchers, *next; watcher; watcher = next) {
		next = watcher->next;
		if (!watcher->scanning)
			pump(watcher);
	}
}

static void on_cancel(struct rpc_call *call, const struct pdk_error *why)
{
	watcher_remove(rpc_user(call));
	rpc_fail(call, why);
}

static const struct rpc_events watch_events = {.on_sent = on_sent, .on_cancel = on_cancel};

static int place(struct watcher *watcher, uint64_t after, struct pdk_error *err)
{
	if (after == 0) {
		watcher->sequence = ring_next;
		return 0;
	}
	if (after + 1 < ring_first)
		return pdk_fail(err, -ERANGE, PDK_OUT_OF_RANGE,
				"after_sequence: older than what the server keeps; list and watch again");
	if (after >= ring_next)
		return pdk_fail(err, -ERANGE, PDK_OUT_OF_RANGE, "after_sequence: newer than the newest event");
	watcher->sequence = after + 1;
	return 0;
}

static int watch(struct rpc_call *call, const Paddock__V1__WatchEventsRequest *request, struct pdk_error *err)
{
	struct watcher *watcher = rpc_alloc(call, sizeof(*watcher));
	struct sandbox *sandbox;
	int rc;

	if (!watcher)
		return pdk_fail_errno(err, -ENOMEM, "watching");
	if (request->sandbox_id[0]) {
		rc = sandbox_find(call, request->sandbox_id, &sandbox, err);
		if (rc < 0)
			return rc;
		memcpy(watcher->sandbox_id, sandbox->id, sizeof(watcher->sandbox_id));
		memcpy(watcher->tenant, sandbox->tenant, sizeof(watcher->tenant));
		rpc_audit_object(call, sandbox->id, NULL);
	} else {
		memcpy(watcher->tenant, rpc_principal(call)->tenant, sizeof(watcher->tenant));
	}
	rc = place(watcher, request->after_sequence, err);
	if (rc < 0)
		return rc;
	watcher->call = call;
	watcher->next = watchers;
	watcher->slot = &watchers;
	if (watchers)
		watchers->slot = &watcher->next;
	watchers = watcher;
	rpc_set_events(call, &watch_events, watcher);
	pump(watcher);
	return 0;
}

void sandboxes_watch_events(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	struct pdk_error err;

	if (watch(call, (const void *)message, &err) < 0)
		rpc_fail(call, &err);
}

void sandbox_events_start(void)
{
	ring_first = ring_next = (uint64_t)loop_wall_ms() * 1000;
}

void sandbox_events_stop(void)
{
	while (ring_first < ring_next)
		drop_oldest();
	free(STEAL_PTR(ring));
	ring_slots = 0;
}
