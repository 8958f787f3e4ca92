#include "boot.h"
#include "config.h"
#include "guest.h"
#include "log.h"
#include "processes.h"
#include "sandbox/base/cleanup.h"
#include "sandbox_access.h"
#include "sandbox_internal.h"
#include "snapshots.h"
#include "warden_client.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * What a crash or a lost connection left behind. The store says what should be, WARDEN_LIST says what is:
 *
 *	store		warden	  then
 *	CREATING	any	  removed; nobody was told that it exists
 *	RUNNING		alive	  adopted: new link, its processes taken over; killed at once if it expired
 *	RUNNING		gone	  FAILED, HOST_LOST; the text says so when the machine was started anew (boot.c)
 *	PAUSED		alive	  kept; frozen again if it is not (and a RUNNING one that is frozen goes on)
 *	PAUSED		gone	  FAILED, HOST_LOST
 *	KILLING		any	  the tear-down is finished, with the reason that was decided
 *	RUNNING, PAUSED	unsettled asked for again, until a dump or restore that was under way has ended
 *	nothing		alive	  removed (pre-made ones, half-made ones, what a reset has left)
 *
 * Each of these is logged and audited. After a mere reconnect memory takes the place of the store, and links to
 * init are still up, so only what the warden does not know any more needs to be ended.
 */

#define STATUS_NS (60 * 1000000000ull)
#define AGAIN_NS (50 * 1000000ull)
#define STOCK_MAX 64

#define CREATING PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_CREATING
#define RUNNING PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_RUNNING
#define KILLING PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_KILLING
#define HOST_LOST PADDOCK__V1__END_REASON__END_REASON_HOST_LOST

static struct loop_timer status_timer, again_timer;
static bool asks_again;

/* --- adoption --- */

static bool is_awake(const struct sandbox *sandbox)
{
	return sandbox->state == RUNNING || sandbox->state == PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_RESUMING;
}

static void on_processes_adopted(struct sandbox *sandbox, int rc)
{
	if (!is_awake(sandbox) || !sandbox->private->adopting)
		return;
	sandbox->private->adopting = false;
	if (rc < 0) {
		sandbox_end_soon(sandbox, HOST_LOST, "its processes could not be taken over");
		return;
	}
	log_event(LOG_INFO, "sandbox.adopted", "sandbox", sandbox->id, "tenant", sandbox->tenant, NULL);
	if (!sandbox->private->snapshot && !sandbox->private->reset)
		sandbox_audit(NULL, sandbox, "sandbox.adopted", NULL);
	sandbox_resume_done(sandbox);
	sandbox_snapshot_linked(sandbox);
	sandbox_reset_linked(sandbox);
	if (sandbox->state == RUNNING)
		sandbox_unpark(sandbox);
}

static void on_guest_ready(struct guest *guest, int rc, void *arg)
{
	struct sandbox *sandbox = arg;

	if (!is_awake(sandbox))
		return;
	if (rc < 0)
		sandbox_end_soon(sandbox, HOST_LOST, "its init did not answer after a restart of the server");
	else
		processes_adopt(sandbox, on_processes_adopted);
}

void sandbox_link(struct sandbox *sandbox, int fd)
{
	const struct text_list *env = sandbox->private->env;

	sandbox->private->adopting = true;
	sandbox->guest = guest_create(sandbox, fd, env ? env->item : NULL, env ? env->count : 0, sandbox->hostname,
				      on_guest_ready, sandbox);
	if (!sandbox->guest)
		sandbox_end(sandbox, HOST_LOST, "the link to the sandbox could not be made");
}

static void on_attached(const struct warden_reply *reply, int *fd, void *arg)
{
	struct sandbox *sandbox = arg;

	sandbox->private->creating_in_warden = false;
	if (!is_awake(sandbox)) {
		sandbox_tear_down(sandbox);
		return;
	}
	if (reply->status == -ECONNRESET) {
		sandbox_resume_unattached(sandbox);
		return; /* the next reconciliation attaches, or the next Resume */
	}
	if (reply->status < 0 || *fd < 0) {
		log_event(LOG_ERROR, "sandbox.attach_failed", "sandbox", sandbox->id, "errno", log_i64(reply->status),
			  "reason", reply->text, NULL);
		sandbox_end(sandbox, HOST_LOST, "it could not be taken over after a restart of the server");
		return;
	}
	sandbox_link(sandbox, STEAL_FD(*fd));
	if (sandbox->guest)
		sandbox_resume_thaw(sandbox);
}

