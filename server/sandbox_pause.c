#include "guest.h"
#include "log.h"
#include "loop.h"
#include "previews.h"
#include "rpc.h"
#include "sandbox/base/cleanup.h"
#include "sandbox_internal.h"
#include "validate.h"
#include "warden_client.h"
#include <errno.h>
#include <string.h>

/*
 * Pause and Resume. The first caller of either starts it, the others wait for the same end; who asks for the
 * opposite meanwhile waits until it is there and starts from it, so states are linear.
 *
 *	RUNNING   Pause: PAUSING, WARDEN_FREEZE
 *	PAUSING   frozen: PAUSED, stored, and the callers are answered. Failed: RUNNING, the callers hear why
 *	PAUSED    Resume: RESUMING. The link to init is made again if a restart took it; over it init hears how
 *		  long it stood still, before it can run (GuestResumed); WARDEN_THAW
 *	RESUMING  thawed, and the link is there: RUNNING, stored, and the callers are answered. Failed: PAUSED
 *
 * Only RUNNING and PAUSED are ever in the store. What a crash or a lost warden leaves between the two is put right by
 * sandbox_settle_pause(): the record decides, and the cgroup follows it.
 */

#define STATE(name) PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_##name
#define EVENT(name) PADDOCK__V1__SANDBOX_EVENT__TYPE__TYPE_##name
#define FREEZE PADDOCK__V1__PAUSE_MODE__PAUSE_MODE_FREEZE
#define CHECKPOINT PADDOCK__V1__PAUSE_MODE__PAUSE_MODE_CHECKPOINT
#define ANY PADDOCK__V1__PAUSE_MODE__PAUSE_MODE_ANY
#define ON_USE_MS 300000 /* a use is rarely the only one */

static void now_running(struct sandbox *sandbox);
static void begin_resume(struct sandbox *sandbox);
static void resume_if_wanted(struct sandbox *sandbox);

static void on_waiter_cancel(struct rpc_call *call, const struct pdk_error *why)
{
	/* What was begun goes on: the caller can ask again what became of it. */
	sandbox_waiter_remove(rpc_user(call));
	rpc_fail(call, why);
}

static void fail_all(struct sandbox_waiter **list, const struct pdk_error *err)
{
	struct sandbox_waiter *waiter;

	while ((waiter = sandbox_waiter_take(list)))
		rpc_fail(waiter->call, err);
}

void sandbox_pause_fail(struct sandbox *sandbox)
{
	struct pdk_error err;

	pdk_fail(&err, -ECANCELED, PDK_ABORTED, "sandbox was ended meanwhile");
	fail_all(&sandbox->private->pausers, &err);
	fail_all(&sandbox->private->resumers, &err);
	sandbox_park_fail(sandbox, &err);
}

static int ask_warden(struct sandbox *sandbox, enum warden_op op, warden_reply_handler handler)
{
	struct warden_request request = {.op = op};

	memcpy(request.id, sandbox->kernel_id, SANDBOX_ID_SIZE);
	return warden_call(&request, -1, handler, sandbox);
}

/* Give everybody the sandbox as it is; `finish` the first one with `batch`, if there is one, where its audit record goes. */
static void answer_all(struct sandbox *sandbox, struct sandbox_waiter **list, struct store_batch *batch,
		       void (*finish)(struct rpc_call *call, struct store_batch *batch, const ProtobufCMessage *reply))
{
	struct sandbox_waiter *waiter;

	while ((waiter = sandbox_waiter_take(list))) {
		Paddock__V1__Sandbox *reply = sandbox_reply(waiter->call, sandbox);

		if (!reply)
			continue;
		if (batch)
			finish(waiter->call, STEAL_PTR(batch), &reply->base);
		else
			rpc_finish(waiter->call, &reply->base);
	}
	if (batch)
		store_commit(batch, NULL, NULL);
}

/*
 * A new state: stored together with the first waiter's audit record, then everybody is told. Whether a sandbox stands still in
 * memory is kept by the kernel, and ends with it: that is not waited for the disk (`kept`).
 */
