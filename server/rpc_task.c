#include "rpc_task.h"

#include <stddef.h>

/* See rpc_task.h. */

static void run(struct loop_task *loop_task)
{
	struct rpc_task *task = (struct rpc_task *)((char *)loop_task - offsetof(struct rpc_task, task));
	bool more = true;

	/* Each round lets go of the lock: a long stream to a fast reader must not keep the others out. */
	while (more) {
		loop_lock();
		task->due = false;
		task->serve(task->call);
		more = task->due;
		if (!more) {
			task->busy = false;
			task->call->pending--;
			rpc_call_settle(task->call);
		}
		loop_unlock();
	}
}

void rpc_task_wake(struct rpc_task *task)
{
	task->due = true;
	if (task->busy)
		return;
	task->busy = true;
	task->call->pending++;
	task->task.run = run;
	loop_after_unlock(&task->task);
}
