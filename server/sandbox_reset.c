#include "config.h"
#include "guest.h"
#include "log.h"
#include "loop.h"
#include "output.h"
#include "previews.h"
#include "processes.h"
#include "rpc.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/fault.h"
#include "snapshot_internal.h"
#include "validate.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * Reset: a sandbox becomes what it was when it was created, under its id, with its owner, metadata, environment and
 * tokens. It is never without a whole layer and processes, whoever dies meanwhile:
 *
 *	a twin		  made beside it, of the same template or snapshot: a pre-made one, or a create that nobody
 *			  sees. A crash leaves the old one, and the twin is removed as unknown to the store
 *	change places	  when the twin's init has answered, and let its link go: in memory each becomes what the other
 *			  one was for the warden (kernel_id), and one transaction says so in the store, with the
 *			  rows of its processes. Old calls, visits and grants end
 *	committed	  the old one, now the twin, is killed: before that it is as whole as it was. A crash from here on
 *			  leaves the new one, and the old is removed as unknown
 *	link		  made as after a restart of the server; then its image's start command runs, and the caller is
 *			  answered
 *
 * A failure before the change leaves the old one as it is. After it the sandbox is reset, whatever the caller hears.
 */

#define STATE(name) PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_##name

struct sandbox_reset {
	struct sandbox *sandbox; /* NULL: it has ended */
	struct sandbox *twin;    /* NULL: it is on its way out */
	struct rpc_call *call;   /* NULL: it went away, or is answered */
	struct principal principal;
	uint64_t timeout_ms;
	Paddock__V1__PortAccess port_access;
	struct processes_ended *ended;
	bool changed, committed;
};

/* --- the end of it --- */

static void fail_call(struct sandbox_reset *reset, const struct pdk_error *err)
{
	if (reset->call)
		rpc_fail(STEAL_PTR(reset->call), err);
}

static void reset_over(struct sandbox_reset *reset)
{
	if (reset->sandbox)
		reset->sandbox->private->reset = NULL;
	free(reset);
}

/* Before the change: all is as it was. */
static void give_up(struct sandbox_reset *reset, const struct pdk_error *err)
{
	struct sandbox *twin = STEAL_PTR(reset->twin);

	fail_call(reset, err);
	reset_over(reset);
	if (!twin)
		return;
	twin->private->reset = NULL;
	sandbox_end(twin, PADDOCK__V1__END_REASON__END_REASON_KILLED, "no longer needed");
}

static void twin_failed(struct sandbox_reset *reset, const struct sandbox *twin)
{
	struct pdk_error err;

	pdk_fail(&err, -EIO, twin->private->end_code ? twin->private->end_code : PDK_UNAVAILABLE,
		 "sandbox could not be reset, and is as it was: %s",
		 twin->private->end_text ? twin->private->end_text : "unknown");
	log_event(LOG_ERROR, "sandbox.reset_failed", "sandbox", reset->sandbox->id, "reason", err.text, NULL);
	reset->twin = NULL;
	give_up(reset, &err);
}

void sandbox_reset_fail(struct sandbox *sandbox)
{
	struct sandbox_reset *reset = STEAL_PTR(sandbox->private->reset);
	struct pdk_error err;

	if (!reset)
		return;
	if (sandbox->private->twin && reset->changed) {
		reset->twin = NULL; /* the old one has ended by itself */
		return;
	}
	if (sandbox->private->twin) {
		twin_failed(reset, sandbox);
		return;
	}
	pdk_fail(&err, -ECANCELED, PDK_ABORTED, "sandbox was ended meanwhile");
	reset->sandbox = NULL;
	if (!reset->changed) {
		give_up(reset, &err);
		return;
	}
	fail_call(reset, &err);
	if (reset->committed)
		reset_over(reset);
}

void sandbox_reset_let_go(struct sandbox *sandbox)
{
	struct sandbox_reset *reset = STEAL_PTR(sandbox->private->reset);

	if (!reset || sandbox->private->twin)
		return;
	/* Not if the store still has to answer. */
	reset->sandbox = reset->twin = NULL;
	if (!reset->changed || reset->committed)
		free(reset);
}

/* --- the new one --- */

static void answer(struct sandbox_reset *reset)
{
	struct rpc_call *call = STEAL_PTR(reset->call);
	Paddock__V1__Sandbox *reply = call ? sandbox_reply(call, reset->sandbox) : NULL;

	if (reply)
		rpc_finish(call, &reply->base);
	reset_over(reset);
}