static void settle(struct sandbox *sandbox, struct sandbox_waiter **list, Paddock__V1__SandboxEvent__Type event,
		   bool kept)
{
	struct store_batch *batch = store_batch_create();
	struct pdk_error err;

	sandbox_event(sandbox, event);
	if (!batch || sandbox_store(batch, sandbox) < 0) {
		store_batch_free(batch);
		pdk_fail_errno(&err, -ENOMEM, "storing the state");
		fail_all(list, &err);
		return;
	}
	if (!*list)
		sandbox_audit(batch, sandbox, event == EVENT(PAUSED) ? "sandbox.paused" : "sandbox.resumed",
			      event == EVENT(PAUSED) ? sandbox_pause_detail(sandbox) : NULL);
	answer_all(sandbox, list, batch, kept ? rpc_finish_kept : rpc_finish_commit);
}

static void explain(const struct warden_reply *reply, const char *what, struct pdk_error *err)
{
	pdk_fail(err, -EIO, PDK_UNAVAILABLE, "sandbox could not be %s: %s", what,
		 reply && reply->text[0] ? reply->text : "the sandbox manager is away; try again");
}

/* --- pause --- */

static void on_frozen(const struct warden_reply *reply, int *fd, void *arg)
{
	struct sandbox *sandbox = arg;
	struct sandbox_private *private = sandbox->private;
	struct pdk_error err;

	if (sandbox->state != STATE(PAUSING))
		return;
	if (reply->status < 0) {
		explain(reply, "paused", &err);
		sandbox_pause_failed(sandbox, &err);
		return;
	}
	sandbox->state = STATE(PAUSED);
	private->pause_mode = FREEZE;
	private->paused_unix_ms = loop_wall_ms();
	private->paused_ns = loop_now_ns();
	private->timed_out = private->freeze_else = false;
	sandbox_stop_timeout(sandbox);
	settle(sandbox, &private->pausers, EVENT(PAUSED), true);
	resume_if_wanted(sandbox);
}

void sandbox_begin_pause(struct sandbox *sandbox)
{
	struct pdk_error err;

	sandbox->state = STATE(PAUSING);
	previews_suspend(sandbox);
	if (sandbox->private->pausing_mode == CHECKPOINT) {
		sandbox_checkpoint(sandbox);
	} else if (ask_warden(sandbox, WARDEN_FREEZE, on_frozen) < 0) {
		explain(NULL, "paused", &err);
		sandbox_pause_failed(sandbox, &err);
	}
}

void sandbox_paused(struct sandbox *sandbox)
{
	struct sandbox_private *private = sandbox->private;

	private->timed_out = private->freeze_else = private->settling = false;
	answer_all(sandbox, &private->pausers, NULL, NULL);
	resume_if_wanted(sandbox);
}

void sandbox_pause_failed(struct sandbox *sandbox, const struct pdk_error *err)
{
	struct sandbox_private *private = sandbox->private;

	sandbox->state = STATE(RUNNING);
	log_event(LOG_ERROR, "sandbox.pause_failed", "sandbox", sandbox->id, "reason", err->text, NULL);
	if (private->freeze_else && private->pausing_mode == CHECKPOINT) {
		private->pausing_mode = FREEZE;
		sandbox_begin_pause(sandbox);
		return;
	}
	fail_all(&private->pausers, err);
	answer_all(sandbox, &private->resumers, NULL, NULL);
	if (private->timed_out)
		sandbox_end_soon(sandbox, sandbox_pause_reason(sandbox),
				 sandbox_pause_reason(sandbox) == PADDOCK__V1__END_REASON__END_REASON_IDLE
					 ? "it was idle and could not be paused"
					 : "its timeout ran out and it could not be paused");
	private->pause_text = NULL;
	private->keep_paused = false;
	if (!sandbox->expires_unix_ms)
		sandbox_restart_timeout(sandbox, private->timeout_ms);
	private->timed_out = false;
}

