#include "file_internal.h"
#include "files.h"
#include "loop.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * Watch: init sends events against credit. What the client has not taken waits in a queue that the credit bounds: it is
 * given back only for events that have left.
 */

#define CREDIT 256u
#define CREDIT_STEP 64u
#define KEEPALIVE_NS (30ull * 1000000000)

struct watch_item {
	struct watch_item *next;
	uint32_t type;
	uint32_t file_type;
	size_t path_length;
	size_t old_length;
	uint8_t bytes[]; /* path, old path */
};

struct watching {
	struct rpc_call *call;
	struct guest *guest; /* valid while stream is not 0 */
	uint32_t stream;
	uint32_t taken; /* events that have left since credit was given */
	struct watch_item *first, *last;
	struct loop_timer keepalive;
};

static void watching_fail(struct watching *watching, const struct pdk_error *err)
{
	struct rpc_call *call = watching->call;

	loop_timer_cancel(&watching->keepalive);
	while (watching->first) {
		struct watch_item *item = watching->first;

		watching->first = item->next;
		free(item);
	}
	if (watching->stream)
		guest_cancel(watching->guest, watching->stream);
	free(watching);
	question_fail(call, err);
}

static void send_event(struct watching *watching, const struct watch_item *item)
{
	Paddock__V1__WatchEvent event = PADDOCK__V1__WATCH_EVENT__INIT;

	event.type = (Paddock__V1__WatchEvent__Type)item->type;
	event.file_type = (Paddock__V1__FileType)item->file_type;
	event.path = (ProtobufCBinaryData){.len = item->path_length, .data = (uint8_t *)item->bytes};
	event.old_path =
		(ProtobufCBinaryData){.len = item->old_length, .data = (uint8_t *)item->bytes + item->path_length};
	rpc_send(watching->call, &event.base);
	loop_timer_set(&watching->keepalive, loop_now_ns() + KEEPALIVE_NS);
}

static void watching_pump(struct watching *watching)
{
	struct watch_item *item = watching->first;

	if (!item || !rpc_can_send(watching->call))
		return;
	watching->first = item->next;
	send_event(watching, item);
	free(item);
	if (++watching->taken == CREDIT_STEP && watching->stream) {
		watching->taken = 0;
		guest_credit(watching->guest, watching->stream, CREDIT_STEP);
	}
}

static void watching_on_keepalive(void *arg)
{
	static const struct watch_item keepalive = {.type = PADDOCK__V1__WATCH_EVENT__TYPE__TYPE_KEEPALIVE};
	struct watching *watching = arg;

	if (rpc_can_send(watching->call))
		send_event(watching, &keepalive);
	else
		loop_timer_set(&watching->keepalive, loop_now_ns() + KEEPALIVE_NS);
}

static int queue_event(struct watching *watching, const Paddock__Internal__GuestWatchEvent *event)
{
	struct watch_item *item = malloc(sizeof(*item) + event->path.len + event->old_path.len);

	if (!item)
		return -ENOMEM;
	*item = (struct watch_item){.type = event->type,
				    .file_type = event->file_type,
				    .path_length = event->path.len,
				    .old_length = event->old_path.len};
	if (event->path.len)
		memcpy(item->bytes, event->path.data, event->path.len);
	if (event->old_path.len)
		memcpy(item->bytes + event->path.len, event->old_path.data, event->old_path.len);
	if (watching->first)
		watching->last->next = item;
	else
		watching->first = item;
	watching->last = item;
	return 0;
}

static void watching_on_reply(const Paddock__Internal__GuestReply *reply, int *fds, unsigned int n_fds,
			      const struct pdk_error *err, void *arg)
{
	struct watching *watching = arg;
	struct pdk_error memory;

	if (!reply) {
		watching->stream = 0;
		watching_fail(watching, err);
	} else if (err->code) {
		watching_fail(watching, err);
	} else if (reply->result_case != PADDOCK__INTERNAL__GUEST_REPLY__RESULT_WATCH) {
		return; /* accepted; `ready` follows as an event */
	} else if (queue_event(watching, reply->watch) < 0) {
		pdk_fail(&memory, -ENOMEM, PDK_UNAVAILABLE, "the server is out of memory");
		watching_fail(watching, &memory);
	} else {
		watching_pump(watching);
	}
}

static void watching_on_sent(struct rpc_call *call)
{
	watching_pump(rpc_user(call));
}

static void watching_on_cancel(struct rpc_call *call, const struct pdk_error *why)
{
	watching_fail(rpc_user(call), why);
}

static int start_watch(struct watching *watching, const Paddock__V1__WatchRequest *request, struct pdk_error *err)
{
	Paddock__Internal__GuestWatch watch = PADDOCK__INTERNAL__GUEST_WATCH__INIT;
	Paddock__Internal__GuestRequest question = PADDOCK__INTERNAL__GUEST_REQUEST__INIT;
	struct sandbox *sandbox;
	int64_t stream;
	int rc = file_begin(watching->call, request->sandbox_id, &request->path, request->user, &sandbox, err);

	if (rc < 0)
		return rc;
	watch.path = request->path;
	watch.user = file_user(sandbox, request->user);
	watch.recursive = request->recursive;
	question.op_case = PADDOCK__INTERNAL__GUEST_REQUEST__OP_WATCH;
	question.watch = &watch;
	stream = guest_call(sandbox->guest, &question, CREDIT, watching_on_reply, watching);
	if (stream < 0)
		return file_fail_ask(stream, err);
	watching->guest = sandbox->guest;
	watching->stream = (uint32_t)stream;
	return 0;
}

void files_watch(struct rpc_call *call, const ProtobufCMessage *message)
{
	static const struct rpc_events events = {.on_sent = watching_on_sent, .on_cancel = watching_on_cancel};
	struct watching *watching = calloc(1, sizeof(*watching));
	struct pdk_error err;

	if (!watching) {
		pdk_fail(&err, -ENOMEM, PDK_UNAVAILABLE, "the server is out of memory");
		rpc_fail(call, &err);
		return;
	}
	watching->call = call;
	if (start_watch(watching, (const Paddock__V1__WatchRequest *)message, &err) < 0) {
		watching_fail(watching, &err);
		return;
	}
	watching->keepalive.handler = watching_on_keepalive;
	watching->keepalive.arg = watching;
	loop_timer_set(&watching->keepalive, loop_now_ns() + KEEPALIVE_NS);
	rpc_set_events(call, &events, watching);
}