static void on_started(struct sandbox *sandbox, const struct pdk_error *err)
{
	struct sandbox_reset *reset = sandbox->private->reset;
	struct pdk_error why;

	if (!reset)
		return;
	if (err) {
		pdk_fail(&why, -EIO, err->code, "sandbox was reset, but %s", err->text);
		fail_call(reset, &why);
	}
	answer(reset);
}

void sandbox_reset_linked(struct sandbox *sandbox)
{
	struct sandbox_reset *reset = sandbox->private->reset;

	if (!reset || !reset->committed || sandbox->state != STATE(RUNNING))
		return;
	sandbox_idle_watch(sandbox);
	sandbox_metrics_watch(sandbox);
	sandbox_event(sandbox, PADDOCK__V1__SANDBOX_EVENT__TYPE__TYPE_RESET);
	/* What a copy's image starts is among the processes that it has. */
	if ((!sandbox->private->origin_id[0] || sandbox->private->bare) && guest_has_start(sandbox->guest))
		sandbox_start_begin(sandbox, &reset->principal, on_started);
	else
		answer(reset);
}

static void go_on(struct sandbox_reset *reset)
{
	struct sandbox *sandbox = reset->sandbox;

	log_event(LOG_INFO, "sandbox.reset", "sandbox", sandbox->id, "tenant", sandbox->tenant, "kernel_id",
		  sandbox->kernel_id, NULL);
	if (sandbox->guest && !sandbox->private->adopting) {
		sandbox_reset_linked(sandbox);
		return;
	}
	sandbox_link_again(sandbox);
	/* With the warden away, its return does that. */
	if (!sandbox->guest && !sandbox->private->creating_in_warden)
		sandbox_ask_again(sandbox);
}

static void on_committed(int rc, void *arg)
{
	struct sandbox_reset *reset = arg;
	struct sandbox *old = STEAL_PTR(reset->twin);
	struct pdk_error err;

	processes_told(reset->ended, rc);
	reset->committed = true;
	if (old)
		old->private->reset = NULL;
	if (rc < 0) {
		/* The old one stays: it is what the next start of the server finds in the store. */
		pdk_fail(&err, rc, PDK_UNAVAILABLE, "the server's store does not accept changes");
		fail_call(reset, &err);
	} else if (old) {
		FAULT("reset_committed");
		sandbox_end(old, PADDOCK__V1__END_REASON__END_REASON_KILLED, "it was reset");
	}
	if (!reset->sandbox) {
		reset_over(reset);
		return;
	}
	if (rc >= 0)
		output_remove_sandbox(server_config.data_dir, reset->sandbox->id);
	go_on(reset);
}

/* --- the change --- */

static int check_state(const struct sandbox *sandbox, struct pdk_error *err)
{
	const struct sandbox_private *private = sandbox->private;
	int rc;

	if (sandbox->state == STATE(CREATING) || private->start)
		return pdk_fail(err, -EINVAL, PDK_FAILED_PRECONDITION, "sandbox is still being created");
	rc = sandbox_check_living(sandbox, err);
	if (rc < 0)
		return rc;
	if (private->snapshot)
		return pdk_fail(err, -EBUSY, PDK_ABORTED, "a snapshot of the sandbox is being taken; try again");
	if (sandbox->state == STATE(PAUSING) || sandbox->state == STATE(RESUMING) || private->settling ||
	    private->committing || private->pausers || private->resumers)
		return pdk_fail(err, -EBUSY, PDK_ABORTED, "sandbox is being paused or resumed; try again");
	if (private->creating_in_warden || (sandbox->state == STATE(RUNNING) && (!sandbox->guest || private->adopting)))
		return pdk_fail(err, -EAGAIN, PDK_UNAVAILABLE,
				"the link to the sandbox is being made again; try again");
	return 0;
}

/* What of it the store has, and is another one after a reset. */
struct changing {
	Paddock__V1__SandboxState state;
	int64_t reset_unix_ms, expires_unix_ms, paused_unix_ms;
	Paddock__V1__PauseMode pause_mode;
	uint64_t timeout_ms, checkpoint_token;
	Paddock__V1__PortAccess port_access;
};

static struct changing changing_of(const struct sandbox *sandbox)
{
	const struct sandbox_private *private = sandbox->private;

	return (struct changing){
		.state = sandbox->state,
		.reset_unix_ms = sandbox->reset_unix_ms,
		.expires_unix_ms = sandbox->expires_unix_ms,
		.paused_unix_ms = private->paused_unix_ms,
		.pause_mode = private->pause_mode,
		.timeout_ms = private->timeout_ms,
		.checkpoint_token = private->checkpoint_token,
		.port_access = private->port_access,
	};
}

