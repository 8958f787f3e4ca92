#include "serve.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "cgroup.h"
#include "import.h"
#include "log.h"
#include "loop.h"
#include "options.h"
#include "pool.h"
#include "sandbox.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/linger.h"
#include "snapshot.h"
#include "template.h"

/*
 * The socket. Privileged operations start here, so this file's duty is that a hostile paddockd can express nothing
 * but: an id of the right form, a number within its range, a descriptor of a pipe. Everything else is refused
 * before any module sees it.
 */

#define LIMIT_MEMORY_MIN (16ull << 20)
#define LIMIT_MEMORY_MAX (1ull << 44)
#define LIMIT_DISK_MIN (1ull << 20)
#define LIMIT_DISK_MAX (1ull << 46)
#define LIMIT_INODES_MIN 16ull
#define LIMIT_INODES_MAX (1ull << 40)
#define LIMIT_PIDS_MIN 8u
#define LIMIT_PIDS_MAX 4194304u
#define LIMIT_CPU_MIN 10u
#define LIMIT_CPU_MAX 1024000u
#define IMPORT_BYTES_MAX (1ull << 44)
#define STOCK_WANTED_MAX 256u
#define SEND_WAIT_MS 2000

static struct watch listener = {.fd = -1};
static struct watch client = {.fd = -1};
static uint32_t connection; /* number of the current one; 0: none yet */

/* What a peer has sent and nobody has read is closed with it. */
static void close_peer(int fd)
{
	linger_begin();
	close(fd);
	linger_end();
}

static void drop_client(void)
{
	int fd = client.fd;

	if (fd < 0)
		return;
	loop_remove(&client);
	close_peer(fd);
	log_info("client_gone", NULL, "paddockd disconnected");
}

/* A paddockd that does not read its replies for two seconds is treated as gone: the warden's memory stays bounded. */
static int send_message(const struct warden_reply *reply, int fd)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)reply, .iov_len = sizeof(*reply)};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fd >= 0) {
		message.msg_control = &control;
		message.msg_controllen = sizeof(control.bytes);
		control.header = (struct cmsghdr){
			.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	}
	for (;;) {
		struct pollfd wait = {.fd = client.fd, .events = POLLOUT};

		if (sendmsg(client.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
			return 0;
		if (errno != EAGAIN || poll(&wait, 1, SEND_WAIT_MS) <= 0)
			return -EPIPE;
	}
}

bool serve_waits(struct ticket ticket)
{
	return client.fd >= 0 && ticket.connection == connection;
}

void serve_reply(struct ticket ticket, struct warden_reply *reply, int fd)
{
	if (!serve_waits(ticket))
		return;
	reply->op = ticket.op;
	reply->serial = ticket.serial;
	if (send_message(reply, fd) < 0)
		drop_client();
}

void serve_status(struct ticket ticket, const char *id, int rc, const struct pdk_error *err)
{
	struct warden_reply reply = {.status = rc};

	if (id)
		snprintf(reply.id, sizeof(reply.id), "%s", id);
	if (rc < 0 && err)
		snprintf(reply.text, sizeof(reply.text), "%.255s", err->text);
	serve_reply(ticket, &reply, -1);
}

void serve_event(struct warden_reply *event)
{
	struct ticket ticket = {.op = event->op, .connection = connection};

	if (connection)
		serve_reply(ticket, event, -1);
}

/* --- checks --- */

static bool text_ok(const char *text, size_t size)
{
	size_t length = strnlen(text, size);

	if (length == size)
		return false;
	for (size_t i = length; i < size; i++)
		if (text[i] != '\0')
			return false;
	return true;
}

static bool hostname_ok(const char *name)
{
	size_t length = strlen(name);

	return length >= 1 && length <= 63 && name[0] != '-' && name[0] != '.' &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.") == length;
}

static int limits_check(const struct warden_limits *l, struct pdk_error *err)
{
	if (l->memory_bytes < LIMIT_MEMORY_MIN || l->memory_bytes > LIMIT_MEMORY_MAX)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "memory_bytes is out of range");
	if (l->disk_bytes < LIMIT_DISK_MIN || l->disk_bytes > LIMIT_DISK_MAX)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "disk_bytes is out of range");
	if (l->max_inodes < LIMIT_INODES_MIN || l->max_inodes > LIMIT_INODES_MAX)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "max_inodes is out of range");
	if (l->cpu_millis < LIMIT_CPU_MIN || l->cpu_millis > LIMIT_CPU_MAX)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "cpu_millis is out of range");
	if (l->max_pids < LIMIT_PIDS_MIN || l->max_pids > LIMIT_PIDS_MAX)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "max_pids is out of range");
	return 0;
}

