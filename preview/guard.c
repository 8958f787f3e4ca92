#include "guard.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "gateway.h"
#include "guard_frames.h"
#include "h2_session.h"
#include "http_internal.h"
#include "sandbox/base/cleanup.h"
#include "server/log.h"

/*
 * Theory of operation. Two buffers: what the client says waits in `up` (the end of it perhaps held back, until a header
 * block is whole), what the server says in `down`. The server is paddockd's socket or a session of our own; before the
 * first request it is neither, and what the client has said is kept. A side is read only while its buffer has room, so
 * a slow reader stops the writer; a session reads all at once, and stops its writers by the windows of its streams.
 * run() does all that is possible and then says what to wait for; it is the only place that frees a connection.
 *
 * Time: the preface, and a header block that is held back, have PREFACE_MS. A client that does not take what is there
 * for it has STALL_MS. A connection that says nothing has IDLE_MS; gRPC clients keep theirs open for long. One that has
 * a session has the times of an HTTP/1.1 one, also for each of its streams.
 */

#define UP_MAX 65536u
#define DOWN_MAX 262144u
#define DOWN_MARK 131072u /* a session waits from here on */
#define READ_SIZE 65536u
#define PREFACE_MS 10000u
#define STALL_MS 60000u
#define IDLE_MS 3600000u
#define ROUNDS 16
#define TICK_NS 1000000000u

struct guarded {
	struct http_work work; /* first: a run that an exchange wants */
	struct guarded *next, *previous;
	struct transport client;
	int server; /* or -1 */
	struct h2_session *session;
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
	uint64_t tick_ns; /* when streams are looked at */
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
	h2_session_free(guarded->session);
	http_work_cancel(guarded->owner, &guarded->work);
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
	if (guarded->frames.server_left || buffer_append(&guarded->down, goaway, sizeof(goaway)) < 0)
		buffer_free(&guarded->down);
	guarded->leaving = true;
	cleanup_fd(&guarded->server);
	guarded->server = -1;
	loop_watch_remove(guarded->server_watch);
	guarded->server_watch = NULL;
	h2_session_free(STEAL_PTR(guarded->session));
}

/* Servers */

static void on_event(uint32_t events, void *arg);

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

static int begin_grpc(struct guarded *guarded)
{
	guarded->server = connect_server();
	if (guarded->server < 0)
		return guarded->server;
	guarded->server_watch = loop_watch_add(guarded->server, EPOLLIN, on_event, guarded);
	return guarded->server_watch ? 0 : -ENOMEM;
}

static int begin_http(struct guarded *guarded)
{
	struct h2_owner owner = {
		.server = guarded->owner,
		.work = &guarded->work,
		.address = guarded->address,
		.tls = guarded->client.ssl,
		.name = guarded->client.ssl ? SSL_get_servername(guarded->client.ssl, TLSEXT_NAMETYPE_host_name) : NULL,
	};

	guarded->session = h2_session_create(&owner);
	return guarded->session ? 0 : -ENOMEM;
}

/* The first request is there. */
static void choose(struct guarded *guarded)
{
	struct guard_frames *frames = &guarded->frames;
	bool grpc = frames->grpc_type && gateway_takes_grpc(frames->authority);
	int rc = grpc ? begin_grpc(guarded) : begin_http(guarded);

	if (rc < 0) {
		log_event(LOG_WARN, "guard.refused", "client", guarded->address, "error", strerror(-rc), NULL);
		guarded->dead = true;
		return;
	}
	if (guard_choose(frames, grpc ? GUARD_GRPC : GUARD_HTTP) < 0)
		leave(guarded);
}

/* Let through what may be let through. */
static void clear_up(struct guarded *guarded)
{
	size_t waiting = buffer_length(&guarded->up) - guarded->cleared;
	int64_t n;

	if (!waiting || guarded->leaving || guarded->dead)
		return;
	n = guard_client_bytes(&guarded->frames, buffer_writable(&guarded->up) + guarded->cleared, waiting,
			       loop_now_ns());
	if (n < 0) {
		leave(guarded);
		return;
	}
	guarded->cleared += (size_t)n;
	if (guarded->frames.asked && guarded->frames.protocol == GUARD_UNDECIDED) {
		choose(guarded);
		clear_up(guarded);
		return;
	}
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
	size_t room = buffer_room(&guarded->down), held = guarded->frames.server_head_length;
	int64_t whole;
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
	memcpy(to, guarded->frames.server_head, held);
	n = recv(guarded->server, to + held, READ_SIZE - held, MSG_DONTWAIT);
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		guarded->server_eof = true;
	if (n <= 0)
		return false;
	/* The time to take it begins when something is there. */
	if (!buffer_length(&guarded->down))
		guarded->progress_ns = loop_now_ns();
	whole = guard_server_bytes(&guarded->frames, to, held + (size_t)n, loop_now_ns());
	if (whole < 0)
		leave(guarded);
	else
		buffer_commit(&guarded->down, (size_t)whole);
	return true;
}

