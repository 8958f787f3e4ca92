#include "btrfs.h"

#include <errno.h>
#include <linux/btrfs.h>
#include <linux/btrfs_tree.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/xattr.h>

#ifndef BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA
#define BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA 4
#endif

static int name_call(int parent, unsigned long request, const char *name)
{
	struct btrfs_ioctl_vol_args args = {.fd = 0};

	if ((size_t)snprintf(args.name, sizeof(args.name), "%s", name) >= sizeof(args.name))
		return -ENAMETOOLONG;
	return ioctl(parent, request, &args) < 0 ? -errno : 0;
}

int btrfs_subvolume_create(int parent, const char *name)
{
	return name_call(parent, BTRFS_IOC_SUBVOL_CREATE, name);
}

int btrfs_subvolume_snapshot(int subvolume, int parent, const char *name)
{
	struct btrfs_ioctl_vol_args_v2 args = {.fd = subvolume};

	if ((size_t)snprintf(args.name, sizeof(args.name), "%s", name) >= sizeof(args.name))
		return -ENAMETOOLONG;
	return ioctl(parent, BTRFS_IOC_SNAP_CREATE_V2, &args) < 0 ? -errno : 0;
}

int btrfs_subvolume_generation(int subvolume, uint64_t *ret)
{
	struct btrfs_ioctl_get_subvol_info_args info = {.treeid = 0};

	if (ioctl(subvolume, BTRFS_IOC_GET_SUBVOL_INFO, &info) < 0)
		return -errno;
	*ret = info.generation;
	return 0;
}

int btrfs_subvolume_destroy(int parent, const char *name)
{
	return name_call(parent, BTRFS_IOC_SNAP_DESTROY, name);
}

int btrfs_sync(int fs)
{
	return ioctl(fs, BTRFS_IOC_SYNC) < 0 ? -errno : 0;
}

int btrfs_subvolume_set_readonly(int subvolume, bool readonly)
{
	uint64_t flags = readonly ? BTRFS_SUBVOL_RDONLY : 0;

	return ioctl(subvolume, BTRFS_IOC_SUBVOL_SETFLAGS, &flags) < 0 ? -errno : 0;
}

bool btrfs_subvolume_readonly(int subvolume)
{
	uint64_t flags = 0;

	return ioctl(subvolume, BTRFS_IOC_SUBVOL_GETFLAGS, &flags) == 0 && (flags & BTRFS_SUBVOL_RDONLY);
}

int btrfs_subvolume_id(int subvolume, uint64_t *ret_id)
{
	struct btrfs_ioctl_ino_lookup_args args = {.treeid = 0, .objectid = BTRFS_FIRST_FREE_OBJECTID};

	if (ioctl(subvolume, BTRFS_IOC_INO_LOOKUP, &args) < 0)
		return -errno;
	*ret_id = args.treeid;
	return 0;
}

int btrfs_compress(int directory, const char *how)
{
	return fsetxattr(directory, "btrfs.compression", how, strlen(how), 0) < 0 ? -errno : 0;
}

int btrfs_quota_enable(int fs)
{
	struct btrfs_ioctl_quota_ctl_args args = {.cmd = BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA};

	if (ioctl(fs, BTRFS_IOC_QUOTA_CTL, &args) == 0 || errno == EEXIST)
		return 0;
	args.cmd = BTRFS_QUOTA_CTL_ENABLE;
	return ioctl(fs, BTRFS_IOC_QUOTA_CTL, &args) < 0 && errno != EEXIST ? -errno : 0;
}

int btrfs_quota_limit(int fs, int subvolume, uint64_t bytes)
{
	struct btrfs_ioctl_qgroup_limit_args args = {
		.lim = {.flags = BTRFS_QGROUP_LIMIT_MAX_RFER, .max_rfer = bytes},
	};
	uint64_t id;
	int rc = btrfs_subvolume_id(subvolume, &id);

	if (rc < 0)
		return rc;
	args.qgroupid = id;
	return ioctl(fs, BTRFS_IOC_QGROUP_LIMIT, &args) < 0 ? -errno : 0;
}

/* One search in a tree; the first item at or after the least key, up to the greatest. 1 found, 0 not. */
static int tree_first(int fd, struct btrfs_ioctl_search_key *key, struct btrfs_ioctl_search_header *ret, void *item,
		      size_t size)
{
	struct btrfs_ioctl_search_args args;

	memset(&args, 0, sizeof(args));
	args.key = *key;
	args.key.nr_items = 1;
	if (ioctl(fd, BTRFS_IOC_TREE_SEARCH, &args) < 0)
		return -errno;
	if (args.key.nr_items == 0)
		return 0;
	memcpy(ret, args.buf, sizeof(*ret));
	if (item && ret->len >= size)
		memcpy(item, args.buf + sizeof(*ret), size);
	return 1;
}

