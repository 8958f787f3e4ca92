#include "sandbox/init/ports.h"

#include "sandbox/init/session.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

/*
 * /proc/self/net/tcp and tcp6 name listening sockets before all others, so the reading ends with the first that is not
 * one: its cost follows the ports that are open, and not the connections. /proc is the sandbox's, but a mount that
 * nobody inside can change. sock_diag would say the same, and its netlink family is closed to sandboxes.
 */

#define PORTS_MAX 2048u /* GuestPortList */
#define STATE_LISTEN 0x0au

struct port_list {
	size_t count;
	guest_message(Port) ports[PORTS_MAX];
	guest_message(Port) * pointers[PORTS_MAX];
};

/* The address as the kernel prints it: words of 32 bits, each as the machine has it. */
static bool parse_address(const char *text, bool ipv6, bool *ret_any)
{
	uint32_t words[4] = {0};
	size_t n = ipv6 ? 4 : 1;

	for (size_t i = 0; i < n; i++) {
		if (sscanf(text + 8 * i, "%8x", &words[i]) != 1)
			return false;
	}
	*ret_any = !(words[0] | words[1] | words[2] | words[3]);
	/* An IPv4 address in an IPv6 socket: as the plain one. */
	if (ipv6 && words[2] == htonl(0xffff))
		*ret_any = !words[3];
	return true;
}

/* False: the listening ones are over. */
static bool add_line(struct port_list *list, const char *line, bool ipv6)
{
	guest_message(Port) *port = &list->ports[list->count];
	char address[33];
	unsigned int number, state, uid;
	bool any;

	if (sscanf(line, " %*u: %32[0-9A-F]:%4x %*[0-9A-F]:%*x %2x %*x:%*x %*x:%*x %*x %u", address, &number, &state,
		   &uid) != 4 ||
	    state != STATE_LISTEN)
		return false;
	paddock__internal__guest_port__init(port);
	port->port = number;
	port->uid = uid;
	port->ipv6 = ipv6;
	if (!number || strlen(address) != (ipv6 ? 32 : 8) || !parse_address(address, ipv6, &any))
		return true;
	port->any = any;
	list->pointers[list->count++] = port;
	return list->count < PORTS_MAX;
}

static void read_table(struct port_list *list, const char *path, bool ipv6)
{
	_cleanup_file_ FILE *file = fopen(path, "re");
	char line[256];

	/* The heading; without IPv6 there is no file. */
	if (!file || !fgets(line, sizeof(line), file))
		return;
	while (list->count < PORTS_MAX && fgets(line, sizeof(line), file) && add_line(list, line, ipv6))
		;
}

int ports_list(struct init *init, uint32_t stream, struct pdk_error *err)
{
	guest_message(PortList) result = PADDOCK__INTERNAL__GUEST_PORT_LIST__INIT;
	guest_reply reply = GUEST_REPLY_INIT;
	_cleanup_free_ struct port_list *list = malloc(sizeof(*list));

	if (!list)
		return pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "out of memory");
	list->count = 0;
	read_table(list, "/proc/self/net/tcp", false);
	read_table(list, "/proc/self/net/tcp6", true);
	result.port = list->pointers;
	result.n_port = list->count;
	reply.result_case = GUEST_RESULT(PORTS);
	reply.ports = &result;
	session_reply_last(init, stream, &reply);
	return 0;
}

/* A refusal is there when connect() returns: on loopback the answer comes within the call. */
static int dial(const struct sockaddr *address, socklen_t length)
{
	_cleanup_fd_ int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	socklen_t size = sizeof(int);
	int one = 1, error = 0;

	if (fd < 0)
		return -errno;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(fd, address, length) < 0 && errno != EINPROGRESS)
		return -errno;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 || error)
		return error ? -error : -errno;
	return STEAL_FD(fd);
}

static int dial_loopback(uint16_t port)
{
	struct sockaddr_in v4 = {
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in6 v6 = {
		.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	int fd = dial((const struct sockaddr *)&v4, sizeof(v4));

	return fd == -ECONNREFUSED ? dial((const struct sockaddr *)&v6, sizeof(v6)) : fd;
}

int ports_dial(struct init *init, uint32_t stream, uint32_t port, struct pdk_error *err)
{
	guest_reply reply = GUEST_REPLY_INIT;
	_cleanup_fd_ int fd = -1;

	if (!port || port > 65535)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "port: must be 1 to 65535");
	fd = dial_loopback((uint16_t)port);
	if (fd == -ECONNREFUSED || fd == -EADDRNOTAVAIL || fd == -EAFNOSUPPORT || fd == -ENETUNREACH)
		return pdk_fail(err, fd, PDK_FAILED_PRECONDITION, "nothing listens on port %u", port);
	if (fd < 0)
		return pdk_fail(err, fd, PDK_RESOURCE_EXHAUSTED, "no connection to port %u can be made", port);
	session_reply(init, stream, &reply, &fd, 1);
	session_end(init, stream);
	return 0;
}
