#include "probe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

/* K15 to K18: socket families and protocols; N01, N10 to N12, N30: nothing leads out of the network namespace, and
 * nobody inside configures it, although the sandbox's own user namespace owns it. */

static const struct {
	const char *name;
	int family, type, protocol;
} families[] = {
	{"VSOCK", 40, SOCK_STREAM, 0},  {"ALG", 38, SOCK_SEQPACKET, 0},   {"PACKET", 17, SOCK_RAW, 0},
	{"KEY", 15, SOCK_RAW, 2},       {"RDS", 21, SOCK_SEQPACKET, 0},   {"TIPC", 30, SOCK_SEQPACKET, 0},
	{"CAN", 29, SOCK_RAW, 1},       {"BLUETOOTH", 31, SOCK_RAW, 1},   {"XDP", 44, SOCK_RAW, 0},
	{"SMC", 43, SOCK_STREAM, 0},    {"MCTP", 45, SOCK_DGRAM, 0},      {"NFC", 39, SOCK_SEQPACKET, 0},
	{"QIPCRTR", 42, SOCK_DGRAM, 0}, {"AX25", 3, SOCK_DGRAM, 0},       {"APPLETALK", 5, SOCK_DGRAM, 0},
	{"IPX", 4, SOCK_DGRAM, 0},      {"NETROM", 6, SOCK_SEQPACKET, 0}, {"KCM", 41, SOCK_DGRAM, 0},
	{"RXRPC", 33, SOCK_DGRAM, 0},   {"LLC", 26, SOCK_DGRAM, 0},       {"PPPOX", 24, SOCK_STREAM, 0},
};

static long try_socket(long family, long type, long protocol)
{
	long fd = syscall(SYS_socket, family, type, protocol);

	if (fd >= 0)
		close((int)fd);
	return fd;
}

static void probe_families(void)
{
	char what[64];

	for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++) {
		REFUSED("K15", families[i].name, try_socket(families[i].family, families[i].type, families[i].protocol),
			EPERM, EAFNOSUPPORT, EACCES);
		snprintf(what, sizeof(what), "%s with bit 32", families[i].name);
		REFUSED("K16", what, try_socket(families[i].family | 1L << 32, families[i].type, families[i].protocol),
			EPERM, EAFNOSUPPORT, EACCES);
		snprintf(what, sizeof(what), "%s with bit 63", families[i].name);
		REFUSED("K16", what,
			try_socket((long)(families[i].family | 1UL << 63), families[i].type, families[i].protocol),
			EPERM, EAFNOSUPPORT, EACCES);
	}
	/* The filter decides, not a module that happens to be missing. */
	REFUSED("K15", "ALG by the filter", try_socket(38, SOCK_SEQPACKET, 0), EPERM, EACCES);
	REFUSED("K15", "socketpair(VSOCK)", syscall(SYS_socketpair, 40, SOCK_STREAM, 0, (int[2]){0, 0}), EPERM,
		EAFNOSUPPORT, EOPNOTSUPP);
	expect_allowed("K15", "control: UNIX", try_socket(AF_UNIX, SOCK_STREAM, 0));
	expect_allowed("K15", "control: INET", try_socket(AF_INET, SOCK_STREAM, 0));
	expect_allowed("K15", "control: INET6", try_socket(AF_INET6, SOCK_DGRAM, 0));
	expect_allowed("K16", "control: INET with SOCK_CLOEXEC",
		       try_socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

static void probe_netlink(void)
{
	char what[64];

	for (int protocol = 1; protocol <= 22; protocol++) {
		snprintf(what, sizeof(what), "NETLINK %d", protocol);
		REFUSED("K17", what, try_socket(AF_NETLINK, SOCK_RAW, protocol), EPERM, EACCES, EPROTONOSUPPORT);
		snprintf(what, sizeof(what), "NETLINK %d with bit 32", protocol);
		REFUSED("K17", what, try_socket(AF_NETLINK, SOCK_DGRAM, protocol | 1L << 32), EPERM, EACCES,
			EPROTONOSUPPORT);
	}
	expect_allowed("K17", "control: NETLINK_ROUTE", try_socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE));
}

