#include "loop.h"
#include "rpc.h"
#include "sandbox/base/cleanup.h"
#include "sandbox_internal.h"
#include <stdlib.h>
#include <string.h>

/*
 * Calls that need the inside of a sandbox whose link is away for a moment: a snapshot of it is being taken, it is being
 * taken over after a restart, or it is paused and resumes on use. They wait and are then given to their handlers anew. A
 * client that streams its request cannot wait, since its first message is gone by then: it hears UNAVAILABLE.
 */

static void on_cancel(struct rpc_call *call, const struct pdk_error *why)
{
	sandbox_waiter_remove(rpc_user(call));
	rpc_unpark_fail(call, why);
}

bool sandbox_park(const struct rpc_call *reader, struct sandbox *sandbox)
{
	struct rpc_call *call = (struct rpc_call *)(uintptr_t)reader;

	if (!rpc_can_park(call) || sandbox_wait(sandbox, &sandbox->private->parked, call, on_cancel) < 0)
		return false;
	rpc_park(call);
	return true;
}

void sandbox_unpark(struct sandbox *sandbox)
{
	struct sandbox_waiter *waiter, *last = sandbox->private->parked;

	if (!last)
		return;
	/* Those that wait again meanwhile come behind this one. */
	while (last->next)
		last = last->next;
	do {
		waiter = sandbox_waiter_take(&sandbox->private->parked);
		if (waiter)
			rpc_unpark(waiter->call);
	} while (waiter && waiter != last);
}

void sandbox_park_fail(struct sandbox *sandbox, const struct pdk_error *err)
{
	struct sandbox_waiter *waiter;

	while ((waiter = sandbox_waiter_take(&sandbox->private->parked)))
		rpc_unpark_fail(waiter->call, err);
}

/* --- resume on use --- */

static void wake(void *arg)
{
	_cleanup_free_ char *id = arg;
	struct sandbox *sandbox = sandbox_get(id);

	if (sandbox)
		sandbox_resume_on_use(sandbox);
}

void sandbox_wake(struct sandbox *sandbox)
{
	char *id;

	if (sandbox->state != PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_PAUSED)
		return;
	id = strdup(sandbox->id);
	/* Not from inside a handler. Without memory, the next use tries again. */
	if (!id || loop_defer(wake, id) < 0)
		free(id);
}

void sandbox_want(struct sandbox *sandbox)
{
	if (sandbox->private->auto_resume)
		sandbox_wake(sandbox);
}