static void set_changing(struct sandbox *sandbox, const struct changing *to)
{
	struct sandbox_private *private = sandbox->private;

	sandbox->state = to->state;
	sandbox->reset_unix_ms = to->reset_unix_ms;
	sandbox->expires_unix_ms = to->expires_unix_ms;
	private->paused_unix_ms = to->paused_unix_ms;
	private->pause_mode = to->pause_mode;
	private->timeout_ms = to->timeout_ms;
	private->checkpoint_token = to->checkpoint_token;
	private->port_access = to->port_access;
}

static struct changing changed(const struct sandbox_reset *reset)
{
	const struct sandbox *sandbox = reset->sandbox;
	int64_t now = loop_wall_ms();
	struct changing to = {
		.state = STATE(RUNNING),
		/* Another one than before, whatever the clock says. */
		.reset_unix_ms = now > sandbox_generation(sandbox) ? now : sandbox_generation(sandbox) + 1,
		.timeout_ms = reset->timeout_ms ? reset->timeout_ms : sandbox->private->timeout_ms,
		.port_access = reset->port_access ? reset->port_access : sandbox->private->port_access,
	};

	to.expires_unix_ms = now + (int64_t)to.timeout_ms;
	return to;
}

/* Into the batch, and memory; or neither. */
static int change_places(struct sandbox_reset *reset, struct store_batch *batch, struct process_list **ret_old)
{
	struct sandbox *sandbox = reset->sandbox, *twin = reset->twin;
	const struct snapshot *origin = twin->private->origin;
	bool has_processes = origin && !twin->private->bare;
	struct changing before = changing_of(sandbox), after = changed(reset);
	int rc;

	set_changing(sandbox, &after);
	sandbox_swap_kernels(sandbox, twin);
	rc = sandbox_store(batch, sandbox);
	if (rc >= 0)
		rc = processes_replace(sandbox, has_processes ? origin->stored->processes : NULL,
				       has_processes ? origin->stored->n_processes : 0, batch, ret_old);
	if (rc >= 0)
		return 0;
	sandbox_swap_kernels(sandbox, twin);
	set_changing(sandbox, &before);
	return rc;
}

/* What was bound to the old one is over. */
static void let_go(struct sandbox_reset *reset, struct process_list *old)
{
	struct sandbox *sandbox = reset->sandbox;
	struct sandbox_private *private = sandbox->private;

	reset->changed = true;
	reset->ended = processes_end_old(old);
	private->adopting = true; /* until there is a link again, calls wait */
	guest_drop(STEAL_PTR(sandbox->guest), "the sandbox was reset");
	private->keep_paused = private->timed_out = private->freeze_else = false;
	private->pause_text = NULL;
	private->resume_timeout_ms = private->paused_ns = 0;
	sandbox_idle_stop(sandbox);
	sandbox_arm_expiry(sandbox);
	/* The old one is the twin now, and owes nothing to a snapshot. */
	sandbox_copy_over(reset->twin);
}

static void on_hung_up(void *arg)
{
	struct sandbox *twin = arg;
	struct sandbox_reset *reset = twin->private->reset;
	struct sandbox *sandbox = reset->sandbox;
	struct store_batch *batch = NULL;
	struct process_list *old;
	struct pdk_error err;
	int rc;

	twin->guest = NULL;
	rc = check_state(sandbox, &err);
	if (rc >= 0)
		rc = sandbox_take_memory(sandbox, &err);
	if (rc >= 0) {
		batch = store_batch_create();
		rc = batch ? change_places(reset, batch, &old) : -ENOMEM;
		if (rc < 0)
			pdk_fail_errno(&err, rc, "resetting the sandbox");
	}
	if (rc < 0) {
		store_batch_free(batch);
		if (sandbox->private->pause_mode == PADDOCK__V1__PAUSE_MODE__PAUSE_MODE_CHECKPOINT)
			sandbox_give_memory(sandbox);
		give_up(reset, &err);
		return;
	}
	let_go(reset, old);
	sandbox_audit(batch, sandbox, "sandbox.reset", NULL);
	FAULT("reset_changed");
	store_commit(batch, on_committed, reset);
	/* After that one: a crash between leaves grants of another generation, which are void. */
	previews_end(sandbox);
}

/* --- the twin --- */

void sandbox_reset_ready(struct sandbox *twin)
{
	twin->state = STATE(RUNNING);
	if (twin->private->origin && sandbox_copy_rename(twin) < 0)
		sandbox_end_soon(twin, PADDOCK__V1__END_REASON__END_REASON_CREATE_FAILED,
				 "the server is out of memory");
	else
		guest_hang_up(twin->guest, on_hung_up, twin);
}

static struct sandbox *twin_new(const struct sandbox *sandbox)
{
	const struct text_list *env = sandbox->private->env;
	struct sandbox *twin;
	char id[SANDBOX_ID_SIZE];