/* --- operations --- */

static int check_id(const struct warden_request *request, struct pdk_error *err)
{
	return sandbox_id_valid(request->id) ? 0 : pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "not a sandbox id");
}

static int check_template(const struct warden_request *request, struct pdk_error *err)
{
	return template_id_valid(request->template_id)
		       ? 0
		       : pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "not a template id");
}

static void op_create(const struct warden_request *request, struct ticket ticket)
{
	struct pdk_error err;
	int rc = check_id(request, &err);

	if (rc == 0)
		rc = check_template(request, &err);
	if (rc == 0 && request->snapshot_id[0] && !snapshot_id_valid(request->snapshot_id))
		rc = pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "not a snapshot id");
	if (rc == 0 && !hostname_ok(request->hostname))
		rc = pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "not a host name");
	if (rc == 0)
		rc = limits_check(&request->limits, &err);
	if (rc < 0)
		serve_status(ticket, NULL, rc, &err);
	else
		sandbox_create(request->id, request->template_id, request->snapshot_id, request->hostname,
			       &request->limits, ticket);
}

static void op_kill(const struct warden_request *request, struct ticket ticket)
{
	struct pdk_error err;
	int rc = check_id(request, &err);

	if (rc < 0)
		serve_status(ticket, NULL, rc, &err);
	else
		sandbox_kill(request->id, ticket);
}

static void op_attach(const struct warden_request *request, struct ticket ticket)
{
	struct warden_reply reply = {0};
	struct pdk_error err;
	_cleanup_fd_ int fd = -1;
	int rc = check_id(request, &err);

	if (rc == 0)
		rc = sandbox_attach(request->id, &fd, &err);
	if (rc < 0) {
		serve_status(ticket, NULL, rc, &err);
		return;
	}
	memcpy(reply.id, request->id, SANDBOX_ID_SIZE);
	serve_reply(ticket, &reply, fd);
}

static void op_simple(const struct warden_request *request, struct ticket ticket)
{
	struct pdk_error err;
	int rc = check_id(request, &err);

	if (rc == 0 && request->op == WARDEN_LIMITS)
		rc = limits_check(&request->limits, &err);
	if (rc == 0 && request->op == WARDEN_LIMITS)
		rc = sandbox_limit(request->id, &request->limits, &err);
	if (rc == 0 && request->op != WARDEN_LIMITS) {
		sandbox_freeze(request->id, request->op == WARDEN_FREEZE, ticket);
		return;
	}
	serve_status(ticket, rc == 0 ? request->id : NULL, rc, &err);
}

static void op_checkpoint(const struct warden_request *request, struct ticket ticket)
{
	struct pdk_error err;
	int rc = check_id(request, &err);

	if (rc == 0 && request->value == 0)
		rc = pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "not a token");
	if (rc == 0 && request->op == WARDEN_RESTORE && !hostname_ok(request->hostname))
		rc = pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "not a host name");
	if (rc == 0 && request->op == WARDEN_RESTORE)
		rc = limits_check(&request->limits, &err);
	if (rc < 0)
		serve_status(ticket, NULL, rc, &err);
	else if (request->op == WARDEN_CHECKPOINT)
		sandbox_checkpoint(request->id, request->value, ticket);
	else if (request->op == WARDEN_RELEASE)
		sandbox_release(request->id, request->value, ticket);
	else
		sandbox_restore(request->id, request->hostname, &request->limits, request->value, ticket);
}

