#include "fake_warden.h"

#include "sandbox/base/cleanup.h"
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SET_MAX 4096
#define HELD_MAX 512

static struct {
	pthread_mutex_t lock;
	pthread_t thread;
	atomic_bool stop;
	int listener, connection, import;
	struct warden_request import_request;
	char living[SET_MAX][24];
	char frozen[SET_MAX][24]; /* ids; an id may be listed after its end */
	unsigned int n_frozen;
	unsigned int n_living;
	char template_id[16][48];
	unsigned int n_templates;
	unsigned int requests[32];
	unsigned int fail[32];
	int fail_status;
	char fail_text[64];
	enum warden_op held_op;
	struct warden_request held[HELD_MAX];
	unsigned int n_held;
	uint64_t imported, disk;
	char next_template[48];
	bool stall;
	char path[108];
} warden = {.lock = PTHREAD_MUTEX_INITIALIZER, .listener = -1, .connection = -1, .import = -1};

static void reply_to(const struct warden_request *request, struct warden_reply reply, int fd)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec iov = {.iov_base = &reply, .iov_len = sizeof(reply)};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

	reply.op = request->op;
	reply.serial = request->serial;
	if (fd >= 0) {
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &fd, sizeof(int));
	}
	if (warden.connection >= 0)
		(void)sendmsg(warden.connection, &message, MSG_NOSIGNAL);
}

static int find(const char *id)
{
	for (unsigned int i = 0; i < warden.n_living; i++) {
		if (strcmp(warden.living[i], id) == 0)
			return (int)i;
	}
	return -1;
}

static int find_frozen(const char *id)
{
	for (unsigned int i = 0; i < warden.n_frozen; i++) {
		if (strcmp(warden.frozen[i], id) == 0)
			return (int)i;
	}
	return -1;
}

static void freeze(const char *id, bool frozen)
{
	int at = find_frozen(id);

	if (frozen && at < 0)
		memcpy(warden.frozen[warden.n_frozen++], id, 24);
	else if (!frozen && at >= 0)
		memmove(warden.frozen[at], warden.frozen[--warden.n_frozen], 24);
}

static void reply_with_link(const struct warden_request *request)
{
	struct warden_reply reply = {0};
	int ends[2];

	assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
	memcpy(reply.id, request->id, sizeof(reply.id));
	reply_to(request, reply, ends[0]);
	close(ends[0]);
	close(ends[1]);
}

static void serve_lists(const struct warden_request *request)
{
	struct warden_reply reply = {.flags = WARDEN_MORE};

	if (request->op == WARDEN_LIST) {
		for (unsigned int i = 0; i < warden.n_living; i++) {
			reply.flags = WARDEN_MORE | (find_frozen(warden.living[i]) >= 0 ? WARDEN_FROZEN : 0);
			memcpy(reply.id, warden.living[i], sizeof(reply.id));
			reply_to(request, reply, -1);
		}
	} else {
		for (unsigned int i = 0; i < warden.n_templates; i++) {
			memcpy(reply.template_id, warden.template_id[i], sizeof(reply.template_id));
			strcpy(reply.digest, "sha256:00");
			reply_to(request, reply, -1);
		}
	}
	reply_to(request, (struct warden_reply){0}, -1);
}

static void remove_template(const struct warden_request *request)
{
	struct warden_reply reply = {.status = -ENOENT};

	for (unsigned int i = 0; i < warden.n_templates; i++) {
		if (strcmp(warden.template_id[i], request->template_id) != 0)
			continue;
		memmove(warden.template_id[i], warden.template_id[--warden.n_templates], 48);
		reply.status = 0;
		break;
	}
	reply_to(request, reply, -1);
}

