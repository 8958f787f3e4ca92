#include "netns.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kernel.h"
#include "sandbox/base/cleanup.h"

#define STOCK_MAX 256

static int host_netns = -1;
static int stock[STOCK_MAX];
static unsigned int stock_count;

int netns_setup(struct pdk_error *err)
{
	host_netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	return host_netns < 0 ? pdk_fail_errno(err, -errno, "open the network namespace") : 0;
}

static int lo_up(void)
{
	_cleanup_fd_ int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq request;

	if (sock < 0)
		return -errno;
	memset(&request, 0, sizeof(request));
	memcpy(request.ifr_name, "lo", 3);
	request.ifr_flags = IFF_UP | IFF_RUNNING;
	return ioctl(sock, SIOCSIFFLAGS, &request) < 0 ? -errno : 0;
}

/* Runs with the warden inside the new namespace. */
static int netns_configure(int *ret_fd)
{
	int rc = lo_up();

	/* CAP_NET_BIND_SERVICE of the sandbox's user namespace has no force here: let ports below 1024 be bound. */
	if (rc == 0)
		rc = file_write(AT_FDCWD, "/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
	if (rc < 0)
		return rc;
	*ret_fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	return *ret_fd < 0 ? -errno : 0;
}

/* Safe with a hostile paddockd: no input. The warden has one thread, so nobody else sees the wrong namespace. */
static int netns_make(int *ret_fd)
{
	int rc;

	if (unshare(CLONE_NEWNET) < 0)
		return -errno;
	rc = netns_configure(ret_fd);
	if (setns(host_netns, CLONE_NEWNET) < 0)
		abort(); /* a warden in a sandbox's network would be worse than none */
	return rc;
}

int netns_take(int *ret_fd, struct pdk_error *err)
{
	int rc;

	if (stock_count > 0) {
		*ret_fd = stock[--stock_count];
		return 0;
	}
	rc = netns_make(ret_fd);
	return rc < 0 ? pdk_fail_errno(err, rc, "make a network namespace") : 0;
}

int netns_stock(unsigned int wanted)
{
	if (stock_count >= wanted || stock_count == STOCK_MAX)
		return 0;
	if (netns_make(&stock[stock_count]) < 0)
		return 0;
	stock_count++;
	return 1;
}

unsigned int netns_stocked(void)
{
	return stock_count;
}
