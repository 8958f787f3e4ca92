#include "app_conn.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sandbox/base/buffer.h"
#include "sandbox/base/cleanup.h"
#include "server/loop.h"
#include "upstream.h"
#include "visit.h"

#define OUT_MAX (2u << 20)
#define OUT_HIGH (256u << 10)
#define OUT_LOW (64u << 10)
#define IDLE_MAX 64u
#define IDLE_NS 4000000000u
#define CONNECT_NS 10000000000u

struct app_conn {
	struct app_conn *next; /* while it is idle */
	uint64_t since_ns;     /* idle, or connecting */
	struct visit *visit;   /* while it is idle */
	int fd;
	struct loop_watch *watch;
	struct loop_timer timer; /* of connecting; or due at once: it cannot be watched */
	bool connecting;
	bool reading;
	bool full; /* on_drained() is due */
	bool deaf; /* it takes no bytes any more; what it has said may still be there to read */
	struct buffer out;
	struct app_events events;
	void *arg;
};

void app_conn_close(struct app_conn *conn)
{
	if (!conn)
		return;
	loop_timer_cancel(&conn->timer);
	loop_watch_remove(conn->watch);
	close(conn->fd);
	buffer_free(&conn->out);
	free(conn);
}

static void set_watch(struct app_conn *conn)
{
	uint32_t events = conn->reading && !conn->connecting ? (uint32_t)EPOLLIN : 0;

	if (conn->connecting || buffer_length(&conn->out))
		events |= EPOLLOUT;
	/* Without any, a connection that breaks is heard of with the next read or write. */
	/* Not from in here: whoever asked still has the connection in hand. */
	if (loop_watch_set(conn->watch, events) < 0)
		(void)loop_timer_set(&conn->timer, loop_now_ns());
}

/* Idle ones */

static void forget_idle(struct app_conn *conn)
{
	struct app_conn **at = visit_idle(conn->visit);

	while (*at != conn)
		at = &(*at)->next;
	*at = conn->next;
	conn->visit = NULL;
}

struct app_conn *app_conn_take(struct visit *visit)
{
	struct app_conn *conn = *visit_idle(visit);

	if (conn)
		forget_idle(conn);
	return conn;
}

void app_conn_keep(struct app_conn *conn, struct visit *visit)
{
	unsigned int n = 0;

	for (const struct app_conn *other = *visit_idle(visit); other; other = other->next)
		n++;
	if (n >= IDLE_MAX || buffer_length(&conn->out) || conn->deaf) {
		app_conn_close(conn);
		return;
	}
	conn->events = (struct app_events){};
	conn->visit = visit;
	conn->since_ns = loop_now_ns();
	conn->next = *visit_idle(visit);
	*visit_idle(visit) = conn;
	conn->reading = true;
	set_watch(conn);
}

void app_conns_close(struct visit *visit)
{
	while (*visit_idle(visit))
		app_conn_close(app_conn_take(visit));
}

void app_conns_expire(struct visit *visit, uint64_t now_ns)
{
	struct app_conn **at = visit_idle(visit);

	while (*at) {
		struct app_conn *conn = *at;

		if (now_ns - conn->since_ns < IDLE_NS) {
			at = &conn->next;
			continue;
		}
		*at = conn->next;
		app_conn_close(conn);
	}
}

/* Bytes */

