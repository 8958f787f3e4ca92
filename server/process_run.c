#include "metrics.h"
#include "pipe_io.h"
#include "process_internal.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/fault.h"
#include "validate.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

/* What happens to a process between its start and its stored end: init's replies, its pipes, its exit. */

#define SMALL_READ (64u << 10)
#define LARGE_READ (256u << 10)
#define LARGE_CHUNK (1u << 20) /* several reads leave in one message when the client is behind */
#define BULK_WINDOW_NS 1000000ull
#define BULK_BYTES (64u << 10) /* in a window */
#define REST_NS 200000ull
#define REST_ROOM (512u << 10) /* of a pipe that may rest */
#define DRAIN_NS (200ull * 1000000)
#define DRAIN_BYTES_MAX (4u << 20) /* both pipes full, twice: what was written before the end fits in it */

/* Reading */

static void pipe_close(struct process_pipe *pipe)
{
	loop_timer_cancel(&pipe->rest);
	loop_watch_remove(STEAL_PTR(pipe->watch));
	if (pipe->fd >= 0)
		close(STEAL_FD(pipe->fd));
}

void process_close_pipes(struct process *process)
{
	for (int i = 0; i < 2; i++)
		pipe_close(&process->pipes[i]);
}

/* Nobody follows: bytes go to the kept output only, by way of one buffer that all share under the loop lock. */
static ssize_t read_unfollowed(struct process_pipe *pipe, size_t want)
{
	static uint8_t scratch[LARGE_READ];
	ssize_t n = pipe_read(pipe->fd, scratch, want);

	if (n > 0)
		process_keep_output(pipe->process, pipe->stream, scratch, (size_t)n);
	return n;
}

static ssize_t read_followed(struct process_pipe *pipe, size_t want)
{
	struct process *process = pipe->process;
	struct chunk *chunk = chunk_for_reading(process, pipe->stream, pipe->grown ? LARGE_CHUNK : want);
	size_t room;
	ssize_t n;

	if (!chunk)
		return -ENOMEM;
	room = chunk->size - chunk->used;
	n = pipe_read(pipe->fd, chunk->data + chunk->used, room < want ? room : want);
	if (n > 0)
		process_keep_output(process, pipe->stream, chunk->data + chunk->used, (size_t)n);
	chunk_filled(process, chunk, n > 0 ? (size_t)n : 0);
	return n;
}

/* Does so much come that the pipe would fill again in a moment? */
static bool pipe_is_bulk(struct process_pipe *pipe, size_t length)
{
	uint64_t now = loop_now_ns(), age = now - pipe->window_ns;

	if (age >= BULK_WINDOW_NS) {
		pipe->before_bytes = age < 2 * BULK_WINDOW_NS ? pipe->window_bytes : 0;
		pipe->window_bytes = 0;
		pipe->window_ns = now;
	}
	pipe->window_bytes += length;
	return pipe->window_bytes >= BULK_BYTES || pipe->before_bytes >= BULK_BYTES;
}

static void rest_is_over(void *arg);

/* A program that writes page by page wakes us for each, and a page is as much work as a quarter of a megabyte: in the
 * record, in gRPC, and for whoever follows. So a fast writer whose pipe is nearly empty is left alone for a moment. */
static void pipe_let_rest(struct process_pipe *pipe)
{
	pipe->rest.handler = rest_is_over;
	pipe->rest.arg = pipe;
	if (loop_timer_set(&pipe->rest, loop_now_ns() + REST_NS) == 0)
		loop_watch_remove(STEAL_PTR(pipe->watch));
}

