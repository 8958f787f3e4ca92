#include "handover.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <stdbool.h>
#include <unistd.h>

#include "kernel.h"
#include "sandbox/base/cleanup.h"

#define PLACES 16 /* more builders at once get a copy of everything */
#define FIRST 64  /* above what the modules open, and above the numbers that child.c uses */
#define END (FIRST + PLACES * HANDOVER_FDS)

static int null = -1;
static bool taken[PLACES];

int handover_setup(struct pdk_error *err)
{
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0)
		return pdk_fail_errno(err, -errno, "open /dev/null");
	if (null >= FIRST)
		return pdk_fail(err, -EMFILE, PDK_INTERNAL, "too many descriptors are open at the start");
	/* Held from now on, so that nothing else gets these numbers. */
	for (int fd = FIRST; fd < END; fd++)
		if (dup3(null, fd, O_CLOEXEC) < 0)
			return pdk_fail_errno(err, -errno, "hold descriptors for builders");
	return 0;
}

int handover_fd(int place, enum handover_fd which)
{
	return FIRST + place * HANDOVER_FDS + (int)which;
}

int handover_take(const int fds[HANDOVER_FDS])
{
	int place = 0;

	while (place < PLACES && taken[place])
		place++;
	if (place == PLACES)
		return -EAGAIN;
	taken[place] = true;
	for (int i = 0; i < HANDOVER_FDS; i++)
		if (dup3(fds[i], handover_fd(place, (enum handover_fd)i), O_CLOEXEC) < 0) {
			int rc = -errno;

			handover_release(place);
			return rc;
		}
	return place;
}

void handover_release(int place)
{
	if (place < 0)
		return;
	for (int i = 0; i < HANDOVER_FDS; i++)
		dup3(null, handover_fd(place, (enum handover_fd)i), O_CLOEXEC);
	taken[place] = false;
}

static int close_between(int from, int to)
{
	return from > to || syscall(SYS_close_range, (unsigned int)from, (unsigned int)to, 0) == 0 ? 0 : -errno;
}

int handover_settle(int place)
{
	int rc = syscall(SYS_close_range, (unsigned int)END, ~0u, CLOSE_RANGE_UNSHARE) < 0 ? -errno : 0;

	/* Others' pipes would tell their end only when we have ended. */
	if (rc == 0)
		rc = close_between(FIRST, place < 0 ? END - 1 : handover_fd(place, 0) - 1);
	if (rc == 0 && place >= 0)
		rc = close_between(handover_fd(place + 1, 0), END - 1);
	return rc;
}
