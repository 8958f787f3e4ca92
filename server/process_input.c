#include "pipe_io.h"
#include "process_internal.h"
#include "processes.h"
#include "sandbox/base/cleanup.h"
#include "validate.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

/*
 * Input: SendInput, CloseStdin and the messages of Interact, written to the pipe in the order in which they came.
 * What the pipe does not take waits in the process's queue until it is writable again. A SendInput keeps its
 * call open meanwhile; an Interact's call is not read further, so no more than one message of it waits.
 */

#define INPUT_MAX (1u << 20)
#define INPUTS_WAITING_MAX 64u
#define TERMINAL_MAX 4096u
/* SendInput answers this long before the call's deadline, so that the answer arrives. */
#define ANSWER_EARLY_NS (100ull * 1000000)

static void stdin_closed(struct process *process)
{
	loop_watch_remove(STEAL_PTR(process->stdin_watch));
	if (process->stdin_fd >= 0)
		close(STEAL_FD(process->stdin_fd));
}

static void input_unlink(struct input *input)
{
	struct process *process = input->process;
	struct input **at = &process->first_input;

	process->last_input = NULL;
	while (*at && *at != input) {
		process->last_input = *at;
		at = &(*at)->next;
	}
	if (!*at)
		return;
	*at = input->next;
	while (*at) {
		process->last_input = *at;
		at = &(*at)->next;
	}
}

static void input_free(struct input *input)
{
	loop_timer_cancel(&input->limit);
	input_unlink(input);
	if (input->follower)
		input->follower->input = NULL;
	free(input->copy);
	free(input);
}

/* Its Interact ends: what was not taken is dropped. */
void input_forget(struct input *input)
{
	input_free(input);
}

/* All is in the pipe. */
static void input_taken(struct input *input)
{
	Paddock__V1__SendInputResponse sent = PADDOCK__V1__SEND_INPUT_RESPONSE__INIT;
	Paddock__V1__CloseStdinResponse closed = PADDOCK__V1__CLOSE_STDIN_RESPONSE__INIT;
	struct follower *follower = input->follower;
	struct rpc_call *call = input->call;
	bool close_asked = input->close;

	sent.bytes = input->length;
	input_free(input);
	if (follower && !follower->cancelled)
		rpc_read(follower->call);
	else if (call)
		rpc_finish(call, close_asked ? &closed.base : &sent.base);
}

static void input_failed(struct input *input, enum pdk_code code, const char *text)
{
	struct follower *follower = input->follower;
	struct rpc_call *call = input->call;
	struct pdk_error err;

	pdk_fail(&err, -EPIPE, code, "%s", text);
	input_free(input);
	/* A terminal whose program does not read any more is still worth watching. */
	if (follower && !follower->cancelled)
		rpc_read(follower->call);
	else if (call)
		rpc_fail(call, &err);
}

static void tell_init_closed(struct process *process);

/* Write the first input's bytes. 1 = done with it, 0 = the pipe is full. */
static int input_step(struct process *process, struct input *input)
{
	ssize_t n;

	if (input->close) {
		stdin_closed(process);
		tell_init_closed(process);
		input_taken(input);
		return 1;
	}
	if (process->stdin_fd < 0) {
		input_failed(input, PDK_FAILED_PRECONDITION, "stdin is closed");
		return 1;
	}
	while (input->done < input->length) {
		n = pipe_write(process->stdin_fd, input->data + input->done, input->length - input->done);
		if (n == -EAGAIN)
			return 0;
		if (n < 0) {
			stdin_closed(process);
			input_failed(input, PDK_FAILED_PRECONDITION, "stdin is closed");
			return 1;
		}
		input->done += (size_t)n;
	}
	input_taken(input);
	return 1;
}

static void stdin_on_writable(uint32_t events, void *arg)
{
	inputs_run(arg);
}

void inputs_suspend(struct process *process)
{
	stdin_closed(process);
	process->suspended = true;
}

void inputs_run(struct process *process)
{
	if (process->suspended)
		return;
	process_ref(process);
	while (process->first_input && input_step(process, process->first_input))
		;
	if (process->first_input && !process->stdin_watch)
		process->stdin_watch = loop_watch_add(process->stdin_fd, EPOLLOUT, stdin_on_writable, process);
	else if (!process->first_input)
		loop_watch_remove(STEAL_PTR(process->stdin_watch));
	process_unref(process);
}

