#include "warden_client.h"

#include "log.h"
#include "loop.h"
#include "sandbox/base/cleanup.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

/*
 * One SOCK_SEQPACKET connection. DOWN -> (connect) -> GREETING -> (hello answered) -> UP; any failure of the
 * socket leads back to DOWN, fails what waits with -ECONNRESET and arms the retry timer.
 *
 * A request that does not fit into the socket's buffer waits in `queue`, in order; the queue is bounded by
 * PENDING_MAX like everything that waits for a reply. Replies are matched by serial, so the warden may
 * answer in any order. The warden is trusted with its replies' meaning, but not with their form: a datagram
 * of another size ends the connection.
 */

#define PENDING_MAX 16384
#define BUCKETS 1024
#define RETRY_NS (100 * 1000000ull)
#define BATCH 64

enum connection { DOWN, GREETING, UP };

struct pending {
	struct pending *next_bucket;
	uint32_t serial;
	warden_reply_handler handler;
	void *arg;
	bool *done; /* warden_call_wait() looks here */
};

struct queued {
	struct queued *next;
	struct warden_request request;
	int fd;
};

static struct {
	enum connection state;
	int fd;
	uint32_t last_serial;
	unsigned int n_pending;
	struct loop_watch *watch;
	struct loop_timer retry;
	struct warden_events events;
	struct sockaddr_un address;
	struct queued *queue, **queue_tail;
	struct pending *bucket[BUCKETS];
	bool was_up;
	bool stopped;
} client = {.fd = -1};

bool warden_connected(void)
{
	return client.state == UP;
}

static struct pending **pending_slot(uint32_t serial)
{
	struct pending **slot = &client.bucket[serial % BUCKETS];

	while (*slot && (*slot)->serial != serial)
		slot = &(*slot)->next_bucket;
	return slot;
}

static struct pending *pending_add(warden_reply_handler handler, void *arg)
{
	struct pending *pending = calloc(1, sizeof(*pending));

	if (!pending)
		return NULL;
	do {
		client.last_serial++;
	} while (client.last_serial == 0 || *pending_slot(client.last_serial));
	pending->serial = client.last_serial;
	pending->handler = handler;
	pending->arg = arg;
	*pending_slot(pending->serial) = pending;
	client.n_pending++;
	return pending;
}

static struct pending *pending_take(uint32_t serial)
{
	struct pending **slot = pending_slot(serial);
	struct pending *pending = *slot;

	if (pending) {
		*slot = pending->next_bucket;
		client.n_pending--;
	}
	return pending;
}

static void queue_clear(void)
{
	while (client.queue) {
		struct queued *queued = client.queue;

		client.queue = queued->next;
		if (queued->fd >= 0)
			close(queued->fd);
		free(queued);
	}
	client.queue_tail = &client.queue;
}

/* Give a reply of our own making to everything that waits. Handlers may call warden_call(): it says -ENOTCONN. */
static void pending_fail_all(int rc)
{
	for (unsigned int i = 0; i < BUCKETS; i++) {
		while (client.bucket[i]) {
			struct pending *pending = pending_take(client.bucket[i]->serial);
			struct warden_reply reply = {.serial = pending->serial, .status = rc};
			int fd = -1;

			strcpy(reply.text, "the connection to the warden broke");
			if (pending->done)
				*pending->done = true;
			pending->handler(&reply, &fd, pending->arg);
			free(pending);
		}
	}
}

static void disconnect(const char *why)
{
	if (client.state == DOWN)
		return;
	if (client.state == UP)
		log_event(LOG_ERROR, "warden.lost", "reason", why, NULL);
	client.state = DOWN;
	loop_watch_remove(STEAL_PTR(client.watch));
	close(STEAL_FD(client.fd));
	queue_clear();
	pending_fail_all(-ECONNRESET);
	if (!client.stopped)
		loop_timer_set(&client.retry, loop_now_ns() + RETRY_NS);
}