/* One read. 1 = there may be more, 0 = empty or closed. */
static int pipe_read_once(struct process_pipe *pipe)
{
	struct process *process = pipe->process;
	size_t want = pipe->grown ? LARGE_READ : SMALL_READ;
	uint64_t before = output_dropped(process->output);
	ssize_t n = process->followers ? read_followed(pipe, want) : read_unfollowed(pipe, want);
	bool bulk;

	if (n == -EAGAIN || n == -ENOMEM)
		return 0;
	if (n <= 0) {
		pipe_close(pipe);
		return 0;
	}
	bulk = pipe_is_bulk(pipe, (size_t)n);
	if (bulk && !pipe->grown) {
		pipe->roomy = pipe_grow(pipe->fd) >= REST_ROOM;
		pipe->grown = true;
	}
	if (bulk && pipe->roomy && (size_t)n < SMALL_READ && process->state < PROCESS_DRAINING)
		pipe_let_rest(pipe);
	metric_add(METRIC_OUTPUT_BYTES, n);
	metric_add(METRIC_OUTPUT_DROPPED_BYTES, (int64_t)(output_dropped(process->output) - before));
	if (process->state >= PROCESS_DRAINING)
		process->drained += (size_t)n;
	return 1;
}

static void process_finish_drain(struct process *process);

static bool pipes_closed(const struct process *process)
{
	return process->pipes[0].fd < 0 && process->pipes[1].fd < 0;
}

static void pipe_on_ready(uint32_t events, void *arg)
{
	struct process_pipe *pipe = arg;
	struct process *process = process_ref(pipe->process);

	pipe_read_once(pipe);
	if (process->followers)
		followers_pump(process);
	process_update_polling(process);
	if (process->state == PROCESS_DRAINING && pipes_closed(process))
		process_finish_drain(process);
	process_unref(process);
}

static void rest_is_over(void *arg)
{
	struct process_pipe *pipe = arg;

	if (followers_allow_reading(pipe->process))
		pipe_on_ready(EPOLLIN, pipe);
	else
		process_update_polling(pipe->process);
}

/* A paused pipe has no watch at all: a level-triggered hang-up cannot be masked. */
void process_update_polling(struct process *process)
{
	bool may_read = process->state != PROCESS_STARTING && followers_allow_reading(process);

	for (int i = 0; i < 2; i++) {
		struct process_pipe *pipe = &process->pipes[i];

		if (pipe->fd < 0)
			continue;
		if (may_read && !pipe->watch && !pipe->rest.due_ns)
			pipe->watch = loop_watch_add(pipe->fd, EPOLLIN, pipe_on_ready, pipe);
		else if (!may_read && pipe->watch)
			loop_watch_remove(STEAL_PTR(pipe->watch));
	}
}

void process_read_left(struct process *process)
{
	for (int i = 0; i < 2; i++) {
		while (process->pipes[i].fd >= 0 && process->drained < DRAIN_BYTES_MAX) {
			if (!pipe_read_once(&process->pipes[i]))
				break;
		}
	}
}

/* The end */

/* What init says, so that it is the same when it is asked again; within what can be true. */
static int64_t end_time(const struct process *process, const Paddock__Internal__GuestExited *exited)
{
	int64_t now = loop_wall_ms();

	if (!exited || exited->ended_unix_ms < process->stored->started_unix_ms || exited->ended_unix_ms > now)
		return now;
	return exited->ended_unix_ms;
}

void process_set_exit(struct process *process, const Paddock__Internal__GuestExited *exited, bool sandbox_ended)
{
	Paddock__Internal__StoredExit *row = malloc(sizeof(*row));

	if (!row)
		return;
	paddock__internal__stored_exit__init(row);
	row->signal = exited ? exited->signal : 9;
	row->exit_code = exited && !exited->signal ? exited->exit_code : 0;
	row->timed_out = exited && exited->timed_out;
	row->core_dumped = exited && exited->core_dumped;
	row->ended_unix_ms = end_time(process, exited);
	row->sandbox_ended = sandbox_ended;
	free(process->stored->exit);
	process->stored->exit = row;
}

static void exit_stored(int rc, void *arg)
{
	struct process *process = arg;

	FAULT("process_exit_stored");
	process_exit_stored(process, rc);
	process_unref(process);
}

