#ifndef PADDOCK_WARDEN_BOOTID_H
#define PADDOCK_WARDEN_BOOTID_H

#include "sandbox/base/error.h"
#include <stdint.h>

/*
 * /proc/sys/kernel/random/boot_id of a sandbox: programs tell by it whether a machine is another one, or was started anew, and
 * two copies of a sandbox must not be one machine. Derived from the sandbox's id, so a pause to disk does not change it and
 * nothing has to be kept. The files are in a small tmpfs of the warden's own mounts, RUNTIME_DIR/boot; a sandbox that lives
 * pins the one that it was made from over a restart of the warden.
 */

#define BOOTID_PLACE "/proc/sys/kernel/random/boot_id"

/* Once, in the warden. */
int bootid_setup(struct pdk_error *err);
/* Make the file; `base` is the host uid of the sandbox's root, whom it belongs to. 0 or a negative errno. */
int bootid_make(const char *id, uint32_t base);
/* Nothing if there is none. */
void bootid_remove(const char *id);
/* In the sandbox's first process, before it pivots: put it, read-only, over the one of this mount of proc. */
int bootid_cover(int proc, const char *id);
/* In a mount namespace of the caller's own: nothing can be written through its mount. */
int bootid_protect(void);

#endif