/* 1 = sent, 0 = the buffer is full, or a negative errno. */
static int send_now(const struct warden_request *request, int fd)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec iov = {.iov_base = (void *)request, .iov_len = sizeof(*request)};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fd >= 0) {
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &fd, sizeof(int));
	}
	if (sendmsg(client.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
		return 1;
	return errno == EAGAIN || errno == EINTR ? 0 : -errno;
}

static int enqueue(const struct warden_request *request, int fd)
{
	struct queued *queued = calloc(1, sizeof(*queued));

	if (!queued)
		return -ENOMEM;
	queued->request = *request;
	queued->fd = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : -1;
	if (fd >= 0 && queued->fd < 0) {
		free(queued);
		return -EMFILE;
	}
	*client.queue_tail = queued;
	client.queue_tail = &queued->next;
	return loop_watch_set(client.watch, EPOLLIN | EPOLLOUT);
}

static int flush_queue(void)
{
	while (client.queue) {
		struct queued *queued = client.queue;
		int rc = send_now(&queued->request, queued->fd);

		if (rc <= 0)
			return rc;
		client.queue = queued->next;
		if (!client.queue)
			client.queue_tail = &client.queue;
		if (queued->fd >= 0)
			close(queued->fd);
		free(queued);
	}
	return loop_watch_set(client.watch, EPOLLIN);
}

static int submit(struct warden_request *request, int fd, struct pending *pending)
{
	int rc;

	request->serial = pending->serial;
	rc = client.queue ? 0 : send_now(request, fd);
	if (rc == 0)
		rc = enqueue(request, fd);
	if (rc < 0)
		free(pending_take(request->serial));
	return rc < 0 ? rc : 0;
}

int warden_call(struct warden_request *request, int fd, warden_reply_handler handler, void *arg)
{
	struct pending *pending;

	if (client.state != UP)
		return -ENOTCONN;
	if (client.n_pending >= PENDING_MAX)
		return -EBUSY;
	pending = pending_add(handler, arg);
	return pending ? submit(request, fd, pending) : -ENOMEM;
}

static void handle_reply(const struct warden_reply *reply, int *fd)
{
	struct pending *pending;

	if (reply->serial == 0) {
		if (reply->op == WARDEN_EVENT_EXITED && client.events.on_exited)
			client.events.on_exited(reply);
		return;
	}
	if (reply->flags & WARDEN_MORE) {
		pending = *pending_slot(reply->serial);
		if (pending)
			pending->handler(reply, fd, pending->arg);
		return;
	}
	pending = pending_take(reply->serial);
	if (!pending)
		return;
	if (pending->done)
		*pending->done = true;
	pending->handler(reply, fd, pending->arg);
	free(pending);
}

static void terminate_strings(struct warden_reply *reply)
{
	reply->id[sizeof(reply->id) - 1] = '\0';
	reply->template_id[sizeof(reply->template_id) - 1] = '\0';
	reply->digest[sizeof(reply->digest) - 1] = '\0';
	reply->text[sizeof(reply->text) - 1] = '\0';
}

/* 1 = one reply was handled, 0 = nothing there, or a negative errno that ends the connection. */
static int receive_one(void)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct warden_reply reply;
	struct iovec iov = {.iov_base = &reply, .iov_len = sizeof(reply)};
	struct msghdr message = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	_cleanup_fd_ int fd = -1;
	struct cmsghdr *header;
	ssize_t length;

	length = recvmsg(client.fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (length < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	header = CMSG_FIRSTHDR(&message);
	if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
	    header->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(&fd, CMSG_DATA(header), sizeof(int));
	if (length == 0)
		return -ECONNRESET;
	if (length != sizeof(reply) || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
		return -EPROTO;
	terminate_strings(&reply);
	handle_reply(&reply, &fd);
	return 1;
}

static int receive_all(void)
{
	for (unsigned int i = 0; i < BATCH; i++) {
		int rc = receive_one();

		/* A handler may have ended the connection. */
		if (rc <= 0 || client.state == DOWN)
			return rc < 0 ? rc : 0;
	}
	return 0;
}

static void on_socket(uint32_t events, void *arg)
{
	int rc = 0;

	if (events & EPOLLOUT)
		rc = flush_queue();
	if (rc >= 0 && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		rc = receive_all();
	if (rc < 0)
		disconnect(strerrordesc_np(-rc));
}

static void on_hello(const struct warden_reply *reply, int *fd, void *arg)
{
	bool again = client.was_up;

	if (client.state != GREETING)
		return;
	if (reply->status < 0 || reply->value != WARDEN_PROTOCOL_VERSION) {
		log_event(LOG_ERROR, "warden.refused", "reason", reply->status < 0 ? reply->text : "other version",
			  "version", log_u64(reply->value), NULL);
		/* Not disconnect(): this runs inside the reply's dispatch; the shutdown shows up as an event. */
		shutdown(client.fd, SHUT_RDWR);
		return;
	}
	client.state = UP;
	client.was_up = true;
	log_event(LOG_INFO, "warden.connected", NULL);
	if (again && client.events.on_reconnect)
		client.events.on_reconnect();
}

static int greet(bool *answered)
{
	struct warden_request request = {.op = WARDEN_HELLO, .value = WARDEN_PROTOCOL_VERSION};
	struct pending *pending = pending_add(on_hello, NULL);

	if (pending)
		pending->done = answered;
	return pending ? submit(&request, -1, pending) : -ENOMEM;
}

static int connect_once(void)
{
	_cleanup_fd_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&client.address, sizeof(client.address)) < 0)
		return -errno;
	client.watch = loop_watch_add(fd, EPOLLIN, on_socket, NULL);
	if (!client.watch)
		return -ENOMEM;
	client.fd = STEAL_FD(fd);
	client.state = GREETING;
	return 0;
}

static void on_retry(void *arg)
{
	int rc;

	if (client.state != DOWN || client.stopped)
		return;
	rc = connect_once();
	if (rc < 0) {
		loop_timer_set(&client.retry, loop_now_ns() + RETRY_NS);
		return;
	}
	rc = greet(NULL);
	if (rc < 0)
		disconnect(strerrordesc_np(-rc));
}

/* Poll the socket here until *done, the end of the connection or the deadline. */
static int pump(const bool *done, uint64_t deadline_ns)
{
	while (!*done) {
		struct pollfd poller = {.fd = client.fd, .events = POLLIN | (client.queue ? POLLOUT : 0)};
		uint64_t now = loop_now_ns();
		int rc;

		if (now >= deadline_ns)
			return -ETIMEDOUT;
		rc = poll(&poller, 1, (int)((deadline_ns - now) / 1000000 + 1));
		if (rc < 0 && errno != EINTR)
			return -errno;
		if (rc <= 0)
			continue;
		on_socket((poller.revents & POLLOUT ? EPOLLOUT : 0) | EPOLLIN, NULL);
		if (client.state == DOWN && !*done)
			return -ECONNRESET;
	}
	return 0;
}

static void ignore_reply(const struct warden_reply *reply, int *fd, void *arg)
{
}

int warden_call_wait(struct warden_request *request, warden_reply_handler handler, void *arg, int timeout_ms,
		     struct pdk_error *err)
{
	bool done = false;
	struct pending *pending;
	int rc;

	if (client.state != UP)
		return pdk_fail(err, -ENOTCONN, PDK_UNAVAILABLE, "the warden is away");
	pending = pending_add(handler, arg);
	if (!pending)
		return pdk_fail_errno(err, -ENOMEM, "asking the warden");
	pending->done = &done;
	rc = submit(request, -1, pending);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "asking the warden");
	rc = pump(&done, loop_now_ns() + (uint64_t)timeout_ms * 1000000);
	if (rc == -ETIMEDOUT) {
		/* `done`, `handler` and `arg` die with the caller: a late reply must find none of them. */
		pending->done = NULL;
		pending->handler = ignore_reply;
	}
	return rc < 0 ? pdk_fail_errno(err, rc, "waiting for the warden") : 0;
}

static int connect_and_greet(uint64_t deadline_ns)
{
	bool answered = false;
	int rc = connect_once();

	if (rc < 0)
		return rc;
	rc = greet(&answered);
	if (rc >= 0)
		rc = pump(&answered, deadline_ns);
	if (client.state == UP)
		return 0;
	/* `answered` dies with this call: nothing may be left that points to it. */
	disconnect("no hello");
	return rc < 0 ? rc : -EPROTO;
}

int warden_client_start(const char *runtime_dir, const struct warden_events *events, struct pdk_error *err)
{
	uint64_t deadline_ns = loop_now_ns() + 10 * 1000000000ull;
	size_t room = sizeof(client.address.sun_path);
	int rc;

	client.stopped = false;
	client.was_up = false;
	client.queue_tail = &client.queue;
	client.retry.handler = on_retry;
	client.address.sun_family = AF_UNIX;
	if ((size_t)snprintf(client.address.sun_path, room, "%s/warden.sock", runtime_dir) >= room)
		return pdk_fail(err, -ENAMETOOLONG, PDK_INVALID_ARGUMENT, "runtime_dir is too long for a socket");
	do {
		rc = connect_and_greet(deadline_ns);
		if (rc >= 0)
			break;
		poll(NULL, 0, 100);
	} while (loop_now_ns() < deadline_ns);
	loop_timer_cancel(&client.retry);
	if (rc < 0) {
		warden_client_stop();
		return pdk_fail_errno(err, rc, "the warden does not answer on its socket");
	}
	client.events = *events;
	return 0;
}

void warden_client_stop(void)
{
	client.stopped = true;
	loop_timer_cancel(&client.retry);
	disconnect("stopping");
}
