#include "process_internal.h"
#include "processes.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/varint.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Followers: what each has been sent, live chunks and replay, back-pressure, the end of their calls. */

#define WINDOW (4u << 20)     /* a follower this far behind stops the reading */
#define WINDOW_LOW (2u << 20) /* and this near lets it go on */
#define CHUNKS_MAX (8u << 20) /* memory of chunks, for output in tiny pieces */
#define SEND_MAX (1u << 20)
#define KEEPALIVE_NS (30ull * 1000000000)
#define OUTPUT_HEAD_MAX 32

/* Chunks */

void chunk_unref(struct chunk *chunk)
{
	if (atomic_fetch_sub_explicit(&chunk->refs, 1, memory_order_acq_rel) == 1)
		free(chunk);
}

static void release_chunk(void *arg)
{
	chunk_unref(arg);
}

static struct chunk *chunk_create(size_t size)
{
	struct chunk *chunk = malloc(sizeof(*chunk) + size);

	if (!chunk)
		return NULL;
	*chunk = (struct chunk){.size = size};
	atomic_init(&chunk->refs, 1);
	return chunk;
}

/* The last chunk goes on growing behind what followers already send of it, so small writes leave in large messages. */
struct chunk *chunk_for_reading(struct process *process, unsigned int stream, size_t size)
{
	struct chunk *chunk = process->last_chunk;

	if (chunk && chunk->stream == stream && chunk->size - chunk->used >= chunk->size / 16)
		return chunk;
	chunk = chunk_create(size);
	if (!chunk)
		return NULL;
	chunk->stream = stream;
	chunk->sequence = output_total(process->output);
	if (process->last_chunk)
		process->last_chunk->next = chunk;
	else
		process->first_chunk = chunk;
	process->last_chunk = chunk;
	process->chunk_bytes += chunk->size;
	return chunk;
}

static void chunk_drop_first(struct process *process)
{
	struct chunk *chunk = process->first_chunk;

	process->first_chunk = chunk->next;
	if (!process->first_chunk)
		process->last_chunk = NULL;
	process->chunk_bytes -= chunk->size;
	chunk_unref(chunk);
}

void chunks_drop(struct process *process)
{
	while (process->first_chunk)
		chunk_drop_first(process);
}

/* Let go of what every follower has sent. */
static void chunks_trim(struct process *process)
{
	uint64_t slowest = UINT64_MAX;

	for (struct follower *follower = process->followers; follower; follower = follower->next) {
		if (!follower->cancelled && follower->sequence < slowest)
			slowest = follower->sequence;
	}
	while (process->first_chunk && process->first_chunk->sequence + process->first_chunk->used <= slowest)
		chunk_drop_first(process);
}

void chunk_filled(struct process *process, struct chunk *chunk, size_t length)
{
	chunk->used += length;
	if (chunk->used == 0)
		chunks_trim(process);
}

static uint64_t live_base(const struct process *process)
{
	return process->first_chunk ? process->first_chunk->sequence : output_total(process->output);
}

bool followers_allow_reading(struct process *process)
{
	uint64_t total = output_total(process->output);
	uint64_t base = live_base(process);
	uint64_t window = process->paused ? WINDOW_LOW : WINDOW;

	process->paused = process->chunk_bytes >= CHUNKS_MAX;
	for (struct follower *follower = process->followers; follower && !process->paused; follower = follower->next) {
		if (follower->cancelled)
			continue;
		if (follower->sequence < base || total - follower->sequence > window)
			process->paused = true;
	}
	return !process->paused;
}

/* Followers */

static void follower_on_keepalive(void *arg)
{
	Paddock__V1__ProcessEvent event = PADDOCK__V1__PROCESS_EVENT__INIT;
	Paddock__V1__Keepalive keepalive = PADDOCK__V1__KEEPALIVE__INIT;
	struct follower *follower = arg;
	uint64_t now = loop_now_ns();

	if (now - follower->last_sent_ns >= KEEPALIVE_NS && !follower->send_started && !follower->starting &&
	    rpc_can_send(follower->call)) {
		event.event_case = PADDOCK__V1__PROCESS_EVENT__EVENT_KEEPALIVE;
		event.keepalive = &keepalive;
		follower->last_sent_ns = now;
		rpc_send(follower->call, &event.base);
	}
	if (now - follower->last_sent_ns >= KEEPALIVE_NS)
		follower->last_sent_ns = now;
	loop_timer_set(&follower->keepalive, follower->last_sent_ns + KEEPALIVE_NS);
}

static const struct rpc_events follow_events = {
	.on_sent = follower_on_sent,
	.on_cancel = follower_on_cancel,
};
static const struct rpc_events interact_events = {
	.on_message = interact_on_message,
	.on_half_close = interact_on_half_close,
	.on_sent = follower_on_sent,
	.on_cancel = follower_on_cancel,
};

struct follower *follower_create(struct rpc_call *call, struct process *process)
{
	struct follower *follower = calloc(1, sizeof(*follower));

