#ifndef PADDOCK_WARDEN_INODES_H
#define PADDOCK_WARDEN_INODES_H

#include <stdbool.h>
#include <stdint.h>

/*
 * The limit on the number of inodes of a sandbox's layer. btrfs has none, so the warden counts, and while a layer holds
 * more than it may, its byte quota is set so low that nothing new fits (EDQUOT); removing always works.
 *
 * Inode numbers of btrfs only grow, so "is there one above the highest that I know" is one search in the tree, and
 * what was created so far bounds what there is. Only when that bound passes the limit are the living ones counted, in
 * slices of a millisecond. A layer is looked at again before it could reach its limit at INODES_PER_MS, but at most
 * every INODES_MS_MIN and at least every INODES_MS_MAX; up to a quarter earlier when others are due, so that idle sandboxes come
 * to be looked at in one go. All looking together takes at most a twentieth of one
 * processor, a quarter while something is counted.
 */
#define INODES_PER_MS 200u
#define INODES_MS_MIN 10u
#define INODES_MS_MAX 1000u

struct inode_watch {
	uint64_t highest;    /* the highest inode number seen */
	uint64_t counted_at; /* `highest` when `counted` was true; 0: never counted */
	uint64_t counted;
	uint64_t scan_next, scan_count; /* a count that is under way, if scan_next is not 0 */
	unsigned long long due_ms;
	unsigned long long from_ms; /* when somebody else is due, it may be looked at from here on */
	bool clamped;               /* the byte quota is at its lowest */
};

/* Forget what is known, e.g. because the limit or the byte quota was set anew. */
void inodes_reset(struct inode_watch *watch);
/* No more than this many inodes are there. */
uint64_t inodes_bound(const struct inode_watch *watch);
/* Look at the layers that are due. Milliseconds until the next turn, or -1 with no sandbox. */
int inodes_tick(void);

#endif
