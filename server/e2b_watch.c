#include <string.h>

#include "e2b.h"
#include "e2b/filesystem.pb-c.h"
#include "e2b_process.h"
#include "paddock/v1/files.pb-c.h"
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

/* The path as text, '?' for bytes that are no text. */
static char *name_of(char name[4096], const ProtobufCBinaryData *path)
{
	size_t length = path->len < 4095 ? path->len : 4095;

	if (length)
		memcpy(name, path->data, length);
	name[length] = '\0';
	if (!utf8_valid(name, length)) {
		for (size_t i = 0; i < length; i++)
			name[i] = (unsigned char)name[i] < 0x80 ? name[i] : '?';
	}
	return name;
}

static void on_message(void *arg, const ProtobufCMessage *message)
{
	const Paddock__V1__WatchEvent *event = (const void *)message;
	struct e2b_call *e2b = arg;
	char name[4096];

	switch (event->type) {
	case PADDOCK__V1__WATCH_EVENT__TYPE__TYPE_READY:
		send_start(e2b);
		return;
	case PADDOCK__V1__WATCH_EVENT__TYPE__TYPE_CREATED:
		send_event(e2b, FILESYSTEM__EVENT_TYPE__EVENT_TYPE_CREATE, name_of(name, &event->path));
		return;
	case PADDOCK__V1__WATCH_EVENT__TYPE__TYPE_WRITTEN:
		send_event(e2b, FILESYSTEM__EVENT_TYPE__EVENT_TYPE_WRITE, name_of(name, &event->path));
		return;
	case PADDOCK__V1__WATCH_EVENT__TYPE__TYPE_REMOVED:
		send_event(e2b, FILESYSTEM__EVENT_TYPE__EVENT_TYPE_REMOVE, name_of(name, &event->path));
		return;
	case PADDOCK__V1__WATCH_EVENT__TYPE__TYPE_ATTRIBUTES:
		send_event(e2b, FILESYSTEM__EVENT_TYPE__EVENT_TYPE_CHMOD, name_of(name, &event->path));
		return;
	case PADDOCK__V1__WATCH_EVENT__TYPE__TYPE_RENAMED:
		e2b->state = rpc_strdup(e2b->call, name_of(name, &event->path));
		send_event(e2b, FILESYSTEM__EVENT_TYPE__EVENT_TYPE_RENAME, name_of(name, &event->old_path));
		return;
	case PADDOCK__V1__WATCH_EVENT__TYPE__TYPE_KEEPALIVE:
		send_keepalive(e2b);
		return;
	case PADDOCK__V1__WATCH_EVENT__TYPE__TYPE_OVERFLOW:
		rpc_local_cancel(STEAL_PTR(e2b->inner));
		e2b_fail(e2b, PDK_RESOURCE_EXHAUSTED, "events were lost: list the directory again");
		return;
	case PADDOCK__V1__WATCH_EVENT__TYPE__TYPE_UNSPECIFIED:
	case _PADDOCK__V1__WATCH_EVENT__TYPE_IS_INT_SIZE:
		break;
	}
	rpc_local_next(e2b->inner);
}

static void on_end(void *arg, const struct pdk_error *end)
{
	struct e2b_call *e2b = arg;
	struct pdk_error err = *end;

	e2b->inner = NULL;
	if (end->code == PDK_FAILED_PRECONDITION && !e2b_is_about_sandbox(end))
		err.code = PDK_INVALID_ARGUMENT; /* not a directory */
	if (end->code == PDK_OK)
		rpc_finish(e2b->call, NULL);
	else
		e2b_fail_with(e2b, &err);
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

void e2b_filesystem_watch_dir(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	static const struct rpc_events events = {.on_sent = on_sent, .on_cancel = cancelled};
	static const struct rpc_local_events watch_events = {.on_message = on_message, .on_end = on_end};
	const Filesystem__WatchDirRequest *from = (const void *)message;
	Paddock__V1__WatchRequest request = PADDOCK__V1__WATCH_REQUEST__INIT;
	struct e2b_call *e2b = e2b_begin(call);

	if (!e2b)
		return;
	rpc_set_events(call, &events, e2b);
	if (from->include_entry) {
		e2b_fail(e2b, PDK_UNIMPLEMENTED, "include_entry: is not served");
		return;
	}
	request.sandbox_id = e2b->sandbox_id;
	request.path.data = (uint8_t *)(from->path[0] ? from->path : (char *)(uintptr_t) ".");
	request.path.len = strlen((const char *)request.path.data);
	request.user = (char *)(uintptr_t)rpc_client_user(call);
	request.recursive = from->recursive;
	e2b_call_inner(e2b, "/paddock.v1.Files/Watch", &request.base, &watch_events);
}
