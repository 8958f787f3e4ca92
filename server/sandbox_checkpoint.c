#include "log.h"
#include "loop.h"
#include "sandbox/base/cleanup.h"
#include "sandbox_internal.h"
#include "warden_client.h"
#include <errno.h>
#include <string.h>
#include <sys/random.h>

/*
 * Pause to disk and back, between sandbox_pause.c and the warden:
 *
 *	sandbox_detach()	 pipes and link are let go; what is in the pipes belongs to the checkpoint
 *	WARDEN_CHECKPOINT	 frozen, and on disk. A failure thaws it: the link is made again, it is RUNNING
 *	store			 PAUSED with the checkpoint's token. This is the commit: before it a crash finds a
 *				 frozen sandbox whose record says RUNNING, and thaws it
 *	WARDEN_RELEASE		 its processes end, memory is free; then the callers are answered
 *
 *	WARDEN_RESTORE		 back, with a new link; processes are taken over as after a restart of the server
 */

#define STATE(name) PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_##name

static void ask(struct sandbox *sandbox, enum warden_op op, warden_reply_handler handler, int *ret_rc)
{
	struct warden_request request = {
		.op = op, .value = sandbox->private->checkpoint_token, .limits = sandbox->limits};

	memcpy(request.id, sandbox->kernel_id, SANDBOX_ID_SIZE);
	memcpy(request.hostname, sandbox->hostname, sizeof(request.hostname));
	*ret_rc = warden_call(&request, -1, handler, sandbox);
	if (*ret_rc >= 0)
		sandbox->private->creating_in_warden = true; /* a kill waits for the reply */
}

enum pdk_code sandbox_code_of(const struct warden_reply *reply)
{
	switch (reply->status) {
	case -EBADMSG:
		return PDK_DATA_LOSS;
	case -EPERM:
	case -EIO:
	case -ENOSYS:
		return PDK_FAILED_PRECONDITION;
	case -ENOSPC:
		return PDK_RESOURCE_EXHAUSTED;
	case -ECANCELED:
		return PDK_ABORTED;
	case -ETIMEDOUT:
		return PDK_DEADLINE_EXCEEDED;
	default:
		return PDK_UNAVAILABLE;
	}
}

void sandbox_explain(const struct warden_reply *reply, const char *what, struct pdk_error *err)
{
	pdk_fail(err, -EIO, sandbox_code_of(reply), "%s: %s", what,
		 reply->text[0] ? reply->text : "the sandbox manager is away; try again");
}

uint64_t checkpoint_token_make(void)
{
	uint64_t token;

	do {
		if (getrandom(&token, sizeof(token), 0) < 0)
			token = loop_now_ns();
	} while (!token);
	return token;
}

void sandbox_link_again(struct sandbox *sandbox)
{
	if (sandbox->state == STATE(RUNNING) && !sandbox->guest && !sandbox->private->creating_in_warden)
		sandbox_attach(sandbox);
}

static void run_on(struct sandbox *sandbox, const struct pdk_error *err)
{
	sandbox->private->checkpoint_token = 0;
	sandbox->private->checkpoint_bytes = sandbox->private->stored_bytes = 0;
	sandbox->private->settling = false;
	sandbox_pause_failed(sandbox, err);
	sandbox_link_again(sandbox);
}

static void on_thawed_again(const struct warden_reply *reply, int *fd, void *arg)
{
}

/* --- pause --- */

static void on_released(const struct warden_reply *reply, int *fd, void *arg)
{
	struct sandbox *sandbox = arg;

	sandbox->private->creating_in_warden = false;
	if (sandbox->state != STATE(PAUSED)) {
		if (sandbox->state == STATE(KILLING))
			sandbox_tear_down(sandbox);
		return;
	}
	if (reply->status < 0)
		log_event(LOG_ERROR, "sandbox.release_failed", "sandbox", sandbox->id, "errno", log_i64(reply->status),
			  "reason", reply->text, NULL);
	else
		sandbox_give_memory(sandbox);
	sandbox_paused(sandbox);
}

void sandbox_release(struct sandbox *sandbox)
{
	int rc;

	sandbox->private->settling = true;
	ask(sandbox, WARDEN_RELEASE, on_released, &rc);
	if (rc < 0)
		sandbox_paused(sandbox); /* reconciliation asks again */
}

