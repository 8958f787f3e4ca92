#include "guest.h"

#include "config.h"
#include "guest_check.h"
#include "guest_unpack.h"
#include "loop.h"
#include "pipe_io.h"
#include "process_audit.h"
#include "processes.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/link.h"
#include "sandboxes.h"
#include "socket_check.h"
#include "store.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

/*
 * Theory of operation
 *
 * A guest owns a link, its watch in the loop and a table of streams that are open. A stream is a row of a
 * chained hash: the operation that opened it (so that replies can be checked), how many replies came, the credit
 * that init still has, and the handler. guest_cancel() leaves a row without a handler until init's END arrives, so
 * that late replies are told from made-up ones; a peer that leaves more than CANCELLED_MAX of those is broken.
 * Stream numbers grow and are not used again.
 *
 * Whatever breaks (the link, the protocol, a full queue) ends in guest_break(): all handlers get their last call,
 * then either ready() or sandbox_guest_lost() runs, once. A failure inside a call of ours is put off to a
 * timer, so that callers never see their handlers run inside guest_call().
 *
 * A turn hands on at most FRAMES_PER_TURN frames. When more were read than that, a timer goes on with them: what waits
 * in our buffer makes no socket readable.
 *
 * guest_free() may come from inside any handler. While frames are being dispatched it only marks the
 * guest; guest_on_io() frees it when the link has returned.
 */

#define BUCKETS 16u
#define STREAMS_MAX 4096u
#define CANCELLED_MAX 1024u
#define FRAMES_PER_TURN 64u
#define HELLO_TIMEOUT_NS (10ull * 1000000000)
#define SUDO_BURST 200u
#define SUDO_PER_SECOND 20u

struct stream {
	struct stream *next;
	uint32_t number;
	guest_op op;
	uint64_t handle;
	unsigned int replies;
	uint32_t credit;
	guest_reply_handler handler; /* NULL: cancelled, waits for init's END */
	void *arg;
};

struct guest {
	struct sandbox *sandbox;
	struct link *link;
	struct loop_watch *watch;
	uint32_t watching;
	bool start_file, ready_file; /* as hello said */
	struct loop_timer timer;     /* hello's limit; then, when due at once, a failure to be told */
	struct loop_timer turn;      /* due at once: frames were read that wait for a turn */
	struct stream *streams[BUCKETS];
	uint32_t next_stream;
	unsigned int n_streams;
	unsigned int n_cancelled;
	void (*ready)(struct guest *guest, int rc, void *arg);
	void *ready_arg;
	unsigned int sudo_tokens;
	uint64_t sudo_refill_ns;
	unsigned int sudo_unrecorded; /* since the last record */
	bool dispatching;
	bool freed;
	bool broken;
	int pending_rc; /* a failure that the timer will tell */
	void (*hung_up)(void *arg);
	void *hung_up_arg;
};

static struct stream **stream_slot(struct guest *guest, uint32_t number)
{
	struct stream **slot = &guest->streams[(number >> 1) % BUCKETS];

	while (*slot && (*slot)->number != number)
		slot = &(*slot)->next;
	return slot;
}

static void stream_drop(struct guest *guest, struct stream **slot)
{
	struct stream *stream = *slot;

	*slot = stream->next;
	guest->n_streams--;
	if (!stream->handler)
		guest->n_cancelled--;
	free(stream);
}

/* A flood cannot hide what was done in it: how many there were is recorded in any case. */
static void record_unrecorded(struct guest *guest)
{
	char detail[64];

	if (guest->sudo_unrecorded == 0)
		return;
	snprintf(detail, sizeof(detail), "{\"unrecorded\":%u}", guest->sudo_unrecorded);
	guest->sudo_unrecorded = 0;
	audit_event(&(struct audit_entry){.tenant = guest->sandbox->tenant,
					  .actor = "sandbox",
					  .action = "process.sudo",
					  .sandbox_id = guest->sandbox->id,
					  .outcome = "RESOURCE_EXHAUSTED",
					  .detail = detail});
}

