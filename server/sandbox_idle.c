#include "log.h"
#include "ration.h"
#include "rpc.h"
#include "sandbox/base/cleanup.h"
#include "sandbox_internal.h"
#include "warden_client.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * The idle timeout, beside the hard one (sandbox_expiry.c). What keeps a sandbox in use:
 *
 *	uses	calls that need its inside or wait in it, and visits, as long as they are open: counted, exactly
 *	looks	the processor time and the waits for disk of its cgroup, asked of the warden 8 times in the
 *		timeout: more than 1 % of the time between two looks is use
 *
 * One that has open uses is not looked at. A look that would exceed LOOKS_PER_SECOND for all sandboxes together comes
 * later, and so does the decision; it never comes early. While it does not run, or its inside is away for a moment, it
 * counts as used, so a resume or a restart starts the time anew.
 */

#define LOOKS 8
#define LOOKS_PER_SECOND 200
#define LOOK_MAX_NS (30 * 1000000000ull)
#define BUSY_DIVISOR 100 /* busy for more than the hundredth part of the time */
#define MS 1000000ull

static struct ration looks;
static uint32_t watched; /* sandboxes with an idle timeout that have not ended */

static void on_idle_timer(void *arg);

static void used(struct sandbox *sandbox)
{
	sandbox->private->active_ns = loop_now_ns();
}

void sandbox_use_begin(struct sandbox *sandbox)
{
	sandbox->private->uses++;
	used(sandbox);
}

void sandbox_use_end(struct sandbox *sandbox)
{
	sandbox->private->uses--;
	used(sandbox);
}

static void release(const char *id)
{
	struct sandbox *sandbox = sandbox_get(id);

	if (sandbox)
		sandbox_use_end(sandbox);
}

void sandbox_use(const struct rpc_call *reader, struct sandbox *sandbox)
{
	struct rpc_call *call = (struct rpc_call *)(uintptr_t)reader;

	if (rpc_hold(call, sandbox->id, release))
		sandbox_use_begin(sandbox);
}

static uint64_t timeout_ns(const struct sandbox *sandbox)
{
	return sandbox->private->idle_timeout_ms * MS;
}

/* The next look, or the moment at which it has been idle for long enough, whichever is first. */
static void arm(struct sandbox *sandbox)
{
	struct sandbox_private *private = sandbox->private;
	uint64_t now = loop_now_ns(), end = private->active_ns + timeout_ns(sandbox), due;
	uint64_t step = timeout_ns(sandbox) / LOOKS, turn = watched * (1000000000ull / LOOKS_PER_SECOND);

	if (step > LOOK_MAX_NS)
		step = LOOK_MAX_NS;
	/* With many of them not even the timers run more often than looks are taken. */
	due = now + (step > turn ? step : turn);
	if (due > end && end > now)
		due = end;
	private->idle_timer.handler = on_idle_timer;
	private->idle_timer.arg = sandbox;
	if (loop_timer_set(&private->idle_timer, due) < 0)
		log_event(LOG_ERROR, "sandbox.idle_unwatched", "sandbox", sandbox->id, "reason", "out of memory", NULL);
}

static bool can_end(const struct sandbox *sandbox)
{
	const struct sandbox_private *private = sandbox->private;

	return sandbox->state == PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_RUNNING && sandbox->guest &&
	       !private->adopting && !private->snapshot && !private->uses;
}

/* It was idle for all of its timeout. */
static void expire(struct sandbox *sandbox)
{
	char text[160];

	if (sandbox_pause_idle(sandbox)) {
		arm(sandbox);
		return;
	}
	snprintf(text, sizeof(text),
		 "it was idle for %.6g s: no call, no visit, no more than 1 %% of a processor or of a disk",
		 (double)sandbox->private->idle_timeout_ms / 1000);
	sandbox_end(sandbox, PADDOCK__V1__END_REASON__END_REASON_IDLE, text);
}