static void on_committed(int rc, void *arg)
{
	_cleanup_free_ char *id = arg;
	struct sandbox *sandbox = sandbox_get(id);
	struct warden_request thaw = {.op = WARDEN_THAW};
	struct pdk_error err;

	if (sandbox)
		sandbox->private->committing = false;
	if (!sandbox || sandbox->state != STATE(PAUSED))
		return;
	if (rc >= 0) {
		sandbox_event(sandbox, PADDOCK__V1__SANDBOX_EVENT__TYPE__TYPE_PAUSED);
		sandbox_release(sandbox);
		return;
	}
	memcpy(thaw.id, sandbox->kernel_id, SANDBOX_ID_SIZE);
	(void)warden_call(&thaw, -1, on_thawed_again, NULL);
	sandbox->private->pause_mode = PADDOCK__V1__PAUSE_MODE__PAUSE_MODE_UNSPECIFIED;
	sandbox->private->paused_unix_ms = 0;
	pdk_fail(&err, rc, PDK_UNAVAILABLE, "the server's store does not accept changes");
	run_on(sandbox, &err);
}

static void commit(struct sandbox *sandbox)
{
	struct sandbox_private *private = sandbox->private;
	struct store_batch *batch = store_batch_create();
	char *id = strdup(sandbox->id);

	sandbox->state = STATE(PAUSED);
	private->settling = private->committing = true;
	private->pause_mode = PADDOCK__V1__PAUSE_MODE__PAUSE_MODE_CHECKPOINT;
	private->paused_unix_ms = loop_wall_ms();
	private->paused_ns = loop_now_ns();
	sandbox_stop_timeout(sandbox);
	if (batch && id && sandbox_store(batch, sandbox) >= 0) {
		if (!private->pausers)
			sandbox_audit(batch, sandbox, "sandbox.paused", sandbox_pause_detail(sandbox));
		store_commit(batch, on_committed, id);
		return;
	}
	store_batch_free(batch);
	if (id)
		on_committed(-ENOMEM, id);
}

static void on_checkpoint(const struct warden_reply *reply, int *fd, void *arg)
{
	struct sandbox *sandbox = arg;
	struct pdk_error err;

	sandbox->private->creating_in_warden = false;
	if (sandbox->state != STATE(PAUSING)) {
		if (sandbox->state == STATE(KILLING))
			sandbox_tear_down(sandbox);
		return;
	}
	if (reply->status < 0) {
		sandbox_explain(reply, "sandbox could not be paused", &err);
		run_on(sandbox, &err);
		return;
	}
	sandbox->private->checkpoint_bytes = reply->value;
	sandbox->private->stored_bytes = reply->stored_bytes;
	log_event(LOG_INFO, "sandbox.checkpointed", "sandbox", sandbox->id, "bytes", log_u64(reply->value), "stored",
		  log_u64(reply->stored_bytes), NULL);
	commit(sandbox);
}

static void on_detached(struct sandbox *sandbox, int rc)
{
	struct pdk_error err;

	if (sandbox->state != STATE(PAUSING))
		return;
	if (rc < 0) {
		pdk_fail(&err, rc, PDK_ABORTED, "sandbox could not be paused: its processes come and go; try again");
		sandbox_pause_failed(sandbox, &err);
		return;
	}
	sandbox->private->checkpoint_token = checkpoint_token_make();
	ask(sandbox, WARDEN_CHECKPOINT, on_checkpoint, &rc);
	if (rc >= 0)
		return;
	pdk_fail(&err, rc, PDK_UNAVAILABLE, "the sandbox manager is away; try again");
	run_on(sandbox, &err);
}

void sandbox_checkpoint(struct sandbox *sandbox)
{
	sandbox_detach(sandbox, on_detached);
}

/* --- resume --- */

static void on_restored(const struct warden_reply *reply, int *fd, void *arg)
{
	struct sandbox *sandbox = arg;
	struct pdk_error err;

	sandbox->private->creating_in_warden = false;
	if (sandbox->state != STATE(RESUMING)) {
		if (sandbox->state == STATE(KILLING))
			sandbox_tear_down(sandbox);
		return;
	}
	if (reply->status < 0 || *fd < 0) {
		sandbox_explain(reply, "sandbox could not be resumed", &err);
		sandbox_resume_failed(sandbox, &err);
		/* Of an earlier connection's restore it may be running, or be about to. */
		if (reply->status == -ENOENT)
			sandbox_ask_again(sandbox);
		return;
	}
	sandbox->private->thawed = true;
	sandbox_link(sandbox, STEAL_FD(*fd));
}

void sandbox_restore(struct sandbox *sandbox)
{
	struct pdk_error err;
	int rc;

	ask(sandbox, WARDEN_RESTORE, on_restored, &rc);
	if (rc >= 0)
		return;
	pdk_fail(&err, rc, PDK_UNAVAILABLE, "the sandbox manager is away; try again");
	sandbox_resume_failed(sandbox, &err);
}