static void probe_raw(void)
{
	static const struct {
		const char *name;
		int family, type, protocol;
	} raw[] = {
		{"raw ICMP", AF_INET, SOCK_RAW, IPPROTO_ICMP},
		{"raw IP", AF_INET, SOCK_RAW, IPPROTO_RAW},
		{"raw ICMPv6", AF_INET6, SOCK_RAW, IPPROTO_ICMPV6},
		{"raw TCP", AF_INET, SOCK_RAW, IPPROTO_TCP},
		{"ping", AF_INET, SOCK_DGRAM, IPPROTO_ICMP},
		{"ping6", AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6},
		{"SCTP", AF_INET, SOCK_STREAM, 132},
		{"UDPLITE", AF_INET, SOCK_DGRAM, 136},
		{"L2TP", AF_INET, SOCK_DGRAM, 115},
		{"MPTCP", AF_INET, SOCK_STREAM, 262},
		{"DCCP", AF_INET, 6, 33},
		{"SOCK_PACKET", AF_INET, SOCK_PACKET, 0},
	};

	for (size_t i = 0; i < sizeof(raw) / sizeof(raw[0]); i++) {
		REFUSED("K18", raw[i].name, try_socket(raw[i].family, raw[i].type, raw[i].protocol), EPERM, EACCES,
			EPROTONOSUPPORT, ESOCKTNOSUPPORT, EINVAL);
		REFUSED("K18", "with high bits",
			try_socket(raw[i].family | 1L << 32, raw[i].type | 1L << 33, raw[i].protocol | 1L << 34), EPERM,
			EACCES, EPROTONOSUPPORT, ESOCKTNOSUPPORT, EINVAL);
	}
	expect_allowed("K18", "control: UDP", try_socket(AF_INET, SOCK_DGRAM, IPPROTO_UDP));
}

void probe_sockets(void)
{
	probe_families();
	probe_netlink();
	probe_raw();
}

static long dial(int type, const char *address, int port)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	int fd = socket(AF_INET, type, 0);
	long rc;

	inet_pton(AF_INET, address, &to.sin_addr);
	alarm(5);
	rc = connect(fd, (struct sockaddr *)&to, sizeof(to));
	if (rc == 0 && type == SOCK_DGRAM)
		rc = send(fd, "x", 1, 0);
	alarm(0);
	close(fd);
	return rc;
}

static void probe_loopback(void)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(at);
	int server = socket(AF_INET, SOCK_STREAM, 0);

	expect_allowed("N01", "control: listen on loopback",
		       bind(server, (struct sockaddr *)&at, size) || listen(server, 5) ||
				       getsockname(server, (struct sockaddr *)&at, &size)
			       ? -1
			       : 0);
	expect_allowed("N01", "control: connect over loopback", dial(SOCK_STREAM, "127.0.0.1", ntohs(at.sin_port)));
	close(server);
}

/* Every line of /proc/net/unix belongs to this sandbox: no path of the host's daemons. */
static void probe_unix(void)
{
	char line[512];
	FILE *f = fopen("/proc/net/unix", "re");
	bool foreign = false;
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	const char *ports = getenv("HOST_ABSTRACT");
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	while (f && fgets(line, sizeof(line), f)) {
		if (strstr(line, "admin.sock") || strstr(line, "warden.sock") || strstr(line, "systemd") ||
		    strstr(line, "dbus"))
			foreign = true;
	}
	expect_true("N12", "host sockets in /proc/net/unix", !foreign, foreign ? "seen" : "none");
	if (ports) {
		strncpy(to.sun_path + 1, ports, sizeof(to.sun_path) - 2);
		REFUSED("N12", "the host's abstract socket",
			connect(fd, (struct sockaddr *)&to, (socklen_t)(sizeof(sa_family_t) + 1 + strlen(ports))),
			ECONNREFUSED, EPERM, EACCES);
	}
	close(fd);
}

static long set_link(unsigned long request, short flags)
{
	struct ifreq link = {.ifr_name = "lo", .ifr_flags = flags};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	long rc = ioctl(fd, request, &link);
	int error = errno;

	close(fd);
	errno = error;
	return rc;
}

