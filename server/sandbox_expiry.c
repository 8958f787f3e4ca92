#include "config.h"
#include "log.h"
#include "processes.h"
#include "rpc.h"
#include "sandbox_internal.h"
#include "validate.h"
#include <errno.h>
#include <stdlib.h>

/*
 * Time. Expiry is kept as wall-clock time, so that it goes on while the server is down; the timer runs on
 * CLOCK_BOOTTIME, so that a step of the wall clock neither kills nor spares anybody, and suspend counts.
 *
 * Ended sandboxes stay for retention_ms in the order of their end. ENDED_MAX bounds them on a busy box: the
 * oldest are forgotten early then. One timer serves the head of that queue.
 */

#define ENDED_MAX 20000
#define FORGET_BATCH 256

static struct sandbox *oldest_ended, *newest_ended;
static uint32_t ended_count;
static struct loop_timer retention;

static uint64_t due_at_wall(int64_t wall_ms)
{
	int64_t left_ms = wall_ms - loop_wall_ms();

	return loop_now_ns() + (left_ms > 0 ? (uint64_t)left_ms * 1000000 : 0);
}

static void on_expired(void *arg)
{
	if (!sandbox_pause_at_timeout(arg))
		sandbox_end(arg, PADDOCK__V1__END_REASON__END_REASON_TIMEOUT, "its timeout ran out");
}

void sandbox_arm_expiry(struct sandbox *sandbox)
{
	struct loop_timer *timer = &sandbox->private->timer;

	timer->handler = on_expired;
	timer->arg = sandbox;
	if (loop_timer_set(timer, due_at_wall(sandbox->expires_unix_ms)) >= 0)
		return;
	/* Without a timer it would live for ever. */
	sandbox_end_soon(sandbox, PADDOCK__V1__END_REASON__END_REASON_TIMEOUT, "the server is out of memory");
}

static void arm_retention_timer(void)
{
	int64_t due_ms;

	if (!oldest_ended)
		return;
	due_ms = oldest_ended->ended_unix_ms + (int64_t)server_config.retention_ms;
	(void)loop_timer_set(&retention, due_at_wall(due_ms));
}

static void unqueue(struct sandbox *sandbox)
{
	struct sandbox_private *private = sandbox->private;

	if (private->ended_before)
	private->ended_before->private->ended_after = private->ended_after;
	else oldest_ended = private->ended_after;
	if (private->ended_after)
	private->ended_after->private->ended_before = private->ended_before;
	else newest_ended = private->ended_before;
	ended_count--;
}

static void forget(struct sandbox *sandbox, struct store_batch *batch)
{
	(void)sandbox_unstore(batch, sandbox);
	processes_forget(sandbox);
	unqueue(sandbox);
	sandbox_drop(sandbox);
}

static bool is_over(const struct sandbox *sandbox)
{
	return ended_count > ENDED_MAX ||
	       sandbox->ended_unix_ms + (int64_t)server_config.retention_ms <= loop_wall_ms();
}

static void on_retention(void *arg)
{
	struct store_batch *batch = store_batch_create();
	unsigned int n = 0;

	while (batch && oldest_ended && is_over(oldest_ended) && n < FORGET_BATCH) {
		forget(oldest_ended, batch);
		n++;
	}
	if (n > 0)
		store_commit(batch, NULL, NULL);
	else
		store_batch_free(batch);
	arm_retention_timer();
}

void sandbox_arm_retention(struct sandbox *sandbox)
{
	struct sandbox_private *private = sandbox->private;

	private->ended_before = newest_ended;
	private->ended_after = NULL;
	if (newest_ended)
		newest_ended->private->ended_after = sandbox;
	else
		oldest_ended = sandbox;
	newest_ended = sandbox;
	ended_count++;
	retention.handler = on_retention;
	if (ended_count > ENDED_MAX)
		(void)loop_timer_set(&retention, loop_now_ns());
	else if (ended_count == 1)
		arm_retention_timer();
}

void sandbox_expiry_stop(void)
{
	loop_timer_cancel(&retention);
	oldest_ended = newest_ended = NULL;
	ended_count = 0;
}

void sandbox_change_timeout(struct rpc_call *call, struct sandbox *sandbox, uint64_t timeout_ms)
{
	int64_t before = sandbox->expires_unix_ms;
	uint64_t timeout_before = sandbox->private->timeout_ms;

	sandbox->private->timeout_ms = timeout_ms;
	if (before) /* one that stays paused has no timeout before it is resumed */
		sandbox->expires_unix_ms = loop_wall_ms() + (int64_t)timeout_ms;
	if (sandbox_save_for(call, sandbox, PADDOCK__V1__SANDBOX_EVENT__TYPE__TYPE_TIMEOUT_SET) < 0) {
		sandbox->expires_unix_ms = before;
		sandbox->private->timeout_ms = timeout_before;
	} else if (sandbox->expires_unix_ms && sandbox->state != PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_CREATING) {
		sandbox_arm_expiry(sandbox);
	}
}

void sandbox_touch(struct sandbox *sandbox)
{
	int64_t due = loop_wall_ms() + (int64_t)sandbox->private->timeout_ms;

	if (due <= sandbox->expires_unix_ms || sandbox->state != PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_RUNNING)
		return;
	sandbox->expires_unix_ms = due;
	sandbox_arm_expiry(sandbox);
	sandbox_save(sandbox);
}

void sandboxes_set_timeout(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__V1__SetTimeoutRequest *request = (const void *)message;
	struct sandbox *sandbox;
	struct pdk_error err;
	int rc = validate_range("timeout_ms", request->timeout_ms, 0, SANDBOX_TIMEOUT_MAX_MS, &err);

	if (rc >= 0)
		rc = sandbox_find(call, request->sandbox_id, &sandbox, &err);
	if (rc >= 0) {
		rpc_audit_object(call, sandbox->id, NULL);
		rc = sandbox_check_living(sandbox, &err);
	}
	if (rc < 0)
		rpc_fail(call, &err);
	else if (request->timeout_ms == 0)
		sandbox_kill_for(call, sandbox);
	else
		sandbox_change_timeout(call, sandbox, request->timeout_ms);
}
