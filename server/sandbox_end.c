#include "guest.h"
#include "log.h"
#include "metrics.h"
#include "previews.h"
#include "processes.h"
#include "rpc.h"
#include "sandbox/base/cleanup.h"
#include "sandbox_internal.h"
#include "warden_client.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

/*
 * The end of a sandbox, whoever wants it: Kill, SetTimeout 0, the expiry timer, a broken link, the warden's news
 * that init died, a create that failed, a tenant that is removed. The first to come decides the reason; the
 * others share the tear-down. Steps:
 *
 *	sandbox_end()	     KILLING; the intent is put into the store (not waited for: until the end is
 *			     acknowledged, a crash may as well find it running); processes and link are ended
 *	sandbox_tear_down()  WARDEN_KILL, again after a second if it fails, and by reconciliation after a reconnect
 *	sandbox_gone()	     the record of the end, audit, event, counters, and every waiting Kill is answered
 */

#define RETRY_NS (1000 * 1000000ull)

#define RUNNING PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_RUNNING
#define KILLING PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_KILLING
#define KILLED PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_KILLED
#define FAILED PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_FAILED
#define REASON(name) PADDOCK__V1__END_REASON__END_REASON_##name

struct tenant_kill {
	struct tenant_kill *next;
	void (*done)(void *arg);
	void *arg;
	char tenant[TENANT_NAME_MAX + 1];
};

static struct tenant_kill *tenant_kills;

static bool is_failure(Paddock__V1__EndReason reason)
{
	return reason != REASON(KILLED) && reason != REASON(TIMEOUT) && reason != REASON(IDLE);
}

static void store_intent(const struct sandbox *sandbox)
{
	if (!sandbox->private->pooled && !sandbox->private->discard)
		sandbox_save(sandbox);
}

/* What waits for the create learns that it will not come. */
static void end_create(struct sandbox *sandbox)
{
	struct sandbox_private *private = sandbox->private;
	struct pdk_error err;

	if (private->idempotency) {
		idempotency_forget(private->idempotency);
		private->idempotency = NULL;
	}
	if (!private->creators && !private->copy)
		return;
	if (private->end_code)
		pdk_fail(&err, -EIO, private->end_code, "sandbox could not be created: %s", private->end_text);
	else if (is_failure(sandbox->end_reason))
		pdk_fail(&err, -EIO, PDK_UNAVAILABLE, "sandbox could not be created: %s",
			 private->end_text ? private->end_text : "unknown");
	else
		pdk_fail(&err, -ECANCELED, PDK_ABORTED, "sandbox was killed while it was created");
	fork_copy_over(sandbox, &err);
	sandbox_creators_fail(sandbox, &err);
}

void sandbox_end(struct sandbox *sandbox, Paddock__V1__EndReason reason, const char *text)
{
	struct sandbox_private *private = sandbox->private;
	bool was_ready = sandbox->state == RUNNING;

	if (sandbox->state == KILLING || !sandbox_is_living(sandbox))
		return;
	sandbox->state = KILLING;
	sandbox->end_reason = reason;
	free(private->end_text);
	private->end_text = strdup(text);
	loop_timer_cancel(&private->timer);
	if (private->pooled && !private->twin)
		sandbox_pool_lost(sandbox, was_ready);
	loop_timer_cancel(&private->detach_timer);
	sandbox_idle_stop(sandbox);
	sandbox_metrics_stop(sandbox);
	private->settling = false;
	private->pause_mode = PADDOCK__V1__PAUSE_MODE__PAUSE_MODE_UNSPECIFIED;
	private->paused_unix_ms = 0;
	store_intent(sandbox);
	sandbox_start_cancel(sandbox);
	end_create(sandbox);
	sandbox_pause_fail(sandbox);
	sandbox_snapshot_fail(sandbox);
	sandbox_reset_fail(sandbox);
	if (!private->pooled) {
		previews_end(sandbox);
		processes_end(sandbox);
	}
	guest_free(STEAL_PTR(sandbox->guest));
	sandbox_tear_down(sandbox);
}

struct later {
	char id[SANDBOX_ID_SIZE];
	Paddock__V1__EndReason reason;
	char text[];
};

static void end_now(void *arg)
{
	_cleanup_free_ struct later *later = arg;
	struct sandbox *sandbox = sandbox_get(later->id);

	if (sandbox)
		sandbox_end(sandbox, later->reason, later->text);
}

void sandbox_end_soon(const struct sandbox *sandbox, Paddock__V1__EndReason reason, const char *text)
{
	struct later *later = malloc(sizeof(*later) + strlen(text) + 1);

	if (later) {
		memcpy(later->id, sandbox->id, SANDBOX_ID_SIZE);
		later->reason = reason;
		strcpy(later->text, text);
		if (loop_defer(end_now, later) >= 0)
			return;
		free(later);
	}
	/* It lives on without a link until its expiry; every call on it says so. */
	log_event(LOG_ERROR, "sandbox.end_postponed", "sandbox", sandbox->id, "reason", "out of memory", NULL);
}