/* SNAPSHOT, SNAPSHOT_BRIEF, LAYER and COPY. */
static void op_snapshot(const struct warden_request *request, struct ticket ticket)
{
	struct pdk_error err;
	int rc = check_id(request, &err);

	if (rc == 0 && !snapshot_id_valid(request->snapshot_id))
		rc = pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "not a snapshot id");
	if (rc == 0 && request->op != WARDEN_LAYER && request->value == 0)
		rc = pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "not a token");
	if (rc == 0 && request->op == WARDEN_COPY && !hostname_ok(request->hostname))
		rc = pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "not a host name");
	if (rc == 0 && request->op == WARDEN_COPY)
		rc = limits_check(&request->limits, &err);
	if (rc < 0)
		serve_status(ticket, NULL, rc, &err);
	else if (request->op == WARDEN_LAYER)
		sandbox_layer(request->id, request->snapshot_id, ticket);
	else if (request->op != WARDEN_COPY)
		sandbox_snapshot(request->id, request->snapshot_id, request->value,
				 request->op == WARDEN_SNAPSHOT_BRIEF, ticket);
	else
		sandbox_copy(request->id, request->snapshot_id, request->hostname, &request->limits, request->value,
			     ticket);
}

static void op_snapshot_remove(const struct warden_request *request, struct ticket ticket)
{
	struct pdk_error err;
	int rc;

	if (!snapshot_id_valid(request->snapshot_id))
		rc = pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "not a snapshot id");
	else if (sandbox_uses_snapshot(request->snapshot_id))
		rc = pdk_fail(&err, -EBUSY, PDK_ABORTED, "the snapshot is in use");
	else if ((rc = snapshot_discard(request->snapshot_id)) < 0)
		pdk_fail_errno(&err, rc, "remove the snapshot");
	serve_status(ticket, rc == 0 ? request->snapshot_id : NULL, rc, &err);
}

static void snapshot_one(const char *id, const char *template_id, void *arg)
{
	struct warden_reply reply = {.flags = WARDEN_MORE};

	memcpy(reply.id, id, SANDBOX_ID_SIZE);
	memcpy(reply.template_id, template_id, TEMPLATE_ID_SIZE);
	serve_reply(*(struct ticket *)arg, &reply, -1);
}

static void op_snapshot_list(struct ticket ticket)
{
	struct warden_reply end = {0};

	snapshot_each(snapshot_one, &ticket);
	serve_reply(ticket, &end, -1);
}

static void op_usage(const struct warden_request *request, struct ticket ticket)
{
	struct warden_reply reply = {0};
	struct pdk_error err;
	int rc = check_id(request, &err);

	if (rc == 0 && request->value > WARDEN_USAGE_SAMPLE)
		rc = pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "value: unknown kind of usage");
	else if (rc == 0 && request->value == WARDEN_USAGE_BRIEF)
		rc = sandbox_activity(request->id, &reply.usage.cpu_usec, &reply.value, &err);
	else if (rc == 0 && request->value == WARDEN_USAGE_SAMPLE)
		rc = sandbox_sample(request->id, &reply.usage, &reply.value, &err);
	else if (rc == 0)
		rc = sandbox_usage(request->id, &reply.usage, &err);
	if (rc < 0) {
		serve_status(ticket, NULL, rc, &err);
		return;
	}
	memcpy(reply.id, request->id, SANDBOX_ID_SIZE);
	serve_reply(ticket, &reply, -1);
}

static void list_one(const struct sandbox *sandbox, void *arg)
{
	struct warden_reply reply = {.flags = WARDEN_MORE, .limits = sandbox->limits};

	if (sandbox->state == SANDBOX_STORED)
		reply.flags |= WARDEN_STORED;
	else if (sandbox_is_unsettled(sandbox))
		reply.flags |= WARDEN_UNSETTLED;
	else if (sandbox->state != SANDBOX_RUNNING)
		return;
	if (cgroup_freezing(sandbox->id))
		reply.flags |= WARDEN_FROZEN;
	memcpy(reply.id, sandbox->id, SANDBOX_ID_SIZE);
	memcpy(reply.template_id, sandbox->template_id, TEMPLATE_ID_SIZE);
	serve_reply(*(struct ticket *)arg, &reply, -1);
}