/* Give every open stream its last call. Handlers may call guest_*() meanwhile: rows leave the table first. */
static void streams_fail(struct guest *guest, const struct pdk_error *why)
{
	for (unsigned int i = 0; i < BUCKETS; i++) {
		while (guest->streams[i]) {
			guest_reply_handler handler = guest->streams[i]->handler;
			void *arg = guest->streams[i]->arg;

			stream_drop(guest, &guest->streams[i]);
			if (handler)
				handler(NULL, NULL, 0, why, arg);
		}
	}
}

#define HANG_UP_NS (2000ull * 1000000)

static void guest_destroy(struct guest *guest)
{
	loop_timer_cancel(&guest->timer);
	loop_timer_cancel(&guest->turn);
	loop_watch_remove(guest->watch);
	link_free(guest->link);
	free(guest);
}

void guest_free(struct guest *guest)
{
	guest_drop(guest, "the sandbox has ended");
}

void guest_drop(struct guest *guest, const char *why)
{
	struct pdk_error err;

	if (!guest || guest->freed)
		return;
	guest->freed = true;
	guest->broken = true;
	record_unrecorded(guest);
	pdk_fail(&err, -ECONNRESET, PDK_UNAVAILABLE, "%s", why);
	streams_fail(guest, &err);
	if (!guest->dispatching)
		guest_destroy(guest);
}

/* Tell everybody, once, that this link is of no more use. The guest may be freed when it returns, unless `dispatching`.
 */
static void guest_break(struct guest *guest, int rc, const char *text)
{
	struct sandbox *sandbox = guest->sandbox;
	bool was_dispatching = guest->dispatching;
	struct pdk_error err;

	if (guest->broken)
		return;
	guest->broken = true;
	record_unrecorded(guest);
	guest->dispatching = true;
	loop_timer_cancel(&guest->timer);
	loop_timer_cancel(&guest->turn);
	loop_watch_remove(STEAL_PTR(guest->watch));
	pdk_fail(&err, rc, PDK_UNAVAILABLE, "the sandbox does not answer");
	streams_fail(guest, &err);
	if (guest->hung_up) {
		void (*hung_up)(void *) = STEAL_PTR(guest->hung_up);

		guest->freed = true;
		hung_up(guest->hung_up_arg);
	} else if (guest->ready) {
		void (*ready)(struct guest *, int, void *) = STEAL_PTR(guest->ready);

		if (!guest->freed)
			ready(guest, rc, guest->ready_arg);
	} else if (!guest->freed) {
		sandbox_guest_lost(sandbox, text);
	}
	guest->dispatching = was_dispatching;
	if (guest->freed && !guest->dispatching)
		guest_destroy(guest);
}

static void guest_on_timer(void *arg)
{
	struct guest *guest = arg;

	if (guest->pending_rc)
		guest_break(guest, guest->pending_rc, "its init stopped reading");
	else
		guest_break(guest, -ETIMEDOUT, "its init did not say hello");
}

/* A send failed: tell it from the loop. Returns `rc`. */
static int guest_fail_later(struct guest *guest, int rc)
{
	if (!guest->broken && !guest->pending_rc) {
		guest->pending_rc = rc;
		loop_timer_set(&guest->timer, loop_now_ns());
	}
	return rc;
}

static void guest_update_watch(struct guest *guest)
{
	uint32_t events;

	if (guest->broken || !guest->watch)
		return;
	events = link_events(guest->link);
	if (events == guest->watching)
		return;
	if (loop_watch_set(guest->watch, events) == 0)
		guest->watching = events;
}

static int guest_send(struct guest *guest, uint32_t stream, enum link_kind kind, const void *payload, size_t length)
{
	int rc;

	if (guest->broken || guest->pending_rc)
		return -ENOTCONN;
	rc = link_send(guest->link, stream, kind, payload, length, NULL, 0);
	if (rc == -EMSGSIZE)
		return rc;
	if (rc < 0)
		return guest_fail_later(guest, rc);
	guest_update_watch(guest);
	return 0;
}

