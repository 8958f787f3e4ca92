#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* R06, R11, P09: what one process can take of the kernel's common tables. */

static int descriptors_body(void *arg)
{
	int count = 0;

	while (count < 2000000 && open("/dev/null", O_RDONLY | O_CLOEXEC) >= 0)
		count++;
	return count < 2000000 && (errno == EMFILE || errno == ENFILE) ? 0 : 1;
}

/* Descriptors in flight, each pair holding the next: the kernel's collector, and our limit, must end it. */
static int flight_body(void *arg)
{
	int sent = 0;

	for (int i = 0; i < 20000; i++) {
		int pair[2];
		union {
			struct cmsghdr header;
			char space[CMSG_SPACE(sizeof(int))];
		} control = {0};
		char byte = 0;
		struct iovec data = {&byte, 1};
		struct msghdr message = {
			.msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};

		if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair) < 0)
			return sent > 10 ? 0 : 1;
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &pair[0], sizeof(int));
		if (sendmsg(pair[1], &message, 0) < 0)
			return errno == ETOOMANYREFS || errno == EMFILE ? 0 : 1;
		sent++;
		close(pair[0]);
	}
	return 1;
}

static int inotify_body(void *arg)
{
	int count = 0;

	while (count < 100000 && inotify_init1(IN_CLOEXEC) >= 0)
		count++;
	return count > 0 && count < 100000 ? 0 : 1;
}

static int core_body(void *arg)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_CORE, &limit) == 0 && limit.rlim_max == 0 ? 0 : 1;
}

void probe_limits(void)
{
	expect_true("R06", "descriptors", in_child(descriptors_body, NULL) == 0, "EMFILE");
	expect_true("R06", "descriptors in flight", in_child(flight_body, NULL) == 0, "bounded");
	expect_true("R11", "inotify instances", in_child(inotify_body, NULL) == 0, "bounded");
	expect_true("P09", "no core files", in_child(core_body, NULL) == 0, "hard limit 0");
	expect_allowed("R06", "control: one descriptor", open("/dev/null", O_RDONLY | O_CLOEXEC));
}
