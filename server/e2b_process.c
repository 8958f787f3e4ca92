#include "e2b_process.h"

#include <string.h>

#include "e2b.h"
#include "sandbox/base/cleanup.h"

/* process.Process, but for its two streams of output (e2b_process_follow.c). */

#define PROCESSES "/paddock.v1.Processes/"

static void cancelled(struct rpc_call *call, const struct pdk_error *why)
{
	struct e2b_call *e2b = rpc_user(call);

	rpc_local_cancel(STEAL_PTR(e2b->inner));
	rpc_fail(call, why);
}

struct e2b_call *e2b_begin(struct rpc_call *call)
{
	static const struct rpc_events events = {.on_cancel = cancelled};
	struct e2b_call *e2b = rpc_alloc(call, sizeof(*e2b));
	struct pdk_error err;

	if (e2b && rpc_sandbox_id(call)) {
		e2b->call = call;
		e2b->sandbox_id = (char *)(uintptr_t)rpc_sandbox_id(call);
		rpc_set_events(call, &events, e2b);
		return e2b;
	}
	if (e2b)
		pdk_fail(&err, 0, PDK_INVALID_ARGUMENT, "e2b-sandbox-id: is missing");
	else
		pdk_fail(&err, 0, PDK_RESOURCE_EXHAUSTED, "the server is out of memory");
	rpc_fail(call, &err);
	return NULL;
}

void e2b_fail(struct e2b_call *e2b, enum pdk_code code, const char *text)
{
	struct pdk_error err;

	pdk_fail(&err, 0, code, "%s", text);
	rpc_fail(e2b->call, &err);
}

bool e2b_is_about_sandbox(const struct pdk_error *err)
{
	return strncmp(err->text, "sandbox ", 8) == 0 || strncmp(err->text, "the sandbox ", 12) == 0;
}

void e2b_fail_with(struct e2b_call *e2b, const struct pdk_error *err)
{
	struct pdk_error mapped = *err;

	if (err->code == PDK_FAILED_PRECONDITION && e2b_is_about_sandbox(err))
		mapped.code = PDK_UNAVAILABLE;
	rpc_fail(e2b->call, &mapped);
}

void e2b_call_inner(struct e2b_call *e2b, const char *path, const ProtobufCMessage *request,
		    const struct rpc_local_events *events)
{
	e2b->inner = rpc_local_open(e2b->call, path, request, events, e2b);
	if (!e2b->inner)
		e2b_fail(e2b, PDK_RESOURCE_EXHAUSTED, "the server is out of memory");
}

/* An empty reply; every message of this sort packs to nothing, so one stands for all. */
static void finish_empty(struct rpc_call *call)
{
	Process__SendInputResponse reply = PROCESS__SEND_INPUT_RESPONSE__INIT;

	rpc_finish(call, &reply.base);
}

static void on_empty_end(void *arg, const struct pdk_error *end)
{
	struct e2b_call *e2b = arg;

	e2b->inner = NULL;
	if (end->code == PDK_OK)
		finish_empty(e2b->call);
	else
		e2b_fail_with(e2b, end);
}

static void ignore_message(void *arg, const ProtobufCMessage *message)
{
}

static const struct rpc_local_events empty_events = {.on_message = ignore_message, .on_end = on_empty_end};

/* Finding a process */

static bool selects(const Process__ProcessSelector *selector, const Paddock__V1__ProcessInfo *info)
{
	if (selector->selector_case == PROCESS__PROCESS_SELECTOR__SELECTOR_PID)
		return info->pid == selector->pid;
	return selector->selector_case == PROCESS__PROCESS_SELECTOR__SELECTOR_TAG && selector->tag[0] &&
	       strcmp(info->tag, selector->tag) == 0;
}

/* The newest one: a pid is used again. */
static void on_list(void *arg, const ProtobufCMessage *message)
{
	const Paddock__V1__ListProcessesResponse *list = (const void *)message;
	struct e2b_call *e2b = arg;

	for (size_t i = 0; i < list->n_processes; i++) {
		const Paddock__V1__ProcessInfo *info = list->processes[i];

		if (!selects(e2b->selector, info) || info->process_id <= e2b->process_id)
			continue;
		e2b->process_id = info->process_id;
		e2b->from_sequence = info->output_bytes;
	}
}

static void on_listed(void *arg, const struct pdk_error *end)
{
	struct e2b_call *e2b = arg;

	e2b->inner = NULL;
	if (end->code != PDK_OK)
		e2b_fail_with(e2b, end);
	else if (!e2b->process_id)
		e2b_fail(e2b, PDK_NOT_FOUND, "process not found");
	else
		e2b->found(e2b);
}

