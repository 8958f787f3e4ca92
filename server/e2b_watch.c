#include <string.h>

#include "e2b.h"
#include "e2b_watch.h"
#include "sandbox/base/cleanup.h"
#include "validate.h"

/*
 * filesystem.Filesystem WatchDir. A renaming is one event of ours and two of this contract: the old name goes (RENAME),
 * the new one is made (CREATE).
 */

static void send_event(struct e2b_call *e2b, Filesystem__EventType type, const char *name)
{
	Filesystem__WatchDirResponse reply = FILESYSTEM__WATCH_DIR_RESPONSE__INIT;
	Filesystem__FilesystemEvent event = FILESYSTEM__FILESYSTEM_EVENT__INIT;

	event.type = type;
	event.name = (char *)(uintptr_t)name;
	reply.event_case = FILESYSTEM__WATCH_DIR_RESPONSE__EVENT_FILESYSTEM;
	reply.filesystem = &event;
	rpc_send(e2b->call, &reply.base);
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

static void on_message(void *arg, const ProtobufCMessage *message)
{
	const Paddock__V1__WatchEvent *event = (const void *)message;
	struct e2b_call *e2b = arg;
	struct e2b_change changes[2];
	unsigned int n = e2b_watch_translate(event, changes);
	char name[E2B_NAME_MAX];

	if (n == 2)
		e2b->state = rpc_strdup(e2b->call, e2b_watch_name(name, changes[1].path));
	if (n) {
		send_event(e2b, changes[0].type, e2b_watch_name(name, changes[0].path));
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
	struct e2b_call *e2b = arg;

	e2b->inner = NULL;
	if (end->code == PDK_OK)
		rpc_finish(e2b->call, NULL);
	else
		e2b_watch_fail(e2b, end);
}

static void on_sent(struct rpc_call *call)
{
	struct e2b_call *e2b = rpc_user(call);
	const char *renamed = STEAL_PTR(e2b->state);

	if (renamed)
		send_event(e2b, FILESYSTEM__EVENT_TYPE__EVENT_TYPE_CREATE, renamed);
	else if (e2b->inner)
		rpc_local_next(e2b->inner);
}

static void cancelled(struct rpc_call *call, const struct pdk_error *why)
{
	struct e2b_call *e2b = rpc_user(call);

	rpc_local_cancel(STEAL_PTR(e2b->inner));
	rpc_fail(call, why);
}

struct rpc_local *e2b_watch_open(struct e2b_call *e2b, const char *path, bool recursive, bool include_entry,
				 const struct rpc_local_events *events, void *arg)
{
	Paddock__V1__WatchRequest request = PADDOCK__V1__WATCH_REQUEST__INIT;
	struct rpc_local *inner;

	if (include_entry) {
		e2b_fail(e2b, PDK_UNIMPLEMENTED, "include_entry: is not served");
		return NULL;
	}
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

	if (!e2b)
		return;
	rpc_set_events(call, &events, e2b);
	e2b->inner = e2b_watch_open(e2b, from->path, from->recursive, from->include_entry, &watch_events, e2b);
}
