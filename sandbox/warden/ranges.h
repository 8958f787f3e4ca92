#ifndef PADDOCK_WARDEN_RANGES_H
#define PADDOCK_WARDEN_RANGES_H

#include "sandbox/base/error.h"
#include <stdbool.h>
#include <stdint.h>

/*
 * Which uid ranges of the host are this warden's. Wardens of one host share the ids from range_base on, so each takes
 * blocks of slots (userns.h) under a lock, /run/paddock-ranges/<first id of the block>, and holds it until it ends. A
 * block whose lock is free is still left alone while a process with one of its ids lives: the sandboxes of a warden
 * that was killed outlive it, and it will come back for them.
 */

#define RANGES_BLOCK 256u /* slots */

/* Make and open the folder of the locks. */
int ranges_setup(struct pdk_error *err);
/* Does this warden hold the slot's block? */
bool ranges_held(uint32_t slot);
/* Take the block of a slot that a living sandbox of ours has. False: another warden holds it. */
bool ranges_reclaim(uint32_t slot);
/* Take one more block that nobody uses. 0; -EAGAIN when there is none. */
int ranges_extend(void);

#endif