	if (!follower)
		return NULL;
	follower->call = call;
	follower->process = process_ref(process);
	follower->send_started = true;
	return follower;
}

void follower_attach(struct follower *follower, uint64_t from_sequence)
{
	struct process *process = follower->process;

	follower->sequence = from_sequence;
	follower->attached = true;
	follower->next = process->followers;
	process->followers = follower;
	follower->last_sent_ns = loop_now_ns();
	follower->keepalive.handler = follower_on_keepalive;
	follower->keepalive.arg = follower;
	loop_timer_set(&follower->keepalive, follower->last_sent_ns + KEEPALIVE_NS);
	rpc_set_events(follower->call, follower->interactive ? &interact_events : &follow_events, follower);
	process_update_polling(process);
}

/* Before the end of its call: nobody may find it any more. */
static void follower_free(struct follower *follower)
{
	struct process *process = follower->process;
	struct follower **at = &process->followers;

	while (*at && *at != follower)
		at = &(*at)->next;
	if (*at)
		*at = follower->next;
	loop_timer_cancel(&follower->keepalive);
	if (follower->input)
		input_forget(follower->input);
	if (follower->asked)
		guest_cancel(follower->asked, follower->stream);
	chunks_trim(process);
	process_update_polling(process);
	if (process->state == PROCESS_ENDED && !process->followers && process->pipes[0].fd < 0 &&
	    process->pipes[1].fd < 0)
		output_rest(process->output);
	free(follower);
	process_unref(process);
}

void follower_fail(struct follower *follower, const struct pdk_error *err)
{
	struct rpc_call *call = follower->call;
	struct pdk_error copy = *err;

	follower_free(follower);
	rpc_fail(call, &copy);
}

static void follower_finish(struct follower *follower)
{
	struct rpc_call *call = follower->call;

	follower_free(follower);
	rpc_finish(call, NULL);
}

void follower_on_cancel(struct rpc_call *call, const struct pdk_error *why)
{
	struct follower *follower = rpc_user(call);

	follower->cancelled = true;
	follower->why = *why;
	/* A start that is under way is settled first: the process may come to be, with nobody watching. */
	if (follower->starting)
		return;
	follower_fail(follower, why);
}

static void send_started(struct follower *follower)
{
	Paddock__V1__ProcessEvent event = PADDOCK__V1__PROCESS_EVENT__INIT;
	Paddock__V1__ProcessStarted started = PADDOCK__V1__PROCESS_STARTED__INIT;
	const Paddock__Internal__StoredProcess *stored = follower->process->stored;

	started.process_id = stored->id;
	started.pid = stored->pid;
	started.started_unix_ms = stored->started_unix_ms;
	started.tag = stored->tag;
	event.event_case = PADDOCK__V1__PROCESS_EVENT__EVENT_STARTED;
	event.started = &started;
	rpc_send(follower->call, &event.base);
}

/* ProcessEvent.output by hand: its last field is the data, which gRPC takes from the chunk itself. */
static void send_output(struct follower *follower, struct chunk *chunk, uint64_t sequence, const uint8_t *data,
			size_t length)
{
	uint8_t head[OUTPUT_HEAD_MAX], inner[OUTPUT_HEAD_MAX], size[10];
	size_t n_inner = 0, n = 0;

	if (sequence) {
		inner[n_inner++] = 1 << 3;
		n_inner += varint_put(inner + n_inner, sequence);
	}
	inner[n_inner++] = 2 << 3;
	n_inner += varint_put(inner + n_inner, chunk->stream);
	head[n++] = 2 << 3 | 2;
	n += varint_put(head + n, n_inner + 1 + varint_put(size, length) + length);
	memcpy(head + n, inner, n_inner);
	atomic_fetch_add_explicit(&chunk->refs, 1, memory_order_relaxed);
	rpc_send_bytes(follower->call, head, n + n_inner, 3, data, length, release_chunk, chunk);
}

static void send_gap(struct follower *follower, const struct output_piece *piece)
{
	Paddock__V1__ProcessEvent event = PADDOCK__V1__PROCESS_EVENT__INIT;
	Paddock__V1__OutputGap gap = PADDOCK__V1__OUTPUT_GAP__INIT;

	gap.sequence = piece->sequence;
	gap.dropped_bytes = piece->dropped;
	event.event_case = PADDOCK__V1__PROCESS_EVENT__EVENT_GAP;
	event.gap = &gap;
	rpc_send(follower->call, &event.base);
}

/* Send one piece of the kept output. False: nothing is kept from here on, or no memory now. */
static bool send_replay(struct follower *follower)
{
	struct chunk *chunk = chunk_create(OUTPUT_PIECE_MAX);
	struct output_piece piece;
	int rc;

	if (!chunk)
		return false;
	follower->cursor.sequence = follower->sequence;
	rc = output_read(follower->process->output, &follower->cursor, chunk->data, &piece);
	if (rc == 1) {
		follower->sequence = follower->cursor.sequence;
		chunk->stream = piece.stream;
		if (piece.dropped)
			send_gap(follower, &piece);
		else
			send_output(follower, chunk, piece.sequence, chunk->data, piece.length);
	}
	chunk_unref(chunk);
	return rc == 1;
}

