#include "guest_client.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

#include "sandbox/base/cleanup.h"

#define WAIT_MS 10000

static int take_frame(struct link *link, struct link_frame *frame, void *arg)
{
	struct client *client = arg;
	struct client_frame *kept = &client->frames[client->n_frames];

	assert_true(client->n_frames < CLIENT_FRAMES_MAX);
	client->n_frames++;
	*kept = (struct client_frame){.stream = frame->stream, .kind = frame->kind, .n_fds = frame->n_fds};
	for (unsigned int i = 0; i < frame->n_fds; i++)
		kept->fds[i] = STEAL_FD(frame->fds[i]);
	if (frame->kind != LINK_END) {
		kept->reply = paddock__internal__guest_reply__unpack(NULL, frame->length, frame->payload);
		assert_non_null(kept->reply);
	}
	return 0;
}

static void private_root(void)
{
	FILE *passwd;

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mount("proc", "/proc", "proc", 0, NULL) < 0 ||
	    mount("tmpfs", "/run", "tmpfs", 0, "mode=755") < 0 || mount("tmpfs", "/home", "tmpfs", 0, "mode=755") < 0 ||
	    mount("tmpfs", "/root", "tmpfs", 0, "mode=700") < 0)
		_exit(99);
	passwd = fopen("/run/passwd", "w");

	if (!passwd || fputs("root:x:0:0:root:/root:/bin/bash\nuser:x:1000:1000::/home/user:/bin/bash\n", passwd) < 0 ||
	    fclose(passwd) < 0 || mount("/run/passwd", "/etc/passwd", NULL, MS_BIND, NULL) < 0)
		_exit(96);
	if (mkdir("/home/user", 0755) < 0 || chown("/home/user", 1000, 1000) < 0)
		_exit(98);
}

static void copy_program(int from, const char *to)
{
	int target = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);

	while (sendfile(target, from, NULL, 1 << 20) > 0)
		;
	close(target);
}

/* What the warden gives it: an id of its own, and ambient capabilities, some of which root inside needs. */
static void become_init(void)
{
	static const int kept[] = {CAP_CHOWN,  CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID,
				   CAP_SETGID, CAP_SETUID,       CAP_KILL,   CAP_NET_BIND_SERVICE};
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {};

	for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
		data[0].effective |= 1u << kept[i];
	data[0].permitted = data[0].inheritable = data[0].effective;
	if (prctl(PR_SET_KEEPCAPS, 1) < 0 || setgroups(0, NULL) < 0 || setresgid(65533, 65533, 65533) < 0 ||
	    setresuid(65533, 65533, 65533) < 0 || syscall(SYS_capset, &header, data) < 0)
		_exit(95);
	for (size_t i = 0; i < ARRAY_SIZE(kept); i++) {
		if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, kept[i], 0, 0) < 0)
			_exit(94);
	}
}

/* The programs are opened first: the build folder may be out of sight or of reach for the ids inside. */
static void run_init(int listener)
{
	char *const argv[] = {(char *)"paddock-init", NULL};
	int archive = open(PADDOCK_ARCHIVE_BINARY, O_RDONLY | O_CLOEXEC);
	int init = open(PADDOCK_INIT_BINARY, O_RDONLY | O_CLOEXEC);
	int sudo = open(PADDOCK_SUDO_BINARY, O_RDONLY | O_CLOEXEC);

	private_root();
	copy_program(sudo, "/run/sudo");
	if (archive >= 0)
		dup2(archive, 14);
	dup2(listener, 13);
	dup2(13, 3);
	if (archive >= 0)
		dup2(14, 4);
	else
		close(4);
	become_init();
	fexecve(init, argv, environ);
	_exit(97);
}

void client_start(struct client *client)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	pid_t outer;
	int ends[2];

	*client = (struct client){};
	snprintf(client->socket, sizeof(client->socket), "/tmp/paddock-init-test.%d", getpid());
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", client->socket);
	unlink(client->socket);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listener, 4), 0);
	assert_int_equal(pipe(ends), 0);
	outer = fork();
	if (outer == 0) {
		pid_t inner;

		if (unshare(CLONE_NEWPID | CLONE_NEWNS) < 0)
			_exit(1);
		inner = fork();
		if (inner == 0)
			run_init(listener);
		(void)!write(ends[1], &inner, sizeof(inner));
		_exit(0);
	}
	close(listener);
	assert_int_equal(waitpid(outer, NULL, 0), outer);
	assert_int_equal(read(ends[0], &client->pid, sizeof(client->pid)), sizeof(client->pid));
	close(ends[0]);
	close(ends[1]);
	client_connect(client);
}