static int guest_send_request(struct guest *guest, uint32_t stream, const Paddock__Internal__GuestRequest *request)
{
	size_t length = paddock__internal__guest_request__get_packed_size(request);
	_cleanup_free_ uint8_t *large = NULL;
	uint8_t small[2048];
	uint8_t *packed = small;

	if (length > LINK_PAYLOAD_MAX)
		return -EMSGSIZE;
	if (length > sizeof(small)) {
		large = malloc(length);
		if (!large)
			return -ENOMEM;
		packed = large;
	}
	paddock__internal__guest_request__pack(request, packed);
	return guest_send(guest, stream, LINK_REQUEST, packed, length);
}

static uint64_t request_handle(const Paddock__Internal__GuestRequest *request)
{
	if (request->op_case == PADDOCK__INTERNAL__GUEST_REQUEST__OP_START)
		return request->start->handle;
	if (request->op_case == PADDOCK__INTERNAL__GUEST_REQUEST__OP_ADOPT)
		return request->adopt->handle;
	return 0;
}

int64_t guest_call(struct guest *guest, const Paddock__Internal__GuestRequest *request, uint32_t credit,
		   guest_reply_handler handler, void *arg)
{
	struct stream **slot, *stream;
	int rc;

	if (!guest || guest->broken)
		return -ENOTCONN;
	if (guest->n_streams >= STREAMS_MAX || guest->next_stream > UINT32_MAX - 2)
		return -EAGAIN;
	stream = calloc(1, sizeof(*stream));
	if (!stream)
		return -ENOMEM;
	*stream = (struct stream){.number = guest->next_stream,
				  .op = request->op_case,
				  .handle = request_handle(request),
				  .handler = handler,
				  .arg = arg};
	rc = guest_send_request(guest, stream->number, request);
	if (rc < 0) {
		free(stream);
		return rc;
	}
	guest->next_stream += 2;
	guest->n_streams++;
	slot = stream_slot(guest, stream->number);
	*slot = stream;
	if (credit)
		guest_credit(guest, stream->number, credit);
	return stream->number;
}

int guest_continue(struct guest *guest, uint32_t stream, const Paddock__Internal__GuestRequest *request)
{
	if (!guest || guest->broken || !*stream_slot(guest, stream))
		return -ENOTCONN;
	return guest_send_request(guest, stream, request);
}

int guest_credit(struct guest *guest, uint32_t stream, uint32_t credit)
{
	struct stream *row;
	int rc;

	if (!guest || guest->broken)
		return -ENOTCONN;
	row = *stream_slot(guest, stream);
	if (!row)
		return -ENOTCONN;
	rc = link_send_credit(guest->link, stream, credit);
	if (rc < 0)
		return guest_fail_later(guest, rc);
	row->credit += credit;
	guest_update_watch(guest);
	return 0;
}

void guest_cancel(struct guest *guest, uint32_t stream)
{
	struct stream *row;

	if (!guest)
		return;
	row = *stream_slot(guest, stream);
	if (!row || !row->handler)
		return;
	row->handler = NULL;
	guest->n_cancelled++;
	if (guest->broken)
		return;
	guest_send(guest, stream, LINK_END, NULL, 0);
	if (guest->n_cancelled > CANCELLED_MAX)
		guest_fail_later(guest, -EPROTO);
}

/* Frames from init */

static void ignore_reply(const Paddock__Internal__GuestReply *reply, int *fds, unsigned int n_fds,
			 const struct pdk_error *err, void *arg)
{
}

/* A reply has lost its pipes because we have no descriptors left. The call fails and the sandbox lives: a process that
 * was started is ended again, a transfer is given up. A process that is taken over is kept, and asked for again later.
 */
static int on_lost_fds(struct guest *guest, struct stream *stream, const Paddock__Internal__GuestReply *reply)
{
	guest_reply_handler handler = stream->handler;
	uint64_t handle = stream->handle;
	guest_op op = stream->op;
	void *arg = stream->arg;
	struct pdk_error status;

	pdk_fail(&status, -EMFILE, PDK_RESOURCE_EXHAUSTED, "server descriptors exhausted; retry in 1000 ms");
	if (op == PADDOCK__INTERNAL__GUEST_REQUEST__OP_ADOPT) {
		stream->replies++;
		handler(reply, NULL, 0, &status, arg);
		return 0;
	}
	guest_cancel(guest, stream->number);
	if (op == PADDOCK__INTERNAL__GUEST_REQUEST__OP_START)
		process_kill_unwanted(guest, handle);
	handler(NULL, NULL, 0, &status, arg);
	return 0;
}

