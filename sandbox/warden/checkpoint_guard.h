#ifndef PADDOCK_WARDEN_CHECKPOINT_GUARD_H
#define PADDOCK_WARDEN_CHECKPOINT_GUARD_H

#include "checkpoint.h"

/*
 * The guard stands between the job and the CRIU of a dump: it starts it, ends it when its time is over, and puts the
 * sandbox's processes right when CRIU ended in any way but a good one. It outlives the job and the warden, as CRIU does, and
 * holds the same lock; when that is free the sandbox is frozen and may be thawed.
 */

struct guard {
	pid_t pid;
	int word; /* the end of a pipe on which it says how it went */
};

/* `execute` becomes CRIU, in a child of the guard. */
int guard_start(const struct checkpoint_plan *plan, int dir,
		int (*execute)(const struct checkpoint_plan *plan, int dir), struct guard *ret, struct pdk_error *err);
/* When it has ended: 0, or what went wrong, by CRIU's log in `dir` where there is a reason in it. */
int guard_wait(struct guard *guard, int dir, struct pdk_error *err);

#endif
