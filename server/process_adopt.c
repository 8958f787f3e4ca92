#include "metrics.h"
#include "process_internal.h"
#include "processes.h"
#include "sandbox/base/cleanup.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * After a restart of the daemon: init says which processes it has. Those that the store knows are taken over with their
 * pipes; one that the store does not know was never acknowledged to anybody and is killed; one that init does not know
 * has ended in a way that nobody saw.
 */

#define ADOPT_AGAIN_NS (1000ull * 1000000)

struct adoption {
	struct sandbox *sandbox;
	void (*done)(struct sandbox *sandbox, int rc);
	bool answered;
};

static void ignore_reply(const Paddock__Internal__GuestReply *reply, int *fds, unsigned int n_fds,
			 const struct pdk_error *err, void *arg)
{
}

static int64_t ask_adopt(struct guest *guest, uint64_t handle, guest_reply_handler handler, void *arg)
{
	Paddock__Internal__GuestAdopt adopt = PADDOCK__INTERNAL__GUEST_ADOPT__INIT;
	Paddock__Internal__GuestRequest request = PADDOCK__INTERNAL__GUEST_REQUEST__INIT;

	adopt.handle = handle;
	request.op_case = PADDOCK__INTERNAL__GUEST_REQUEST__OP_ADOPT;
	request.adopt = &adopt;
	return guest_call(guest, &request, 0, handler, arg);
}

static void ask_forget(struct guest *guest, uint64_t handle)
{
	Paddock__Internal__GuestForget forget = PADDOCK__INTERNAL__GUEST_FORGET__INIT;
	Paddock__Internal__GuestRequest request = PADDOCK__INTERNAL__GUEST_REQUEST__INIT;

	forget.handle = handle;
	request.op_case = PADDOCK__INTERNAL__GUEST_REQUEST__OP_FORGET;
	request.forget = &forget;
	guest_call(guest, &request, 0, ignore_reply, NULL);
}

/* A process that nobody wants: its end is awaited, so that init can be told to forget it. */
struct unwanted {
	struct guest *guest;
	uint64_t handle;
};

static void unwanted_on_reply(const Paddock__Internal__GuestReply *reply, int *fds, unsigned int n_fds,
			      const struct pdk_error *err, void *arg)
{
	struct unwanted *unwanted = arg;

	if (reply && reply->result_case == PADDOCK__INTERNAL__GUEST_REPLY__RESULT_EXITED)
		ask_forget(unwanted->guest, unwanted->handle);
	if (!reply)
		free(unwanted);
}

void process_kill_unwanted(struct guest *guest, uint64_t handle)
{
	Paddock__Internal__GuestSignal signal = PADDOCK__INTERNAL__GUEST_SIGNAL__INIT;
	Paddock__Internal__GuestRequest request = PADDOCK__INTERNAL__GUEST_REQUEST__INIT;
	struct unwanted *unwanted = calloc(1, sizeof(*unwanted));

	signal.handle = handle;
	signal.signal = 9;
	request.op_case = PADDOCK__INTERNAL__GUEST_REQUEST__OP_SIGNAL;
	request.signal = &signal;
	guest_call(guest, &request, 0, ignore_reply, NULL);
	if (!unwanted)
		return;
	*unwanted = (struct unwanted){.guest = guest, .handle = handle};
	if (ask_adopt(guest, handle, unwanted_on_reply, unwanted) < 0)
		free(unwanted);
}

/* Its pipes came when there was no room for them. */
static void adopt_again(void *arg)
{
	struct process *process = arg;
	struct guest *guest = process->list ? process->list->sandbox->guest : NULL;
	int64_t stream;

	if (process->state != PROCESS_RUNNING || !process->stream || !guest)
		return;
	guest_cancel(guest, process->stream);
	stream = ask_adopt(guest, process->id, process_on_guest, process);
	process->stream = stream < 0 ? 0 : (uint32_t)stream;
	if (stream < 0)
		process_unref(process); /* the stream's reference */
}

void process_adopt_later(struct process *process)
{
	process->drain_timer.handler = adopt_again;
	process->drain_timer.arg = process;
	(void)loop_timer_set(&process->drain_timer, loop_now_ns() + ADOPT_AGAIN_NS);
}

static bool handle_listed(const Paddock__Internal__GuestProcesses *processes, uint64_t handle)
{
	for (size_t i = 0; i < processes->n_handle; i++) {
		if (processes->handle[i] == handle)
			return true;
	}
	return false;
}

static void take_over(struct process_list *list, uint64_t handle)
{
	struct process *process = process_list_find(list, handle);
	struct guest *guest = list->sandbox->guest;
	int64_t stream;

	if (handle >= list->next_id && handle < UINT64_MAX)
		list->next_id = handle + 1;
	if (process && process->state == PROCESS_ENDED && !process->exit_durable)
		return; /* init is told to forget it when the store has it */
	if (!process || process->state == PROCESS_ENDED) {
		process_kill_unwanted(guest, handle);
		return;
	}
	if (process->stream || process->state != PROCESS_RUNNING)
		return;
	stream = ask_adopt(guest, handle, process_on_guest, process_ref(process));
	if (stream < 0) {
		process_unref(process);
		return;
	}
	process->stream = (uint32_t)stream;
	process->suspended = true; /* calls are let in before its pipes are here */
	metric_add(METRIC_PROCESSES_RUNNING, 1);
}

/* Nobody saw how it ended. */
static void end_unseen(struct process *process)
{
	process_set_exit(process, NULL, true);
	metric_add(METRIC_PROCESSES_RUNNING, 1);
	process_begin_drain(process);
}

static void adopt_all(struct process_list *list, const Paddock__Internal__GuestProcesses *processes)
{
	for (size_t i = 0; i < processes->n_handle; i++)
		take_over(list, processes->handle[i]);
	for (size_t i = 0; i < list->count; i++) {
		struct process *process = list->items[i];

		if (process->state == PROCESS_RUNNING && !handle_listed(processes, process->id))
			end_unseen(process);
	}
}

static void adopt_on_list(const Paddock__Internal__GuestReply *reply, int *fds, unsigned int n_fds,
			  const struct pdk_error *err, void *arg)
{
	struct adoption *adoption = arg;
	struct process_list *list;
	int rc = 0;

	if (!adoption->answered) {
		adoption->answered = true;
		list = process_list_get(adoption->sandbox);
		if (!reply || err->code || !list)
			rc = -EPROTO;
		else
			adopt_all(list, reply->processes);
		adoption->done(adoption->sandbox, rc);
	}
	if (!reply)
		free(adoption);
}

void processes_adopt(struct sandbox *sandbox, void (*done)(struct sandbox *sandbox, int rc))
{
	struct adoption *adoption = calloc(1, sizeof(*adoption));
	int64_t rc;

	if (!adoption) {
		done(sandbox, -ENOMEM);
		return;
	}
	adoption->sandbox = sandbox;
	adoption->done = done;
	rc = ask_adopt(sandbox->guest, 0, adopt_on_list, adoption);
	if (rc < 0) {
		free(adoption);
		done(sandbox, (int)rc);
	}
}