void sandbox_resume_failed(struct sandbox *sandbox, const struct pdk_error *err)
{
	struct sandbox_private *private = sandbox->private;

	sandbox->state = STATE(PAUSED);
	private->resume_timeout_ms = 0;
	log_event(LOG_ERROR, "sandbox.resume_failed", "sandbox", sandbox->id, "reason", err->text, NULL);
	if (private->pause_mode == CHECKPOINT)
		sandbox_give_memory(sandbox);
	fail_all(&private->resumers, err);
	sandbox_park_fail(sandbox, err);
	answer_all(sandbox, &private->pausers, NULL, NULL);
}

/* --- resume --- */

void sandbox_snapshot_over(struct sandbox *sandbox)
{
	struct sandbox_private *private = sandbox->private;

	if (sandbox->state != STATE(RUNNING) || private->snapshot || private->adopting || !sandbox->guest)
		return;
	if (private->pausers)
		sandbox_begin_pause(sandbox);
}

/* How long nothing ran. After a restart only the wall clock knows. */
static uint64_t paused_for_ms(const struct sandbox *sandbox)
{
	const struct sandbox_private *private = sandbox->private;
	int64_t by_wall = loop_wall_ms() - private->paused_unix_ms;

	if (private->paused_ns)
		return (loop_now_ns() - private->paused_ns) / 1000000;
	return by_wall > 0 ? (uint64_t)by_wall : 0;
}

static void resume_failed(struct sandbox *sandbox, const struct warden_reply *reply)
{
	struct pdk_error err;

	explain(reply, "resumed", &err);
	sandbox_resume_failed(sandbox, &err);
}

/* What is known of its pause is of no interest any more. */
static void forget_pause(struct sandbox *sandbox)
{
	struct sandbox_private *private = sandbox->private;

	sandbox->state = STATE(RUNNING);
	private->pause_mode = PADDOCK__V1__PAUSE_MODE__PAUSE_MODE_UNSPECIFIED;
	private->paused_unix_ms = 0;
	private->checkpoint_token = private->checkpoint_bytes = private->stored_bytes = 0;
	private->pause_text = NULL;
	private->keep_paused = false;
}

void sandbox_resume_done(struct sandbox *sandbox)
{
	struct sandbox_private *private = sandbox->private;
	bool was_frozen = private->pause_mode == FREEZE;

	if (sandbox->state != STATE(RESUMING) || !private->thawed || private->adopting)
		return;
	forget_pause(sandbox);
	if (private->resume_timeout_ms)
	private->timeout_ms = private->resume_timeout_ms;
	if (private->resume_timeout_ms || !sandbox->expires_unix_ms)
		sandbox_restart_timeout(sandbox, private->timeout_ms);
	private->resume_timeout_ms = 0;
	sandbox_idle_watch(sandbox);
	sandbox_metrics_watch(sandbox);
	settle(sandbox, &private->resumers, EVENT(RESUMED), was_frozen);
	sandbox_unpark(sandbox);
	if (private->pausers)
		sandbox_begin_pause(sandbox);
}

/* Found running, though its record says that it is on disk: the resume was complete, but nobody wrote it down. */
static void now_running(struct sandbox *sandbox)
{
	struct sandbox_private *private = sandbox->private;

	forget_pause(sandbox);
	private->settling = false;
	sandbox_hold_memory(sandbox);
	if (!sandbox->expires_unix_ms)
		sandbox_restart_timeout(sandbox, private->timeout_ms);
	settle(sandbox, &private->resumers, EVENT(RESUMED), false);
}

static void on_thawed(const struct warden_reply *reply, int *fd, void *arg)
{
	struct sandbox *sandbox = arg;

	if (sandbox->state != STATE(RESUMING))
		return;
	if (reply->status < 0) {
		resume_failed(sandbox, reply);
		return;
	}
	sandbox->private->thawed = true;
	sandbox_resume_done(sandbox);
}