bool sandbox_attach(struct sandbox *sandbox)
{
	struct warden_request request = {.op = WARDEN_ATTACH};

	memcpy(request.id, sandbox->kernel_id, SANDBOX_ID_SIZE);
	sandbox->private->adopting = true;
	/* As for a create: a kill has to wait for the reply, which carries a descriptor and a pointer to us. */
	sandbox->private->creating_in_warden = warden_call(&request, -1, on_attached, sandbox) >= 0;
	return sandbox->private->creating_in_warden;
}

/* --- the warden's list --- */

static void on_stranger_removed(const struct warden_reply *reply, int *fd, void *arg)
{
	if (reply->status < 0)
		log_event(LOG_ERROR, "sandbox.remove_failed", "errno", log_i64(reply->status), "reason", reply->text,
			  NULL);
}

static void remove_stranger(const char *id)
{
	struct warden_request request = {.op = WARDEN_KILL};
	struct audit_entry entry = {
		.actor = "system",
		.action = "sandbox.removed",
		.sandbox_id = id,
		.outcome = "OK",
		.detail = "{\"reason\":\"unknown to the store: pre-made or half-made before a restart\"}",
	};

	log_event(LOG_WARN, "sandbox.removed", "sandbox", id, "reason", "unknown to the store", NULL);
	audit_event(&entry);
	memcpy(request.id, id, SANDBOX_ID_SIZE);
	(void)warden_call(&request, -1, on_stranger_removed, NULL);
}

static void list_entry(const struct warden_reply *reply)
{
	struct sandbox *sandbox;

	if (!sandbox_id_valid(reply->id))
		return;
	sandbox = sandbox_get_kernel(reply->id);
	if (sandbox && sandbox_is_living(sandbox)) {
		sandbox->private->seen = true;
		sandbox->private->frozen = reply->flags & WARDEN_FROZEN;
		sandbox->private->in_store = reply->flags & WARDEN_STORED;
		sandbox->private->in_transit = reply->flags & WARDEN_UNSETTLED;
	} else {
		remove_stranger(reply->id);
	}
}

static void mark_expected(struct sandbox *sandbox, void *arg)
{
	sandbox->private->expected = sandbox->private->asked_for && sandbox_is_living(sandbox);
	sandbox->private->seen = false;
}

static void compare(struct sandbox *sandbox, void *arg)
{
	struct sandbox_private *private = sandbox->private;

	if (!private->expected || !sandbox_is_living(sandbox))
		return;
	private->expected = false;
	if (!private->seen) {
		if (sandbox->state == KILLING)
			sandbox_gone(sandbox);
		else
			sandbox_end(sandbox, HOST_LOST, "it was gone when the sandbox manager came back");
	} else if (sandbox->state == KILLING) {
		sandbox_tear_down(sandbox);
	} else if (private->in_transit) {
		sandbox_ask_again(sandbox);
	} else {
		sandbox_settle_pause(sandbox);
		if (sandbox->state == RUNNING && !sandbox->guest && !private->creating_in_warden && !private->twin)
			sandbox_attach(sandbox);
	}
}

/* Calls may be under way now, so only those two are for the list to judge. */
static bool is_still(const struct sandbox *sandbox)
{
	return sandbox->state == RUNNING || sandbox->state == PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_PAUSED;
}

static void mark_unsettled(struct sandbox *sandbox, void *arg)
{
	sandbox->private->expected = sandbox->private->unsettled && is_still(sandbox);
	sandbox->private->seen = sandbox->private->unsettled = false;
}

static void compare_unsettled(struct sandbox *sandbox, void *arg)
{
	sandbox->private->expected &= is_still(sandbox);
	compare(sandbox, NULL);
}

static void on_list_again(const struct warden_reply *reply, int *fd, void *arg)
{
	if (reply->flags & WARDEN_MORE)
		list_entry(reply);
	else if (reply->status >= 0)
		sandbox_each(compare_unsettled, NULL);
}

static void list_again(void *arg)
{
	struct warden_request request = {.op = WARDEN_LIST};

	asks_again = false;
	/* Without a connection the next one starts over. */
	if (!warden_connected())
		return;
	sandbox_each(mark_unsettled, NULL);
	(void)warden_call(&request, -1, on_list_again, NULL);
}

