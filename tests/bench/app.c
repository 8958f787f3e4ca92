#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* The application behind the proxies that preview.py measures: one thread, keep-alive, 13 bytes at "/" and 1 MiB at
 * "/big". Static, so that the same file runs in a sandbox and beside it. */

#define BIG (1u << 20)
#define FDS_MAX 65536

static char big[BIG + 256];
static size_t big_length;
static const char small[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, world\n";

struct client {
	char in[4096];
	size_t have;
	const char *out;
	size_t left;
};
static struct client *clients[FDS_MAX];
static int loop;

static void drop(int fd)
{
	free(clients[fd]);
	clients[fd] = NULL;
	close(fd);
}

/* False: the client is gone. */
static int write_out(int fd, struct client *client)
{
	while (client->left) {
		ssize_t n = send(fd, client->out, client->left, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0)
			return errno == EAGAIN;
		client->out += n;
		client->left -= (size_t)n;
	}
	return 1;
}

/* Answer what is whole. */
static int answer(int fd, struct client *client)
{
	char *end;

	while (!client->left && (end = memmem(client->in, client->have, "\r\n\r\n", 4))) {
		int is_big = client->have > 8 && memcmp(client->in, "GET /big", 8) == 0;
		size_t used = (size_t)(end + 4 - client->in);

		client->out = is_big ? big : small;
		client->left = is_big ? big_length : sizeof(small) - 1;
		memmove(client->in, client->in + used, client->have - used);
		client->have -= used;
		if (!write_out(fd, client))
			return 0;
	}
	return 1;
}

static void serve(int fd, uint32_t events)
{
	struct client *client = clients[fd];
	struct epoll_event event = {.data.fd = fd};
	ssize_t n = 1;

	if (events & EPOLLIN && client->have < sizeof(client->in)) {
		n = recv(fd, client->in + client->have, sizeof(client->in) - client->have, MSG_DONTWAIT);
		if (n > 0)
			client->have += (size_t)n;
		else if (n < 0 && errno == EAGAIN)
			n = 1;
	}
	if (n <= 0 || !write_out(fd, client) || !answer(fd, client)) {
		drop(fd);
		return;
	}
	if (!(events & EPOLLOUT) != !client->left || client->left) {
		event.events = EPOLLIN | (client->left ? (uint32_t)EPOLLOUT : 0);
		epoll_ctl(loop, EPOLL_CTL_MOD, fd, &event);
	}
}

static void accept_all(int listener)
{
	int fd, one = 1;

	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

		if (fd >= FDS_MAX || !(clients[fd] = calloc(1, sizeof(struct client)))) {
			close(fd);
			continue;
		}
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event);
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct epoll_event event = {.events = EPOLLIN}, events[256];
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;

	address.sin_port = htons((uint16_t)atoi(argc > 1 ? argv[1] : "8000"));
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(listener, 1024) < 0)
		return 1;
	big_length = (size_t)snprintf(big, 256,
				      "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %u\r\n\r\n", BIG);
	memset(big + big_length, 'x', BIG);
	big_length += BIG;
	loop = epoll_create1(EPOLL_CLOEXEC);
	event.data.fd = listener;
	epoll_ctl(loop, EPOLL_CTL_ADD, listener, &event);
	for (;;) {
		int n = epoll_wait(loop, events, 256, -1);

		for (int i = 0; i < n; i++) {
			if (events[i].data.fd == listener)
				accept_all(listener);
			else
				serve(events[i].data.fd, events[i].events);
		}
	}
}