static ssize_t write_some(struct app_conn *conn, const void *bytes, size_t length)
{
	ssize_t n;

	if (conn->connecting)
		return 0;
	do
		n = send(conn->fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return n;
	return errno == EAGAIN ? 0 : -errno;
}

static void become_deaf(struct app_conn *conn)
{
	conn->deaf = true;
	buffer_free(&conn->out);
}

int app_conn_write(struct app_conn *conn, const void *bytes, size_t length)
{
	ssize_t n = buffer_length(&conn->out) || conn->deaf ? 0 : write_some(conn, bytes, length);
	int rc = 0;

	if (n < 0)
		become_deaf(conn);
	if (!conn->deaf && (size_t)n < length) {
		rc = buffer_append(&conn->out, (const uint8_t *)bytes + n, length - (size_t)n);
		conn->full = buffer_length(&conn->out) > OUT_HIGH;
		set_watch(conn);
	}
	return rc;
}

bool app_conn_is_full(const struct app_conn *conn)
{
	return conn->full;
}

ssize_t app_conn_read(struct app_conn *conn, void *bytes, size_t size)
{
	ssize_t n;

	do
		n = recv(conn->fd, bytes, size, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n > 0)
		return n;
	if (n == 0)
		return -ECONNRESET;
	return errno == EAGAIN ? 0 : -errno;
}

void app_conn_want(struct app_conn *conn, bool reading)
{
	if (conn->reading == reading)
		return;
	conn->reading = reading;
	set_watch(conn);
}

static void flush(struct app_conn *conn)
{
	while (buffer_length(&conn->out)) {
		ssize_t n = write_some(conn, buffer_data(&conn->out), buffer_length(&conn->out));

		if (n < 0)
			become_deaf(conn);
		if (n <= 0)
			return;
		buffer_take(&conn->out, (size_t)n);
	}
}

/* Events */

static void fail(struct app_conn *conn, int rc)
{
	if (conn->events.on_failed)
		conn->events.on_failed(rc, conn->arg);
}

static int finish_connecting(struct app_conn *conn)
{
	socklen_t size = sizeof(int);
	int error = 0;

	if (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
		return -errno;
	conn->connecting = false;
	loop_timer_cancel(&conn->timer);
	return -error;
}

static void on_writable(struct app_conn *conn)
{
	int rc = conn->connecting ? finish_connecting(conn) : 0;

	if (rc < 0) {
		fail(conn, rc);
		return;
	}
	flush(conn);
	set_watch(conn);
	if (conn->full && buffer_length(&conn->out) <= OUT_LOW) {
		conn->full = false;
		if (conn->events.on_drained)
			conn->events.on_drained(conn->arg);
	}
}

static void on_event(uint32_t events, void *arg)
{
	struct app_conn *conn = arg;

	if (conn->visit) {
		/* Whatever an idle connection says, it is not for the next request. */
		forget_idle(conn);
		app_conn_close(conn);
		return;
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && !conn->connecting) {
		if (buffer_length(&conn->out)) {
			flush(conn);
			set_watch(conn);
		}
		/* Last: it may close the connection. */
		if (conn->events.on_readable)
			conn->events.on_readable(conn->arg);
		return;
	}
	on_writable(conn);
}

static void on_timeout(void *arg)
{
	fail(arg, -ETIMEDOUT);
}

void app_conn_own(struct app_conn *conn, const struct app_events *events, void *arg)
{
	conn->events = *events;
	conn->arg = arg;
	conn->reading = true;
	set_watch(conn);
}

static bool is_connecting(int fd)
{
	struct tcp_info info = {};
	socklen_t size = sizeof(info);

	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 && info.tcpi_state == TCP_SYN_SENT;
}

/* Takes the descriptor over, also when it fails. */
static struct app_conn *create(int fd)
{
	struct app_conn *conn = calloc(1, sizeof(*conn));

	if (!conn) {
		close(fd);
		return NULL;
	}
	fcntl(fd, F_SETFL, O_NONBLOCK);
	conn->fd = fd;
	conn->out = BUFFER(OUT_MAX);
	conn->connecting = is_connecting(fd);
	conn->timer.handler = on_timeout;
	conn->timer.arg = conn;
	conn->watch = loop_watch_add(fd, 0, on_event, conn);
	if (!conn->watch || (conn->connecting && loop_timer_set(&conn->timer, loop_now_ns() + CONNECT_NS) < 0)) {
		app_conn_close(conn);
		return NULL;
	}
	return conn;
}

/* Dialling */

struct app_dial {
	struct call *call;
	int fd;
	void (*done)(struct app_conn *conn, enum pdk_code code, const char *text, void *arg);
	void *arg;
};

static void on_message(struct call *call, const uint8_t *bytes, size_t length, int *fds, unsigned int n_fds, void *arg)
{
	struct app_dial *dial = arg;

	if (n_fds && dial->fd < 0)
		dial->fd = STEAL_FD(fds[0]);
}

static void on_end(struct call *call, enum pdk_code code, const char *text, void *arg)
{
	struct app_dial *dial = arg;
	struct app_conn *conn = NULL;

	if (code == PDK_OK && dial->fd >= 0) {
		conn = create(STEAL_FD(dial->fd));
		if (!conn)
			code = PDK_RESOURCE_EXHAUSTED;
	} else if (code == PDK_OK)
		code = PDK_INTERNAL;
	dial->done(conn, code, text, dial->arg);
	cleanup_fd(&dial->fd);
	free(dial);
}

struct app_dial *app_dial(const struct visit *visit,
			  void (*done)(struct app_conn *conn, enum pdk_code code, const char *text, void *arg),
			  void *arg, struct pdk_error *err)
{
	static const struct call_events events = {.on_message = on_message, .on_end = on_end};
	Paddock__Internal__VisitDial request = PADDOCK__INTERNAL__VISIT_DIAL__INIT;
	struct app_dial *dial = calloc(1, sizeof(*dial));
	struct caller caller = {};
	uint8_t packed[32];

	if (!dial) {
		pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "out of memory");
		return NULL;
	}
	*dial = (struct app_dial){.fd = -1, .done = done, .arg = arg};
	request.visit = visit_number(visit);
	dial->call = upstream_open(&caller, "/paddock.internal.Visits/Dial", 0, 1, &events, dial, err);
	if (!dial->call) {
		free(dial);
		return NULL;
	}
	if (upstream_send(dial->call, packed, paddock__internal__visit_dial__pack(&request, packed)) < 0) {
		app_dial_cancel(dial);
		pdk_fail(err, -EAGAIN, PDK_UNAVAILABLE, "the server is not there; try again");
		return NULL;
	}
	upstream_half_close(dial->call);
	return dial;
}

void app_dial_cancel(struct app_dial *dial)
{
	if (!dial)
		return;
	upstream_cancel(dial->call);
	cleanup_fd(&dial->fd);
	free(dial);
}