/* What the session has to say. */
static bool take_answers(struct guarded *guarded)
{
	size_t before = buffer_length(&guarded->down);
	int rc = h2_session_give(guarded->session, &guarded->down, DOWN_MARK);
	size_t said = buffer_length(&guarded->down) - before;

	if (said && !before)
		guarded->progress_ns = loop_now_ns();
	if (rc < 0)
		guarded->server_eof = true;
	if (said &&
	    guard_server_bytes(&guarded->frames, buffer_writable(&guarded->down) + before, said, loop_now_ns()) < 0)
		leave(guarded);
	return said;
}

/* Both ways between the client's buffers and the session. True if something moved. */
static bool serve(struct guarded *guarded)
{
	size_t length = guarded->cleared;
	bool moved = length;

	if (!guarded->session)
		return false;
	if (length && h2_session_take(guarded->session, buffer_data(&guarded->up), length) < 0)
		guarded->server_eof = true;
	buffer_take(&guarded->up, length);
	guarded->cleared = 0;
	moved |= h2_session_step(guarded->session);
	return take_answers(guarded) || moved;
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
	if (guarded->session && !buffer_length(&guarded->down))
		return h2_session_deadline(guarded->session);
	return guarded->progress_ns + (uint64_t)(buffer_length(&guarded->down) ? STALL_MS : IDLE_MS) * 1000000u;
}

static void watch(struct guarded *guarded)
{
	uint32_t client = 0, server = 0;
	uint64_t due = deadline(guarded);

	if (!buffer_length(&guarded->up))
		buffer_free(&guarded->up);
	if (!guarded->client_eof && !guarded->leaving && buffer_room(&guarded->up))
		client |= EPOLLIN;
	if (buffer_length(&guarded->down))
		client |= EPOLLOUT;
	if (!guarded->server_eof && buffer_room(&guarded->down) >= READ_SIZE)
		server |= EPOLLIN;
	if (guarded->cleared)
		server |= EPOLLOUT;
	if (guarded->session && h2_session_streams(guarded->session)) {
		if (!guarded->tick_ns)
			guarded->tick_ns = loop_now_ns() + TICK_NS;
		due = guarded->tick_ns < due ? guarded->tick_ns : due;
	}
	if (loop_watch_set(guarded->client_watch, client) < 0 ||
	    (guarded->server_watch && loop_watch_set(guarded->server_watch, server) < 0) ||
	    loop_timer_set(&guarded->timer, due) < 0)
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
		moved |= serve(guarded);
		moved |= write_client(guarded);
		again = moved && !finished(guarded);
		if (!again)
			break;
	}
	if (!finished(guarded))
		watch(guarded);
	/* OpenSSL may hold bytes that no event will announce. */
	if (again && (guarded->client.ssl || guarded->session) && loop_timer_set(&guarded->timer, 1) < 0)
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

static void run_work(struct http_work *work)
{
	run((struct guarded *)work);
}

static void on_time(void *arg)
{
	struct guarded *guarded = arg;

	uint64_t now = loop_now_ns();

	if (guarded->tick_ns && now >= guarded->tick_ns) {
		guarded->tick_ns = 0;
		if (guarded->session)
			h2_session_tick(guarded->session, now);
	}
	if (now >= deadline(guarded)) {
		log_event(LOG_INFO, "guard.closed", "client", guarded->address, "rule", "too slow", NULL);
		guarded->dead = true;
	}
	run(guarded);
}

static int begin(struct guarded *guarded, const struct http_handover *handover)
{
	if (guard_frames_init(&guarded->frames, &guarded->down) < 0)
		return -ENOMEM;
	guarded->client_watch = loop_watch_add(guarded->client.fd, EPOLLIN, on_event, guarded);
	if (!guarded->client_watch || buffer_append(&guarded->down, guard_settings, sizeof(guard_settings)) < 0)
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
	guarded->server = -1;
	guarded->work.run = run_work;
	guarded->timer = (struct loop_timer){.handler = on_time, .arg = guarded};
	guarded->progress_ns = loop_now_ns();
	snprintf(guarded->address, sizeof(guarded->address), "%s", handover->address);
	guarded->next = connections;
	if (connections)
		connections->previous = guarded;
	connections = guarded;
	count++;
	rc = begin(guarded, handover);
	if (rc < 0) {
		log_event(LOG_WARN, "guard.refused", "client", guarded->address, "error", strerror(-rc), NULL);
		destroy(guarded);
		return;
	}
	clear_up(guarded);
	run(guarded);
}