/* Descriptors of init must be pipes, or of a dial a socket of its own network: anything else could block us, or lead
 * somewhere. */
static int check_fds(const struct link_frame *frame, guest_op op, struct pdk_error *err)
{
	bool dialled = op == PADDOCK__INTERNAL__GUEST_REQUEST__OP_DIAL;

	for (unsigned int i = 0; i < frame->n_fds; i++) {
		if (!(dialled ? socket_is_of_sandbox(frame->fds[i]) : pipe_check(frame->fds[i])))
			return pdk_fail(err, -EPROTO, PDK_DATA_LOSS,
					"the sandbox's init broke the protocol: a descriptor that is no %s",
					dialled ? "socket of its network" : "pipe");
	}
	return 0;
}

static int dispatch_reply(struct guest *guest, struct stream *stream, struct link_frame *frame,
			  const Paddock__Internal__GuestReply *reply, struct pdk_error *err)
{
	guest_reply_handler handler = stream->handler;
	struct pdk_error status = {.code = (enum pdk_code)reply->code};
	int rc;

	/* What comes for a stream that was given up counts, but says nothing: an abort has answers of its own. */
	if (!handler && frame->kind == LINK_REPLY && stream->replies++ <= guest_replies_max(stream->op))
		return 0;
	if (frame->fds_lost && handler && frame->kind == LINK_REPLY)
		return on_lost_fds(guest, stream, reply);
	if (frame->kind == LINK_EVENT) {
		if (stream->credit == 0)
			return pdk_fail(err, -EPROTO, PDK_DATA_LOSS,
					"the sandbox's init broke the protocol: an event beyond its credit");
		stream->credit--;
		rc = guest_check_event(reply, stream->op, frame->n_fds, err);
	} else {
		rc = guest_check_reply(reply, stream->op, stream->replies, stream->handle, frame->n_fds, err);
		stream->replies++;
	}
	if (rc == 0)
		rc = check_fds(frame, stream->op, err);
	if (rc < 0 || !handler)
		return rc;
	if (reply->code)
		guest_clean_text(status.text, sizeof(status.text), reply->text);
	handler(reply, frame->fds, frame->n_fds, &status, stream->arg);
	return 0;
}

/* `sudo` was used: recorded, but a sandbox cannot fill the log with it. */
static void guest_on_sudo(struct guest *guest, const Paddock__Internal__GuestSudo *sudo)
{
	uint64_t now = loop_now_ns();
	uint64_t refill = (now - guest->sudo_refill_ns) / (1000000000u / SUDO_PER_SECOND);
	_cleanup_free_ char *detail = NULL;

	if (refill) {
		guest->sudo_tokens = refill > SUDO_BURST - guest->sudo_tokens
					     ? SUDO_BURST
					     : guest->sudo_tokens + (unsigned int)refill;
		guest->sudo_refill_ns = now;
	}
	if (guest->sudo_tokens == 0) {
		guest->sudo_unrecorded++;
		return;
	}
	guest->sudo_tokens--;
	record_unrecorded(guest);
	detail = process_audit_sudo(sudo);
	audit_event(&(struct audit_entry){.tenant = guest->sandbox->tenant,
					  .actor = "sandbox",
					  .action = "process.sudo",
					  .sandbox_id = guest->sandbox->id,
					  .outcome = sudo->allowed ? "OK" : "PERMISSION_DENIED",
					  .detail = detail});
}

static int dispatch_message(struct guest *guest, struct link_frame *frame, struct stream *stream, struct pdk_error *err)
{
	struct guest_arena arena;
	Paddock__Internal__GuestReply *reply;
	int rc;

	guest_arena_init(&arena);
	reply = guest_unpack_reply(&arena, frame->payload, frame->length);
	if (!reply)
		rc = pdk_fail(err, -EPROTO, PDK_DATA_LOSS, "the sandbox's init broke the protocol: unreadable message");
	else if (stream)
		rc = dispatch_reply(guest, stream, frame, reply, err);
	else
		rc = guest_check_notice(reply, frame->n_fds, err);
	if (rc == 0 && !stream)
		guest_on_sudo(guest, reply->sudo);
	guest_arena_free(&arena);
	return rc;
}