	sandbox_id_make(id);
	twin = sandbox_new(id);
	if (!twin)
		return NULL;
	memcpy(twin->template_id, sandbox->template_id, sizeof(twin->template_id));
	memcpy(twin->hostname, sandbox->hostname, sizeof(twin->hostname));
	twin->limits = sandbox->limits;
	twin->private->env = text_list_copy(env ? env->item : NULL, env ? env->count : 0);
	if (twin->private->env)
		return twin;
	sandbox_drop(twin);
	return NULL;
}

static void on_cancel(struct rpc_call *call, const struct pdk_error *why)
{
	struct sandbox_reset *reset = rpc_user(call);

	/* What was begun goes on. */
	reset->call = NULL;
	rpc_fail(call, why);
}

static int begin(struct sandbox_reset *reset, struct snapshot *origin)
{
	static const struct rpc_events events = {.on_cancel = on_cancel};
	struct sandbox *sandbox = reset->sandbox;
	struct sandbox *ready =
		origin ? NULL : sandbox_pool_claim(sandbox->template_id, sandbox->hostname, &sandbox->limits);
	struct sandbox *twin = ready ? ready : twin_new(sandbox);

	if (!twin)
		return -ENOMEM;
	twin->private->pooled = twin->private->twin = true;
	twin->private->reset = sandbox->private->reset = reset;
	twin->private->bare = sandbox->private->bare;
	twin->private->origin = origin;
	if (origin)
		snapshot_use(origin);
	sandbox_count(twin);
	reset->twin = twin;
	rpc_set_events(reset->call, &events, reset);
	if (ready)
		sandbox_reset_ready(twin);
	else
		sandbox_make(twin);
	sandbox_pool_trim();
	return 0;
}

/* --- the call --- */

/* NULL: its template. */
static int find_origin(const struct sandbox *sandbox, struct snapshot **ret, struct pdk_error *err)
{
	const struct sandbox_private *private = sandbox->private;

	*ret = private->origin_id[0] ? snapshot_get(private->origin_id) : NULL;
	if ((private->origin_id[0] && (!*ret || (*ret)->state != SNAPSHOT_READY)) ||
	    (!private->origin_id[0] && private->inherited_bytes))
		return pdk_fail(err, -ENOENT, PDK_FAILED_PRECONDITION,
				"sandbox cannot be reset: the snapshot that it was made from is not there any more");
	return 0;
}

static int check(struct rpc_call *call, const Paddock__V1__ResetSandboxRequest *request, struct sandbox **ret,
		 struct snapshot **ret_origin, struct pdk_error *err)
{
	int rc = validate_optional_range("timeout_ms", request->timeout_ms, SANDBOX_TIMEOUT_MIN_MS,
					 SANDBOX_TIMEOUT_MAX_MS, err);

	if (rc >= 0)
		rc = validate_optional_range("port_access", (uint64_t)request->port_access, 1, 2, err);
	if (rc >= 0)
		rc = sandbox_find(call, request->sandbox_id, ret, err);
	if (rc < 0)
		return rc;
	rpc_audit_object(call, (*ret)->id, NULL);
	if ((*ret)->private->reset)
		return pdk_fail(err, -EBUSY, PDK_ABORTED, "sandbox is being reset already; try again");
	rc = check_state(*ret, err);
	if (rc >= 0)
		rc = find_origin(*ret, ret_origin, err);
	if (rc >= 0)
		rc = tenant_take_create((*ret)->tenant, err);
	/* Its quota has room for it, as it is there; for a moment the box has to hold both. */
	return rc < 0 ? rc : admission_check(&(*ret)->limits, false, err);
}

void sandboxes_reset(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__V1__ResetSandboxRequest *request = (const void *)message;
	struct sandbox_reset *reset = NULL;
	struct snapshot *origin = NULL;
	struct sandbox *sandbox;
	struct pdk_error err;
	int rc = check(call, request, &sandbox, &origin, &err);

	if (rc >= 0) {
		reset = calloc(1, sizeof(*reset));
		rc = reset ? 0 : pdk_fail_errno(&err, -ENOMEM, "resetting the sandbox");
	}
	if (rc >= 0) {
		*reset = (struct sandbox_reset){
			.sandbox = sandbox,
			.call = call,
			.principal = *rpc_principal(call),
			.timeout_ms = request->timeout_ms,
			.port_access = request->port_access,
		};
		rc = begin(reset, origin);
		if (rc < 0)
			pdk_fail_errno(&err, rc, "resetting the sandbox");
	}
	if (rc >= 0)
		return;
	free(reset);
	rpc_fail(call, &err);
}
