#include "process_internal.h"
#include "processes.h"
#include "question.h"
#include "validate.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* List, Signal, Resize, Wait: calls that neither start nor follow. */

#define TERMINAL_MAX 4096u

void process_fill_exit(const struct process *process, Paddock__V1__ProcessExit *ret)
{
	const Paddock__Internal__StoredExit *row = process->stored->exit;

	paddock__v1__process_exit__init(ret);
	ret->process_id = process->id;
	ret->exit_code = row->exit_code;
	ret->signal = row->signal;
	ret->timed_out = row->timed_out;
	ret->core_dumped = row->core_dumped;
	ret->ended_unix_ms = row->ended_unix_ms;
	ret->output_bytes = output_total(process->output);
	ret->dropped_bytes = output_dropped(process->output);
	ret->sandbox_ended = row->sandbox_ended;
}

bool process_exit_known(const struct process *process)
{
	return process->stored->exit && (process->exit_kept || !process->store_failed);
}

/* List */

/* The arguments that fit PROCESS_ARGV_SHOWN bytes; the first that does not is cut, as in process_trim_argv(). */
static int fill_argv(struct rpc_call *call, const Paddock__Internal__StoredProcess *stored,
		     Paddock__V1__ProcessInfo *info)
{
	size_t shown = 0;

	info->argv = rpc_alloc(call, (stored->n_argv + 1) * sizeof(char *));
	if (!info->argv)
		return -ENOMEM;
	for (size_t i = 0; i < stored->n_argv && shown < PROCESS_ARGV_SHOWN; i++) {
		size_t length = strlen(stored->argv[i]);
		char *text = stored->argv[i];

		if (shown + length > PROCESS_ARGV_SHOWN) {
			length = PROCESS_ARGV_SHOWN - shown;
			while (length > 0 && (text[length] & 0xc0) == 0x80)
				length--;
			text = rpc_alloc(call, length + 1);
			if (!text)
				return -ENOMEM;
			memcpy(text, stored->argv[i], length);
			shown = PROCESS_ARGV_SHOWN;
		}
		shown += length;
		info->argv[info->n_argv++] = text;
	}
	return 0;
}

static Paddock__V1__ProcessInfo *make_info(struct rpc_call *call, const struct process *process)
{
	const Paddock__Internal__StoredProcess *stored = process->stored;
	Paddock__V1__ProcessInfo *info = rpc_alloc(call, sizeof(*info));

	if (!info)
		return NULL;
	paddock__v1__process_info__init(info);
	info->process_id = process->id;
	info->pid = stored->pid;
	info->tag = stored->tag;
	info->cwd = stored->cwd;
	info->user = stored->user;
	info->terminal = stored->terminal;
	info->stdin_open = process->stdin_fd >= 0;
	info->started_unix_ms = stored->started_unix_ms;
	info->running = process->state != PROCESS_ENDED;
	info->output_bytes = output_total(process->output);
	if (fill_argv(call, stored, info) < 0)
		return NULL;
	if (!info->running && stored->exit) {
		info->exit = rpc_alloc(call, sizeof(*info->exit));
		if (!info->exit)
			return NULL;
		process_fill_exit(process, info->exit);
	}
	return info;
}

static int list_processes(struct rpc_call *call, const Paddock__V1__ListProcessesRequest *request,
			  Paddock__V1__ListProcessesResponse *reply, struct pdk_error *err)
{
	struct process_list *list;
	struct sandbox *sandbox;
	int rc = sandbox_find(call, request->sandbox_id, &sandbox, err);

	if (rc < 0)
		return rc;
	rpc_audit_object(call, sandbox->id, NULL);
	list = process_list_get(sandbox);
	if (list)
		reply->processes = rpc_alloc(call, (list->count + 1) * sizeof(*reply->processes));
	if (!reply->processes)
		return pdk_fail(err, -ENOMEM, PDK_UNAVAILABLE, "the server is out of memory");
	for (size_t i = 0; i < list->count; i++) {
		const struct process *process = list->items[i];
		Paddock__V1__ProcessInfo *info;

		if (process->state == PROCESS_STARTING || !process->committed)
			continue;
		if (process->state == PROCESS_ENDED && !request->include_ended)
			continue;
		info = make_info(call, process);
		if (!info)
			return pdk_fail(err, -ENOMEM, PDK_UNAVAILABLE, "the server is out of memory");
		reply->processes[reply->n_processes++] = info;
	}
	return 0;
}

void processes_list(struct rpc_call *call, const ProtobufCMessage *request)
{
	Paddock__V1__ListProcessesResponse reply = PADDOCK__V1__LIST_PROCESSES_RESPONSE__INIT;
	struct pdk_error err;

	if (list_processes(call, (const Paddock__V1__ListProcessesRequest *)request, &reply, &err) < 0)
		rpc_fail(call, &err);
	else
		rpc_finish(call, &reply.base);
}

/* Signal and Resize: one question to init */

static int ask(struct rpc_call *call, struct process *process, const Paddock__Internal__GuestRequest *request,
	       question_answer answer, struct pdk_error *err)
{
	int rc = question_ask(call, process->list->sandbox->guest, request, answer, 0);

	if (rc == -ENOMEM)
		return pdk_fail(err, rc, PDK_UNAVAILABLE, "the server is out of memory");
	if (rc < 0)
		return pdk_fail(err, rc, PDK_UNAVAILABLE, "the sandbox does not answer");
	return 0;
}