void sandbox_resume_thaw(struct sandbox *sandbox)
{
	if (sandbox->state != STATE(RESUMING))
		return;
	/* A link that does not take it breaks by itself, and that ends the sandbox. */
	(void)guest_resumed(sandbox->guest, paused_for_ms(sandbox));
	/* Should it stay paused after all, only what is to come has not been told yet. */
	sandbox->private->paused_ns = loop_now_ns();
	if (ask_warden(sandbox, WARDEN_THAW, on_thawed) < 0)
		resume_failed(sandbox, NULL);
}

void sandbox_resume_unattached(struct sandbox *sandbox)
{
	if (sandbox->state == STATE(RESUMING))
		resume_failed(sandbox, NULL);
}

/* Somebody waited for the pause to end again. */
static void resume_if_wanted(struct sandbox *sandbox)
{
	if (sandbox->private->resumers)
		begin_resume(sandbox);
	else if (sandbox->private->parked)
		sandbox_resume_on_use(sandbox);
}

void sandbox_resume_on_use(struct sandbox *sandbox)
{
	struct sandbox_private *private = sandbox->private;

	if (sandbox->state != STATE(PAUSED) || private->settling)
		return;
	if (!private->resume_timeout_ms)
	private->resume_timeout_ms = private->timeout_ms > ON_USE_MS ? private->timeout_ms : ON_USE_MS;
	begin_resume(sandbox);
}

static void begin_resume(struct sandbox *sandbox)
{
	struct pdk_error err;

	if (sandbox->private->pause_mode == CHECKPOINT && sandbox_take_memory(sandbox, &err) < 0) {
		sandbox_resume_failed(sandbox, &err);
		return;
	}
	sandbox->state = STATE(RESUMING);
	sandbox->private->thawed = false;
	if (sandbox->private->pause_mode == CHECKPOINT)
		sandbox_restore(sandbox);
	else if (sandbox->guest)
		sandbox_resume_thaw(sandbox);
	else if (!sandbox_attach(sandbox))
		resume_failed(sandbox, NULL);
}

/* --- after a restart or a reconnect --- */

static void on_settled(const struct warden_reply *reply, int *fd, void *arg)
{
	if (reply->status < 0)
		log_event(LOG_ERROR, "sandbox.settle_failed", "sandbox", reply->id, "errno", log_i64(reply->status),
			  "reason", reply->text, NULL);
}

void sandbox_settle_pause(struct sandbox *sandbox)
{
	struct sandbox_private *private = sandbox->private;
	bool on_disk = private->pause_mode == CHECKPOINT;

	/* Until it is durable nothing of it is ended; then it is asked for anyway. */
	if (private->committing)
		return;
	private->settling &= on_disk;
	if (sandbox->state == STATE(PAUSED) && on_disk && private->frozen)
		sandbox_release(sandbox);
	else if (sandbox->state == STATE(PAUSED) && private->in_store && private->settling)
		sandbox_paused(sandbox);
	else if (sandbox->state == STATE(PAUSED) && on_disk && !private->in_store)
		now_running(sandbox);
	else if (sandbox->state == STATE(PAUSED) && !on_disk && !private->frozen)
		(void)ask_warden(sandbox, WARDEN_FREEZE, on_settled);
	else if (sandbox->state == STATE(RUNNING) && private->in_store)
		sandbox_end(sandbox, PADDOCK__V1__END_REASON__END_REASON_HOST_LOST, "it was stored without a record");
	else if (sandbox->state == STATE(RUNNING) && private->frozen)
		(void)ask_warden(sandbox, WARDEN_THAW, on_settled);
}

/* --- the calls --- */

static int check_state(const struct sandbox *sandbox, struct pdk_error *err)
{
	int rc;

	if (sandbox->state == STATE(CREATING))
		return pdk_fail(err, -EINVAL, PDK_FAILED_PRECONDITION, "sandbox is still being created");
	rc = sandbox_check_living(sandbox, err);
	if (rc < 0)
		return rc;
	if (sandbox->state == STATE(RUNNING) && !sandbox->private->snapshot &&
	    (!sandbox->guest || sandbox->private->adopting))
		return pdk_fail(err, -EAGAIN, PDK_UNAVAILABLE,
				"the link to the sandbox is being made again; try again");
	return 0;
}