static void guest_on_end(struct guest *guest, uint32_t number)
{
	struct stream **slot = stream_slot(guest, number);
	struct stream *stream = *slot;
	struct pdk_error none = {.code = PDK_OK};
	guest_reply_handler handler = stream->handler;
	void *arg = stream->arg;

	if (handler)
		guest_send(guest, number, LINK_END, NULL, 0);
	stream_drop(guest, slot);
	if (handler)
		handler(NULL, NULL, 0, &none, arg);
}

static int guest_dispatch(struct guest *guest, struct link_frame *frame, struct pdk_error *err)
{
	struct stream *stream;

	if (frame->stream == 0) {
		if (frame->kind != LINK_EVENT)
			return pdk_fail(err, -EPROTO, PDK_DATA_LOSS,
					"the sandbox's init broke the protocol: request on the link");
		return dispatch_message(guest, frame, NULL, err);
	}
	/* On its way when we hung up. Only the end of the link says that init holds nothing of it any more. */
	if (guest->hung_up)
		return 0;
	stream = *stream_slot(guest, frame->stream);
	if (frame->kind == LINK_END && !stream && frame->stream % 2 && frame->stream < guest->next_stream)
		return 0; /* a second END says nothing new */
	if (!stream || frame->kind == LINK_REQUEST || frame->kind == LINK_CREDIT)
		return pdk_fail(err, -EPROTO, PDK_DATA_LOSS, "the sandbox's init broke the protocol: unknown stream");
	if (frame->kind != LINK_END)
		return dispatch_message(guest, frame, stream, err);
	guest_on_end(guest, frame->stream);
	return 0;
}

static int guest_on_frame(struct link *link, struct link_frame *frame, void *arg)
{
	struct guest *guest = arg;
	struct pdk_error err = {};
	int rc = guest_dispatch(guest, frame, &err);

	if (guest->broken)
		return -ECONNRESET;
	if (rc < 0)
		guest_break(guest, rc, err.text);
	return rc;
}