/* What init keeps may go along with the next commit: only its FORGET waits for it. */
static void store_exit(struct process *process)
{
	struct store_batch *batch = store_batch_create();

	if (!batch || process_put(batch, process) < 0) {
		store_batch_free(batch);
		process_exit_stored(process, -ENOMEM);
	} else if (process->exit_kept) {
		store_commit_later(batch, exit_stored, process_ref(process));
	} else {
		store_commit(batch, exit_stored, process_ref(process));
	}
}

static void process_finish_drain(struct process *process)
{
	loop_timer_cancel(&process->drain_timer);
	if (process->state != PROCESS_DRAINING || !process->list)
		return;
	process->state = PROCESS_STORING;
	process->stored->output_bytes = output_total(process->output);
	process->stored->dropped_bytes = output_dropped(process->output);
	process_ref(process);
	store_exit(process);
	if (process->exit_kept)
		process_ended(process);
	FAULT("process_exit_told");
	process_unref(process);
}

static void drain_timed_out(void *arg)
{
	process_finish_drain(arg);
}

void process_begin_drain(struct process *process)
{
	process->state = PROCESS_DRAINING;
	process->drained = 0;
	process_read_left(process);
	if (!pipes_closed(process)) {
		process->drain_timer.handler = drain_timed_out;
		process->drain_timer.arg = process;
		if (loop_timer_set(&process->drain_timer, loop_now_ns() + DRAIN_NS) == 0) {
			process_update_polling(process);
			followers_pump(process);
			return;
		}
	}
	process_finish_drain(process);
	followers_pump(process);
}

static void forget_done(const Paddock__Internal__GuestReply *reply, int *fds, unsigned int n_fds,
			const struct pdk_error *err, void *arg)
{
}

static void guest_forget(struct process *process)
{
	Paddock__Internal__GuestForget forget = PADDOCK__INTERNAL__GUEST_FORGET__INIT;
	Paddock__Internal__GuestRequest request = PADDOCK__INTERNAL__GUEST_REQUEST__INIT;

	forget.handle = process->id;
	request.op_case = PADDOCK__INTERNAL__GUEST_REQUEST__OP_FORGET;
	request.forget = &forget;
	guest_call(process->list->sandbox->guest, &request, 0, forget_done, NULL);
}

void process_ended(struct process *process)
{
	struct process_list *list = process->list;

	if (process->state == PROCESS_ENDED)
		return;
	process->state = PROCESS_ENDED;
	metric_add(METRIC_PROCESSES_RUNNING, -1);
	inputs_close(process);
	if (list)
		list->running--;
	process_ref(process);
	followers_pump(process);
	waiters_answer(process);
	if (pipes_closed(process))
		output_rest(process->output);
	if (process->list) {
		process_update_polling(process);
		process_list_trim(process->list);
	}
	process_unref(process);
}

void process_exit_stored(struct process *process, int rc)
{
	process_ref(process);
	process->exit_durable = rc == 0;
	process->store_failed = rc < 0;
	process_ended(process);
	if (process->exit_durable)
		process_trim_argv(process->stored);
	if (process->exit_durable && process->list) {
		if (process->list->sandbox->guest)
			guest_forget(process);
		process_list_trim(process->list);
	}
	process_unref(process);
}

void process_signal(struct process *process, uint32_t signal, bool process_only)
{
	Paddock__Internal__GuestSignal message = PADDOCK__INTERNAL__GUEST_SIGNAL__INIT;
	Paddock__Internal__GuestRequest request = PADDOCK__INTERNAL__GUEST_REQUEST__INIT;

	if (!process->list)
		return;
	message.handle = process->id;
	message.signal = signal;
	message.process_only = process_only;
	request.op_case = PADDOCK__INTERNAL__GUEST_REQUEST__OP_SIGNAL;
	request.signal = &message;
	guest_call(process->list->sandbox->guest, &request, 0, forget_done, NULL);
}

/* Replies of init to start and adopt */