void sandbox_ask_again(struct sandbox *sandbox)
{
	struct sandbox_private *private = sandbox->private;

	private->unsettled = true;
	if (sandbox->state == PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_PAUSED)
	private->settling = true; /* whoever wants to resume it waits */
	again_timer.handler = list_again;
	if (!asks_again)
		asks_again = loop_timer_set(&again_timer, loop_now_ns() + AGAIN_NS) >= 0;
}

static void on_status(const struct warden_reply *reply, int *fd, void *arg)
{
	if (reply->status >= 0)
		admission_set_disk(reply->total_disk_bytes);
}

static void on_stocked(const struct warden_reply *reply, int *fd, void *arg)
{
	if (reply->status < 0)
		log_event(LOG_WARN, "warden.stock_failed", "reason", reply->text, NULL);
}

static void ask_status(void *arg)
{
	struct warden_request request = {.op = WARDEN_STATUS};

	(void)warden_call(&request, -1, on_status, NULL);
	(void)loop_timer_set(&status_timer, loop_now_ns() + STATUS_NS);
}

static void ask_stock(void)
{
	struct warden_request request = {.op = WARDEN_STOCK};
	uint32_t stock = 2 * server_config.pool_size + 4;

	request.value = stock < STOCK_MAX ? stock : STOCK_MAX;
	(void)warden_call(&request, -1, on_stocked, NULL);
}

static void on_list_after_reconnect(const struct warden_reply *reply, int *fd, void *arg)
{
	if (reply->flags & WARDEN_MORE) {
		list_entry(reply);
		return;
	}
	if (reply->status < 0)
		return; /* the connection broke again: the next reconnect starts over */
	sandbox_each(compare, NULL);
	ask_stock();
	ask_status(NULL);
	sandbox_pool_wake();
}

void sandbox_reconcile(void)
{
	struct warden_request request = {.op = WARDEN_LIST};

	snapshots_reconcile();
	sandbox_each(mark_expected, NULL);
	(void)warden_call(&request, -1, on_list_after_reconnect, NULL);
}

/* --- start --- */

struct loading {
	struct sandbox **ended;
	size_t n_ended, room;
	unsigned int adopted, removed, lost;
	bool new_boot;
};

static int remember_ended(struct loading *loading, struct sandbox *sandbox)
{
	if (loading->n_ended == loading->room) {
		size_t room = loading->room ? 2 * loading->room : 64;
		struct sandbox **larger = reallocarray(loading->ended, room, sizeof(struct sandbox *));

		if (!larger)
			return -ENOMEM;
		loading->ended = larger;
		loading->room = room;
	}
	loading->ended[loading->n_ended++] = sandbox;
	return 0;
}

static int load_record(const void *key, size_t key_length, const void *value, size_t value_length, void *arg)
{
	Paddock__Internal__SandboxIntent intent;
	struct sandbox *sandbox;
	int rc = sandbox_load(value, value_length, &intent, &sandbox);

	if (rc == -EBADMSG) {
		log_event(LOG_ERROR, "store.bad_record", "kind", "sandbox", NULL);
		return 0;
	}
	if (rc < 0)
		return rc;
	if (!sandbox_is_living(sandbox))
		return remember_ended(arg, sandbox);
	/* It may exist until the warden's list says otherwise. */
	sandbox->private->asked_for = true;
	if (!sandbox->private->timeout_ms)
		sandbox->private->timeout_ms = (uint64_t)(sandbox->expires_unix_ms - sandbox->created_unix_ms);
	if (intent == PADDOCK__INTERNAL__SANDBOX_INTENT__SANDBOX_INTENT_CREATE)
		sandbox->private->discard = true;
	else
		sandbox_count(sandbox);
	return 0;
}

static void on_list_at_start(const struct warden_reply *reply, int *fd, void *arg)
{
	if (reply->flags & WARDEN_MORE)
		list_entry(reply);
	else if (reply->status < 0)
		*(int *)arg = reply->status;
}

