#include "guard.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "guard_frames.h"
#include "sandbox/base/buffer.h"
#include "sandbox/base/cleanup.h"
#include "server/log.h"
#include "server/loop.h"
#include "transport.h"

/*
 * Theory of operation. Two sockets and two buffers: what the client says waits in `up` (the end of it perhaps held
 * back, until a header block is whole), what the server says in `down`. A side is read only while its buffer has room,
 * so a slow reader stops the writer. run() does all that is possible and then says what to wait for; it is the only
 * place that frees a connection.
 *
 * Time: the preface, and a header block that is held back, have PREFACE_MS. A client that does not take what is there
 * for it has STALL_MS. A connection that says nothing has IDLE_MS; gRPC clients keep theirs open for long.
 */

#define UP_MAX 65536u
#define DOWN_MAX 262144u
#define READ_SIZE 65536u
#define PREFACE_MS 10000u
#define STALL_MS 60000u
#define IDLE_MS 3600000u
#define ROUNDS 16

struct guarded {
	struct guarded *next, *previous;
	struct transport client;
	int server;
	struct loop_watch *client_watch, *server_watch;
	struct loop_timer timer;
	struct guard_frames frames;
	struct buffer up, down;
	size_t cleared; /* of `up`: may be written */
	bool client_eof, server_eof;
	bool leaving; /* GOAWAY was said: write `down`, then close */
	bool dead;
	uint64_t progress_ns;
	uint64_t held_ns; /* since when something is held back */
	char address[64];
	struct http_server *owner;
	struct http_address *peer;
};

static const char *socket_path;
static struct guarded *connections;
static unsigned int count;

void guard_start(const char *path)
{
	socket_path = path;
}

unsigned int guard_connections(void)
{
	return count;
}

static void destroy(struct guarded *guarded)
{
	loop_watch_remove(guarded->client_watch);
	loop_watch_remove(guarded->server_watch);
	loop_timer_cancel(&guarded->timer);
	transport_close(&guarded->client);
	cleanup_fd(&guarded->server);
	guard_frames_free(&guarded->frames);
	buffer_free(&guarded->up);
	buffer_free(&guarded->down);
	if (guarded->previous)
		guarded->previous->next = guarded->next;
	else
		connections = guarded->next;
	if (guarded->next)
		guarded->next->previous = guarded->previous;
	count--;
	http_release(guarded->owner, guarded->peer);
	free(guarded);
}

void guard_stop(void)
{
	while (connections)
		destroy(connections);
}

/* A rule is broken: say so to the client, and let nothing more of it through. */
static void leave(struct guarded *guarded)
{
	uint32_t error = guarded->frames.error;
	uint8_t goaway[17] = {0,
			      0,
			      8,
			      7,
			      0,
			      0,
			      0,
			      0,
			      0,
			      0x7f,
			      0xff,
			      0xff,
			      0xff,
			      (uint8_t)(error >> 24),
			      (uint8_t)(error >> 16),
			      (uint8_t)(error >> 8),
			      (uint8_t)error};

	log_event(LOG_WARN, "guard.closed", "client", guarded->address, "rule", guarded->frames.broken, NULL);
	/* Where the server's stream is in the middle of a frame, GOAWAY would be taken for a part of it. */
	if (guarded->frames.server_left || guarded->frames.server_head_length ||
	    buffer_append(&guarded->down, goaway, sizeof(goaway)) < 0)
		buffer_free(&guarded->down);
	guarded->leaving = true;
	cleanup_fd(&guarded->server);
	guarded->server = -1;
	loop_watch_remove(guarded->server_watch);
	guarded->server_watch = NULL;
}

/* Let through what may be let through. */
static void clear_up(struct guarded *guarded)
{
	size_t waiting = buffer_length(&guarded->up) - guarded->cleared;
	int64_t n;

	if (!waiting || guarded->leaving)
		return;
	n = guard_client_bytes(&guarded->frames, buffer_data(&guarded->up) + guarded->cleared, waiting, loop_now_ns());
	if (n < 0) {
		leave(guarded);
		return;
	}
	guarded->cleared += (size_t)n;
	if ((size_t)n == waiting)
		guarded->held_ns = 0;
	else if (!guarded->held_ns || n)
		guarded->held_ns = loop_now_ns();
}

static bool read_client(struct guarded *guarded)
{
	size_t room = buffer_room(&guarded->up);
	int rc = 0;
	uint8_t *to;
	ssize_t n;

	if (!room || guarded->client_eof || guarded->leaving)
		return false;
	to = buffer_reserve(&guarded->up, room, &rc);
	n = to ? transport_read(&guarded->client, to, room) : rc;
	if (n < 0)
		guarded->client_eof = true;
	if (n <= 0)
		return false;
	buffer_commit(&guarded->up, (size_t)n);
	guarded->progress_ns = loop_now_ns();
	clear_up(guarded);
	return true;
}

static bool read_server(struct guarded *guarded)
{
	size_t room = buffer_room(&guarded->down);
	int rc = 0;
	uint8_t *to;
	ssize_t n;

	if (guarded->server < 0 || guarded->server_eof || room < READ_SIZE)
		return false;
	to = buffer_reserve(&guarded->down, READ_SIZE, &rc);
	if (!to) {
		guarded->dead = true;
		return false;
	}
	n = recv(guarded->server, to, READ_SIZE, MSG_DONTWAIT);
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		guarded->server_eof = true;
	if (n <= 0)
		return false;
	/* The time to take it begins when something is there. */
	if (!buffer_length(&guarded->down))
		guarded->progress_ns = loop_now_ns();
	if (guard_server_bytes(&guarded->frames, to, (size_t)n, loop_now_ns()) < 0) {
		leave(guarded);
		return true;
	}
	buffer_commit(&guarded->down, (size_t)n);
	return true;
}