static void answer_signal(struct rpc_call *call, const Paddock__Internal__GuestReply *guest_reply, uint64_t note)
{
	Paddock__V1__SignalResponse reply = PADDOCK__V1__SIGNAL_RESPONSE__INIT;

	rpc_finish(call, &reply.base);
}

static int signal_process(struct rpc_call *call, const Paddock__V1__SignalRequest *request, struct pdk_error *err)
{
	Paddock__Internal__GuestSignal message = PADDOCK__INTERNAL__GUEST_SIGNAL__INIT;
	Paddock__Internal__GuestRequest question = PADDOCK__INTERNAL__GUEST_REQUEST__INIT;
	struct process *process;
	int rc = process_lookup(call, request->sandbox_id, request->process_id, true, &process, err);

	if (rc == 0)
		rc = validate_range("signal", request->signal, 1, 64, err);
	if (rc < 0)
		return rc;
	if (process->state != PROCESS_RUNNING)
		return pdk_fail(err, -ESRCH, PDK_NOT_FOUND, "the process has ended");
	message.handle = process->id;
	message.signal = request->signal;
	message.process_only = request->process_only;
	question.op_case = PADDOCK__INTERNAL__GUEST_REQUEST__OP_SIGNAL;
	question.signal = &message;
	return ask(call, process, &question, answer_signal, err);
}

void processes_signal(struct rpc_call *call, const ProtobufCMessage *request)
{
	struct pdk_error err;

	if (signal_process(call, (const Paddock__V1__SignalRequest *)request, &err) < 0)
		rpc_fail(call, &err);
}

static void answer_resize(struct rpc_call *call, const Paddock__Internal__GuestReply *guest_reply, uint64_t note)
{
	Paddock__V1__ResizeResponse reply = PADDOCK__V1__RESIZE_RESPONSE__INIT;

	rpc_finish(call, &reply.base);
}

static int resize_process(struct rpc_call *call, const Paddock__V1__ResizeRequest *request, struct pdk_error *err)
{
	Paddock__Internal__GuestResize message = PADDOCK__INTERNAL__GUEST_RESIZE__INIT;
	Paddock__Internal__GuestRequest question = PADDOCK__INTERNAL__GUEST_REQUEST__INIT;
	struct process *process;
	int rc = process_lookup(call, request->sandbox_id, request->process_id, true, &process, err);

	if (rc == 0)
		rc = validate_range("size.columns", request->size ? request->size->columns : 0, 1, TERMINAL_MAX, err);
	if (rc == 0)
		rc = validate_range("size.rows", request->size->rows, 1, TERMINAL_MAX, err);
	if (rc < 0)
		return rc;
	if (!process->stored->terminal)
		return pdk_fail(err, -ENOTTY, PDK_FAILED_PRECONDITION, "the process has no terminal");
	if (process->state != PROCESS_RUNNING)
		return pdk_fail(err, -ESRCH, PDK_FAILED_PRECONDITION, "the process has ended");
	message.handle = process->id;
	message.columns = request->size->columns;
	message.rows = request->size->rows;
	question.op_case = PADDOCK__INTERNAL__GUEST_REQUEST__OP_RESIZE;
	question.resize = &message;
	return ask(call, process, &question, answer_resize, err);
}

void processes_resize(struct rpc_call *call, const ProtobufCMessage *request)
{
	struct pdk_error err;

	if (resize_process(call, (const Paddock__V1__ResizeRequest *)request, &err) < 0)
		rpc_fail(call, &err);
}

/* Wait */

struct waiter {
	struct waiter *next;
	struct process *process;
	struct rpc_call *call;
};

static void waiter_free(struct waiter *waiter)
{
	struct waiter **at = &waiter->process->waiters;

	while (*at && *at != waiter)
		at = &(*at)->next;
	if (*at)
		*at = waiter->next;
	process_unref(waiter->process);
	free(waiter);
}

static void waiter_on_cancel(struct rpc_call *call, const struct pdk_error *why)
{
	waiter_free(rpc_user(call));
	rpc_fail(call, why);
}

static void answer_wait(struct rpc_call *call, const struct process *process)
{
	Paddock__V1__ProcessExit reply;
	struct pdk_error err;

	if (!process_exit_known(process)) {
		pdk_fail(&err, -EIO, PDK_UNAVAILABLE, "the end of the process could not be stored");
		rpc_fail(call, &err);
		return;
	}
	process_fill_exit(process, &reply);
	rpc_finish(call, &reply.base);
}

void waiters_answer(struct process *process)
{
	process_ref(process);
	while (process->waiters) {
		struct rpc_call *call = process->waiters->call;

		waiter_free(process->waiters);
		answer_wait(call, process);
	}
	process_unref(process);
}

void processes_wait(struct rpc_call *call, const ProtobufCMessage *message)
{
	static const struct rpc_events events = {.on_cancel = waiter_on_cancel};
	const Paddock__V1__WaitRequest *request = (const Paddock__V1__WaitRequest *)message;
	struct process *process;
	struct waiter *waiter;
	struct pdk_error err;

	if (process_lookup(call, request->sandbox_id, request->process_id, false, &process, &err) < 0) {
		rpc_fail(call, &err);
		return;
	}
	if (process->state == PROCESS_ENDED) {
		answer_wait(call, process);
		return;
	}
	waiter = calloc(1, sizeof(*waiter));
	if (!waiter) {
		pdk_fail(&err, -ENOMEM, PDK_UNAVAILABLE, "the server is out of memory");
		rpc_fail(call, &err);
		return;
	}
	*waiter = (struct waiter){.next = process->waiters, .process = process_ref(process), .call = call};
	process->waiters = waiter;
	rpc_set_events(call, &events, waiter);
}