/* One request to the kernel's network configuration. -> 0 or -1 with errno, as the kernel answers. */
static long ask_route(uint16_t type, uint16_t flags, const void *body, size_t size)
{
	struct {
		struct nlmsghdr header;
		char body[256];
	} message = {.header = {.nlmsg_len = (uint32_t)NLMSG_LENGTH(size),
				.nlmsg_type = type,
				.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags)}};
	struct {
		struct nlmsghdr header;
		struct nlmsgerr error;
		char rest[8192];
	} reply = {0};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	ssize_t n = -1;

	memcpy(message.body, body, size);
	if (send(fd, &message, message.header.nlmsg_len, 0) > 0)
		n = recv(fd, &reply, sizeof(reply), 0);
	close(fd);
	if (n < (ssize_t)sizeof(struct nlmsghdr))
		return -1;
	errno = reply.header.nlmsg_type == NLMSG_ERROR ? -reply.error.error : 0;
	return errno ? -1 : 0;
}

static void probe_configuration(void)
{
	struct {
		struct ifinfomsg link;
		struct rtattr info;
		struct rtattr kind;
		char name[8];
	} bridge = {.info = {sizeof(struct rtattr) * 2 + 7, IFLA_LINKINFO},
		    .kind = {sizeof(struct rtattr) + 7, IFLA_INFO_KIND},
		    .name = "bridge"};
	struct {
		struct ifaddrmsg address;
		struct rtattr local;
		uint32_t ip;
	} address = {.address = {AF_INET, 32, 0, RT_SCOPE_HOST, 1}, .local = {8, IFA_LOCAL}, .ip = htonl(0x0a000001)};
	struct {
		struct rtmsg route;
		struct rtattr out;
		uint32_t index;
	} route = {.route = {AF_INET, 0, 0, 0, RT_TABLE_LOCAL, RTPROT_STATIC, RT_SCOPE_HOST, RTN_LOCAL, 0},
		   .out = {8, RTA_OIF},
		   .index = 1};
	struct ifinfomsg down = {.ifi_index = 1, .ifi_change = IFF_UP}, lo = {.ifi_index = 1};
	const uint16_t make = NLM_F_CREATE | NLM_F_EXCL;

	REFUSED("N30", "lo down by ioctl", set_link(SIOCSIFFLAGS, 0), EPERM);
	REFUSED("N30", "lo down by netlink", ask_route(RTM_NEWLINK, 0, &down, sizeof(down)), EPERM);
	REFUSED("N30", "a bridge", ask_route(RTM_NEWLINK, make, &bridge, sizeof(bridge) - 1), EPERM);
	REFUSED("N30", "an address", ask_route(RTM_NEWADDR, make, &address, sizeof(address)), EPERM);
	REFUSED("N30", "a route", ask_route(RTM_NEWROUTE, make, &route, sizeof(route)), EPERM);
	expect_allowed("N30", "control: ask for lo by ioctl", set_link(SIOCGIFFLAGS, 0));
	expect_allowed("N30", "control: ask for lo by netlink", ask_route(RTM_GETLINK, 0, &lo, sizeof(lo)));
}

void probe_network(void)
{
	static const char *const outside_addresses[] = {"169.254.169.254", "169.254.170.2", "100.100.100.200",
							"8.8.8.8",         "10.0.0.1",      "192.168.0.1",
							"172.17.0.1"};
	const char *port = getenv("HOST_PORT");
	char what[64];

	probe_configuration();
	probe_loopback();
	for (size_t i = 0; i < sizeof(outside_addresses) / sizeof(outside_addresses[0]); i++) {
		snprintf(what, sizeof(what), "tcp %s", outside_addresses[i]);
		REFUSED("N01", what, dial(SOCK_STREAM, outside_addresses[i], 80), ENETUNREACH, EHOSTUNREACH,
			ECONNREFUSED, EPERM, EACCES);
		snprintf(what, sizeof(what), "udp %s", outside_addresses[i]);
		REFUSED("N01", what, dial(SOCK_DGRAM, outside_addresses[i], 53), ENETUNREACH, EHOSTUNREACH,
			ECONNREFUSED, EPERM, EACCES);
	}
	if (port)
		REFUSED("N10", "the host's loopback service", dial(SOCK_STREAM, "127.0.0.1", atoi(port)), ECONNREFUSED);
	probe_unix();
}