static void template_one(const struct template_info *info, void *arg)
{
	struct warden_reply reply = {.flags = WARDEN_MORE, .size_bytes = info->bytes, .files = info->files};

	if (info->state == TEMPLATE_DAMAGED)
		return;
	memcpy(reply.template_id, info->id, TEMPLATE_ID_SIZE);
	memcpy(reply.digest, info->digest, sizeof(reply.digest));
	serve_reply(*(struct ticket *)arg, &reply, -1);
}

static void op_status(struct ticket ticket)
{
	struct warden_reply reply = {.value = sandbox_count()};

	pool_space(&reply.total_disk_bytes, &reply.free_disk_bytes);
	reply.files = template_count();
	reply.size_bytes = sandbox_stocked();
	serve_reply(ticket, &reply, -1);
}

static void op_import(const struct warden_request *request, struct ticket ticket, int *fd)
{
	struct pdk_error err;

	if (*fd < 0) {
		serve_status(ticket, NULL,
			     pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "no pipe came with the request"), &err);
		return;
	}
	if (request->value == 0 || request->value > IMPORT_BYTES_MAX) {
		serve_status(ticket, NULL,
			     pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "the size limit is out of range"), &err);
		return;
	}
	import_start(STEAL_FD(*fd), request->value, ticket);
}

static void op_template_remove(const struct warden_request *request, struct ticket ticket)
{
	struct pdk_error err;
	int rc = check_template(request, &err);

	if (rc == 0)
		rc = template_remove(request->template_id, &err);
	serve_status(ticket, NULL, rc, &err);
}

static void op_stock(const struct warden_request *request, struct ticket ticket)
{
	struct pdk_error err;

	if (request->value > STOCK_WANTED_MAX) {
		serve_status(ticket, NULL, pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "the stock is at most 256"),
			     &err);
		return;
	}
	sandbox_set_stock((unsigned int)request->value);
	serve_status(ticket, NULL, 0, NULL);
}

static void op_list(struct ticket ticket, bool templates)
{
	struct warden_reply end = {0};

	if (templates)
		template_each(template_one, &ticket);
	else
		sandbox_each(list_one, &ticket);
	serve_reply(ticket, &end, -1);
}

static void op_hello(struct ticket ticket)
{
	struct warden_reply reply = {.value = WARDEN_PROTOCOL_VERSION};

	serve_reply(ticket, &reply, -1);
}

static void dispatch(const struct warden_request *request, int *fd)
{
	struct ticket ticket = {.op = request->op, .serial = request->serial, .connection = connection};
	struct pdk_error err;

	switch (request->op) {
	case WARDEN_HELLO:
		op_hello(ticket);
		return;
	case WARDEN_CREATE:
		op_create(request, ticket);
		return;
	case WARDEN_KILL:
		op_kill(request, ticket);
		return;
	case WARDEN_ATTACH:
		op_attach(request, ticket);
		return;
	case WARDEN_LIMITS:
	case WARDEN_FREEZE:
	case WARDEN_THAW:
		op_simple(request, ticket);
		return;
	case WARDEN_CHECKPOINT:
	case WARDEN_RELEASE:
	case WARDEN_RESTORE:
		op_checkpoint(request, ticket);
		return;
	case WARDEN_SNAPSHOT:
	case WARDEN_LAYER:
	case WARDEN_SNAPSHOT_BRIEF:
	case WARDEN_COPY:
		op_snapshot(request, ticket);
		return;
	case WARDEN_SNAPSHOT_REMOVE:
		op_snapshot_remove(request, ticket);
		return;
	case WARDEN_SNAPSHOT_LIST:
		op_snapshot_list(ticket);
		return;
	case WARDEN_USAGE:
		op_usage(request, ticket);
		return;
	case WARDEN_LIST:
	case WARDEN_TEMPLATE_LIST:
		op_list(ticket, request->op == WARDEN_TEMPLATE_LIST);
		return;
	case WARDEN_TEMPLATE_IMPORT:
		op_import(request, ticket, fd);
		return;
	case WARDEN_TEMPLATE_REMOVE:
		op_template_remove(request, ticket);
		return;
	case WARDEN_STOCK:
		op_stock(request, ticket);
		return;
	case WARDEN_STATUS:
		op_status(ticket);
		return;
	default:
		serve_status(ticket, NULL, pdk_fail(&err, -ENOSYS, PDK_UNIMPLEMENTED, "unknown operation"), &err);
	}
}