void e2b_find(struct e2b_call *e2b, const Process__ProcessSelector *selector, void (*found)(struct e2b_call *e2b))
{
	static const struct rpc_local_events events = {.on_message = on_list, .on_end = on_listed};
	Paddock__V1__ListProcessesRequest request = PADDOCK__V1__LIST_PROCESSES_REQUEST__INIT;

	if (!selector || selector->selector_case == PROCESS__PROCESS_SELECTOR__SELECTOR__NOT_SET) {
		e2b_fail(e2b, PDK_INVALID_ARGUMENT, "process: is missing");
		return;
	}
	e2b->selector = selector;
	e2b->found = found;
	request.sandbox_id = e2b->sandbox_id;
	request.include_ended = true;
	e2b_call_inner(e2b, PROCESSES "List", &request.base, &events);
}

/* List */

struct shown {
	Process__ProcessInfo info;
	Process__ProcessConfig config;
};

static void show(struct shown *shown, const Paddock__V1__ProcessInfo *from)
{
	process__process_info__init(&shown->info);
	process__process_config__init(&shown->config);
	shown->info.config = &shown->config;
	shown->info.pid = from->pid;
	if (from->tag[0]) {
		shown->info.optional_tag_case = PROCESS__PROCESS_INFO__OPTIONAL_TAG_TAG;
		shown->info.tag = from->tag;
	}
	if (from->n_argv) {
		shown->config.cmd = from->argv[0];
		shown->config.n_args = from->n_argv - 1;
		shown->config.args = from->argv + 1;
	}
	shown->config.optional_cwd_case = PROCESS__PROCESS_CONFIG__OPTIONAL_CWD_CWD;
	shown->config.cwd = from->cwd;
}

static void on_shown(void *arg, const ProtobufCMessage *message)
{
	const Paddock__V1__ListProcessesResponse *list = (const void *)message;
	Process__ListResponse reply = PROCESS__LIST_RESPONSE__INIT;
	struct e2b_call *e2b = arg;
	struct shown *shown = rpc_alloc(e2b->call, (list->n_processes + 1) * sizeof(*shown));

	reply.processes = rpc_alloc(e2b->call, (list->n_processes + 1) * sizeof(*reply.processes));
	rpc_local_cancel(STEAL_PTR(e2b->inner));
	if (!shown || !reply.processes) {
		e2b_fail(e2b, PDK_RESOURCE_EXHAUSTED, "the server is out of memory");
		return;
	}
	for (size_t i = 0; i < list->n_processes; i++) {
		show(&shown[i], list->processes[i]);
		reply.processes[i] = &shown[i].info;
	}
	reply.n_processes = list->n_processes;
	rpc_finish(e2b->call, &reply.base);
}

void e2b_process_list(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	static const struct rpc_local_events events = {.on_message = on_shown, .on_end = on_empty_end};
	Paddock__V1__ListProcessesRequest request = PADDOCK__V1__LIST_PROCESSES_REQUEST__INIT;
	struct e2b_call *e2b = e2b_begin(call);

	if (!e2b)
		return;
	request.sandbox_id = e2b->sandbox_id;
	e2b_call_inner(e2b, PROCESSES "List", &request.base, &events);
}

/* Update, SendSignal, CloseStdin, SendInput: `request` of the outer call lives until it is finished. */

static void update_found(struct e2b_call *e2b)
{
	const Process__PTY__Size *size = e2b->argument;
	Paddock__V1__ResizeRequest request = PADDOCK__V1__RESIZE_REQUEST__INIT;
	Paddock__V1__TerminalSize terminal = PADDOCK__V1__TERMINAL_SIZE__INIT;

	terminal.columns = size->cols;
	terminal.rows = size->rows;
	request.sandbox_id = e2b->sandbox_id;
	request.process_id = e2b->process_id;
	request.size = &terminal;
	e2b_call_inner(e2b, PROCESSES "Resize", &request.base, &empty_events);
}

void e2b_process_update(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Process__UpdateRequest *request = (const void *)message;
	struct e2b_call *e2b = e2b_begin(call);

	if (!e2b)
		return;
	if (!request->pty || !request->pty->size) {
		e2b_fail(e2b, PDK_INVALID_ARGUMENT, "pty: is missing");
		return;
	}
	e2b->argument = request->pty->size;
	e2b_find(e2b, request->process, update_found);
}

static void signal_found(struct e2b_call *e2b)
{
	const Process__SendSignalRequest *from = e2b->argument;
	Paddock__V1__SignalRequest request = PADDOCK__V1__SIGNAL_REQUEST__INIT;

	request.sandbox_id = e2b->sandbox_id;
	request.process_id = e2b->process_id;
	request.signal = (uint32_t)from->signal;
	request.process_only = true;
	e2b_call_inner(e2b, PROCESSES "Signal", &request.base, &empty_events);
}