void sandbox_guest_lost(struct sandbox *sandbox, const char *text)
{
	if (sandbox->state == KILLING || !sandbox_is_living(sandbox))
		return;
	sandbox->private->guest_lost = true;
	sandbox_end_soon(sandbox, REASON(INIT_DIED), text && text[0] ? text : "the link to its init broke");
}

static void describe_exit(const struct warden_reply *event, char text[160])
{
	int status = (int)event->value;

	if (event->text[0])
		snprintf(text, 160, "%.159s", event->text);
	else if (event->usage.oom_kills > 0)
		snprintf(text, 160, "its init ended: out of memory (%llu processes were killed for it)",
			 (unsigned long long)event->usage.oom_kills);
	else if (WIFSIGNALED(status))
		snprintf(text, 160, "its init was ended by signal %d", WTERMSIG(status));
	else
		snprintf(text, 160, "its init exited with status %d", WEXITSTATUS(status));
}

void sandbox_exited(const struct warden_reply *event)
{
	struct sandbox *sandbox = sandbox_get_kernel(event->id);
	char text[160];

	if (!sandbox)
		return;
	describe_exit(event, text);
	if (sandbox->state == KILLING && sandbox->private->guest_lost) {
		free(sandbox->private->end_text);
		sandbox->private->end_text = strdup(text);
	}
	sandbox_end(sandbox, REASON(INIT_DIED), text);
}

static void on_retry(void *arg)
{
	sandbox_tear_down(arg);
}

static void retry_later(struct sandbox *sandbox)
{
	struct loop_timer *timer = &sandbox->private->timer;

	timer->handler = on_retry;
	timer->arg = sandbox;
	if (loop_timer_set(timer, loop_now_ns() + RETRY_NS) < 0)
		log_event(LOG_ERROR, "sandbox.retry_lost", "sandbox", sandbox->id, NULL);
}

static void on_removed(const struct warden_reply *reply, int *fd, void *arg)
{
	struct sandbox *sandbox = arg;

	sandbox->private->killing_in_warden = false;
	if (reply->status >= 0) {
		if (reply->text[0] && sandbox->private->guest_lost) {
			free(sandbox->private->end_text);
			sandbox->private->end_text = strdup(reply->text);
		}
		sandbox_gone(sandbox);
		return;
	}
	if (reply->status == -ECONNRESET)
		return; /* reconciliation asks again */
	log_event(LOG_ERROR, "sandbox.remove_failed", "sandbox", sandbox->id, "errno", log_i64(reply->status), "reason",
		  reply->text, NULL);
	retry_later(sandbox);
}

void sandbox_tear_down(struct sandbox *sandbox)
{
	struct warden_request request = {.op = WARDEN_KILL};
	struct sandbox_private *private = sandbox->private;
	int rc;

	if (private->creating_in_warden || private->killing_in_warden)
		return;
	if (!private->asked_for) {
		sandbox_gone(sandbox);
		return;
	}
	memcpy(request.id, sandbox->kernel_id, SANDBOX_ID_SIZE);
	private->killing_in_warden = true;
	rc = warden_call(&request, -1, on_removed, sandbox);
	if (rc >= 0)
		return;
	private->killing_in_warden = false;
	if (rc != -ENOTCONN)
		retry_later(sandbox);
}

void sandbox_audit(struct store_batch *batch, const struct sandbox *sandbox, const char *action, const char *detail)
{
	struct audit_entry entry = {
		.tenant = sandbox->tenant,
		.actor = "system",
		.action = action,
		.sandbox_id = sandbox->id,
		.object = sandbox->template_name,
		.outcome = "OK",
		.detail = detail,
	};

	if (batch)
		(void)store_audit(batch, &entry);
	else
		audit_event(&entry);
}

static const char *reason_name(Paddock__V1__EndReason reason)
{
	const ProtobufCEnumValue *value =
		protobuf_c_enum_descriptor_get_value(&paddock__v1__end_reason__descriptor, (int)reason);

	return value ? value->name : "END_REASON_UNSPECIFIED";
}

/* What no call of a client accounts for gets an audit record of its own. */
static void audit_end(struct store_batch *batch, const struct sandbox *sandbox)
{
	char detail[96];

	snprintf(detail, sizeof(detail), "{\"end_reason\":\"%s\"}", reason_name(sandbox->end_reason));
	if (sandbox->private->discard)
		sandbox_audit(batch, sandbox, "sandbox.removed", detail);
	else if (sandbox->end_reason == REASON(TIMEOUT) || sandbox->end_reason == REASON(IDLE))
		sandbox_audit(batch, sandbox, "sandbox.expired", detail);
	else if (is_failure(sandbox->end_reason))
		sandbox_audit(batch, sandbox, "sandbox.failed", detail);
	else if (!sandbox->private->killers)
		sandbox_audit(batch, sandbox, "sandbox.killed", detail);
}

