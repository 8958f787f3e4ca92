#include "netns.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "kernel.h"
#include "sandbox/base/cleanup.h"

int netns_up(void)
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

int netns_open_low_ports(int proc)
{
	return file_write(proc, "sys/net/ipv4/ip_unprivileged_port_start", "0");
}

int netns_inside(int netns, int (*make)(const char *arg), const char *arg)
{
	_cleanup_fd_ int host = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	int rc;

	if (host < 0 || setns(netns, CLONE_NEWNET) < 0)
		return -errno;
	/* One thread: nobody else sees the wrong namespace. */
	rc = make(arg);
	if (setns(host, CLONE_NEWNET) < 0)
		abort(); /* a warden in a sandbox's network would be worse than none */
	return rc;
}