/* Takes the counters of this look; true when there was more than a little between it and the last one. */
static bool was_busy(struct sandbox_private *private, uint64_t cpu_usec, uint64_t io_usec)
{
	uint64_t now = loop_now_ns(), least = (now - private->look_ns) / 1000 / BUSY_DIVISOR;
	bool busy = private->look_ns &&
		    (cpu_usec - private->look_cpu_usec > least || io_usec - private->look_io_usec > least);

	private->look_ns = now;
	private->look_cpu_usec = cpu_usec;
	private->look_io_usec = io_usec;
	return busy;
}

static void on_look(const struct warden_reply *reply, int *fd, void *arg)
{
	_cleanup_free_ char *id = arg;
	struct sandbox *sandbox = sandbox_get(id);
	struct sandbox_private *private = sandbox ? sandbox->private : NULL;
	bool is_first;

	if (!sandbox || !private->idle_timeout_ms || !can_end(sandbox))
		return;
	is_first = !private->look_ns; /* with nothing to compare, nobody can tell */
	if (reply->status < 0 || was_busy(private, reply->usage.cpu_usec, reply->value))
		used(sandbox);
	if (!is_first && loop_now_ns() - private->active_ns >= timeout_ns(sandbox))
		expire(sandbox);
}

static void look(struct sandbox *sandbox)
{
	struct warden_request request = {.op = WARDEN_USAGE, .value = WARDEN_USAGE_BRIEF};
	char *id = strdup(sandbox->id);

	memcpy(request.id, sandbox->kernel_id, SANDBOX_ID_SIZE);
	/* What cannot be seen is not idle. */
	if (id && warden_call(&request, -1, on_look, id) >= 0)
		return;
	free(id);
	used(sandbox);
}

static void on_idle_timer(void *arg)
{
	struct sandbox *sandbox = arg;

	if (!can_end(sandbox)) {
		used(sandbox);
		sandbox->private->look_ns = 0;
	} else if (ration_take(&looks, LOOKS_PER_SECOND)) {
		look(sandbox);
	}
	arm(sandbox);
}

static void set_watched(struct sandbox_private *private, bool is_watched)
{
	if (private->idle_watched != is_watched)
		watched = is_watched ? watched + 1 : watched - 1;
	private->idle_watched = is_watched;
}

void sandbox_idle_stop(struct sandbox *sandbox)
{
	set_watched(sandbox->private, false);
	loop_timer_cancel(&sandbox->private->idle_timer);
}

void sandbox_idle_watch(struct sandbox *sandbox)
{
	used(sandbox);
	sandbox->private->look_ns = 0;
	if (!sandbox->private->idle_timeout_ms) {
		sandbox_idle_stop(sandbox);
		return;
	}
	set_watched(sandbox->private, true);
	arm(sandbox);
}

static void change(struct rpc_call *call, struct sandbox *sandbox, uint64_t idle_timeout_ms)
{
	uint64_t before = sandbox->private->idle_timeout_ms;

	sandbox->private->idle_timeout_ms = idle_timeout_ms;
	if (sandbox_save_for(call, sandbox, PADDOCK__V1__SANDBOX_EVENT__TYPE__TYPE_TIMEOUT_SET) < 0)
		sandbox->private->idle_timeout_ms = before;
	else if (sandbox->state != PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_CREATING)
		sandbox_idle_watch(sandbox);
}

void sandboxes_set_idle_timeout(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__V1__SetIdleTimeoutRequest *request = (const void *)message;
	struct sandbox *sandbox;
	struct pdk_error err;
	int rc = validate_optional_range("idle_timeout_ms", request->idle_timeout_ms, SANDBOX_TIMEOUT_MIN_MS,
					 SANDBOX_TIMEOUT_MAX_MS, &err);

	if (rc >= 0)
		rc = sandbox_find(call, request->sandbox_id, &sandbox, &err);
	if (rc >= 0) {
		rpc_audit_object(call, sandbox->id, NULL);
		rc = sandbox_check_living(sandbox, &err);
	}
	if (rc < 0)
		rpc_fail(call, &err);
	else
		change(call, sandbox, request->idle_timeout_ms);
}
