/*
 * What a hostile paddockd can say to the warden. serve.c is compiled into this program, and the modules behind it are
 * replaced by stubs that trap on anything that serve.c promises to keep from them: an id of another form, a number
 * out of its range, a descriptor that is no pipe.
 *
 * Input: first byte = what descriptors come with the first message, then messages, each struct warden_request or, at
 * the end, what is left.
 */
#include "sandbox/warden/serve.c"

#include "sandbox/warden/kernel.h"

#define MUST(condition) ((condition) ? (void)0 : __builtin_trap())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct options options = {.runtime_dir = "/nonexistent"};
static struct template_info template = {.id = "t0123456789abcdef0123456789abcdef01234567", .state = TEMPLATE_READY};
static struct sandbox sandbox = {.id = "iaaaaaaaaaaaaaaaaaaaa", .state = SANDBOX_RUNNING};

void log_info(const char *event, const char *id, const char *fmt, ...)
{
}

void log_warning(const char *event, const char *id, const char *fmt, ...)
{
}

void log_error(const char *event, const char *id, const struct pdk_error *err)
{
}

static void must_be_limits(const struct warden_limits *l)
{
	MUST(l->memory_bytes >= LIMIT_MEMORY_MIN && l->memory_bytes <= LIMIT_MEMORY_MAX);
	MUST(l->disk_bytes >= LIMIT_DISK_MIN && l->disk_bytes <= LIMIT_DISK_MAX);
	MUST(l->cpu_millis >= LIMIT_CPU_MIN && l->cpu_millis <= LIMIT_CPU_MAX);
	MUST(l->max_pids >= LIMIT_PIDS_MIN && l->max_pids <= LIMIT_PIDS_MAX);
}

void sandbox_create(const char *id, const char *template_id, const char *snapshot_id, const char *hostname,
		    const struct warden_limits *limits, struct ticket ticket)
{
	MUST(sandbox_id_valid(id) && template_id_valid(template_id) && hostname_ok(hostname));
	MUST(!snapshot_id[0] || snapshot_id_valid(snapshot_id));
	must_be_limits(limits);
	serve_status(ticket, id, 0, NULL);
}

void sandbox_kill(const char *id, struct ticket ticket)
{
	MUST(sandbox_id_valid(id));
	serve_status(ticket, id, 0, NULL);
}

int sandbox_attach(const char *id, int *ret_fd, struct pdk_error *err)
{
	MUST(sandbox_id_valid(id));
	*ret_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	return 0;
}

int sandbox_limit(const char *id, const struct warden_limits *limits, struct pdk_error *err)
{
	MUST(sandbox_id_valid(id));
	must_be_limits(limits);
	return pdk_fail(err, -ENOENT, PDK_NOT_FOUND, "no such sandbox");
}

int sandbox_usage(const char *id, struct warden_usage *usage, struct pdk_error *err)
{
	MUST(sandbox_id_valid(id));
	return 0;
}

int sandbox_sample(const char *id, struct warden_usage *usage, uint64_t *ret_cache, struct pdk_error *err)
{
	*ret_cache = 0;
	return 0;
}

int sandbox_activity(const char *id, uint64_t *ret_cpu_usec, uint64_t *ret_io_usec, struct pdk_error *err)
{
	MUST(sandbox_id_valid(id));
	return 0;
}

void sandbox_freeze(const char *id, bool frozen, struct ticket ticket)
{
	MUST(sandbox_id_valid(id));
	serve_status(ticket, id, 0, NULL);
}

void sandbox_checkpoint(const char *id, uint64_t token, struct ticket ticket)
{
	MUST(sandbox_id_valid(id) && token);
	serve_status(ticket, id, 0, NULL);
}

void sandbox_release(const char *id, uint64_t token, struct ticket ticket)
{
	MUST(sandbox_id_valid(id) && token);
	serve_status(ticket, id, 0, NULL);
}

void sandbox_restore(const char *id, const char *hostname, const struct warden_limits *limits, uint64_t token,
		     struct ticket ticket)
{
	MUST(sandbox_id_valid(id) && token && hostname_ok(hostname));
	must_be_limits(limits);
	serve_status(ticket, id, 0, NULL);
}

void sandbox_snapshot(const char *id, const char *snapshot_id, uint64_t token, bool brief, struct ticket ticket)
{
	MUST(sandbox_id_valid(id) && snapshot_id_valid(snapshot_id) && token);
	serve_status(ticket, id, 0, NULL);
}