static void take_pipes(struct process *process, const Paddock__Internal__GuestStarted *started, int *fds)
{
	if (started->has_stdin) {
		process->stdin_fd = STEAL_FD(*fds);
		fds++;
	}
	if (started->has_stdout) {
		process->pipes[0].fd = STEAL_FD(*fds);
		fds++;
		process->pipes[0].stream = process->stored->terminal ? PADDOCK__V1__STREAM__STREAM_PTY
								     : PADDOCK__V1__STREAM__STREAM_STDOUT;
	}
	if (started->has_stderr) {
		process->pipes[1].fd = STEAL_FD(*fds);
		process->pipes[1].stream = PADDOCK__V1__STREAM__STREAM_STDERR;
	}
}

static void on_started(struct process *process, const Paddock__Internal__GuestStarted *started, int *fds)
{
	char *cwd;

	if (!process->list || process->stdin_fd >= 0 || !pipes_closed(process))
		return;
	take_pipes(process, started, fds);
	process->stored->pid = started->pid;
	if (process->stored->started_unix_ms == 0)
		process->stored->started_unix_ms = loop_wall_ms();
	if (process->stored->cwd[0] == '\0' && utf8_valid(started->cwd, strlen(started->cwd))) {
		cwd = strdup(started->cwd);
		if (cwd) {
			if (process->stored->cwd != protobuf_c_empty_string)
				free(process->stored->cwd);
			process->stored->cwd = cwd;
		}
	}
	if (process->state == PROCESS_STARTING) {
		process->state = PROCESS_RUNNING;
		metric_add(METRIC_PROCESSES_STARTED, 1);
		metric_add(METRIC_PROCESSES_RUNNING, 1);
	}
	process->suspended = false;
	if (process->first_input)
		inputs_run(process);
	/* Bytes wait in the pipe until the first turn of the loop; nothing is read before `started` can be sent. */
	process_update_polling(process);
}

/* The Start call that waits for this reply, if it still lives. */
static struct follower *find_starter(struct process *process)
{
	for (struct follower *follower = process->followers; follower; follower = follower->next) {
		if (follower->starting && !follower->start_answered)
			return follower;
	}
	return NULL;
}

static void on_start_answer(struct process *process, const struct pdk_error *err)
{
	struct follower *starter = find_starter(process);

	if (!starter)
		return;
	starter->start_answered = true;
	starter->start_error = *err;
	process_start_settle(starter);
}

static void on_stream_end(struct process *process, const struct pdk_error *err)
{
	struct pdk_error lost;

	process->stream = 0;
	if (process->state == PROCESS_STARTING) {
		lost = *err;
		if (lost.code == PDK_OK)
			pdk_fail(&lost, -EPROTO, PDK_UNAVAILABLE, "the sandbox did not start it");
		on_start_answer(process, &lost);
	} else if (process->state == PROCESS_RUNNING && err->code == PDK_OK && process->list) {
		/* init gave the stream up without an exit: the process is out of our hands. */
		process_signal(process, 9, false);
		process_set_exit(process, NULL, false);
		process_begin_drain(process);
	}
	process_unref(process);
}

void process_on_guest(const Paddock__Internal__GuestReply *reply, int *fds, unsigned int n_fds,
		      const struct pdk_error *err, void *arg)
{
	struct process *process = arg;

	if (!reply) {
		on_stream_end(process, err);
		return;
	}
	process_ref(process);
	if (err->code) {
		if (process->state == PROCESS_STARTING)
			on_start_answer(process, err);
		else if (process->state == PROCESS_RUNNING && err->code == PDK_RESOURCE_EXHAUSTED)
			process_adopt_later(process);
	} else if (reply->result_case == PADDOCK__INTERNAL__GUEST_REPLY__RESULT_STARTED) {
		on_started(process, reply->started, fds);
		on_start_answer(process, err);
	} else if (process->state == PROCESS_RUNNING && process->list) {
		process_set_exit(process, reply->exited, false);
		process->exit_kept = true;
		process_begin_drain(process);
	}
	process_unref(process);
}