void e2b_process_send_signal(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Process__SendSignalRequest *request = (const void *)message;
	struct e2b_call *e2b = e2b_begin(call);

	if (!e2b)
		return;
	if (request->signal != PROCESS__SIGNAL__SIGNAL_SIGTERM && request->signal != PROCESS__SIGNAL__SIGNAL_SIGKILL) {
		e2b_fail(e2b, PDK_INVALID_ARGUMENT, "signal: must be SIGTERM or SIGKILL");
		return;
	}
	e2b->argument = request;
	e2b_find(e2b, request->process, signal_found);
}

static void close_found(struct e2b_call *e2b)
{
	Paddock__V1__CloseStdinRequest request = PADDOCK__V1__CLOSE_STDIN_REQUEST__INIT;

	request.sandbox_id = e2b->sandbox_id;
	request.process_id = e2b->process_id;
	e2b_call_inner(e2b, PROCESSES "CloseStdin", &request.base, &empty_events);
}

void e2b_process_close_stdin(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	struct e2b_call *e2b = e2b_begin(call);

	if (e2b)
		e2b_find(e2b, ((const Process__CloseStdinRequest *)(const void *)message)->process, close_found);
}

static void send_input(struct e2b_call *e2b, const Process__ProcessInput *input, const struct rpc_local_events *events)
{
	Paddock__V1__SendInputRequest request = PADDOCK__V1__SEND_INPUT_REQUEST__INIT;

	if (!input || input->input_case == PROCESS__PROCESS_INPUT__INPUT__NOT_SET) {
		e2b_fail(e2b, PDK_INVALID_ARGUMENT, "input: is missing");
		return;
	}
	request.sandbox_id = e2b->sandbox_id;
	request.process_id = e2b->process_id;
	request.data = input->input_case == PROCESS__PROCESS_INPUT__INPUT_PTY ? input->pty : input->stdin;
	e2b_call_inner(e2b, PROCESSES "SendInput", &request.base, events);
}

static void input_found(struct e2b_call *e2b)
{
	send_input(e2b, e2b->argument, &empty_events);
}

void e2b_process_send_input(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Process__SendInputRequest *request = (const void *)message;
	struct e2b_call *e2b = e2b_begin(call);

	if (!e2b)
		return;
	e2b->argument = request->input;
	e2b_find(e2b, request->process, input_found);
}

/* StreamInput: one message at a time; the next is read when the last was taken. */

static void stream_found(struct e2b_call *e2b)
{
	rpc_read(e2b->call);
}

static void on_streamed(void *arg, const struct pdk_error *end)
{
	struct e2b_call *e2b = arg;

	e2b->inner = NULL;
	if (end->code == PDK_OK)
		rpc_read(e2b->call);
	else
		e2b_fail_with(e2b, end);
}

/* The selector must outlive the message that it came in. */
static const Process__ProcessSelector *keep_selector(struct rpc_call *call, const Process__ProcessSelector *from)
{
	Process__ProcessSelector *copy = from ? rpc_alloc(call, sizeof(*copy)) : NULL;

	if (!copy)
		return NULL;
	*copy = *from;
	if (from->selector_case == PROCESS__PROCESS_SELECTOR__SELECTOR_TAG)
		copy->tag = rpc_strdup(call, from->tag);
	return copy->selector_case == PROCESS__PROCESS_SELECTOR__SELECTOR_TAG && !copy->tag ? NULL : copy;
}

static void stream_message(struct rpc_call *call, const ProtobufCMessage *message)
{
	static const struct rpc_local_events events = {.on_message = ignore_message, .on_end = on_streamed};
	const Process__StreamInputRequest *request = (const void *)message;
	struct e2b_call *e2b = rpc_user(call);

	switch (request->event_case) {
	case PROCESS__STREAM_INPUT_REQUEST__EVENT_START:
		if (e2b->process_id)
			e2b_fail(e2b, PDK_INVALID_ARGUMENT, "start: comes once");
		else
			e2b_find(e2b, keep_selector(call, request->start->process), stream_found);
		return;
	case PROCESS__STREAM_INPUT_REQUEST__EVENT_DATA:
		if (!e2b->process_id)
			e2b_fail(e2b, PDK_INVALID_ARGUMENT, "start: must come first");
		else
			send_input(e2b, request->data->input, &events);
		return;
	case PROCESS__STREAM_INPUT_REQUEST__EVENT_KEEPALIVE:
	case PROCESS__STREAM_INPUT_REQUEST__EVENT__NOT_SET:
	case _PROCESS__STREAM_INPUT_REQUEST__EVENT__CASE_IS_INT_SIZE:
		break;
	}
	rpc_read(call);
}

void e2b_process_stream_input(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	static const struct rpc_events events = {
		.on_message = stream_message, .on_half_close = finish_empty, .on_cancel = cancelled};
	struct e2b_call *e2b = e2b_begin(call);

	if (e2b)
		rpc_set_events(call, &events, e2b);
}