void sandbox_layer(const char *id, const char *snapshot_id, struct ticket ticket)
{
	MUST(sandbox_id_valid(id) && snapshot_id_valid(snapshot_id));
	serve_status(ticket, id, 0, NULL);
}

void sandbox_copy(const char *id, const char *snapshot_id, const char *hostname, const struct warden_limits *limits,
		  uint64_t token, struct ticket ticket)
{
	MUST(sandbox_id_valid(id) && snapshot_id_valid(snapshot_id) && token && hostname_ok(hostname));
	must_be_limits(limits);
	serve_status(ticket, id, 0, NULL);
}

bool sandbox_is_unsettled(const struct sandbox *s)
{
	return false;
}

bool sandbox_uses_snapshot(const char *snapshot_id)
{
	MUST(snapshot_id_valid(snapshot_id));
	return false;
}

int snapshot_discard(const char *id)
{
	MUST(snapshot_id_valid(id));
	return 0;
}

void snapshot_each(void (*found)(const char *id, const char *template_id, void *arg), void *arg)
{
	found("saaaaaaaaaaaaaaaaaaaa", template.id, arg);
}

void sandbox_each(void (*visit)(const struct sandbox *sandbox, void *arg), void *arg)
{
	visit(&sandbox, arg);
}

void sandbox_set_stock(unsigned int wanted)
{
	MUST(wanted <= STOCK_WANTED_MAX);
}

unsigned int sandbox_count(void)
{
	return 1;
}

unsigned int sandbox_stocked(void)
{
	return 0;
}

void template_each(void (*visit)(const struct template_info *info, void *arg), void *arg)
{
	visit(&template, arg);
}

int template_remove(const char *id, struct pdk_error *err)
{
	MUST(template_id_valid(id));
	return 0;
}

unsigned int template_count(void)
{
	return 1;
}

void import_start(int pipe, uint64_t max_bytes, struct ticket ticket)
{
	struct stat st;

	MUST(fstat(pipe, &st) == 0 && S_ISFIFO(st.st_mode));
	MUST(max_bytes > 0 && max_bytes <= IMPORT_BYTES_MAX);
	close(pipe);
	serve_status(ticket, NULL, 0, NULL);
}

void pool_space(uint64_t *ret_total, uint64_t *ret_free)
{
	*ret_total = *ret_free = 1;
}

/* 0: none; 1: a pipe; 2: a file; 3 and more: up to six pipes, more than are taken. */
static unsigned int make_fds(uint8_t kind, int fds[6])
{
	unsigned int count = kind < 3 ? !!kind : 2 + kind % 5;

	for (unsigned int i = 0; i < count; i++) {
		int pair[2];

		MUST(kind == 2 || pipe2(pair, O_CLOEXEC) == 0);
		fds[i] = kind == 2 ? open("/dev/null", O_RDWR | O_CLOEXEC) : pair[0];
		if (kind != 2)
			close(pair[1]);
	}
	return count;
}

static void send_one(int to, const uint8_t *data, size_t size, uint8_t kind)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(6 * sizeof(int))];
	} control = {0};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
	int fds[6];
	unsigned int count = make_fds(kind, fds);

	if (count) {
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(count * sizeof(int));
		control.header = (struct cmsghdr){
			.cmsg_len = CMSG_LEN(count * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(&control.header), fds, count * sizeof(int));
	}
	sendmsg(to, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	for (unsigned int i = 0; i < count; i++)
		close(fds[i]);
}

static void drain(int fd)
{
	struct warden_reply reply;
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = &reply, .iov_len = sizeof(reply)};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control};

	for (;;) {
		message.msg_controllen = sizeof(control);
		if (recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) <= 0)
			return;
		MUST(memchr(reply.text, '\0', sizeof(reply.text)) && memchr(reply.id, '\0', sizeof(reply.id)));
		if (CMSG_FIRSTHDR(&message))
			close(*(int *)(void *)CMSG_DATA(CMSG_FIRSTHDR(&message)));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t kind = size ? data[0] : 0;
	int pair[2];

	if (loop_fd() < 0)
		MUST(loop_open() == 0);
	MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
	MUST(loop_add(&client, pair[0], EPOLLIN, on_client) == 0);
	connection = 1;
	for (size_t at = 1; at < size && client.fd >= 0; at += sizeof(struct warden_request), kind = 0) {
		size_t left = size - at;

		send_one(pair[1], data + at,
			 left < sizeof(struct warden_request) ? left : sizeof(struct warden_request), kind);
		on_client(&client, EPOLLIN);
		drain(pair[1]);
	}
	close(pair[1]);
	drop_client();
	return 0;
}
