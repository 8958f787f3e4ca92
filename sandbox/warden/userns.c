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
#include "sandbox/base/cleanup.h"

#define STOCK_MAX 256

enum slot_state { SLOT_FREE, SLOT_USED, SLOT_QUARANTINED };

static uint8_t slots[USERNS_SLOTS];
static uint32_t next_slot;
static struct userns stock[STOCK_MAX];
static unsigned int stock_count;

uint32_t userns_base(uint32_t slot)
{
	return options.range_base + slot * USERNS_IDS;
}

static int slot_find(uint32_t *ret)
{
	for (uint32_t i = 0; i < USERNS_SLOTS; i++) {
		uint32_t slot = (next_slot + i) % USERNS_SLOTS;

		if (slots[slot] == SLOT_FREE) {
			slots[slot] = SLOT_USED;
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
 */
static void helper_run(uint32_t base, int ready, int hold)
{
	char byte = 0;

	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP) < 0 ||
	    setresgid(base, base, base) < 0 || setresuid(base, base, base) < 0 ||
	    unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0 || netns_configure() < 0)
		_exit(1);
	if (write(ready, &byte, 1) != 1)
		_exit(1);
	while (read(hold, &byte, 1) < 0 && errno == EINTR)
		;
	_exit(0);
}

void userns_close(struct userns *userns)
{
	if (userns->fd >= 0)
		close(STEAL_FD(userns->fd));
	if (userns->netns >= 0)
		close(STEAL_FD(userns->netns));
}

static int open_namespace(pid_t pid, const char *name)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/ns/%s", pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int map_ids(pid_t pid, struct userns *userns)
{
	char path[64], map[64];
	int rc;

	snprintf(map, sizeof(map), "0 %u %u\n", userns->base, USERNS_IDS);
	snprintf(path, sizeof(path), "/proc/%d/uid_map", pid);
	rc = file_write(AT_FDCWD, path, map);
	snprintf(path, sizeof(path), "/proc/%d/gid_map", pid);
	if (rc == 0)
		rc = file_write(AT_FDCWD, path, map);
	if (rc < 0)
		return rc;
	userns->fd = open_namespace(pid, "user");
	userns->netns = open_namespace(pid, "net");
	if (userns->fd >= 0 && userns->netns >= 0)
		return 0;
	rc = userns->fd < 0 ? userns->fd : userns->netns;
	userns_close(userns);
	return rc;
}

/* Safe with a hostile paddockd: nothing it says takes part; the range comes from the slot table alone. */
static int namespace_make(struct userns *userns)
{
	int ready[2] = {-1, -1}, hold[2] = {-1, -1};
	char byte;
	pid_t pid;
	int rc;

	if (pipe2(ready, O_CLOEXEC) < 0)
		return -errno;
	if (pipe2(hold, O_CLOEXEC) < 0) {
		rc = -errno;
		close(ready[0]);
		close(ready[1]);
		return rc;
	}
	pid = fork();
	if (pid == 0) {
		close(ready[0]);
		close(hold[1]);
		helper_run(userns->base, ready[1], hold[0]);
	}
	rc = pid < 0 ? -errno : 0;
	close(ready[1]);
	close(hold[0]);
	if (rc == 0)
		rc = read(ready[0], &byte, 1) == 1 ? map_ids(pid, userns) : -EPERM;
	close(ready[0]);
	close(hold[1]);
	if (pid > 0)
		waitpid(pid, NULL, 0);
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
	if (!verified)
		log_warning("range_quarantined", NULL, "uid range %u is not used again", slot);
}

void userns_reserve(uint32_t slot)
{
	if (slot < USERNS_SLOTS)
		slots[slot] = SLOT_USED;
}
