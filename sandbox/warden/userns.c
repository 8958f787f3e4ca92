#include "userns.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel.h"
#include "log.h"
#include "netns.h"
#include "options.h"
#include "ranges.h"
#include "sandbox/base/cleanup.h"

#define STOCK_MAX 256
#define HELPER_STACK 65536
#define EXTEND_AGAIN_MS 1000

enum slot_state { SLOT_FREE, SLOT_USED, SLOT_QUARANTINED };

static uint8_t slots[USERNS_SLOTS];
static uint32_t next_slot;
static uint32_t taken;                   /* slots that are not free */
static uint32_t held;                    /* slots of the blocks that are ours */
static unsigned long long extend_due_ms; /* not before, after none could be had */
static struct userns stock[STOCK_MAX];
static unsigned int stock_count;

uint32_t userns_base(uint32_t slot)
{
	return options.range_base + slot * USERNS_IDS;
}

/* One block more when few are free, so that a slot rests before it is used again. */
static void keep_enough(void)
{
	uint32_t left = held - taken;

	if (left >= RANGES_BLOCK / 2 || (left && clock_ms() < extend_due_ms))
		return;
	if (ranges_extend() == 0)
		held += RANGES_BLOCK;
	else
		extend_due_ms = clock_ms() + EXTEND_AGAIN_MS;
}

static int slot_find(uint32_t *ret)
{
	keep_enough();
	for (uint32_t i = 0; i < USERNS_SLOTS; i++) {
		uint32_t slot = (next_slot + i) % USERNS_SLOTS;

		if (slots[slot] == SLOT_FREE && ranges_held(slot)) {
			slots[slot] = SLOT_USED;
			taken++;
			next_slot = (slot + 1) % USERNS_SLOTS;
			*ret = slot;
			return 0;
		}
	}
	return -EAGAIN;
}

/*
 * What the helper process does: it becomes the owner of the namespace under the sandbox's own host uid. The
 * kernel charges per-user limits (inotify instances, namespaces...) of a namespace to its creator, so one
 * sandbox cannot use up those of root or of another sandbox. Capabilities are kept over the change of
 * uid, because hosts may forbid unprivileged user namespaces.
 *
 * It runs in our memory, with our descriptors, while we stand still (as vfork(2)): a copy of the memory would cost
 * more than a quarter of what the namespaces do. Its last act is to open them, so they outlive it.
 */
static int helper_run(void *arg)
{
	struct userns *userns = arg;
	uid_t base = userns->base;
	int rc = 0;

	if (prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP) < 0 || setresgid(base, base, base) < 0 ||
	    setresuid(base, base, base) < 0 || unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
		rc = -errno;
	if (rc == 0)
		rc = netns_up();
	if (rc == 0) {
		userns->fd = open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC);
		userns->netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	}
	_exit(rc == 0 && userns->fd >= 0 && userns->netns >= 0 ? 0 : 1);
}

void userns_close(struct userns *userns)
{
	if (userns->fd >= 0)
		close(STEAL_FD(userns->fd));
	if (userns->netns >= 0)
		close(STEAL_FD(userns->netns));
}

/* The maps may be written once, by one who has the ids; the helper has ended, but it is not reaped yet. */
static int map_ids(pid_t pid, const struct userns *userns)
{
	char path[64], map[64];
	int rc;

	snprintf(map, sizeof(map), "0 %u %u\n", userns->base, USERNS_IDS);
	snprintf(path, sizeof(path), "/proc/%d/uid_map", pid);
	rc = file_write(AT_FDCWD, path, map);
	snprintf(path, sizeof(path), "/proc/%d/gid_map", pid);
	return rc < 0 ? rc : file_write(AT_FDCWD, path, map);
}

/* Safe with a hostile paddockd: nothing it says takes part; the range comes from the slot table alone. */
static int namespace_make(struct userns *userns)
{
	static char stack[HELPER_STACK] __attribute__((aligned(16)));
	siginfo_t info = {.si_status = 1};
	int rc;
	pid_t pid = clone(helper_run, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | CLONE_FILES | SIGCHLD, userns);

	if (pid < 0)
		return -errno;
	/* Dead, and still there to be named by its number. */
	if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) < 0 || info.si_status != 0)
		rc = -EPERM;
	else
		rc = map_ids(pid, userns);
	waitpid(pid, NULL, 0);
	if (rc < 0)
		userns_close(userns);
	return rc;
}

static int userns_make(struct userns *ret)
{
	struct userns made = USERNS_NONE;
	int rc = slot_find(&made.slot);

	if (rc < 0)
		return rc;
	made.base = userns_base(made.slot);
	rc = namespace_make(&made);
	if (rc < 0) {
		slots[made.slot] = SLOT_FREE;
		taken--;
		return rc;
	}
	*ret = made;
	return 0;
}

int userns_take(struct userns *ret, struct pdk_error *err)
{
	int rc;

	if (stock_count > 0) {
		*ret = stock[--stock_count];
		return 0;
	}
	rc = userns_make(ret);
	if (rc == -EAGAIN)
		return pdk_fail(err, rc, PDK_RESOURCE_EXHAUSTED, "all uid ranges are in use");
	return rc < 0 ? pdk_fail_errno(err, rc, "make a user namespace") : 0;
}

int userns_stock(unsigned int wanted)
{
	if (stock_count >= wanted || stock_count == STOCK_MAX)
		return 0;
	if (userns_make(&stock[stock_count]) < 0)
		return 0;
	stock_count++;
	return 1;
}

unsigned int userns_stocked(void)
{
	return stock_count;
}

void userns_release(uint32_t slot, bool verified)
{
	if (slot >= USERNS_SLOTS)
		return;
	slots[slot] = verified ? SLOT_FREE : SLOT_QUARANTINED;
	taken -= verified;
	if (!verified)
		log_warning("range_quarantined", NULL, "uid range %u is not used again", slot);
}

bool userns_reserve(uint32_t slot)
{
	bool had = ranges_held(slot);

	if (!ranges_reclaim(slot))
		return false;
	held += had ? 0 : RANGES_BLOCK;
	taken += slots[slot] == SLOT_FREE;
	slots[slot] = SLOT_USED;
	return true;
}
