#include <stdio.h>
#include <string.h>

#include "arena.h"
#include "e2b.h"
#include "e2b_entry.h"
#include "e2b_watch.h"
#include "sandbox/base/cleanup.h"
#include "validate.h"

/*
 * filesystem.Filesystem WatchDir. A renaming is one event of ours and two of this contract: the old name goes (RENAME),
 * the new one is made (CREATE). With include_entry a change is told when what is there has been looked at.
 */

#define ENTRY_MAX (64u << 10)
#define STAT "/paddock.v1.Files/Stat"

/* One WatchDir: the changes of the event that is being sent, and what is asked about them. */
struct watching {
	struct e2b_call *e2b;
	const char *path;
	bool include_entry;
	struct {
		Filesystem__EventType type;
		char name[E2B_NAME_MAX];
	} changes[2];
	unsigned int n_changes, sent;
	struct rpc_local *stat;
	bool following;     /* `stat` is of what a link leads to */
	struct arena arena; /* of `entry` */
	struct e2b_entry entry;
};

static void send_change(struct watching *watching, Filesystem__EntryInfo *entry)
{
	Filesystem__WatchDirResponse reply = FILESYSTEM__WATCH_DIR_RESPONSE__INIT;
	Filesystem__FilesystemEvent event = FILESYSTEM__FILESYSTEM_EVENT__INIT;

	event.type = watching->changes[watching->sent].type;
	event.name = watching->changes[watching->sent].name;
	event.entry = entry;
	event.optional_entry_case = entry ? FILESYSTEM__FILESYSTEM_EVENT__OPTIONAL_ENTRY_ENTRY : 0;
	reply.event_case = FILESYSTEM__WATCH_DIR_RESPONSE__EVENT_FILESYSTEM;
	reply.filesystem = &event;
	rpc_send(watching->e2b->call, &reply.base);
	arena_clear(&watching->arena);
}

static void send_start(struct e2b_call *e2b)
{
	Filesystem__WatchDirResponse reply = FILESYSTEM__WATCH_DIR_RESPONSE__INIT;
	Filesystem__WatchDirResponse__StartEvent start = FILESYSTEM__WATCH_DIR_RESPONSE__START_EVENT__INIT;

	reply.event_case = FILESYSTEM__WATCH_DIR_RESPONSE__EVENT_START;
	reply.start = &start;
	rpc_send(e2b->call, &reply.base);
}

static void send_keepalive(struct e2b_call *e2b)
{
	Filesystem__WatchDirResponse reply = FILESYSTEM__WATCH_DIR_RESPONSE__INIT;
	Filesystem__WatchDirResponse__KeepAlive keepalive = FILESYSTEM__WATCH_DIR_RESPONSE__KEEP_ALIVE__INIT;

	reply.event_case = FILESYSTEM__WATCH_DIR_RESPONSE__EVENT_KEEPALIVE;
	reply.keepalive = &keepalive;
	rpc_send(e2b->call, &reply.base);
}

char *e2b_watch_name(char name[E2B_NAME_MAX], const ProtobufCBinaryData *path)
{
	size_t length = path->len < E2B_NAME_MAX - 1 ? path->len : E2B_NAME_MAX - 1;

	if (length)
		memcpy(name, path->data, length);
	name[length] = '\0';
	if (!utf8_valid(name, length)) {
		for (size_t i = 0; i < length; i++)
			name[i] = (unsigned char)name[i] < 0x80 ? name[i] : '?';
	}
	return name;
}