static bool send_live(struct follower *follower)
{
	struct chunk *chunk = follower->process->first_chunk;
	size_t offset, length;

	while (chunk && follower->sequence >= chunk->sequence + chunk->used)
		chunk = chunk->next;
	if (!chunk)
		return false;
	offset = (size_t)(follower->sequence - chunk->sequence);
	length = chunk->used - offset;
	if (length > SEND_MAX)
		length = SEND_MAX;
	send_output(follower, chunk, follower->sequence, chunk->data + offset, length);
	follower->sequence += length;
	return true;
}

static bool send_some_output(struct follower *follower)
{
	struct process *process = follower->process;
	bool sent;

	if (follower->sequence < live_base(process)) {
		sent = send_replay(follower);
	} else {
		sent = send_live(follower);
		chunks_trim(process);
	}
	if (sent)
		process_update_polling(process);
	return sent;
}

static void send_exited(struct follower *follower)
{
	Paddock__V1__ProcessEvent event = PADDOCK__V1__PROCESS_EVENT__INIT;
	Paddock__V1__ProcessExit exited;
	struct pdk_error err;

	if (!process_exit_known(follower->process)) {
		pdk_fail(&err, -EIO, PDK_UNAVAILABLE, "the end of the process could not be stored");
		follower_fail(follower, &err);
		return;
	}
	process_fill_exit(follower->process, &exited);
	event.event_case = PADDOCK__V1__PROCESS_EVENT__EVENT_EXITED;
	event.exited = &exited;
	rpc_send(follower->call, &event.base);
	follower_finish(follower);
}

/* Send the next thing, if there is one and it may leave. May end and free the follower. */
void follower_pump(struct follower *follower)
{
	struct process *process = follower->process;

	if (follower->starting || follower->cancelled || !rpc_can_send(follower->call))
		return;
	follower->last_sent_ns = loop_now_ns();
	if (follower->send_started) {
		follower->send_started = false;
		send_started(follower);
		if (follower->detach)
			follower_finish(follower);
		return;
	}
	if (send_some_output(follower))
		return;
	if (process->state == PROCESS_ENDED)
		send_exited(follower);
}

void followers_pump(struct process *process)
{
	struct follower *follower = process->followers;

	process_ref(process);
	while (follower) {
		struct follower *next = follower->next;

		follower_pump(follower);
		follower = next;
	}
	process_unref(process);
}

void follower_on_sent(struct rpc_call *call)
{
	follower_pump(rpc_user(call));
}

/* Attach */

static int find_attached(struct rpc_call *call, const Paddock__V1__AttachRequest *request, struct process **ret,
			 struct pdk_error *err)
{
	struct process_list *list;
	struct sandbox *sandbox;
	struct process *process;
	char object[24];
	int rc = sandbox_find(call, request->sandbox_id, &sandbox, err);

	if (rc < 0)
		return rc;
	sandbox_use(call, sandbox);
	rpc_audit_object(call, sandbox->id, NULL);
	if (request->process_id == 0 && request->tag[0] == '\0')
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "process_id: or a tag must be given");
	list = process_list_get(sandbox);
	if (!list)
		return pdk_fail(err, -ENOMEM, PDK_UNAVAILABLE, "the server is out of memory");
	process = request->process_id ? process_list_find(list, request->process_id)
				      : process_list_find_tag(list, request->tag);
	if (!process || !process->committed || process->state == PROCESS_STARTING)
		return process_fail_gone(err);
	snprintf(object, sizeof(object), "%llu", (unsigned long long)process->id);
	rpc_audit_object(call, sandbox->id, object);
	if (process->state != PROCESS_ENDED)
		sandbox_want(sandbox);
	*ret = process;
	return 0;
}

int process_attach_call(struct rpc_call *call, const Paddock__V1__AttachRequest *request, bool interactive,
			struct pdk_error *err)
{
	struct follower *follower;
	struct process *process = NULL;
	int rc = find_attached(call, request, &process, err);

	if (rc < 0)
		return rc;
	if (request->from_sequence > output_total(process->output))
		return pdk_fail(err, -ERANGE, PDK_OUT_OF_RANGE, "from_sequence: beyond the end of the output");
	follower = follower_create(call, process);
	if (!follower)
		return pdk_fail(err, -ENOMEM, PDK_UNAVAILABLE, "the server is out of memory");
	follower->interactive = interactive;
	follower_attach(follower, request->from_sequence);
	if (interactive)
		rpc_read(call);
	follower_pump(follower);
	return 0;
}

void processes_attach(struct rpc_call *call, const ProtobufCMessage *request)
{
	struct pdk_error err;

	if (process_attach_call(call, (const Paddock__V1__AttachRequest *)request, false, &err) < 0)
		rpc_fail(call, &err);
}
