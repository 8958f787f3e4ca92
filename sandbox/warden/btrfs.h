#ifndef PADDOCK_WARDEN_BTRFS_H
#define PADDOCK_WARDEN_BTRFS_H

#include <stdbool.h>
#include <stdint.h>

/* The btrfs ioctls that the pool needs. `parent` is a directory descriptor, `name` one path component.
 * All return 0 or a negative errno. */
int btrfs_subvolume_create(int parent, const char *name);
/* A writable copy of what it holds now, dirty pages included, whatever its size. On disk on return. */
int btrfs_subvolume_snapshot(int subvolume, int parent, const char *name);
/* A number that is another one after every change of the subvolume. */
int btrfs_subvolume_generation(int subvolume, uint64_t *ret);
int btrfs_subvolume_destroy(int parent, const char *name);
/* Write everything out, and have the kernel take the space of destroyed subvolumes back now, not at its next commit (30
 * s). */
int btrfs_sync(int fs);
int btrfs_subvolume_set_readonly(int subvolume, bool readonly);
bool btrfs_subvolume_readonly(int subvolume);
int btrfs_subvolume_id(int subvolume, uint64_t *ret_id);
/* Turn quotas on: simple quotas where the kernel has them (6.7), else qgroups. */
int btrfs_quota_enable(int fs);
/* Limit what the subvolume may hold, metadata included. `fs` is of another subvolume without a limit: the kernel
 * charges the change to it, and would refuse it in one that is full. */
int btrfs_quota_limit(int fs, int subvolume, uint64_t bytes);
/* Have what is made in a directory from now on compressed by "lzo" or "zstd"; what does not get smaller is left as it is. */
int btrfs_compress(int directory, const char *how);
/* Bytes charged to the subvolume at the last commit, as they are on disk. */
int btrfs_quota_usage(int subvolume, uint64_t *ret_bytes);
#define BTRFS_INODE_FIRST UINT64_C(256) /* the subvolume's own directory */
/* Raise `*highest` to the highest inode number in the subvolume. btrfs numbers inodes upwards and never again, so that
 * one search tells when there is none above, and the number bounds how many there are. */
int btrfs_inode_highest(int subvolume, uint64_t *highest);
/* Count inodes from number `*next` on, a few hundred at a time. 1: `*next` says where to go on; 0: that was the end. */
int btrfs_inodes_count(int subvolume, uint64_t *next, uint64_t *ret_count);
/* Remove the quota records of subvolumes that are gone (kernels before 6.11 keep them). */
void btrfs_quota_forget(int fs, uint64_t subvolume_id);

#endif
