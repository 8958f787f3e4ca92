#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest.h"
#include "paddock/v1/processes.pb-c.h"
#include "rpc_local.h"
#include "sandbox/base/cleanup.h"
#include "sandbox_internal.h"

/*
 * What an image starts in each sandbox that is made from it. /etc/paddock/start, if it is there, is run as a process of
 * the sandbox's user with the sandbox's environment, and stays; /etc/paddock/ready is run after it, and the create is
 * answered when that has ended with status 0. Both are ordinary processes (tags "start" and "ready"), so what they
 * print can be looked at. If either cannot be started, or `ready` fails or takes longer than a minute, the create fails.
 * What is reset starts it again.
 *
 * init says in its hello whether there are such files. A copy or a fork has the running process already.
 *
 *	sandbox_start_begin() -> Start "start", detached -> its end, OK -> Start "ready" -> exited with 0 -> over()
 */

#define START "/etc/paddock/start"
#define READY "/etc/paddock/ready"
#define READY_TIMEOUT_MS 60000u

struct sandbox_start {
	struct sandbox *sandbox;
	void (*over)(struct sandbox *sandbox, const struct pdk_error *err);
	struct principal principal;
	struct rpc_local *inner;
	const char *file; /* START or READY: what `inner` is about */
	bool exited;
	uint32_t exit_code, signal;
};

static void start_over(struct sandbox_start *start, const struct pdk_error *err)
{
	struct sandbox *sandbox = start->sandbox;
	void (*over)(struct sandbox *, const struct pdk_error *) = start->over;

	sandbox->private->start = NULL;
	free(start);
	over(sandbox, err);
}

static void start_fail(struct sandbox_start *start, const char *why)
{
	struct pdk_error err;

	pdk_fail(&err, -EIO, PDK_UNAVAILABLE, "its image's %s %s", start->file, why);
	start_over(start, &err);
}

static void on_message(void *arg, const ProtobufCMessage *message)
{
	const Paddock__V1__ProcessEvent *event = (const void *)message;
	struct sandbox_start *start = arg;

	if (event->event_case == PADDOCK__V1__PROCESS_EVENT__EVENT_EXITED) {
		start->exited = true;
		start->exit_code = event->exited->exit_code;
		start->signal = event->exited->signal;
	}
	rpc_local_next(start->inner);
}

static void run(struct sandbox_start *start, const char *file);

static void on_end(void *arg, const struct pdk_error *end)
{
	struct sandbox_start *start = arg;
	struct sandbox *sandbox = start->sandbox;
	char text[64];

	start->inner = NULL;
	if (end->code != PDK_OK) {
		start_fail(start, end->text);
	} else if (!sandbox->guest) {
		start_fail(start, "was not ready when the sandbox was paused");
	} else if (strcmp(start->file, START) == 0 && guest_has_ready(sandbox->guest)) {
		run(start, READY);
	} else if (strcmp(start->file, READY) == 0 && (!start->exited || start->exit_code || start->signal)) {
		snprintf(text, sizeof(text), start->signal ? "was ended by signal %u" : "ended with status %u",
			 start->signal ? start->signal : start->exit_code);
		start_fail(start, text);
	} else {
		start_over(start, NULL);
	}
}

static void run(struct sandbox_start *start, const char *file)
{
	static const struct rpc_local_events events = {.on_message = on_message, .on_end = on_end};
	Paddock__V1__StartProcessRequest request = PADDOCK__V1__START_PROCESS_REQUEST__INIT;
	struct sandbox *sandbox = start->sandbox;
	char *argv[] = {(char *)(uintptr_t)file};

	start->file = file;
	request.sandbox_id = sandbox->id;
	request.argv = argv;
	request.n_argv = 1;
	request.tag = strrchr(argv[0], '/') + 1;
	request.detach = strcmp(file, START) == 0;
	request.timeout_ms = request.detach ? 0 : READY_TIMEOUT_MS;
	start->inner =
		rpc_local_open_as(&start->principal, "/paddock.v1.Processes/Start", &request.base, &events, start);
	if (!start->inner)
		start_fail(start, "could not be started: the server is out of memory");
}

void sandbox_start_begin(struct sandbox *sandbox, const struct principal *principal,
			 void (*over)(struct sandbox *sandbox, const struct pdk_error *err))
{
	struct sandbox_start *start = calloc(1, sizeof(*start));
	struct pdk_error err;

	if (!start) {
		pdk_fail_errno(&err, -ENOMEM, "starting what its image says");
		over(sandbox, &err);
		return;
	}
	start->sandbox = sandbox;
	start->principal = *principal;
	start->over = over;
	sandbox->private->start = start;
	run(start, START);
}

void sandbox_start_cancel(struct sandbox *sandbox)
{
	struct sandbox_start *start = STEAL_PTR(sandbox->private->start);

	if (!start)
		return;
	rpc_local_cancel(start->inner);
	free(start);
}
