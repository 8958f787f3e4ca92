#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "e2b.h"
#include "e2b_process.h"
#include "loop.h"
#include "sandbox/base/cleanup.h"

/*
 * process.Process Start and Connect: the events of one process. One message is on its way at a time: the next event is
 * asked for when the last one has left, so a slow client stops the process and not this server.
 */

#define PROCESSES "/paddock.v1.Processes/"
#define STATUS_MAX 96
#define MS 1000000u

/* What one event becomes; `message` points into the rest. */
struct translation {
	Process__StartResponse message; /* ConnectResponse is the same on the wire */
	Process__ProcessEvent event;
	Process__ProcessEvent__StartEvent start;
	Process__ProcessEvent__DataEvent data;
	Process__ProcessEvent__EndEvent end;
	Process__ProcessEvent__KeepAlive keepalive;
	char status[STATUS_MAX];
};

static void translate_started(struct translation *to, const Paddock__V1__ProcessStarted *from)
{
	process__process_event__start_event__init(&to->start);
	to->start.pid = from->pid;
	to->event.event_case = PROCESS__PROCESS_EVENT__EVENT_START;
	to->event.start = &to->start;
}

static void translate_output(struct translation *to, const Paddock__V1__ProcessOutput *from)
{
	process__process_event__data_event__init(&to->data);
	to->event.event_case = PROCESS__PROCESS_EVENT__EVENT_DATA;
	to->event.data = &to->data;
	if (from->stream == PADDOCK__V1__STREAM__STREAM_STDERR) {
		to->data.output_case = PROCESS__PROCESS_EVENT__DATA_EVENT__OUTPUT_STDERR;
		to->data.stderr = from->data;
	} else if (from->stream == PADDOCK__V1__STREAM__STREAM_PTY) {
		to->data.output_case = PROCESS__PROCESS_EVENT__DATA_EVENT__OUTPUT_PTY;
		to->data.pty = from->data;
	} else {
		to->data.output_case = PROCESS__PROCESS_EVENT__DATA_EVENT__OUTPUT_STDOUT;
		to->data.stdout = from->data;
	}
}

/* As Go says it, which is what clients look for: "exit status 3", "signal: killed". */
static void write_status(char status[STATUS_MAX], const Paddock__V1__ProcessExit *exit)
{
	const char *name = exit->signal ? sigdescr_np((int)exit->signal) : NULL;

	if (!exit->signal)
		snprintf(status, STATUS_MAX, "exit status %u", exit->exit_code);
	else if (name)
		snprintf(status, STATUS_MAX, "signal: %c%s%s", tolower((unsigned char)name[0]), name + 1,
			 exit->core_dumped ? " (core dumped)" : "");
	else
		snprintf(status, STATUS_MAX, "signal: signal %u", exit->signal);
}

static void translate_exited(struct translation *to, const Paddock__V1__ProcessExit *from)
{
	process__process_event__end_event__init(&to->end);
	write_status(to->status, from);
	to->end.exit_code = from->signal ? -1 : (int32_t)from->exit_code;
	to->end.exited = !from->signal;
	to->end.status = to->status;
	if (from->signal || from->exit_code) {
		to->end.optional_error_case = PROCESS__PROCESS_EVENT__END_EVENT__OPTIONAL_ERROR_ERROR;
		to->end.error = to->status;
	}
	to->event.event_case = PROCESS__PROCESS_EVENT__EVENT_END;
	to->event.end = &to->end;
}

/* False: there is nothing to say. */
static bool translate(struct translation *to, const Paddock__V1__ProcessEvent *from)
{
	process__start_response__init(&to->message);
	process__process_event__init(&to->event);
	to->message.event = &to->event;
	switch (from->event_case) {
	case PADDOCK__V1__PROCESS_EVENT__EVENT_STARTED:
		translate_started(to, from->started);
		return true;
	case PADDOCK__V1__PROCESS_EVENT__EVENT_OUTPUT:
		translate_output(to, from->output);
		return true;
	case PADDOCK__V1__PROCESS_EVENT__EVENT_EXITED:
		translate_exited(to, from->exited);
		return true;
	case PADDOCK__V1__PROCESS_EVENT__EVENT_KEEPALIVE:
		process__process_event__keep_alive__init(&to->keepalive);
		to->event.event_case = PROCESS__PROCESS_EVENT__EVENT_KEEPALIVE;
		to->event.keepalive = &to->keepalive;
		return true;
	case PADDOCK__V1__PROCESS_EVENT__EVENT_GAP:
	case PADDOCK__V1__PROCESS_EVENT__EVENT__NOT_SET:
	case _PADDOCK__V1__PROCESS_EVENT__EVENT__CASE_IS_INT_SIZE:
		break;
	}
	return false;
}

static void on_event(void *arg, const ProtobufCMessage *message)
{
	const Paddock__V1__ProcessEvent *event = (const void *)message;
	struct translation translation;
	struct e2b_call *e2b = arg;

	if (event->event_case == PADDOCK__V1__PROCESS_EVENT__EVENT_EXITED && event->exited->sandbox_ended) {
		rpc_local_cancel(STEAL_PTR(e2b->inner));
		e2b_fail(e2b, PDK_UNAVAILABLE, "the sandbox has ended");
	} else if (translate(&translation, event)) {
		rpc_send(e2b->call, &translation.message.base);
	} else {
		rpc_local_next(e2b->inner);
	}
}