static void guest_on_io(uint32_t events, void *arg)
{
	struct guest *guest = arg;
	int rc = 0;

	if (events & EPOLLOUT)
		rc = link_flush(guest->link);
	guest->dispatching = true;
	if (rc == 0 && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		rc = link_input(guest->link, FRAMES_PER_TURN);
	if (rc > 0 && !guest->broken)
		rc = loop_timer_set(&guest->turn, loop_now_ns());
	if (rc < 0)
		guest_break(guest, rc, rc == -EPROTO ? "its init broke the protocol" : "its init is gone");
	guest->dispatching = false;
	if (guest->freed)
		guest_destroy(guest);
	else
		guest_update_watch(guest);
}

static void guest_on_turn(void *arg)
{
	guest_on_io(EPOLLIN, arg);
}

/* Hello and setup */

static void guest_on_hello(const Paddock__Internal__GuestReply *reply, int *fds, unsigned int n_fds,
			   const struct pdk_error *err, void *arg)
{
	struct guest *guest = arg;
	void (*ready)(struct guest *, int, void *) = guest->ready;

	if (!ready || guest->broken || guest->freed)
		return;
	if (!reply || err->code || reply->hello->version != GUEST_VERSION) {
		guest_break(guest, -EPROTO, "its init speaks another version");
		return;
	}
	guest->ready = NULL;
	guest->start_file = reply->hello->start_file;
	guest->ready_file = reply->hello->ready_file;
	if (!guest->pending_rc)
		loop_timer_cancel(&guest->timer);
	ready(guest, 0, guest->ready_arg);
}

bool guest_has_start(const struct guest *guest)
{
	return guest->start_file;
}

bool guest_has_ready(const struct guest *guest)
{
	return guest->ready_file;
}

static int guest_hello(struct guest *guest)
{
	Paddock__Internal__GuestHello hello = PADDOCK__INTERNAL__GUEST_HELLO__INIT;
	Paddock__Internal__GuestRequest request = PADDOCK__INTERNAL__GUEST_REQUEST__INIT;
	int64_t rc;

	hello.version = GUEST_VERSION;
	request.op_case = PADDOCK__INTERNAL__GUEST_REQUEST__OP_HELLO;
	request.hello = &hello;
	rc = guest_call(guest, &request, 0, guest_on_hello, guest);
	return rc < 0 ? (int)rc : 0;
}

int guest_setup(struct guest *guest, char *const *env, size_t n_env, const char *hostname, const char *machine_id)
{
	Paddock__Internal__GuestSetup setup = PADDOCK__INTERNAL__GUEST_SETUP__INIT;
	Paddock__Internal__GuestRequest request = PADDOCK__INTERNAL__GUEST_REQUEST__INIT;
	int64_t rc;

	setup.env = (char **)env;
	setup.n_env = n_env;
	setup.hostname = (char *)(hostname ? hostname : "");
	setup.sudo = server_config.sudo;
	setup.machine_id = (char *)(machine_id ? machine_id : "");
	request.op_case = PADDOCK__INTERNAL__GUEST_REQUEST__OP_SETUP;
	request.setup = &setup;
	rc = guest_call(guest, &request, 0, ignore_reply, NULL);
	return rc < 0 ? (int)rc : 0;
}

void guest_hang_up(struct guest *guest, void (*done)(void *arg), void *arg)
{
	struct pdk_error err;

	guest->hung_up = done;
	guest->hung_up_arg = arg;
	pdk_fail(&err, -ECONNRESET, PDK_UNAVAILABLE, "the sandbox is being paused or copied");
	streams_fail(guest, &err);
	/* The end of the stream, or the timer, breaks the guest, and that tells `done`. */
	shutdown(link_fd(guest->link), SHUT_WR);
	guest->pending_rc = -ETIMEDOUT;
	loop_timer_set(&guest->timer, loop_now_ns() + HANG_UP_NS);
}

int guest_resumed(struct guest *guest, uint64_t paused_ms)
{
	Paddock__Internal__GuestResumed resumed = PADDOCK__INTERNAL__GUEST_RESUMED__INIT;
	Paddock__Internal__GuestRequest request = PADDOCK__INTERNAL__GUEST_REQUEST__INIT;
	int64_t rc;

	resumed.paused_ms = paused_ms;
	request.op_case = PADDOCK__INTERNAL__GUEST_REQUEST__OP_RESUMED;
	request.resumed = &resumed;
	rc = guest_call(guest, &request, 0, ignore_reply, NULL);
	return rc < 0 ? (int)rc : 0;
}

struct guest *guest_create(struct sandbox *sandbox, int fd, char *const *env, size_t n_env, const char *hostname,
			   void (*ready)(struct guest *guest, int rc, void *arg), void *arg)
{
	struct guest *guest = calloc(1, sizeof(*guest));

	if (!guest) {
		close(fd);
		return NULL;
	}
	guest->link = link_create(fd, LINK_PAYLOAD_MAX, guest_on_frame, guest);
	if (!guest->link) {
		close(fd);
		free(guest);
		return NULL;
	}
	link_survive_lost_fds(guest->link);
	guest->sandbox = sandbox;
	guest->next_stream = 1;
	guest->sudo_tokens = SUDO_BURST;
	guest->sudo_refill_ns = loop_now_ns();
	guest->ready = ready;
	guest->ready_arg = arg;
	guest->watching = EPOLLIN;
	guest->timer.handler = guest_on_timer;
	guest->timer.arg = guest;
	guest->turn.handler = guest_on_turn;
	guest->turn.arg = guest;
	guest->watch = loop_watch_add(fd, EPOLLIN, guest_on_io, guest);
	if (!guest->watch || guest_hello(guest) < 0 || guest_setup(guest, env, n_env, hostname, NULL) < 0 ||
	    loop_timer_set(&guest->timer, loop_now_ns() + HELLO_TIMEOUT_NS) < 0) {
		guest->ready = NULL;
		guest_free(guest);
		return NULL;
	}
	return guest;
}
