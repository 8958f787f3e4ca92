#ifndef PADDOCK_SERVER_RPC_TASK_H
#define PADDOCK_SERVER_RPC_TASK_H

#include "rpc_internal.h"

/*
 * What a transport owes its call outside of the handler that asked for it: handlers are never entered from inside
 * themselves. For rpc_link.c and rpc_local.c; embedded in their calls.
 */
struct rpc_task {
	struct loop_task task;
	struct rpc_call *call;
	void (*serve)(struct rpc_call *call); /* with the lock; sets `due` if there is more */
	bool busy;                            /* queued or running; counts in call->pending meanwhile */
	bool due;                             /* there is something new for it */
};

/* Have serve() called once the lock was released. Lock held. */
void rpc_task_wake(struct rpc_task *task);

#endif