static void on_end(void *arg, const struct pdk_error *end)
{
	struct e2b_call *e2b = arg;
	struct pdk_error err = *end;

	e2b->inner = NULL;
	if (end->code == PDK_OK) {
		rpc_finish(e2b->call, NULL);
		return;
	}
	/* What is wrong with a program or its folder is the request's fault in this contract. */
	if (end->code == PDK_NOT_FOUND && strncmp(end->text, "cwd", 3) == 0)
		err.code = PDK_INVALID_ARGUMENT;
	e2b_fail_with(e2b, &err);
}

static const struct rpc_local_events follow_events = {.on_message = on_event, .on_end = on_end};

static void on_sent(struct rpc_call *call)
{
	struct e2b_call *e2b = rpc_user(call);

	if (e2b->inner)
		rpc_local_next(e2b->inner);
}

static void cancelled(struct rpc_call *call, const struct pdk_error *why)
{
	struct e2b_call *e2b = rpc_user(call);

	rpc_local_cancel(STEAL_PTR(e2b->inner));
	rpc_fail(call, why);
}

static struct e2b_call *begin(struct rpc_call *call)
{
	static const struct rpc_events events = {.on_sent = on_sent, .on_cancel = cancelled};
	struct e2b_call *e2b = e2b_begin(call);

	if (e2b)
		rpc_set_events(call, &events, e2b);
	return e2b;
}

/* Start */

static int copy_env(struct rpc_call *call, const Process__ProcessConfig *from, Paddock__V1__StartProcessRequest *to)
{
	Paddock__V1__StartProcessRequest__EnvEntry *entries = rpc_alloc(call, (from->n_envs + 1) * sizeof(*entries));

	to->env = rpc_alloc(call, (from->n_envs + 1) * sizeof(*to->env));
	if (!entries || !to->env)
		return -1;
	for (size_t i = 0; i < from->n_envs; i++) {
		paddock__v1__start_process_request__env_entry__init(&entries[i]);
		entries[i].key = from->envs[i]->key;
		entries[i].value = from->envs[i]->value;
		to->env[i] = &entries[i];
	}
	to->n_env = from->n_envs;
	return 0;
}

static int copy_argv(struct rpc_call *call, const Process__ProcessConfig *from, Paddock__V1__StartProcessRequest *to)
{
	to->argv = rpc_alloc(call, (from->n_args + 1) * sizeof(*to->argv));
	if (!to->argv)
		return -1;
	to->argv[0] = from->cmd;
	for (size_t i = 0; i < from->n_args; i++)
		to->argv[i + 1] = from->args[i];
	to->n_argv = from->n_args + 1;
	return 0;
}

/* "~", "~/x" and relative ones are below the user's home. */
static char *expand_cwd(struct rpc_call *call, const char *cwd, const char *user)
{
	const char *home = strcmp(user, "root") == 0 ? "/root" : "/home/user";
	size_t size;
	char *path;

	if (!cwd || !cwd[0] || cwd[0] == '/')
		return (char *)(uintptr_t)(cwd ? cwd : "");
	if (cwd[0] == '~' && (!cwd[1] || cwd[1] == '/'))
		cwd += cwd[1] ? 2 : 1;
	size = strlen(home) + strlen(cwd) + 2;
	path = rpc_alloc(call, size);
	if (path)
		snprintf(path, size, cwd[0] ? "%s/%s" : "%s%s", home, cwd);
	return path;
}

/* The deadline of the call is the process's. */
static uint64_t timeout_of(const struct rpc_call *call)
{
	uint64_t deadline = rpc_deadline_ns(call), now = loop_now_ns();

	if (!deadline)
		return 0;
	return deadline > now + MS ? (deadline - now) / MS : 1;
}

void e2b_process_start(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Process__StartRequest *from = (const void *)message;
	Paddock__V1__StartProcessRequest to = PADDOCK__V1__START_PROCESS_REQUEST__INIT;
	Paddock__V1__TerminalSize terminal = PADDOCK__V1__TERMINAL_SIZE__INIT;
	struct e2b_call *e2b = begin(call);

	if (!e2b)
		return;
	if (!from->process || (from->pty && !from->pty->size)) {
		e2b_fail(e2b, PDK_INVALID_ARGUMENT, from->process ? "pty: has no size" : "process: is missing");
		return;
	}
	to.sandbox_id = e2b->sandbox_id;
	to.user = (char *)(uintptr_t)rpc_client_user(call);
	to.cwd = expand_cwd(call, from->process->cwd, to.user);
	if (!to.cwd || copy_argv(call, from->process, &to) < 0 || copy_env(call, from->process, &to) < 0) {
		e2b_fail(e2b, PDK_RESOURCE_EXHAUSTED, "the server is out of memory");
		return;
	}
	if (from->tag)
		to.tag = from->tag;
	to.open_stdin = from->optional_stdin_case == PROCESS__START_REQUEST__OPTIONAL_STDIN__NOT_SET || from->stdin;
	to.timeout_ms = timeout_of(call);
	if (from->pty) {
		terminal.columns = from->pty->size->cols;
		terminal.rows = from->pty->size->rows;
		to.terminal = &terminal;
	}
	e2b_call_inner(e2b, PROCESSES "Start", &to.base, &follow_events);
}

/* Connect */

static void connect_found(struct e2b_call *e2b)
{
	Paddock__V1__AttachRequest request = PADDOCK__V1__ATTACH_REQUEST__INIT;

	request.sandbox_id = e2b->sandbox_id;
	request.process_id = e2b->process_id;
	request.from_sequence = e2b->from_sequence;
	e2b_call_inner(e2b, PROCESSES "Attach", &request.base, &follow_events);
}

void e2b_process_connect(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	struct e2b_call *e2b = begin(call);

	if (e2b)
		e2b_find(e2b, ((const Process__ConnectRequest *)(const void *)message)->process, connect_found);
}
