#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "http_internal.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/hash.h"

/* Listening sockets, the bounds on connections, and the queue of connections that have work. */

#define ACCEPT_BATCH 64
#define RETRY_NS 100000000u

/* Work */

static void run_due(struct loop_task *task)
{
	struct http_server *server = (struct http_server *)((uintptr_t)task - offsetof(struct http_server, task));

	loop_lock();
	server->task_queued = false;
	while (server->due) {
		struct http_work *work = server->due;

		server->due = work->next;
		work->due = false;
		work->run(work);
	}
	loop_unlock();
}

void http_work_schedule(struct http_server *server, struct http_work *work)
{
	/* What is wanted during a run is seen by that run, or by one more that follows. */
	if (work->due)
		return;
	work->due = true;
	work->next = server->due;
	server->due = work;
	if (server->task_queued)
		return;
	server->task_queued = true;
	server->task.run = run_due;
	loop_after_unlock(&server->task);
}

void http_work_cancel(struct http_server *server, struct http_work *work)
{
	struct http_work **at = &server->due;

	while (work->due && *at != work)
		at = &(*at)->next;
	if (work->due)
		*at = work->next;
	work->due = false;
}

/* Addresses */

static void canonical(const struct sockaddr_storage *from, uint8_t bytes[16], char *text, size_t size)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)from;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)from;
	char address[INET6_ADDRSTRLEN] = "";

	memset(bytes, 0, 16);
	if (from->ss_family == AF_INET) {
		memcpy(bytes + 12, &v4->sin_addr, 4);
		inet_ntop(AF_INET, &v4->sin_addr, address, sizeof(address));
		snprintf(text, size, "%s:%u", address, ntohs(v4->sin_port));
		return;
	}
	/* One customer has a whole /64. */
	memcpy(bytes, &v6->sin6_addr, 8);
	inet_ntop(AF_INET6, &v6->sin6_addr, address, sizeof(address));
	snprintf(text, size, "[%s]:%u", address, ntohs(v6->sin6_port));
}

static struct http_address **find_address(struct http_server *server, const uint8_t bytes[16])
{
	struct http_address **at = &server->addresses[hash_bytes(bytes, 16) % HTTP_ADDRESS_BUCKETS];

	while (*at && memcmp((*at)->bytes, bytes, 16) != 0)
		at = &(*at)->next;
	return at;
}

/* NULL: it has as many as it may have. */
static struct http_address *count_address(struct http_server *server, const uint8_t bytes[16])
{
	struct http_address **at = find_address(server, bytes);

	if (!*at) {
		*at = calloc(1, sizeof(**at));
		if (!*at)
			return NULL;
		memcpy((*at)->bytes, bytes, 16);
	}
	if ((*at)->connections >= server->settings.max_per_address)
		return NULL;
	(*at)->connections++;
	return *at;
}

static void uncount_address(struct http_server *server, struct http_address *address)
{
	struct http_address **at = find_address(server, address->bytes);

	if (--address->connections)
		return;
	*at = address->next;
	free(address);
}

void http_server_forget(struct http_server *server, struct http_conn *conn)
{
	http_work_cancel(server, &conn->work);
	if (conn->previous)
		conn->previous->next = conn->next;
	else
		server->connections = conn->next;
	if (conn->next)
		conn->next->previous = conn->previous;
	if (!conn->handed_over)
		http_release(server, conn->peer);
}

void http_release(struct http_server *server, struct http_address *peer)
{
	server->n_connections--;
	uncount_address(server, peer);
}

/* Listening */

