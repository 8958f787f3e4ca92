#ifndef PADDOCK_WARDEN_ROOTFS_H
#define PADDOCK_WARDEN_ROOTFS_H

#include "sandbox/base/error.h"
#include <stdbool.h>
#include <stdint.h>

/* The file system that a sandbox sees: made with the host's capabilities, put together in a mount namespace that the
 * sandbox's user namespace owns. */

/* Once, in the warden: the shared device directory, the masks, the mount point of roots. */
int rootfs_setup(struct pdk_error *err);

struct rootfs_plan {
	const char *id;
	const char *template_id;
	const char *tools; /* directory name below tools/, or NULL */
	int userns;
	uint32_t base; /* host uid of the sandbox's root */
	uint64_t memory_bytes, max_inodes;
};

/* Detached mounts on their way from the builder to the sandbox's first process. */
struct rootfs_parts {
	int root, pts, shm, tmp, run;
	const char *id;
};
/* With the host's capabilities and the file-system ids of the sandbox's root: make the parts. 0 or a negative errno,
 * with `*ret_step` naming what failed. The descriptors end with the process. */
int rootfs_prepare(const struct rootfs_plan *plan, struct rootfs_parts *parts, const char **ret_step);
/* In the sandbox's own namespaces: put them together, pivot, detach the old root. */
int rootfs_enter(const struct rootfs_parts *parts, const char **ret_step);

/* The paths of the sandbox's /proc that are covered: by our empty directory, or by our empty file. */
void rootfs_each_cover(void (*found)(const char *path, bool is_directory, void *arg), void *arg);

/* Where the sandbox sees init and its helper: a read-only mount of ours. A checkpoint names the file that a process
 * executes by its place, and what lies in the sandbox's own layer could be replaced meanwhile. */
#define ROOTFS_PROGRAMS "/run/init"

/* A root for a confined helper: an empty read-only directory tree with one directory of the pool at /target. */
int rootfs_enter_import(const char *name, int is_template, int userns, const char **ret_step);

#endif