/* Only a pipe: reading from anything else could be made to have an effect, and so could closing it later. */
static bool is_pipe(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode);
}

/* One message and at most one descriptor, of a pipe. Returns the length, 0 at the end, or a negative errno. */
static ssize_t receive(struct warden_request *request, int *ret_fd)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(4 * sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = request, .iov_len = sizeof(*request)};
	struct msghdr message = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control.bytes)};
	ssize_t n;

	linger_begin();
	n = recvmsg(client.fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	if (n < 0) {
		n = -errno;
		message.msg_controllen = 0;
	}
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
		size_t count = c->cmsg_type == SCM_RIGHTS ? (c->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;

		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (*ret_fd < 0 && is_pipe(fd))
				*ret_fd = fd;
			else
				close(fd);
		}
	}
	linger_end();
	if (n > 0 && (n != sizeof(*request) || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))))
		return -EPROTO;
	return n;
}

static void on_client(struct watch *watch, uint32_t events)
{
	struct warden_request request;
	_cleanup_fd_ int fd = -1;
	ssize_t n = receive(&request, &fd);

	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n <= 0 || request.serial == 0 || !text_ok(request.id, sizeof(request.id)) ||
	    !text_ok(request.snapshot_id, sizeof(request.snapshot_id)) ||
	    !text_ok(request.template_id, sizeof(request.template_id)) ||
	    !text_ok(request.hostname, sizeof(request.hostname))) {
		if (n != 0)
			log_warning("client_protocol", NULL, "a request that breaks the protocol");
		drop_client();
		return;
	}
	dispatch(&request, &fd);
}

static void on_connect(struct watch *watch, uint32_t events)
{
	int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC);
	struct pollfd current = {.fd = client.fd, .events = POLLIN};
	struct ucred peer;
	socklen_t length = sizeof(peer);

	if (fd < 0)
		return;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0 || peer.uid != options.client_uid) {
		log_warning("client_refused", NULL, "a process of another user connected");
		close_peer(fd);
		return;
	}
	if (client.fd >= 0 && poll(&current, 1, 0) == 1 && (current.revents & (POLLHUP | POLLERR)))
		drop_client();
	if (client.fd >= 0) {
		log_warning("client_refused", NULL, "a second paddockd connected");
		close_peer(fd);
		return;
	}
	if (loop_add(&client, fd, EPOLLIN, on_client) < 0) {
		close_peer(fd);
		return;
	}
	if (++connection == 0)
		connection = 1;
	log_info("client_connected", NULL, "paddockd connected");
}

int serve_setup(struct pdk_error *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	_cleanup_fd_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	mode_t mask;
	int rc;

	if (fd < 0)
		return pdk_fail_errno(err, -errno, "make the socket");
	if ((size_t)snprintf(address.sun_path, sizeof(address.sun_path), "%s/warden.sock", options.runtime_dir) >=
	    sizeof(address.sun_path))
		return pdk_fail(err, -ENAMETOOLONG, PDK_INVALID_ARGUMENT, "the runtime directory's name is too long");
	/* The lock on the runtime directory is held: a socket that is there has no owner any more. */
	unlink(address.sun_path);
	mask = umask(0177);
	rc = bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
	umask(mask);
	if (rc == 0 && (lchown(address.sun_path, options.client_uid, options.client_gid) < 0 || listen(fd, 8) < 0))
		rc = -errno;
	if (rc == 0)
		rc = loop_add(&listener, fd, EPOLLIN, on_connect);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "listen on warden.sock");
	(void)STEAL_FD(fd);
	return 0;
}
