#ifndef PADDOCK_WARDEN_BTRFS_H
#define PADDOCK_WARDEN_BTRFS_H

#include <stdbool.h>
#include <stdint.h>

/* The btrfs ioctls that the pool needs. `parent` is a directory descriptor, `name` one path component.
 * All return 0 or a negative errno. */
int btrfs_subvolume_create(int parent, const char *name);
int btrfs_subvolume_destroy(int parent, const char *name);
int btrfs_subvolume_set_readonly(int subvolume, bool readonly);
bool btrfs_subvolume_readonly(int subvolume);
int btrfs_subvolume_id(int subvolume, uint64_t *ret_id);
/* Turn quotas on: simple quotas where the kernel has them (6.7), else qgroups. */
int btrfs_quota_enable(int fs);
/* Limit what the subvolume may hold, metadata included. */
int btrfs_quota_limit(int subvolume, uint64_t bytes);
/* Bytes charged to the subvolume at the last commit. */
int btrfs_quota_usage(int subvolume, uint64_t *ret_bytes);
/* The number of inodes ever created in the subvolume: an upper bound of those that exist, found in constant
 * time, because btrfs numbers inodes upwards. */
int btrfs_inodes_created(int subvolume, uint64_t *ret_count);
/* Remove the quota records of subvolumes that are gone (kernels before 6.11 keep them). */
void btrfs_quota_forget(int fs, uint64_t subvolume_id);

#endif