static void serve(const struct warden_request *request, int fd)
{
	struct warden_reply reply = {0};
	int at = find(request->id);

	switch ((enum warden_op)request->op) {
	case WARDEN_HELLO:
		reply.value = WARDEN_PROTOCOL_VERSION;
		break;
	case WARDEN_CREATE:
		assert(at < 0 && warden.n_living < SET_MAX);
		memcpy(warden.living[warden.n_living++], request->id, 24);
		reply_with_link(request);
		return;
	case WARDEN_ATTACH:
		if (at >= 0) {
			reply_with_link(request);
			return;
		}
		reply.status = -ENOENT;
		break;
	case WARDEN_KILL:
		if (at >= 0)
			memmove(warden.living[at], warden.living[--warden.n_living], 24);
		reply.value = at >= 0;
		break;
	case WARDEN_USAGE:
		reply.status = at >= 0 ? 0 : -ENOENT;
		reply.usage.memory_bytes = 4711;
		reply.usage.pids = 3;
		break;
	case WARDEN_LIST:
	case WARDEN_TEMPLATE_LIST:
		serve_lists(request);
		return;
	case WARDEN_TEMPLATE_IMPORT:
		assert(fd >= 0 && warden.import < 0);
		warden.import = fd;
		warden.import_request = *request;
		return;
	case WARDEN_TEMPLATE_REMOVE:
		remove_template(request);
		return;
	case WARDEN_STATUS:
		reply.total_disk_bytes = warden.disk;
		break;
	case WARDEN_FREEZE:
	case WARDEN_THAW:
		reply.status = at >= 0 ? 0 : -ENOENT;
		if (at >= 0)
			freeze(request->id, request->op == WARDEN_FREEZE);
		break;
	case WARDEN_CHECKPOINT:
		reply.status = at >= 0 ? 0 : -ENOENT;
		if (at >= 0)
			freeze(request->id, true);
		break;
	case WARDEN_RELEASE:
		reply.status = at >= 0 ? 0 : -ENOENT;
		break;
	case WARDEN_RESTORE:
		if (at >= 0) {
			freeze(request->id, false);
			reply_with_link(request);
			return;
		}
		reply.status = -ENOENT;
		break;
	case WARDEN_LIMITS:
	case WARDEN_SNAPSHOT:
	case WARDEN_SNAPSHOT_BRIEF:
	case WARDEN_COPY:
	case WARDEN_SNAPSHOT_REMOVE:
	case WARDEN_LAYER:
	case WARDEN_SNAPSHOT_LIST:
	case WARDEN_STOCK:
	case WARDEN_EVENT_EXITED:
		break;
	}
	reply_to(request, reply, -1);
}

static void handle(const struct warden_request *request, int fd)
{
	warden.requests[request->op]++;
	if (warden.fail[request->op] > 0) {
		struct warden_reply reply = {.status = warden.fail_status};

		warden.fail[request->op]--;
		snprintf(reply.text, sizeof(reply.text), "%s", warden.fail_text);
		reply_to(request, reply, -1);
		if (fd >= 0)
			close(fd);
	} else if (warden.held_op == request->op) {
		assert(warden.n_held < HELD_MAX);
		warden.held[warden.n_held++] = *request;
	} else {
		serve(request, fd);
	}
}

static void receive(void)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct warden_request request;
	struct iovec iov = {.iov_base = &request, .iov_len = sizeof(request)};
	struct msghdr message = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	struct cmsghdr *header;
	int fd = -1;
	ssize_t n = recvmsg(warden.connection, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n < 0 && errno == EAGAIN)
		return;
	header = n > 0 ? CMSG_FIRSTHDR(&message) : NULL;
	if (header)
		memcpy(&fd, CMSG_DATA(header), sizeof(int));
	if (n == sizeof(request)) {
		handle(&request, fd);
		return;
	}
	close(STEAL_FD(warden.connection));
}

static bool has_template(const char *id)
{
	for (unsigned int i = 0; i < warden.n_templates; i++) {
		if (strcmp(warden.template_id[i], id) == 0)
			return true;
	}
	return false;
}

static void finish_import(void)
{
	struct warden_reply reply = {.size_bytes = warden.imported, .files = 1};

	close(STEAL_FD(warden.import));
	memcpy(reply.template_id, warden.next_template, sizeof(reply.template_id));
	strcpy(reply.digest, "sha256:11");
	if (warden.fail_status && warden.fail[0] > 0) {
		warden.fail[0]--;
		reply = (struct warden_reply){.status = warden.fail_status};
		strcpy(reply.text, warden.fail_text);
	} else if (!has_template(warden.next_template)) {
		memcpy(warden.template_id[warden.n_templates++], warden.next_template, 48);
	}
	reply_to(&warden.import_request, reply, -1);
}

static void read_import(void)
{
	static char data[65536];
	ssize_t n = read(warden.import, data, sizeof(data));

	if (n > 0)
		warden.imported += (uint64_t)n;
	else
		finish_import();
}

static void *run(void *arg)
{
	while (!atomic_load(&warden.stop)) {
		struct pollfd polled[3];

		pthread_mutex_lock(&warden.lock);
		polled[0] = (struct pollfd){.fd = warden.listener, .events = POLLIN};
		polled[1] = (struct pollfd){.fd = warden.connection, .events = POLLIN};
		polled[2] = (struct pollfd){.fd = warden.stall ? -1 : warden.import, .events = POLLIN};
		pthread_mutex_unlock(&warden.lock);
		poll(polled, 3, 2);
		pthread_mutex_lock(&warden.lock);
		if (polled[0].revents && warden.connection < 0)
			warden.connection = accept4(warden.listener, NULL, NULL, SOCK_CLOEXEC);
		if (polled[1].revents && polled[1].fd == warden.connection)
			receive();
		if (polled[2].revents && polled[2].fd == warden.import)
			read_import();
		pthread_mutex_unlock(&warden.lock);
	}
	return NULL;
}

