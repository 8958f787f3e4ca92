#ifndef PADDOCK_WARDEN_POOL_H
#define PADDOCK_WARDEN_POOL_H

#include "sandbox/base/error.h"
#include <stdint.h>

/*
 * The storage pool: a btrfs file system, in a loop-mounted image DATA_DIR/pool.btrfs or, where DATA_DIR is on
 * btrfs, the directory DATA_DIR/pool. It is mounted at RUNTIME_DIR/pool in the warden's private mount
 * namespace only. Living sandboxes pin the file system and its loop device, so a new warden finds the device
 * of a dead one by the image's inode and mounts it again.
 *
 *	templates/<template id>        read-only subvolume, and <template id>.meta
 *	sandboxes/<id>/{upper,work}    a sandbox's layer: one subvolume with a quota
 *	stock/<n>                      layers made ahead of time
 *	import/<n>                     a template being unpacked
 *	trash/<name>                   what waits for its removal
 *	checkpoints/<id>               processes and memory of a paused sandbox (checkpoint.h); <id>.new: in the making
 *	snapshots/<snapshot>           processes and memory of a snapshot, and <snapshot>.layer (snapshot.h)
 *	tools/<hash>/usr/bin/sudo      the layer above every template
 *
 * All names are made by the warden or are checked ids; every operation is relative to a descriptor.
 */
enum pool_dir {
	POOL_TEMPLATES,
	POOL_SANDBOXES,
	POOL_STOCK,
	POOL_IMPORT,
	POOL_TRASH,
	POOL_TOOLS,
	POOL_CHECKPOINTS,
	POOL_SNAPSHOTS,
	POOL_DIRS
};

int pool_open(struct pdk_error *err);
/* Descriptor of one of the directories above. */
int pool_dir(enum pool_dir which);
/* Open a directory of it, for reading. A negative errno if that fails. */
int pool_open_directory(enum pool_dir where, const char *name);
/* Where the pool is mounted, for children that have their own copy of the namespace. */
const char *pool_path(void);
void pool_space(uint64_t *ret_total, uint64_t *ret_free);

/* Give the sandbox a fresh layer with a byte quota. */
int pool_layer_take(const char *id, uint64_t bytes, struct pdk_error *err);
int pool_layer_limit(const char *id, uint64_t bytes, struct pdk_error *err);
/* The byte quota of an open subvolume of the pool. */
int pool_limit(int subvolume, uint64_t bytes);
/* `*highest_inode` as btrfs_inode_highest() has it. */
void pool_layer_usage(const char *id, uint64_t *ret_bytes, uint64_t *highest_inode);
/* Make one layer for the stock. 1 if it did. */
int pool_stock(unsigned int wanted);
unsigned int pool_stocked(void);

/* Move a subvolume out of its directory; the disk space comes back later. 0 if it does not exist. */
int pool_discard(enum pool_dir from, const char *name);
/* Empty the trash in a worker process, a moment after the first piece came. 1 if it started one. */
int pool_trash_work(void);
/* Milliseconds until pool_trash_work() has something to do, or -1. */
int pool_tick(void);
/* Put what earlier wardens left in stock/ and import/ into the trash. */
void pool_reconcile(void);
void pool_enumerate(enum pool_dir which, void (*found)(const char *name));

#endif