static void answer_killers(struct sandbox *sandbox, struct store_batch *batch)
{
	struct sandbox_waiter *waiter;

	while ((waiter = sandbox_waiter_take(&sandbox->private->killers))) {
		Paddock__V1__Sandbox *reply = sandbox_reply(waiter->call, sandbox);

		if (!reply)
			continue;
		if (batch)
			rpc_finish_commit(waiter->call, STEAL_PTR(batch), &reply->base);
		else
			rpc_finish(waiter->call, &reply->base);
	}
	if (batch)
		store_commit(batch, NULL, NULL);
}

static void tenant_kills_check(const char *tenant)
{
	struct tenant_kill **slot = &tenant_kills;

	if (sandboxes_of_tenant(tenant) > 0)
		return;
	while (*slot) {
		struct tenant_kill *kill = *slot;

		if (strcmp(kill->tenant, tenant) != 0) {
			slot = &kill->next;
			continue;
		}
		*slot = kill->next;
		kill->done(kill->arg);
		free(kill);
		slot = &tenant_kills; /* `done` may have changed the list */
	}
}

/* A pre-made one, or a create that nobody was told of. */
static void gone_without_trace(struct sandbox *sandbox)
{
	struct store_batch *batch = NULL;

	if (!sandbox->private->pooled)
		batch = store_batch_create();
	if (batch) {
		audit_end(batch, sandbox);
		(void)sandbox_unstore(batch, sandbox);
		store_commit(batch, NULL, NULL);
	}
	if (!sandbox->private->pooled)
		processes_forget(sandbox);
	sandbox_drop(sandbox);
}

static void gone_on_record(struct sandbox *sandbox)
{
	struct store_batch *batch = store_batch_create();

	sandbox->state = is_failure(sandbox->end_reason) ? FAILED : KILLED;
	sandbox->ended_unix_ms = loop_wall_ms();
	if (batch) {
		(void)sandbox_store(batch, sandbox);
		audit_end(batch, sandbox);
	}
	free(STEAL_PTR(sandbox->private->env));
	metric_add(METRIC_SANDBOXES_ENDED, 1);
	if (is_failure(sandbox->end_reason))
		metric_add(METRIC_SANDBOXES_FAILED, 1);
	log_event(LOG_INFO, "sandbox.ended", "sandbox", sandbox->id, "tenant", sandbox->tenant, "reason",
		  reason_name(sandbox->end_reason), "text", sandbox->private->end_text, NULL);
	sandbox_event(sandbox, PADDOCK__V1__SANDBOX_EVENT__TYPE__TYPE_ENDED);
	answer_killers(sandbox, batch);
	sandbox_arm_retention(sandbox);
}

void sandbox_gone(struct sandbox *sandbox)
{
	char template_id[TEMPLATE_ID_SIZE], tenant[sizeof(sandbox->tenant)];

	memcpy(template_id, sandbox->template_id, sizeof(template_id));
	memcpy(tenant, sandbox->tenant, sizeof(tenant));
	loop_timer_cancel(&sandbox->private->timer);
	sandbox_copy_over(sandbox);
	sandbox_uncount(sandbox);
	/* A Kill that was waiting knows its id, so then there is a trace. */
	if ((sandbox->private->pooled || sandbox->private->discard) && !sandbox->private->killers)
		gone_without_trace(sandbox);
	else
		gone_on_record(sandbox);
	template_released(template_id);
	tenant_kills_check(tenant);
	sandbox_pool_wake();
}

static void on_killer_cancel(struct rpc_call *call, const struct pdk_error *why)
{
	sandbox_waiter_remove(rpc_user(call));
	rpc_fail(call, why);
}

void sandbox_kill_for(struct rpc_call *call, struct sandbox *sandbox)
{
	struct pdk_error err;

	if (!sandbox_is_living(sandbox)) {
		Paddock__V1__Sandbox *reply = sandbox_reply(call, sandbox);

		if (reply)
			rpc_finish(call, &reply->base);
		return;
	}
	if (sandbox_wait(sandbox, &sandbox->private->killers, call, on_killer_cancel) < 0) {
		pdk_fail_errno(&err, -ENOMEM, "killing the sandbox");
		rpc_fail(call, &err);
		return;
	}
	sandbox_end(sandbox, REASON(KILLED), "killed on request");
}

void sandboxes_kill_tenant(const char *tenant, void (*done)(void *arg), void *arg)
{
	struct sandbox_owner *owner = sandbox_owner_find(tenant);
	struct tenant_kill *kill = calloc(1, sizeof(*kill));

	/* Ending one may drop it, and its owner with the last: look the next up before. */
	for (struct sandbox *sandbox = owner ? owner->newest : NULL, *next; sandbox; sandbox = next) {
		next = sandbox->private->by_owner.older;
		sandbox_end(sandbox, REASON(KILLED), "its tenant was removed");
	}
	if (!kill) {
		log_event(LOG_ERROR, "tenant.kill_unwatched", "tenant", tenant, "reason", "out of memory", NULL);
		return;
	}
	snprintf(kill->tenant, sizeof(kill->tenant), "%s", tenant);
	kill->done = done;
	kill->arg = arg;
	kill->next = tenant_kills;
	tenant_kills = kill;
	tenant_kills_check(tenant);
}