static void decide(struct sandbox *sandbox, void *arg)
{
	struct loading *loading = arg;
	struct sandbox_private *private = sandbox->private;

	if (!sandbox_is_living(sandbox))
		return;
	if (private->discard) {
		loading->removed++;
		log_event(LOG_WARN, "sandbox.removed", "sandbox", sandbox->id, "tenant", sandbox->tenant, "reason",
			  "was being created when the server ended", NULL);
		sandbox_end(sandbox, PADDOCK__V1__END_REASON__END_REASON_CREATE_FAILED, "the server ended meanwhile");
	} else if (sandbox->state == KILLING) {
		sandbox_tear_down(sandbox);
	} else if (sandbox->expires_unix_ms && sandbox->expires_unix_ms <= loop_wall_ms() &&
		   private->on_timeout != PADDOCK__V1__TIMEOUT_ACTION__TIMEOUT_ACTION_PAUSE) {
		sandbox_end(sandbox, PADDOCK__V1__END_REASON__END_REASON_TIMEOUT,
			    "its timeout ran out while the server was down");
	} else if (private->seen) {
		loading->adopted++;
		if (sandbox->expires_unix_ms)
			sandbox_arm_expiry(sandbox);
		if (private->pause_mode == PADDOCK__V1__PAUSE_MODE__PAUSE_MODE_CHECKPOINT)
			sandbox_give_memory(sandbox);
		sandbox_idle_watch(sandbox);
		sandbox_metrics_watch(sandbox);
		if (private->in_transit) {
			sandbox_ask_again(sandbox);
			return;
		}
		sandbox_settle_pause(sandbox);
		if (sandbox->state == RUNNING)
			sandbox_attach(sandbox);
	} else {
		loading->lost++;
		sandbox_end(sandbox, HOST_LOST,
			    loading->new_boot
				    ? "the machine was started anew; only what is paused to disk outlives that"
				    : "it was gone when the server started");
	}
}

static int compare_end(const void *a, const void *b)
{
	const struct sandbox *const *left = a, *const *right = b;

	return ((*left)->ended_unix_ms > (*right)->ended_unix_ms) - ((*left)->ended_unix_ms < (*right)->ended_unix_ms);
}

static int read_warden(struct pdk_error *err)
{
	struct warden_request status = {.op = WARDEN_STATUS}, list = {.op = WARDEN_LIST};
	int list_status = 0;
	int rc = warden_call_wait(&status, on_status, NULL, WARDEN_TIMEOUT_MS, err);

	if (rc >= 0)
		rc = warden_call_wait(&list, on_list_at_start, &list_status, WARDEN_TIMEOUT_MS, err);
	if (rc >= 0 && list_status < 0)
		rc = pdk_fail_errno(err, list_status, "the warden cannot list its sandboxes");
	return rc;
}

static int load_all(struct loading *loading, struct pdk_error *err)
{
	int rc = page_token_start();

	if (rc >= 0)
		rc = sandbox_access_start();
	if (rc >= 0)
		rc = idempotency_start();
	if (rc >= 0)
		rc = store_each(STORE_SANDBOXES, NULL, 0, load_record, loading);
	return rc < 0 ? pdk_fail_errno(err, rc, "loading the sandboxes from the store") : 0;
}

int sandboxes_start(struct pdk_error *err)
{
	struct loading loading = {0};
	int rc;

	admission_start();
	sandbox_events_start();
	rc = load_all(&loading, err);
	if (rc >= 0)
		rc = read_warden(err);
	if (rc >= 0) {
		if (loading.n_ended > 0)
			qsort(loading.ended, loading.n_ended, sizeof(struct sandbox *), compare_end);
		for (size_t i = 0; i < loading.n_ended; i++)
			sandbox_arm_retention(loading.ended[i]);
		loading.new_boot = boot_is_new();
		sandbox_each(decide, &loading);
		boot_remember();
		log_event(LOG_INFO, "sandboxes.reconciled", "adopted", log_u64(loading.adopted), "removed",
			  log_u64(loading.removed), "lost", log_u64(loading.lost), "ended", log_u64(loading.n_ended),
			  NULL);
		ask_stock();
		status_timer.handler = ask_status;
		(void)loop_timer_set(&status_timer, loop_now_ns() + STATUS_NS);
		sandbox_pool_start();
	}
	free(loading.ended);
	return rc;
}

static void let_go(struct sandbox *sandbox, void *arg)
{
	guest_free(STEAL_PTR(sandbox->guest));
	sandbox_reset_let_go(sandbox);
	processes_let_go(sandbox);
	sandbox_drop(sandbox);
}

/* Sandboxes live on under the warden; only what this process knows of them is freed. Calls have ended. */
void sandboxes_stop(void)
{
	sandbox_pool_stop();
	loop_timer_cancel(&status_timer);
	loop_timer_cancel(&again_timer);
	asks_again = false;
	/* What waits for the warden points to sandboxes. */
	warden_client_stop();
	sandbox_expiry_stop();
	sandbox_each(let_go, NULL);
	sandbox_events_stop();
	idempotency_stop();
}
