#include "loop.h"
#include "sandbox_internal.h"
#include <string.h>

/*
 * What a timeout does to a sandbox that is to be paused then:
 *
 *	RUNNING   a pause to disk; when that is refused, by freezing; when that fails too, it is killed
 *	PAUSED    (by a call, and its timeout went on) it stays so
 *	between   looked at again a second later
 *
 * Paused this way, or by a Pause with `keep`, it has no timeout (expires_unix_ms is 0) until it is resumed.
 */

#define STATE(name) PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_##name
#define AGAIN_MS 1000

static const char *const texts[] = {"paused on request", "its timeout ran out", "it was idle"};

const char *sandbox_pause_text(const char *text)
{
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		if (strcmp(texts[i], text) == 0)
			return texts[i];
	return NULL;
}

const char *sandbox_pause_detail(const struct sandbox *sandbox)
{
	const char *text = sandbox->private->pause_text;

	return text == texts[1] ? "{\"reason\":\"timeout\"}" : text == texts[2] ? "{\"reason\":\"idle\"}" : NULL;
}

Paddock__V1__EndReason sandbox_pause_reason(const struct sandbox *sandbox)
{
	return sandbox->private->pause_text == texts[2] ? PADDOCK__V1__END_REASON__END_REASON_IDLE
							: PADDOCK__V1__END_REASON__END_REASON_TIMEOUT;
}

void sandbox_stop_timeout(struct sandbox *sandbox)
{
	if (!sandbox->private->keep_paused)
		return;
	sandbox->expires_unix_ms = 0;
	loop_timer_cancel(&sandbox->private->timer);
}

void sandbox_restart_timeout(struct sandbox *sandbox, uint64_t timeout_ms)
{
	sandbox->expires_unix_ms = loop_wall_ms() + (int64_t)timeout_ms;
	sandbox_arm_expiry(sandbox);
}

static void pause_itself(struct sandbox *sandbox, const char *text)
{
	struct sandbox_private *private = sandbox->private;

	private->pausing_mode = PADDOCK__V1__PAUSE_MODE__PAUSE_MODE_CHECKPOINT;
	private->keep_paused = private->timed_out = private->freeze_else = true;
	private->pause_text = text;
	sandbox_begin_pause(sandbox);
}

bool sandbox_pause_idle(struct sandbox *sandbox)
{
	if (sandbox->private->on_timeout != PADDOCK__V1__TIMEOUT_ACTION__TIMEOUT_ACTION_PAUSE)
		return false;
	pause_itself(sandbox, texts[2]);
	return true;
}

bool sandbox_pause_at_timeout(struct sandbox *sandbox)
{
	struct sandbox_private *private = sandbox->private;
	bool is_ready = sandbox->guest && !private->adopting && !private->snapshot;

	if (private->on_timeout != PADDOCK__V1__TIMEOUT_ACTION__TIMEOUT_ACTION_PAUSE)
		return false;
	if (sandbox->state == STATE(PAUSED)) {
		private->keep_paused = true;
		sandbox_stop_timeout(sandbox);
		sandbox_save(sandbox);
	} else if (sandbox->state == STATE(RUNNING) && is_ready) {
		pause_itself(sandbox, texts[1]);
	} else {
		sandbox_restart_timeout(sandbox, AGAIN_MS);
	}
	return true;
}