/* The process has ended. */
void inputs_close(struct process *process)
{
	stdin_closed(process);
	while (process->first_input) {
		struct input *input = process->first_input;

		if (input->close)
			input_taken(input);
		else
			input_failed(input, PDK_FAILED_PRECONDITION, "stdin is closed");
	}
}

static struct input *input_add(struct process *process)
{
	struct input *input = calloc(1, sizeof(*input));

	if (!input)
		return NULL;
	input->process = process;
	if (process->last_input)
		process->last_input->next = input;
	else
		process->first_input = input;
	process->last_input = input;
	return input;
}

static bool input_queue_full(const struct process *process)
{
	unsigned int n = 0;

	for (const struct input *input = process->first_input; input; input = input->next)
		n++;
	return n >= INPUTS_WAITING_MAX;
}

/* Closing stdin */

static void close_told(const Paddock__Internal__GuestReply *reply, int *fds, unsigned int n_fds,
		       const struct pdk_error *err, void *arg)
{
}

/* init holds a duplicate of the pipe's end. */
static void tell_init_closed(struct process *process)
{
	Paddock__Internal__GuestCloseStdin message = PADDOCK__INTERNAL__GUEST_CLOSE_STDIN__INIT;
	Paddock__Internal__GuestRequest request = PADDOCK__INTERNAL__GUEST_REQUEST__INIT;

	if (!process->list || process->state != PROCESS_RUNNING)
		return;
	message.handle = process->id;
	request.op_case = PADDOCK__INTERNAL__GUEST_REQUEST__OP_CLOSE_STDIN;
	request.close_stdin = &message;
	guest_call(process->list->sandbox->guest, &request, 0, close_told, NULL);
}

/* Queue the end of the input behind what waits. */
static int queue_close(struct process *process, struct rpc_call *call, struct follower *follower)
{
	struct input *input = input_add(process);

	if (!input)
		return -ENOMEM;
	input->close = true;
	input->call = call;
	input->follower = follower;
	if (follower)
		follower->input = input;
	inputs_run(process);
	return 0;
}

/* Calls */

static void input_on_cancel(struct rpc_call *call, const struct pdk_error *why)
{
	struct input *input = rpc_user(call);
	struct process *process = process_ref(input->process);
	struct pdk_error err = *why;

	if (!input->close)
		pdk_fail(&err, -ECANCELED, why->code, "%.200s; %zu of %zu bytes were taken", why->text, input->done,
			 input->length);
	input_free(input);
	rpc_fail(call, &err);
	inputs_run(process);
	process_unref(process);
}

static void input_on_limit(void *arg)
{
	struct input *input = arg;
	struct process *process = process_ref(input->process);
	struct rpc_call *call = input->call;
	struct pdk_error err;

	pdk_fail(&err, -ETIMEDOUT, PDK_DEADLINE_EXCEEDED, "%zu of %zu bytes were taken", input->done, input->length);
	input_free(input);
	rpc_fail(call, &err);
	inputs_run(process);
	process_unref(process);
}

static const struct rpc_events input_events = {.on_cancel = input_on_cancel};

static void set_limit(struct input *input)
{
	uint64_t deadline = rpc_deadline_ns(input->call);
	uint64_t now = loop_now_ns();
	uint64_t early;

	if (!deadline)
		return;
	early = deadline > now ? (deadline - now) / 5 : 0;
	input->limit.handler = input_on_limit;
	input->limit.arg = input;
	loop_timer_set(&input->limit, deadline - (early < ANSWER_EARLY_NS ? early : ANSWER_EARLY_NS));
}

static int check_stdin(struct process *process, struct pdk_error *err)
{
	if (process->state != PROCESS_RUNNING)
		return pdk_fail(err, -EPIPE, PDK_FAILED_PRECONDITION, "the process has ended");
	if (!process->stored->open_stdin)
		return pdk_fail(err, -EPIPE, PDK_FAILED_PRECONDITION, "stdin is off");
	if (process->stdin_fd < 0 && !process->suspended)
		return pdk_fail(err, -EPIPE, PDK_FAILED_PRECONDITION, "stdin is closed");
	if (input_queue_full(process))
		return pdk_fail(err, -EAGAIN, PDK_RESOURCE_EXHAUSTED, "64 inputs of this process wait already");
	return 0;
}