static void add_connection(struct http_listener *listener, int fd, const struct sockaddr_storage *from)
{
	struct http_server *server = listener->server;
	struct http_address *peer;
	char text[HTTP_ADDRESS_SIZE];
	uint8_t bytes[16];
	int one = 1;

	canonical(from, bytes, text, sizeof(text));
	peer = server->n_connections < server->settings.max_connections ? count_address(server, bytes) : NULL;
	if (!peer) {
		close(fd);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (http_conn_create(server, fd, listener->tls, text, peer) < 0) {
		uncount_address(server, peer);
		close(fd);
	}
}

static void set_listening(struct http_server *server, uint32_t events)
{
	for (unsigned int i = 0; i < server->n_listeners; i++)
		loop_watch_set(server->listeners[i].watch, events);
}

static void retry(void *arg)
{
	set_listening(arg, EPOLLIN);
}

static void on_accept(uint32_t events, void *arg)
{
	struct http_listener *listener = arg;
	struct http_server *server = listener->server;

	for (int i = 0; i < ACCEPT_BATCH; i++) {
		struct sockaddr_storage from = {};
		socklen_t size = sizeof(from);
		int fd = accept4(listener->fd, (struct sockaddr *)&from, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			add_connection(listener, fd, &from);
			continue;
		}
		/* Out of descriptors: the waiting connection would make us spin. */
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
			set_listening(server, 0);
			loop_timer_set(&server->retry, loop_now_ns() + RETRY_NS);
		}
		return;
	}
}

struct http_server *http_server_create(const struct http_settings *settings)
{
	struct http_server *server = calloc(1, sizeof(*server));

	if (!server)
		return NULL;
	server->settings = *settings;
	server->retry.handler = retry;
	server->retry.arg = server;
	return server;
}

/* "127.0.0.1:7413", "[::1]:7413" */
static int parse_address(const char *text, struct addrinfo **ret)
{
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE, .ai_socktype = SOCK_STREAM};
	const char *colon = strrchr(text, ':');
	char host[64];
	size_t length = colon ? (size_t)(colon - text) : 0;

	if (!length || length >= sizeof(host))
		return -EINVAL;
	if (text[0] == '[' && text[length - 1] == ']') {
		text++;
		length -= 2;
	}
	memcpy(host, text, length);
	host[length] = '\0';
	return getaddrinfo(host, colon + 1, &hints, ret) ? -EINVAL : 0;
}

static int open_listener(const struct addrinfo *address)
{
	_cleanup_fd_ int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int one = 1;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (address->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	if (bind(fd, address->ai_addr, address->ai_addrlen) < 0 || listen(fd, 1024) < 0)
		return -errno;
	return STEAL_FD(fd);
}

int http_server_listen(struct http_server *server, const char *address, bool tls, struct pdk_error *err)
{
	struct http_listener *listener = &server->listeners[server->n_listeners];
	struct addrinfo *info;

	if (server->n_listeners == HTTP_LISTENERS_MAX)
		return pdk_fail(err, -E2BIG, PDK_INVALID_ARGUMENT, "too many addresses");
	if (parse_address(address, &info) < 0)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "%s: not an address and a port", address);
	*listener = (struct http_listener){.server = server, .tls = tls};
	listener->fd = open_listener(info);
	freeaddrinfo(info);
	if (listener->fd < 0)
		return pdk_fail_errno(err, listener->fd, "cannot listen on %s", address);
	listener->watch = loop_watch_add(listener->fd, EPOLLIN, on_accept, listener);
	if (!listener->watch) {
		close(listener->fd);
		return pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "out of memory");
	}
	server->n_listeners++;
	return 0;
}

void http_server_set_tls(struct http_server *server, SSL_CTX *context)
{
	SSL_CTX_free(server->tls);
	server->tls = context;
}

void http_server_free(struct http_server *server)
{
	if (!server)
		return;
	server->closing = true;
	loop_timer_cancel(&server->retry);
	for (unsigned int i = 0; i < server->n_listeners; i++) {
		loop_watch_remove(server->listeners[i].watch);
		close(server->listeners[i].fd);
	}
	while (server->connections) {
		server->connections->state = HTTP_GONE;
		http_conn_run(server->connections);
	}
	SSL_CTX_free(server->tls);
	free(server);
}

unsigned int http_server_connections(const struct http_server *server)
{
	return server->n_connections;
}
