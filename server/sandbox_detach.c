#include "guest.h"
#include "loop.h"
#include "processes.h"
#include "sandbox_internal.h"
#include <errno.h>

/*
 * What of a sandbox leads outside is in two places: the pipes of its processes, which paddockd reads and writes, and the
 * link to init. A checkpoint or snapshot can hold neither. What is in a pipe when it is let go stays there.
 */

#define AGAIN_NS (5 * 1000000ull)
#define TRIES 400

static void on_hung_up(void *arg)
{
	struct sandbox *sandbox = arg;

	sandbox->guest = NULL;
	sandbox->private->detached(sandbox, 0);
}

static void try(void *arg)
{
	struct sandbox *sandbox = arg;
	struct loop_timer *timer = &sandbox->private->detach_timer;
	int rc = processes_suspend(sandbox);

	timer->handler = try;
	timer->arg = sandbox;
	if (rc == -EAGAIN && sandbox->private->detach_tries++ < TRIES &&
	    loop_timer_set(timer, loop_now_ns() + AGAIN_NS) >= 0)
		return;
	if (rc >= 0)
		sandbox->private->adopting = true; /* until there is a link again, calls hear that they may try again */
	if (rc >= 0)
		guest_hang_up(sandbox->guest, on_hung_up, sandbox);
	else
		sandbox->private->detached(sandbox, rc);
}

void sandbox_detach(struct sandbox *sandbox, void (*done)(struct sandbox *sandbox, int rc))
{
	sandbox->private->detach_tries = 0;
	sandbox->private->detached = done;
	try(sandbox);
}