void fake_warden_start(const char *runtime_dir)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/warden.sock", runtime_dir);
	strcpy(warden.path, address.sun_path);
	warden.listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	assert(warden.listener >= 0);
	assert(bind(warden.listener, (struct sockaddr *)&address, sizeof(address)) == 0);
	assert(listen(warden.listener, 4) == 0);
	warden.n_frozen = warden.n_living = warden.n_templates = warden.n_held = 0;
	warden.held_op = 0;
	warden.imported = 0;
	warden.disk = 0;
	warden.stall = false;
	memset(warden.requests, 0, sizeof(warden.requests));
	memset(warden.fail, 0, sizeof(warden.fail));
	atomic_store(&warden.stop, false);
	assert(pthread_create(&warden.thread, NULL, run, NULL) == 0);
}

void fake_warden_stop(void)
{
	atomic_store(&warden.stop, true);
	pthread_join(warden.thread, NULL);
	close(STEAL_FD(warden.listener));
	if (warden.connection >= 0)
		close(STEAL_FD(warden.connection));
	if (warden.import >= 0)
		close(STEAL_FD(warden.import));
	unlink(warden.path);
}

#define LOCKED(statement)                                                                                              \
	do {                                                                                                           \
		pthread_mutex_lock(&warden.lock);                                                                      \
		statement;                                                                                             \
		pthread_mutex_unlock(&warden.lock);                                                                    \
	} while (0)

void fake_warden_hang_up(void)
{
	/* close() alone would wait for the thread's poll() to let go of the socket. */
	LOCKED(if (warden.connection >= 0) shutdown(warden.connection, SHUT_RDWR);
	       if (warden.connection >= 0) close(STEAL_FD(warden.connection)); warden.n_held = 0);
}

static void release_held(void)
{
	for (unsigned int i = 0; i < warden.n_held; i++)
		serve(&warden.held[i], -1);
	warden.n_held = 0;
}

void fake_warden_hold(enum warden_op op)
{
	LOCKED(warden.held_op = op; if (!op) release_held());
}

void fake_warden_fail(enum warden_op op, unsigned int n, int status, const char *text)
{
	/* An import fails at its end, so that the data is taken first. */
	LOCKED(warden.fail[op == WARDEN_TEMPLATE_IMPORT ? 0 : op] = n; warden.fail_status = status;
	       snprintf(warden.fail_text, sizeof(warden.fail_text), "%s", text));
}

void fake_warden_add(const char *id)
{
	LOCKED(snprintf(warden.living[warden.n_living++], 24, "%s", id));
}

bool fake_warden_has(const char *id)
{
	bool has;

	LOCKED(has = find(id) >= 0);
	return has;
}

void fake_warden_freeze(const char *id, bool frozen)
{
	char whole[24] = {0};

	snprintf(whole, sizeof(whole), "%s", id);
	LOCKED(freeze(whole, frozen));
}

bool fake_warden_frozen(const char *id)
{
	bool frozen;

	LOCKED(frozen = find_frozen(id) >= 0);
	return frozen;
}

void fake_warden_forget(const char *id)
{
	LOCKED(int at = find(id); assert(at >= 0); memmove(warden.living[at], warden.living[--warden.n_living], 24));
}

void fake_warden_exit(const char *id, int status, uint64_t oom_kills)
{
	struct warden_request none = {.op = WARDEN_EVENT_EXITED};
	struct warden_reply event = {.value = (uint64_t)status, .usage.oom_kills = oom_kills};

	snprintf(event.id, sizeof(event.id), "%s", id);
	LOCKED(int at = find(id); assert(at >= 0); memmove(warden.living[at], warden.living[--warden.n_living], 24);
	       reply_to(&none, event, -1));
}

unsigned int fake_warden_living(void)
{
	unsigned int n;

	LOCKED(n = warden.n_living);
	return n;
}

void fake_warden_add_template(const char *id)
{
	LOCKED(snprintf(warden.template_id[warden.n_templates++], 48, "%s", id));
}

void fake_warden_forget_template(const char *id)
{
	LOCKED(for (unsigned int i = 0; i < warden.n_templates; i++) if (strcmp(warden.template_id[i], id) == 0)
		       memmove(warden.template_id[i], warden.template_id[--warden.n_templates], 48));
}

bool fake_warden_has_template(const char *id)
{
	bool has;

	LOCKED(has = has_template(id));
	return has;
}

unsigned int fake_warden_requests(enum warden_op op)
{
	unsigned int n;

	LOCKED(n = warden.requests[op]);
	return n;
}

uint64_t fake_warden_imported_bytes(void)
{
	uint64_t n;

	LOCKED(n = warden.imported);
	return n;
}

void fake_warden_next_template(const char *id)
{
	LOCKED(snprintf(warden.next_template, sizeof(warden.next_template), "%s", id));
}

void fake_warden_stall_import(bool stall)
{
	LOCKED(warden.stall = stall);
}

void fake_warden_set_disk(uint64_t bytes)
{
	LOCKED(warden.disk = bytes);
}
