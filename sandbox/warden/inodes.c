#include "inodes.h"

#include <fcntl.h>
#include <inttypes.h>
#include <time.h>
#include <unistd.h>

#include "btrfs.h"
#include "kernel.h"
#include "log.h"
#include "pool.h"
#include "sandbox.h"
#include "sandbox/base/cleanup.h"

#define COST_SHARE 20u
#define COST_SHARE_COUNTING 4u
#define SLICE 16 /* searches */
#define RECOUNT_MS 100u

static unsigned long long next_ms;

void inodes_reset(struct inode_watch *watch)
{
	*watch = (struct inode_watch){.highest = BTRFS_INODE_FIRST};
	/* Nobody knows yet how soon it may reach its limit: the pause that was meant for the others ends. */
	next_ms = 0;
}

uint64_t inodes_bound(const struct inode_watch *watch)
{
	return watch->counted_at ? watch->counted + (watch->highest - watch->counted_at)
				 : watch->highest - BTRFS_INODE_FIRST;
}

/* One slice of the count of living inodes. True when it is complete. */
static bool count_slice(struct inode_watch *watch, int layer)
{
	if (watch->scan_next == 0) {
		watch->scan_next = BTRFS_INODE_FIRST + 1;
		watch->scan_count = 0;
	}
	for (int i = 0; i < SLICE; i++) {
		uint64_t found = 0;
		int rc = btrfs_inodes_count(layer, &watch->scan_next, &found);

		watch->scan_count += found;
		if (rc > 0)
			continue;
		if (rc == 0) {
			watch->counted = watch->scan_count;
			watch->counted_at = watch->highest;
		}
		watch->scan_next = 0;
		return rc == 0;
	}
	return false;
}

static void clamp(struct sandbox *s, int layer, bool on)
{
	if (s->inodes.clamped == on || pool_limit(layer, on ? 1 : s->limits.disk_bytes) < 0)
		return;
	s->inodes.clamped = on;
	log_info(on ? "inodes_over" : "inodes_under", s->id, "%" PRIu64 " of %" PRIu64, s->inodes.counted,
		 s->limits.max_inodes);
}

static unsigned long long interval(const struct inode_watch *watch, uint64_t limit)
{
	uint64_t bound = inodes_bound(watch);
	uint64_t ms = bound < limit ? (limit - bound) / INODES_PER_MS : 0;

	if (watch->clamped)
		return RECOUNT_MS;
	return ms < INODES_MS_MIN ? INODES_MS_MIN : ms > INODES_MS_MAX ? INODES_MS_MAX : ms;
}

static void look(struct sandbox *s, unsigned long long now)
{
	struct inode_watch *watch = &s->inodes;
	_cleanup_fd_ int layer = pool_open_directory(POOL_SANDBOXES, s->id);
	unsigned long long pause;

	watch->due_ms = watch->from_ms = now + INODES_MS_MAX;
	if (layer < 0 || btrfs_inode_highest(layer, &watch->highest) < 0)
		return;
	if (watch->clamped || watch->scan_next || inodes_bound(watch) > s->limits.max_inodes) {
		if (!count_slice(watch, layer)) {
			watch->due_ms = watch->from_ms = now; /* the next slice, in the next turn */
			return;
		}
		clamp(s, layer, inodes_bound(watch) > s->limits.max_inodes);
	}
	pause = interval(watch, s->limits.max_inodes);
	watch->due_ms = now + pause;
	watch->from_ms = now + pause - pause / 4;
}

struct turn {
	unsigned long long now, due;
	bool counting;
};

static void visit(struct sandbox *s, void *arg)
{
	struct turn *turn = arg;
	struct inode_watch *watch = &s->inodes;

	if (s->state != SANDBOX_RUNNING)
		return;
	if (turn->now >= watch->from_ms)
		look(s, turn->now);
	turn->counting |= watch->scan_next != 0;
	if (watch->due_ms < turn->due)
		turn->due = watch->due_ms;
}

static unsigned long long clock_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (unsigned long long)now.tv_sec * 1000000 + (unsigned long long)now.tv_nsec / 1000;
}

int inodes_tick(void)
{
	struct turn turn = {.now = clock_ms(), .due = UINT64_MAX};
	unsigned long long began = clock_us(), pause;

	if (sandbox_count() == 0)
		return -1;
	if (turn.now < next_ms && next_ms - turn.now <= 60000)
		return (int)(next_ms - turn.now);
	sandbox_visit(visit, &turn);
	pause = (clock_us() - began) * (turn.counting ? COST_SHARE_COUNTING : COST_SHARE) / 1000;
	if (pause < INODES_MS_MIN && !turn.counting)
		pause = INODES_MS_MIN;
	if (turn.due != UINT64_MAX && turn.due > turn.now + pause)
		pause = turn.due - turn.now > INODES_MS_MAX ? INODES_MS_MAX : turn.due - turn.now;
	next_ms = turn.now + pause;
	return (int)pause;
}