static int send_input(struct rpc_call *call, const Paddock__V1__SendInputRequest *request, struct pdk_error *err)
{
	struct process *process;
	struct input *input;
	int rc = process_lookup(call, request->sandbox_id, request->process_id, true, &process, err);

	if (rc == 0 && request->data.len > INPUT_MAX)
		rc = pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "data: at most 1 MiB");
	if (rc == 0)
		rc = check_stdin(process, err);
	if (rc < 0)
		return rc;
	input = input_add(process);
	if (!input)
		return pdk_fail(err, -ENOMEM, PDK_UNAVAILABLE, "the server is out of memory");
	input->call = call;
	input->data = request->data.data;
	input->length = request->data.len;
	rpc_set_events(call, &input_events, input);
	set_limit(input);
	inputs_run(process);
	return 0;
}

void processes_send_input(struct rpc_call *call, const ProtobufCMessage *request)
{
	struct pdk_error err;

	if (send_input(call, (const Paddock__V1__SendInputRequest *)request, &err) < 0)
		rpc_fail(call, &err);
}

void processes_close_stdin(struct rpc_call *call, const ProtobufCMessage *message)
{
	const Paddock__V1__CloseStdinRequest *request = (const Paddock__V1__CloseStdinRequest *)message;
	Paddock__V1__CloseStdinResponse reply = PADDOCK__V1__CLOSE_STDIN_RESPONSE__INIT;
	struct process *process;
	struct input *input;
	struct pdk_error err;

	if (process_lookup(call, request->sandbox_id, request->process_id, true, &process, &err) < 0) {
		rpc_fail(call, &err);
		return;
	}
	if (process->state != PROCESS_RUNNING || process->stdin_fd < 0) {
		rpc_finish(call, &reply.base);
		return;
	}
	input = input_queue_full(process) ? NULL : input_add(process);
	if (!input) {
		pdk_fail(&err, -EAGAIN, PDK_RESOURCE_EXHAUSTED, "64 inputs of this process wait already");
		rpc_fail(call, &err);
		return;
	}
	input->close = true;
	input->call = call;
	rpc_set_events(call, &input_events, input);
	inputs_run(process);
}

/* Interact */

static void fail_interact(struct follower *follower, enum pdk_code code, const char *text)
{
	struct pdk_error err;

	pdk_fail(&err, -EINVAL, code, "%s", text);
	follower_fail(follower, &err);
}

static void interact_input(struct follower *follower, const ProtobufCBinaryData *data)
{
	struct process *process = follower->process;
	struct input *input;
	struct pdk_error err;

	if (data->len > INPUT_MAX) {
		fail_interact(follower, PDK_INVALID_ARGUMENT, "input: at most 1 MiB");
		return;
	}
	/* Input that comes too late is not an error: the end of the process is on its way to the client. */
	if (process->state != PROCESS_RUNNING ||
	    (process->stored->open_stdin && process->stdin_fd < 0 && !process->suspended)) {
		rpc_read(follower->call);
		return;
	}
	if (check_stdin(process, &err) < 0) {
		follower_fail(follower, &err);
		return;
	}
	input = input_add(process);
	if (!input) {
		fail_interact(follower, PDK_UNAVAILABLE, "the server is out of memory");
		return;
	}
	input->follower = follower;
	input->data = data->data;
	input->length = data->len;
	follower->input = input;
	process_ref(process);
	inputs_run(process);
	/* What is still there when the message goes away has to be copied. */
	if (follower->input == input) {
		input->copy = malloc(input->length - input->done);
		if (input->copy) {
			memcpy(input->copy, input->data + input->done, input->length - input->done);
			input->data = input->copy;
			input->length -= input->done;
			input->done = 0;
		} else {
			fail_interact(follower, PDK_UNAVAILABLE, "the server is out of memory");
		}
	}
	process_unref(process);
}

static void on_resized(const Paddock__Internal__GuestReply *reply, int *fds, unsigned int n_fds,
		       const struct pdk_error *err, void *arg)
{
	struct follower *follower = arg;

	if (reply)
		guest_cancel(follower->asked, follower->stream);
	follower->asked = NULL;
	rpc_read(follower->call);
}

