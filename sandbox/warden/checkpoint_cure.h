#ifndef PADDOCK_WARDEN_CHECKPOINT_CURE_H
#define PADDOCK_WARDEN_CHECKPOINT_CURE_H

#include "sandbox/base/error.h"
#include <sys/types.h>

/*
 * What every thread of a sandbox was before CRIU came, and the way back to that when CRIU has ended in the middle of its
 * work. Both in the guard (checkpoint_guard.h), of a sandbox that is frozen.
 */

struct cure;

struct cure_report {
	unsigned int cured; /* processes that were not as before */
	unsigned int lost;  /* that have ended, or could not be put right */
	char who[64];       /* the first of these: "process 12 (python3)" */
};

/* `leaf`: of the v2 tree, stays open. -EAGAIN: a process cannot be stopped just now. */
int cure_create(int leaf, struct cure **ret, struct pdk_error *err);
void cure_free(struct cure *cure);
/* It is thawed meanwhile, and frozen again on return. */
void cure_apply(struct cure *cure, struct cure_report *ret);
/* Where CRIU looks at a file system of the sandbox without what is mounted on it, it makes a folder in its /tmp, and a mount on
 * that: the first process's file systems are rid of them. A folder of the host's root there would be in the way of every dump
 * that follows. */
void cure_sweep(pid_t first);

#endif
