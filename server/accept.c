#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "log.h"
#include "loop.h"

/*
 * accept4() of this process, also for the libraries in it. gRPC before 1.57 gives up a listener for good when accept4()
 * fails with EMFILE (grpc/grpc#20418), and waits for an edge, so a connection that stays in the queue may never be seen
 * again. Here the call does not fail for want of descriptors: a stranger's connection that would take one of the last
 * eighth of them is accepted and closed, so those are left for the operator, the ingress, and the work of the
 * connections that are there. When that has used up even these, a descriptor that is kept for it makes room for as long
 * as it takes to close a connection.
 *
 * The kernel gives the lowest free number: one of the last eighth says that all others are taken.
 */

#define LEFT_FOR_WORK 8 /* one in so many */
#define DROPS_MAX 64    /* in one call: other work has its turn */
#define LOG_EVERY_NS 1000000000ull

static atomic_int kept = -1;
static atomic_uint_fast64_t said_ns;

static void keep_one(void)
{
	int none = -1;
	int fd = atomic_load(&kept) < 0 ? open("/dev/null", O_RDONLY | O_CLOEXEC) : -1;

	if (fd >= 0 && !atomic_compare_exchange_strong(&kept, &none, fd))
		close(fd);
}

static void say(void)
{
	uint_fast64_t last = atomic_load(&said_ns);
	uint64_t now = loop_now_ns();

	if ((!last || now - last >= LOG_EVERY_NS) && atomic_compare_exchange_strong(&said_ns, &last, now))
		log_event(LOG_WARN, "rpc.connections_dropped", "error", "descriptors are used up", NULL);
}

/* Sockets that not everybody can open. */
static bool is_for_few(int fd)
{
	struct sockaddr_un name = {};
	socklen_t length = sizeof(name) - 1;
	const char *base;

	if (getsockname(fd, (struct sockaddr *)&name, &length) < 0 || name.sun_family != AF_UNIX)
		return false;
	base = strrchr(name.sun_path, '/');
	return base && (!strcmp(base, "/admin.sock") || !strcmp(base, "/ingress.sock"));
}

static int accept_one(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
	return (int)syscall(SYS_accept4, fd, address, length, flags);
}

static rlim_t limit(void)
{
	struct rlimit files;

	return getrlimit(RLIMIT_NOFILE, &files) < 0 ? RLIM_INFINITY : files.rlim_cur;
}

/* No descriptor is left: take the first connection of the queue with the one that was kept, to close it. */
static void drop_first(int fd)
{
	int room = atomic_exchange(&kept, -1);
	int dropped;

	if (room < 0)
		return;
	close(room);
	dropped = accept_one(fd, NULL, NULL, SOCK_CLOEXEC);
	if (dropped >= 0)
		close(dropped);
	keep_one();
}

__attribute__((visibility("default"))) int accept4(int fd, __SOCKADDR_ARG address, socklen_t *restrict length,
						   int flags)
{
	rlim_t most = limit();

	keep_one();
	for (int i = 0; i < DROPS_MAX; i++) {
		int accepted = accept_one(fd, address.__sockaddr__, length, flags);

		if (accepted >= 0 && ((rlim_t)accepted < most - most / LEFT_FOR_WORK || is_for_few(fd)))
			return accepted;
		if (accepted < 0 && errno != EMFILE && errno != ENFILE)
			return accepted;
		say();
		if (accepted >= 0)
			close(accepted);
		else
			drop_first(fd);
	}
	errno = EAGAIN;
	return -1;
}