void client_stop(struct client *client)
{
	client_disconnect(client);
	kill(client->pid, SIGKILL);
	unlink(client->socket);
}

void client_connect(struct client *client)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", client->socket);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	client->link = link_create(fd, LINK_PAYLOAD_MAX, take_frame, client);
	client->last_stream = (uint32_t)-1;
	assert_non_null(client->link);
}

void client_disconnect(struct client *client)
{
	link_free(STEAL_PTR(client->link));
	while (client->n_frames)
		client_frame_free(&client->frames[--client->n_frames]);
}

static void send_request(struct client *client, uint32_t stream, guest_request *request)
{
	size_t length = paddock__internal__guest_request__get_packed_size(request);
	_cleanup_free_ uint8_t *bytes = malloc(length + 1);

	paddock__internal__guest_request__pack(request, bytes);
	assert_int_equal(link_send(client->link, stream, LINK_REQUEST, bytes, length, NULL, 0), 0);
}

uint32_t client_call(struct client *client, guest_request *request)
{
	client->last_stream += 2;
	send_request(client, client->last_stream, request);
	return client->last_stream;
}

void client_continue(struct client *client, uint32_t stream, guest_request *request)
{
	send_request(client, stream, request);
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static bool find_frame(struct client *client, uint32_t stream, size_t *ret_at)
{
	for (size_t i = 0; i < client->n_frames; i++) {
		if (client->frames[i].stream == stream) {
			*ret_at = i;
			return true;
		}
	}
	return false;
}

static bool await(struct client *client, uint32_t stream, int ms, size_t *ret_at)
{
	int64_t end = now_ms() + ms;

	for (;;) {
		struct pollfd wanted = {.fd = link_fd(client->link), .events = POLLIN};
		int64_t left = end - now_ms();

		if (link_events(client->link) & EPOLLOUT)
			wanted.events |= POLLOUT;
		if (find_frame(client, stream, ret_at))
			return true;
		if (left <= 0 || poll(&wanted, 1, (int)left) <= 0)
			return false;
		if (link_flush(client->link) < 0 || link_input(client->link, 0) < 0)
			return find_frame(client, stream, ret_at);
	}
}

bool client_has(struct client *client, uint32_t stream, int ms)
{
	size_t at;

	return await(client, stream, ms, &at);
}

struct client_frame client_next(struct client *client, uint32_t stream)
{
	struct client_frame frame;
	size_t at;

	if (!await(client, stream, WAIT_MS, &at))
		fail_msg("no answer on stream %u", stream);
	frame = client->frames[at];
	memmove(&client->frames[at], &client->frames[at + 1], (--client->n_frames - at) * sizeof(frame));
	return frame;
}

void client_frame_free(struct client_frame *frame)
{
	for (unsigned int i = 0; i < frame->n_fds; i++)
		cleanup_fd(&frame->fds[i]);
	if (frame->reply)
		paddock__internal__guest_reply__free_unpacked(frame->reply, NULL);
	frame->reply = NULL;
	frame->n_fds = 0;
}

void client_expect_end(struct client *client, uint32_t stream)
{
	struct client_frame frame = client_next(client, stream);

	if (frame.kind != LINK_END)
		fail_msg("stream %u goes on with code %u: %s", stream, frame.reply->code, frame.reply->text);
}

struct client_frame client_ask(struct client *client, guest_request *request)
{
	uint32_t stream = client_call(client, request);
	struct client_frame frame = client_next(client, stream);

	client_expect_end(client, stream);
	return frame;
}

size_t client_read_all(int fd, char *bytes, size_t size)
{
	size_t length = 0;

	while (length < size) {
		struct pollfd wanted = {.fd = fd, .events = POLLIN};
		ssize_t n = poll(&wanted, 1, WAIT_MS) > 0 ? read(fd, bytes + length, size - length) : -1;

		if (n < 0)
			fail_msg("the pipe does not end");
		if (n == 0)
			break;
		length += (size_t)n;
	}
	return length;
}

void client_write_all(int fd, const char *bytes, size_t length)
{
	while (length) {
		struct pollfd wanted = {.fd = fd, .events = POLLOUT};
		ssize_t n = poll(&wanted, 1, WAIT_MS) > 0 ? write(fd, bytes, length) : -1;

		assert_true(n > 0);
		bytes += n;
		length -= (size_t)n;
	}
}
