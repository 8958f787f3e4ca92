#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "e2b.h"
#include "e2b_entry.h"
#include "e2b_watch.h"
#include "sandbox/base/cleanup.h"

/*
 * GetWatcherEvents with include_entry: one Stat for each name, one after the other (and a second one for what a link leads
 * to), then the answer. A name that changed several times in a row is looked at once. What is gone already, or does not fit into
 * the call's memory, is told without an entry.
 */

#define STAT "/paddock.v1.Files/Stat"

struct telling {
	struct e2b_call *e2b;
	struct e2b_kept *changes;
	unsigned int n, at;
	const char *path;
	char *watcher_id;
	Filesystem__FilesystemEvent *events;
	struct e2b_entry *entry; /* of the change that is being looked at */
	bool following;          /* what it leads to is asked for */
};

void e2b_kept_clear(struct e2b_kept *changes, unsigned int n)
{
	while (n)
		free(changes[--n].name);
}

static void release(struct e2b_kept *changes, unsigned int n)
{
	e2b_kept_clear(changes, n);
	free(changes);
}

static void finish(struct telling *telling)
{
	Filesystem__GetWatcherEventsResponse reply = FILESYSTEM__GET_WATCHER_EVENTS_RESPONSE__INIT;
	struct e2b_kept *changes = telling->changes; /* `telling` ends with the call, and the names must not before */
	struct e2b_call *e2b = telling->e2b;
	unsigned int n = telling->n;

	reply.events = rpc_alloc(e2b->call, n * sizeof(*reply.events));
	if (!reply.events) {
		e2b_watcher_lost(telling->watcher_id);
		release(changes, n);
		e2b_fail(e2b, PDK_RESOURCE_EXHAUSTED, "the server is out of memory");
		return;
	}
	for (unsigned int i = 0; i < n; i++)
		reply.events[i] = &telling->events[i];
	reply.n_events = n;
	rpc_finish(e2b->call, &reply.base);
	release(changes, n);
}

static bool wants_entry(const struct e2b_kept *change)
{
	return change->type != FILESYSTEM__EVENT_TYPE__EVENT_TYPE_REMOVE &&
	       change->type != FILESYSTEM__EVENT_TYPE__EVENT_TYPE_RENAME;
}

static void set_entry(struct telling *telling, Filesystem__EntryInfo *entry)
{
	Filesystem__FilesystemEvent *event = &telling->events[telling->at++];

	event->entry = entry;
	event->optional_entry_case = entry ? FILESYSTEM__FILESYSTEM_EVENT__OPTIONAL_ENTRY_ENTRY : 0;
}

static bool ask(struct telling *telling, bool follow);

/* Up to the next one that is to be looked at. */
static void go_on(struct telling *telling)
{
	while (telling->at < telling->n) {
		const struct e2b_kept *change = &telling->changes[telling->at];
		const Filesystem__FilesystemEvent *last = telling->at ? &telling->events[telling->at - 1] : NULL;

		if (!wants_entry(change))
			set_entry(telling, NULL);
		else if (last && last->entry && strcmp(last->name, change->name) == 0)
			set_entry(telling, last->entry);
		else if (ask(telling, false))
			return;
		else
			set_entry(telling, NULL);
	}
	finish(telling);
}

static void on_stat(void *arg, const ProtobufCMessage *message)
{
	struct telling *telling = arg;
	struct rpc_call *call = telling->e2b->call;

	rpc_local_cancel(STEAL_PTR(telling->e2b->inner));
	if (telling->following) {
		e2b_entry_resolve(telling->entry, (const void *)message);
	} else {
		telling->entry = rpc_alloc(call, sizeof(*telling->entry));
		if (telling->entry && e2b_entry_fill(rpc_arena(call), telling->entry, (const void *)message) < 0)
			telling->entry = NULL;
		if (telling->entry && e2b_entry_is_link(telling->entry) && ask(telling, true))
			return;
	}
	set_entry(telling, telling->entry ? &telling->entry->info : NULL);
	go_on(telling);
}

static void on_stat_end(void *arg, const struct pdk_error *end)
{
	struct telling *telling = arg;

	telling->e2b->inner = NULL;
	if (telling->following)
		e2b_entry_resolve(telling->entry, NULL);
	set_entry(telling, telling->following ? &telling->entry->info : NULL);
	go_on(telling);
}

/* False: it cannot be asked for. */
static bool ask(struct telling *telling, bool follow)
{
	static const struct rpc_local_events events = {.on_message = on_stat, .on_end = on_stat_end};
	Paddock__V1__StatRequest request = PADDOCK__V1__STAT_REQUEST__INIT;
	struct e2b_call *e2b = telling->e2b;
	char path[2 * E2B_NAME_MAX + 2];

	telling->following = follow;
	request.path.len =
		(size_t)snprintf(path, sizeof(path), "%s/%s", telling->path, telling->changes[telling->at].name);
	if (request.path.len >= sizeof(path))
		return false;
	request.path.data = (uint8_t *)path;
	request.sandbox_id = e2b->sandbox_id;
	request.user = (char *)(uintptr_t)rpc_client_user(e2b->call);
	request.follow = follow;
	e2b->inner = rpc_local_open(e2b->call, STAT, &request.base, &events, telling);
	return e2b->inner != NULL;
}

static void cancelled(struct rpc_call *call, const struct pdk_error *why)
{
	struct telling *telling = rpc_user(call);

	rpc_local_cancel(STEAL_PTR(telling->e2b->inner));
	e2b_watcher_lost(telling->watcher_id);
	release(telling->changes, telling->n);
	rpc_fail(call, why);
}

void e2b_watcher_tell(struct e2b_call *e2b, const char *watcher_id, const char *path, struct e2b_kept *changes,
		      unsigned int n)
{
	static const struct rpc_events events = {.on_cancel = cancelled};
	struct telling *telling = rpc_alloc(e2b->call, sizeof(*telling));
	Filesystem__FilesystemEvent *told = rpc_alloc(e2b->call, n * sizeof(*told));
	char *path_copy = rpc_strdup(e2b->call, path), *id_copy = rpc_strdup(e2b->call, watcher_id);

	if (!telling || !told || !path_copy || !id_copy) {
		e2b_watcher_lost(watcher_id);
		release(changes, n);
		e2b_fail(e2b, PDK_RESOURCE_EXHAUSTED, "the server is out of memory");
		return;
	}
	*telling = (struct telling){
		.e2b = e2b, .changes = changes, .n = n, .path = path_copy, .watcher_id = id_copy, .events = told};
	for (unsigned int i = 0; i < n; i++) {
		filesystem__filesystem_event__init(&told[i]);
		told[i].type = changes[i].type;
		told[i].name = changes[i].name;
	}
	rpc_set_events(e2b->call, &events, telling);
	go_on(telling);
}