unsigned int e2b_watch_translate(const Paddock__V1__WatchEvent *event, struct e2b_change ret[2])
{
	switch (event->type) {
	case PADDOCK__V1__WATCH_EVENT__TYPE__TYPE_CREATED:
		ret[0] = (struct e2b_change){FILESYSTEM__EVENT_TYPE__EVENT_TYPE_CREATE, &event->path};
		return 1;
	case PADDOCK__V1__WATCH_EVENT__TYPE__TYPE_WRITTEN:
		ret[0] = (struct e2b_change){FILESYSTEM__EVENT_TYPE__EVENT_TYPE_WRITE, &event->path};
		return 1;
	case PADDOCK__V1__WATCH_EVENT__TYPE__TYPE_REMOVED:
		ret[0] = (struct e2b_change){FILESYSTEM__EVENT_TYPE__EVENT_TYPE_REMOVE, &event->path};
		return 1;
	case PADDOCK__V1__WATCH_EVENT__TYPE__TYPE_ATTRIBUTES:
		ret[0] = (struct e2b_change){FILESYSTEM__EVENT_TYPE__EVENT_TYPE_CHMOD, &event->path};
		return 1;
	case PADDOCK__V1__WATCH_EVENT__TYPE__TYPE_RENAMED:
		ret[0] = (struct e2b_change){FILESYSTEM__EVENT_TYPE__EVENT_TYPE_RENAME, &event->old_path};
		ret[1] = (struct e2b_change){FILESYSTEM__EVENT_TYPE__EVENT_TYPE_CREATE, &event->path};
		return 2;
	case PADDOCK__V1__WATCH_EVENT__TYPE__TYPE_READY:
	case PADDOCK__V1__WATCH_EVENT__TYPE__TYPE_KEEPALIVE:
	case PADDOCK__V1__WATCH_EVENT__TYPE__TYPE_OVERFLOW:
	case PADDOCK__V1__WATCH_EVENT__TYPE__TYPE_UNSPECIFIED:
	case _PADDOCK__V1__WATCH_EVENT__TYPE_IS_INT_SIZE:
		break;
	}
	return 0;
}

/* include_entry: what is there now. Without it the change is told all the same: it may be gone already. */

static void ask(struct watching *watching, bool follow);

static void on_stat(void *arg, const ProtobufCMessage *message)
{
	struct watching *watching = arg;

	rpc_local_cancel(STEAL_PTR(watching->stat));
	if (watching->following)
		e2b_entry_resolve(&watching->entry, (const void *)message);
	else if (e2b_entry_fill(&watching->arena, &watching->entry, (const void *)message) < 0) {
		send_change(watching, NULL);
		return;
	}
	if (!watching->following && e2b_entry_is_link(&watching->entry))
		ask(watching, true);
	else
		send_change(watching, &watching->entry.info);
}

static void on_stat_end(void *arg, const struct pdk_error *end)
{
	struct watching *watching = arg;

	watching->stat = NULL;
	if (watching->following)
		e2b_entry_resolve(&watching->entry, NULL);
	send_change(watching, watching->following ? &watching->entry.info : NULL);
}

static void ask(struct watching *watching, bool follow)
{
	static const struct rpc_local_events events = {.on_message = on_stat, .on_end = on_stat_end};
	Paddock__V1__StatRequest request = PADDOCK__V1__STAT_REQUEST__INIT;
	struct rpc_call *call = watching->e2b->call;
	char path[2 * E2B_NAME_MAX + 2];

	watching->following = follow;
	request.path.len =
		(size_t)snprintf(path, sizeof(path), "%s/%s", watching->path, watching->changes[watching->sent].name);
	if (request.path.len < sizeof(path)) {
		request.sandbox_id = watching->e2b->sandbox_id;
		request.path.data = (uint8_t *)path;
		request.user = (char *)(uintptr_t)rpc_client_user(call);
		request.follow = follow;
		watching->stat = rpc_local_open(call, STAT, &request.base, &events, watching);
	}
	if (!watching->stat)
		send_change(watching, NULL);
}

static void tell_change(struct watching *watching)
{
	Filesystem__EventType type = watching->changes[watching->sent].type;

	if (watching->include_entry && type != FILESYSTEM__EVENT_TYPE__EVENT_TYPE_REMOVE &&
	    type != FILESYSTEM__EVENT_TYPE__EVENT_TYPE_RENAME)
		ask(watching, false);
	else
		send_change(watching, NULL);
}

static void stop(struct watching *watching)
{
	rpc_local_cancel(STEAL_PTR(watching->stat));
	arena_clear(&watching->arena);
}

