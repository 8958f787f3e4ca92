#ifndef PADDOCK_WARDEN_ROOTFS_H
#define PADDOCK_WARDEN_ROOTFS_H

#include "sandbox/base/error.h"
#include <stdint.h>

/* The file system that a sandbox sees, built in the cloned child with the host's credentials (so nothing inside
 * can change it) and its own copy of the warden's mount namespace. */

/* Once, in the warden: the shared device directory, the masks, the mount point of roots. */
int rootfs_setup(struct pdk_error *err);

struct rootfs_plan {
	const char *id;
	const char *template_id;
	const char *tools; /* directory name below tools/, or NULL */
	int userns;
	uint32_t base; /* host uid of the sandbox's root */
	uint64_t memory_bytes;
};
/* Build, pivot, detach the old root. 0 or a negative errno, with `*ret_step` naming what failed. */
int rootfs_enter(const struct rootfs_plan *plan, const char **ret_step);

/* A root for a confined helper: an empty read-only directory tree with one directory of the pool at /target. */
int rootfs_enter_import(const char *name, int is_template, int userns, const char **ret_step);

#endif