/* What was typed after it goes straight into the terminal: it is not read before init has resized. */
static void interact_resize(struct follower *follower, const Paddock__V1__TerminalSize *size)
{
	Paddock__Internal__GuestResize message = PADDOCK__INTERNAL__GUEST_RESIZE__INIT;
	Paddock__Internal__GuestRequest request = PADDOCK__INTERNAL__GUEST_REQUEST__INIT;
	struct process *process = follower->process;
	struct pdk_error err;
	int64_t stream = -1;

	if (validate_range("resize.columns", size->columns, 1, TERMINAL_MAX, &err) < 0 ||
	    validate_range("resize.rows", size->rows, 1, TERMINAL_MAX, &err) < 0) {
		follower_fail(follower, &err);
		return;
	}
	if (!process->stored->terminal) {
		fail_interact(follower, PDK_FAILED_PRECONDITION, "the process has no terminal");
		return;
	}
	message.handle = process->id;
	message.columns = size->columns;
	message.rows = size->rows;
	request.op_case = PADDOCK__INTERNAL__GUEST_REQUEST__OP_RESIZE;
	request.resize = &message;
	if (process->list && process->state == PROCESS_RUNNING)
		stream = guest_call(process->list->sandbox->guest, &request, 0, on_resized, follower);
	if (stream < 0) {
		rpc_read(follower->call);
		return;
	}
	follower->asked = process->list->sandbox->guest;
	follower->stream = (uint32_t)stream;
}

static void interact_signal(struct follower *follower, uint32_t signal)
{
	if (signal < 1 || signal > 64) {
		fail_interact(follower, PDK_INVALID_ARGUMENT, "signal: must be 1 to 64");
		return;
	}
	if (follower->process->state == PROCESS_RUNNING)
		process_signal(follower->process, signal, false);
	rpc_read(follower->call);
}

static void interact_close(struct follower *follower)
{
	struct process *process = follower->process;

	if (process->state != PROCESS_RUNNING || (process->stdin_fd < 0 && !process->suspended) ||
	    input_queue_full(process) || queue_close(process, NULL, follower) < 0)
		rpc_read(follower->call);
}

void interact_on_message(struct rpc_call *call, const ProtobufCMessage *message)
{
	const Paddock__V1__InteractRequest *request = (const Paddock__V1__InteractRequest *)message;
	struct follower *follower = rpc_user(call);

	if (follower->cancelled)
		return;
	switch (request->message_case) {
	case PADDOCK__V1__INTERACT_REQUEST__MESSAGE_INPUT:
		interact_input(follower, &request->input);
		return;
	case PADDOCK__V1__INTERACT_REQUEST__MESSAGE_RESIZE:
		interact_resize(follower, request->resize);
		return;
	case PADDOCK__V1__INTERACT_REQUEST__MESSAGE_CLOSE_STDIN:
		interact_close(follower);
		return;
	case PADDOCK__V1__INTERACT_REQUEST__MESSAGE_SIGNAL:
		interact_signal(follower, request->signal);
		return;
	case PADDOCK__V1__INTERACT_REQUEST__MESSAGE_START:
	case PADDOCK__V1__INTERACT_REQUEST__MESSAGE_ATTACH:
	case PADDOCK__V1__INTERACT_REQUEST__MESSAGE__NOT_SET:
	case _PADDOCK__V1__INTERACT_REQUEST__MESSAGE__CASE_IS_INT_SIZE:
		break;
	}
	fail_interact(follower, PDK_INVALID_ARGUMENT, "message: input, resize, close_stdin or signal is expected");
}

/* The client sends no more; it still listens. */
void interact_on_half_close(struct rpc_call *call)
{
}

static void interact_first(struct rpc_call *call, const ProtobufCMessage *message)
{
	const Paddock__V1__InteractRequest *request = (const Paddock__V1__InteractRequest *)message;
	struct pdk_error err;
	int rc = 0;

	if (request->message_case == PADDOCK__V1__INTERACT_REQUEST__MESSAGE_START)
		process_start_call(call, request->start, true);
	else if (request->message_case == PADDOCK__V1__INTERACT_REQUEST__MESSAGE_ATTACH)
		rc = process_attach_call(call, request->attach, true, &err);
	else
		rc = pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "message: the first must be start or attach");
	if (rc < 0)
		rpc_fail(call, &err);
}

static void interact_nothing(struct rpc_call *call)
{
	struct pdk_error err;

	pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "message: the first must be start or attach");
	rpc_fail(call, &err);
}

void processes_interact(struct rpc_call *call, const ProtobufCMessage *request)
{
	static const struct rpc_events events = {.on_message = interact_first, .on_half_close = interact_nothing};

	rpc_set_events(call, &events, NULL);
}