static void on_message(void *arg, const ProtobufCMessage *message)
{
	const Paddock__V1__WatchEvent *event = (const void *)message;
	struct watching *watching = arg;
	struct e2b_call *e2b = watching->e2b;
	struct e2b_change changes[2];

	watching->sent = 0;
	watching->n_changes = e2b_watch_translate(event, changes);
	for (unsigned int i = 0; i < watching->n_changes; i++) {
		watching->changes[i].type = changes[i].type;
		e2b_watch_name(watching->changes[i].name, changes[i].path);
	}
	if (watching->n_changes) {
		tell_change(watching);
	} else if (event->type == PADDOCK__V1__WATCH_EVENT__TYPE__TYPE_READY) {
		send_start(e2b);
	} else if (event->type == PADDOCK__V1__WATCH_EVENT__TYPE__TYPE_KEEPALIVE) {
		send_keepalive(e2b);
	} else {
		rpc_local_cancel(STEAL_PTR(e2b->inner));
		e2b_fail(e2b, PDK_RESOURCE_EXHAUSTED, "events were lost: list the directory again");
	}
}

void e2b_watch_fail(struct e2b_call *e2b, const struct pdk_error *end)
{
	struct pdk_error err = *end;

	if (end->code == PDK_FAILED_PRECONDITION && !e2b_is_about_sandbox(end))
		err.code = PDK_INVALID_ARGUMENT; /* not a directory */
	e2b_fail_with(e2b, &err);
}

static void on_end(void *arg, const struct pdk_error *end)
{
	struct watching *watching = arg;
	struct e2b_call *e2b = watching->e2b;

	e2b->inner = NULL;
	stop(watching);
	if (end->code == PDK_OK)
		rpc_finish(e2b->call, NULL);
	else
		e2b_watch_fail(e2b, end);
}

static void on_sent(struct rpc_call *call)
{
	struct watching *watching = rpc_user(call);

	if (watching->sent < watching->n_changes && ++watching->sent < watching->n_changes)
		tell_change(watching);
	else if (watching->e2b->inner)
		rpc_local_next(watching->e2b->inner);
}

static void cancelled(struct rpc_call *call, const struct pdk_error *why)
{
	struct watching *watching = rpc_user(call);

	stop(watching);
	rpc_local_cancel(STEAL_PTR(watching->e2b->inner));
	rpc_fail(call, why);
}

struct rpc_local *e2b_watch_open(struct e2b_call *e2b, const char *path, bool recursive,
				 const struct rpc_local_events *events, void *arg)
{
	Paddock__V1__WatchRequest request = PADDOCK__V1__WATCH_REQUEST__INIT;
	struct rpc_local *inner;

	request.sandbox_id = e2b->sandbox_id;
	request.path.data = (uint8_t *)(uintptr_t)(path[0] ? path : ".");
	request.path.len = strlen((const char *)request.path.data);
	request.user = (char *)(uintptr_t)rpc_client_user(e2b->call);
	request.recursive = recursive;
	inner = rpc_local_open(e2b->call, "/paddock.v1.Files/Watch", &request.base, events, arg);
	if (!inner)
		e2b_fail(e2b, PDK_RESOURCE_EXHAUSTED, "the server is out of memory");
	return inner;
}

void e2b_filesystem_watch_dir(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	static const struct rpc_events events = {.on_sent = on_sent, .on_cancel = cancelled};
	static const struct rpc_local_events watch_events = {.on_message = on_message, .on_end = on_end};
	const Filesystem__WatchDirRequest *from = (const void *)message;
	struct e2b_call *e2b = e2b_begin(call);
	struct watching *watching = e2b ? rpc_alloc(call, sizeof(*watching)) : NULL;

	if (e2b && !watching)
		e2b_fail(e2b, PDK_RESOURCE_EXHAUSTED, "the server is out of memory");
	if (!watching)
		return;
	watching->e2b = e2b;
	watching->path = from->path[0] ? from->path : ".";
	watching->include_entry = from->include_entry;
	arena_init(&watching->arena, ENTRY_MAX);
	rpc_set_events(call, &events, watching);
	e2b->inner = e2b_watch_open(e2b, from->path, from->recursive, &watch_events, watching);
}