int btrfs_quota_usage(int subvolume, uint64_t *ret_bytes)
{
	struct btrfs_ioctl_search_header header;
	struct btrfs_qgroup_info_item info = {.rfer = 0};
	uint64_t id;
	int rc = btrfs_subvolume_id(subvolume, &id);

	if (rc < 0)
		return rc;
	rc = tree_first(subvolume,
			&(struct btrfs_ioctl_search_key){
				.tree_id = BTRFS_QUOTA_TREE_OBJECTID,
				.min_type = BTRFS_QGROUP_INFO_KEY,
				.max_type = BTRFS_QGROUP_INFO_KEY,
				.min_offset = id,
				.max_offset = id,
				.max_transid = UINT64_MAX,
			},
			&header, &info, sizeof(info));
	if (rc < 0)
		return rc;
	*ret_bytes = info.rfer;
	return 0;
}

#define INODE_LAST (UINT64_C(1) << 48) /* above: trees of the file system's own */

/* An item of an inode at or above `least`: 1 and its number, or 0. */
static int inode_above(int subvolume, uint64_t least, uint64_t *ret)
{
	struct btrfs_ioctl_search_header header;
	int rc = tree_first(subvolume,
			    &(struct btrfs_ioctl_search_key){
				    .min_objectid = least,
				    .max_objectid = INODE_LAST,
				    .max_type = UINT8_MAX,
				    .max_offset = UINT64_MAX,
				    .max_transid = UINT64_MAX,
			    },
			    &header, NULL, 0);

	if (rc == 1)
		*ret = header.objectid;
	return rc;
}

int btrfs_inode_highest(int subvolume, uint64_t *highest)
{
	uint64_t low = *highest, found = 0, step = 1, high;
	int rc;

	/* Stride until there is none, then bisect between. */
	while ((rc = inode_above(subvolume, low + step, &found)) == 1) {
		low = found;
		step *= 2;
	}
	if (rc < 0)
		return rc;
	for (high = low + step - 1; low < high;) {
		uint64_t middle = low + (high - low + 1) / 2;

		rc = inode_above(subvolume, middle, &found);
		if (rc < 0)
			return rc;
		if (rc == 1)
			low = found;
		else
			high = middle - 1;
	}
	*highest = low;
	return 0;
}

int btrfs_inodes_count(int subvolume, uint64_t *next, uint64_t *ret_count)
{
	static union {
		struct btrfs_ioctl_search_args_v2 args;
		char bytes[sizeof(struct btrfs_ioctl_search_args_v2) + 65536];
	} search;
	const char *at = (const char *)search.args.buf;
	struct btrfs_ioctl_search_header header = {.objectid = 0};

	search.args.key = (struct btrfs_ioctl_search_key){
		.min_objectid = *next,
		.max_objectid = INODE_LAST,
		.min_type = BTRFS_INODE_ITEM_KEY,
		.max_type = BTRFS_INODE_ITEM_KEY,
		.max_offset = UINT64_MAX,
		.max_transid = UINT64_MAX,
		.nr_items = UINT32_MAX,
	};
	search.args.buf_size = sizeof(search.bytes) - sizeof(search.args);
	if (ioctl(subvolume, BTRFS_IOC_TREE_SEARCH_V2, &search.args) < 0)
		return -errno;
	for (uint32_t i = 0; i < search.args.key.nr_items; i++) {
		memcpy(&header, at, sizeof(header));
		at += sizeof(header) + header.len;
		/* The kernel compares keys as a whole: other items of inodes in between come along. */
		*ret_count += header.type == BTRFS_INODE_ITEM_KEY;
	}
	*next = header.objectid + 1;
	return search.args.key.nr_items > 0;
}

void btrfs_quota_forget(int fs, uint64_t subvolume_id)
{
	struct btrfs_ioctl_qgroup_create_args args = {.create = 0, .qgroupid = subvolume_id};

	/* -EBUSY or -ENOENT: the kernel removes the record itself. Nothing depends on it. */
	if (ioctl(fs, BTRFS_IOC_QGROUP_CREATE, &args) < 0)
		return;
}