static bool write_server(struct guarded *guarded)
{
	ssize_t n;

	if (!guarded->cleared || guarded->server < 0)
		return false;
	n = send(guarded->server, buffer_data(&guarded->up), guarded->cleared, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && errno != EAGAIN && errno != EINTR)
		guarded->dead = true;
	if (n <= 0)
		return false;
	buffer_take(&guarded->up, (size_t)n);
	guarded->cleared -= (size_t)n;
	return true;
}

static bool write_client(struct guarded *guarded)
{
	ssize_t n;

	if (!buffer_length(&guarded->down))
		return false;
	n = transport_write(&guarded->client, buffer_data(&guarded->down), buffer_length(&guarded->down));
	if (n < 0)
		guarded->dead = true;
	if (n <= 0)
		return false;
	buffer_take(&guarded->down, (size_t)n);
	guarded->progress_ns = loop_now_ns();
	return true;
}

static uint64_t deadline(const struct guarded *guarded)
{
	if (guarded->held_ns || !guarded->frames.settled)
		return (guarded->held_ns ? guarded->held_ns : guarded->progress_ns) + (uint64_t)PREFACE_MS * 1000000u;
	return guarded->progress_ns + (uint64_t)(buffer_length(&guarded->down) ? STALL_MS : IDLE_MS) * 1000000u;
}

static void watch(struct guarded *guarded)
{
	uint32_t client = 0, server = 0;

	if (!guarded->client_eof && !guarded->leaving && buffer_room(&guarded->up))
		client |= EPOLLIN;
	if (buffer_length(&guarded->down))
		client |= EPOLLOUT;
	if (!guarded->server_eof && buffer_room(&guarded->down) >= READ_SIZE)
		server |= EPOLLIN;
	if (guarded->cleared)
		server |= EPOLLOUT;
	if (loop_watch_set(guarded->client_watch, client) < 0 ||
	    (guarded->server_watch && loop_watch_set(guarded->server_watch, server) < 0) ||
	    loop_timer_set(&guarded->timer, deadline(guarded)) < 0)
		guarded->dead = true;
}

static bool finished(const struct guarded *guarded)
{
	if (guarded->dead || guarded->client_eof)
		return true;
	return (guarded->leaving || guarded->server_eof) && !buffer_length(&guarded->down);
}

static void run(struct guarded *guarded)
{
	bool again = false;

	for (int i = 0; i < ROUNDS; i++) {
		bool moved = read_client(guarded);

		moved |= write_server(guarded);
		moved |= read_server(guarded);
		moved |= write_client(guarded);
		again = moved && !finished(guarded);
		if (!again)
			break;
	}
	if (!finished(guarded))
		watch(guarded);
	/* OpenSSL may hold bytes that no event will announce. */
	if (again && guarded->client.ssl && loop_timer_set(&guarded->timer, 1) < 0)
		guarded->dead = true;
	if (!finished(guarded))
		return;
	if (guarded->leaving && !guarded->dead)
		transport_finish(&guarded->client);
	destroy(guarded);
}

static void on_event(uint32_t events, void *arg)
{
	run(arg);
}

static void on_time(void *arg)
{
	struct guarded *guarded = arg;

	if (loop_now_ns() >= deadline(guarded)) {
		log_event(LOG_INFO, "guard.closed", "client", guarded->address, "rule", "too slow", NULL);
		guarded->dead = true;
	}
	run(guarded);
}

static int connect_server(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	_cleanup_fd_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	if (strlen(socket_path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, socket_path);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	return STEAL_FD(fd);
}

static int begin(struct guarded *guarded, const struct http_handover *handover)
{
	if (guarded->server < 0)
		return guarded->server;
	if (guard_frames_init(&guarded->frames) < 0)
		return -ENOMEM;
	guarded->client_watch = loop_watch_add(guarded->client.fd, EPOLLIN, on_event, guarded);
	guarded->server_watch = loop_watch_add(guarded->server, EPOLLIN, on_event, guarded);
	if (!guarded->client_watch || !guarded->server_watch)
		return -ENOMEM;
	return buffer_append(&guarded->up, handover->bytes, handover->length);
}

void guard_take(struct http_handover *handover, void *arg)
{
	struct guarded *guarded = calloc(1, sizeof(*guarded));
	int rc;

	if (!guarded) {
		struct transport lost = {.fd = handover->fd, .ssl = handover->ssl};

		transport_close(&lost);
		http_release(handover->server, handover->peer);
		return;
	}
	guarded->client = (struct transport){.fd = handover->fd, .ssl = handover->ssl, .handshaken = true};
	guarded->owner = handover->server;
	guarded->peer = handover->peer;
	guarded->up = BUFFER(UP_MAX + GUARD_HOLD);
	guarded->down = BUFFER(DOWN_MAX);
	guarded->timer = (struct loop_timer){.handler = on_time, .arg = guarded};
	guarded->progress_ns = loop_now_ns();
	snprintf(guarded->address, sizeof(guarded->address), "%s", handover->address);
	guarded->next = connections;
	if (connections)
		connections->previous = guarded;
	connections = guarded;
	count++;
	guarded->server = connect_server();
	rc = begin(guarded, handover);
	if (rc < 0) {
		log_event(LOG_WARN, "guard.refused", "client", guarded->address, "error", strerror(-rc), NULL);
		destroy(guarded);
		return;
	}
	clear_up(guarded);
	run(guarded);
}
