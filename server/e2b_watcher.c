#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "e2b.h"
#include "e2b_watch.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/hex.h"
#include "sandboxes.h"

/*
 * filesystem.Filesystem's watchers that are polled. Each holds a Files.Watch call that outlives the call which made it;
 * it ends with RemoveWatcher, with the sandbox, or with the key that made it. Sixteen watches are all that a sandbox
 * may have, so its watchers are bounded too.
 */

#define ID_SIZE E2B_WATCHER_ID_SIZE
#define CHANGES_MAX 4096u

struct watcher {
	struct watcher *next;
	char id[ID_SIZE];
	char sandbox_id[SANDBOX_ID_SIZE];
	struct rpc_local *inner;
	struct e2b_call *creator; /* until the watch is armed */
	struct e2b_kept *changes; /* CHANGES_MAX of them, once there is one */
	unsigned int n_changes;
	bool overflow;
	char *path; /* with include_entry: what is watched, as the client named it */
};

static struct watcher *watchers;

static void clear_changes(struct watcher *watcher)
{
	e2b_kept_clear(watcher->changes, watcher->n_changes);
	watcher->n_changes = 0;
}

static void drop(struct watcher *watcher)
{
	struct watcher **at = &watchers;

	while (*at != watcher)
		at = &(*at)->next;
	*at = watcher->next;
	rpc_local_cancel(watcher->inner);
	clear_changes(watcher);
	free(watcher->changes);
	free(watcher->path);
	free(watcher);
}

static void keep(struct watcher *watcher, const struct e2b_change *change)
{
	char name[E2B_NAME_MAX], *copy;

	if (!watcher->changes)
		watcher->changes = calloc(CHANGES_MAX, sizeof(*watcher->changes));
	copy = watcher->changes && watcher->n_changes < CHANGES_MAX ? strdup(e2b_watch_name(name, change->path)) : NULL;
	if (copy)
		watcher->changes[watcher->n_changes++] = (struct e2b_kept){.type = change->type, .name = copy};
	else
		watcher->overflow = true;
}

static void armed(struct watcher *watcher)
{
	Filesystem__CreateWatcherResponse reply = FILESYSTEM__CREATE_WATCHER_RESPONSE__INIT;
	struct e2b_call *creator = STEAL_PTR(watcher->creator);

	if (!creator)
		return;
	rpc_local_detach(watcher->inner);
	reply.watcher_id = watcher->id;
	rpc_finish(creator->call, &reply.base);
}

static void on_message(void *arg, const ProtobufCMessage *message)
{
	const Paddock__V1__WatchEvent *event = (const void *)message;
	struct watcher *watcher = arg;
	struct e2b_change changes[2];
	unsigned int n = e2b_watch_translate(event, changes);

	if (event->type == PADDOCK__V1__WATCH_EVENT__TYPE__TYPE_READY)
		armed(watcher);
	else if (event->type == PADDOCK__V1__WATCH_EVENT__TYPE__TYPE_OVERFLOW)
		watcher->overflow = true;
	for (unsigned int i = 0; i < n; i++)
		keep(watcher, &changes[i]);
	rpc_local_next(watcher->inner);
}

static void on_end(void *arg, const struct pdk_error *end)
{
	struct watcher *watcher = arg;
	struct e2b_call *creator = watcher->creator;
	struct pdk_error err = *end;

	watcher->inner = NULL;
	drop(watcher);
	if (!creator)
		return;
	if (err.code == PDK_OK)
		pdk_fail(&err, 0, PDK_UNAVAILABLE, "the watch has ended");
	e2b_watch_fail(creator, &err);
}

/* The one who asked for it went away before it was armed. */
static void cancelled(struct rpc_call *call, const struct pdk_error *why)
{
	struct e2b_call *e2b = rpc_user(call);

	drop(e2b->state);
	rpc_fail(call, why);
}

static int make_id(char id[ID_SIZE])
{
	uint8_t random[16];

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return -EIO;
	hex_encode(random, sizeof(random), id);
	return 0;
}