/* Answer at once when it is in `done` already; otherwise wait in `list`, and begin when it is in `from`. */
static void reach(struct rpc_call *call, struct sandbox *sandbox, Paddock__V1__SandboxState done,
		  struct sandbox_waiter **list, Paddock__V1__SandboxState from, void (*begin)(struct sandbox *sandbox))
{
	struct pdk_error err;

	if (sandbox->state == done && !sandbox->private->settling) {
		Paddock__V1__Sandbox *reply = sandbox_reply(call, sandbox);

		if (reply)
			rpc_finish(call, &reply->base);
		return;
	}
	if (sandbox_wait(sandbox, list, call, on_waiter_cancel) < 0) {
		pdk_fail_errno(&err, -ENOMEM, "waiting for the sandbox");
		rpc_fail(call, &err);
		return;
	}
	if (sandbox->state == from && !sandbox->private->snapshot && !sandbox->private->settling)
		begin(sandbox);
}

void sandboxes_pause(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__V1__PauseSandboxRequest *request = (const void *)message;
	struct sandbox *sandbox;
	struct pdk_error err;
	bool on_disk = request->mode >= CHECKPOINT;
	int rc = validate_optional_range("mode", (uint64_t)request->mode, FREEZE, ANY, &err);

	if (rc >= 0)
		rc = sandbox_find(call, request->sandbox_id, &sandbox, &err);
	if (rc >= 0) {
		rpc_audit_object(call, sandbox->id, NULL);
		rpc_audit_detail(call, on_disk ? "{\"mode\":\"checkpoint\"}" : "{\"mode\":\"freeze\"}");
		rc = check_state(sandbox, &err);
		if (rc >= 0 && sandbox->state == STATE(PAUSED) && request->mode != ANY &&
		    on_disk != (sandbox->private->pause_mode == CHECKPOINT))
			rc = pdk_fail(&err, -EINVAL, PDK_FAILED_PRECONDITION,
				      "sandbox is paused in another mode; resume it first");
	}
	if (rc < 0) {
		rpc_fail(call, &err);
		return;
	}
	if (sandbox->state == STATE(RUNNING)) {
		sandbox->private->pausing_mode = on_disk ? CHECKPOINT : FREEZE;
		sandbox->private->freeze_else = request->mode == ANY;
		sandbox->private->keep_paused = request->keep;
		sandbox->private->pause_text = sandbox_pause_text("paused on request");
	}
	reach(call, sandbox, STATE(PAUSED), &sandbox->private->pausers, STATE(RUNNING), sandbox_begin_pause);
}

void sandboxes_resume(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__V1__ResumeSandboxRequest *request = (const void *)message;
	struct sandbox *sandbox;
	struct pdk_error err;
	int rc = validate_optional_range("timeout_ms", request->timeout_ms, SANDBOX_TIMEOUT_MIN_MS,
					 SANDBOX_TIMEOUT_MAX_MS, &err);

	if (rc >= 0)
		rc = sandbox_find(call, request->sandbox_id, &sandbox, &err);
	if (rc >= 0) {
		rpc_audit_object(call, sandbox->id, NULL);
		rc = check_state(sandbox, &err);
	}
	if (rc < 0) {
		rpc_fail(call, &err);
		return;
	}
	if (sandbox->state == STATE(RUNNING) && request->timeout_ms) {
		sandbox_change_timeout(call, sandbox, request->timeout_ms);
		return;
	}
	if (request->timeout_ms)
		sandbox->private->resume_timeout_ms = request->timeout_ms;
	reach(call, sandbox, STATE(RUNNING), &sandbox->private->resumers, STATE(PAUSED), begin_resume);
}