void e2b_filesystem_create_watcher(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	static const struct rpc_events events = {.on_cancel = cancelled};
	static const struct rpc_local_events watch_events = {.on_message = on_message, .on_end = on_end};
	const Filesystem__CreateWatcherRequest *from = (const void *)message;
	struct e2b_call *e2b = e2b_begin(call);
	struct watcher *watcher = e2b ? calloc(1, sizeof(*watcher)) : NULL;

	if (!e2b)
		return;
	if (watcher && from->include_entry)
		watcher->path = strdup(from->path[0] ? from->path : ".");
	if (!watcher || (from->include_entry && !watcher->path) || make_id(watcher->id) < 0) {
		if (watcher)
			free(watcher->path);
		free(watcher);
		e2b_fail(e2b, PDK_RESOURCE_EXHAUSTED, "the server is out of memory");
		return;
	}
	strncpy(watcher->sandbox_id, e2b->sandbox_id, SANDBOX_ID_SIZE - 1);
	watcher->creator = e2b;
	e2b->state = watcher;
	rpc_set_events(call, &events, e2b);
	watcher->next = watchers;
	watchers = watcher;
	watcher->inner = e2b_watch_open(e2b, from->path, from->recursive, &watch_events, watcher);
	if (!watcher->inner)
		drop(watcher);
}

/* The watcher of a sandbox that the caller owns; NULL: the call has failed. */
static struct watcher *find(struct e2b_call *e2b, const char *id)
{
	struct watcher *watcher = watchers;
	struct sandbox *sandbox;
	struct pdk_error err;

	if (sandbox_find(e2b->call, e2b->sandbox_id, &sandbox, &err) < 0) {
		rpc_fail(e2b->call, &err);
		return NULL;
	}
	while (watcher &&
	       (strcmp(watcher->id, id) != 0 || strcmp(watcher->sandbox_id, sandbox->id) != 0 || watcher->creator))
		watcher = watcher->next;
	if (!watcher)
		e2b_fail(e2b, PDK_NOT_FOUND, "watcher not found");
	return watcher;
}

void e2b_watcher_lost(const char *id)
{
	for (struct watcher *watcher = watchers; watcher; watcher = watcher->next) {
		if (strcmp(watcher->id, id) == 0)
			watcher->overflow = true;
	}
}

/* The changes go with the poll, and the watcher begins anew. */
static void finish_with_entries(struct e2b_call *e2b, struct watcher *watcher)
{
	unsigned int n = watcher->n_changes;

	watcher->n_changes = 0;
	e2b_watcher_tell(e2b, watcher->id, watcher->path, STEAL_PTR(watcher->changes), n);
}

static void finish_changes(struct e2b_call *e2b, struct watcher *watcher)
{
	Filesystem__GetWatcherEventsResponse reply = FILESYSTEM__GET_WATCHER_EVENTS_RESPONSE__INIT;
	size_t n = watcher->n_changes;
	Filesystem__FilesystemEvent *events = rpc_alloc(e2b->call, (n + 1) * sizeof(*events));

	reply.events = rpc_alloc(e2b->call, (n + 1) * sizeof(*reply.events));
	if (!events || !reply.events) {
		e2b_fail(e2b, PDK_RESOURCE_EXHAUSTED, "the server is out of memory");
		return;
	}
	for (size_t i = 0; i < n; i++) {
		filesystem__filesystem_event__init(&events[i]);
		events[i].type = watcher->changes[i].type;
		events[i].name = watcher->changes[i].name;
		reply.events[i] = &events[i];
	}
	reply.n_events = n;
	rpc_finish(e2b->call, &reply.base);
	clear_changes(watcher);
}

void e2b_filesystem_get_watcher_events(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	struct e2b_call *e2b = e2b_begin(call);
	struct watcher *watcher =
		e2b ? find(e2b, ((const Filesystem__GetWatcherEventsRequest *)(const void *)message)->watcher_id)
		    : NULL;

	if (!watcher)
		return;
	if (!watcher->overflow && watcher->path && watcher->n_changes) {
		finish_with_entries(e2b, watcher);
		return;
	}
	if (!watcher->overflow) {
		finish_changes(e2b, watcher);
		return;
	}
	watcher->overflow = false;
	clear_changes(watcher);
	e2b_fail(e2b, PDK_RESOURCE_EXHAUSTED, "events were lost: list the directory again");
}

void e2b_filesystem_remove_watcher(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	Filesystem__RemoveWatcherResponse reply = FILESYSTEM__REMOVE_WATCHER_RESPONSE__INIT;
	struct e2b_call *e2b = e2b_begin(call);
	struct watcher *watcher =
		e2b ? find(e2b, ((const Filesystem__RemoveWatcherRequest *)(const void *)message)->watcher_id) : NULL;

	if (!watcher)
		return;
	drop(watcher);
	rpc_finish(call, &reply.base);
}
