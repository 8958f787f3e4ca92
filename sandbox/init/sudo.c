#include "sandbox/init/sudo.h"

#include "sandbox/base/linger.h"
#include "sandbox/init/process.h"
#include "sandbox/init/session.h"
#include "sandbox/sudo/protocol.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/fsuid.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#define CALLS_MAX 64u
#define ARGC_MAX 4096u
#define NOTICE_BYTES_MAX 8192u /* of argv in the event; the rest of a longer one is left out */
#define RATE_PER_SECOND 200u
#define BURST 400u
#define RETRY_MS 10u

/*
 * What comes here comes from anybody inside. Descriptors are only received and closed between linger_begin() and
 * linger_end(): a socket with SO_LINGER would hold init up for as long as the sender likes.
 */

/* A call ends when its command has ended; a caller that goes away first hangs the command up. */
struct sudo_call {
	struct sudo_call *next;
	struct source source;
	pid_t caller;
	uid_t uid;
	struct process *process; /* once it was started */
};

struct sudo {
	struct source listen;
	struct sudo_call *calls;
	unsigned int n_calls;
	uint64_t tokens; /* in 1/1000 of a call */
	uint64_t refilled;
};

/* A request, taken apart. The strings lie in `bytes`. */
struct command {
	char *bytes;
	int fds[3];
	char *cwd;
	char **argv;
	char **env;
	size_t argc;
	size_t envc;
};

static void command_free(struct command *command)
{
	linger_begin();
	for (int i = 0; i < 3; i++)
		cleanup_fd(&command->fds[i]);
	linger_end();
	free(command->bytes);
	free(command->argv);
	free(command->env);
}

/* More may wait in it. */
static void close_connection(struct init *init, struct sudo_call *call)
{
	linger_begin();
	source_close(init, &call->source);
	linger_end();
}

static void call_free(struct init *init, struct sudo_call *call)
{
	struct sudo_call **at = &init->sudo->calls;

	while (*at != call)
		at = &(*at)->next;
	*at = call->next;
	init->sudo->n_calls--;
	close_connection(init, call);
	free(call);
}

static void answer(struct sudo_call *call, enum sudo_kind kind, uint32_t value, const char *text)
{
	struct sudo_answer message = {.kind = kind, .value = value};

	snprintf(message.text, sizeof(message.text), "%s", text);
	if (call->source.fd >= 0)
		(void)!send(call->source.fd, &message, sizeof(message), MSG_DONTWAIT | MSG_NOSIGNAL);
}

void sudo_call_started(struct sudo_call *call, struct process *process)
{
	call->process = process;
}

void sudo_call_failed(struct init *init, struct sudo_call *call, const struct pdk_error *err)
{
	answer(call, SUDO_REFUSED, 1, err->text);
	call_free(init, call);
}

void sudo_call_exited(struct init *init, struct sudo_call *call, int status)
{
	int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);

	answer(call, SUDO_EXITED, (uint32_t)code, "");
	call_free(init, call);
}

/* Take the next string out of what is left; NULL: there is none. */
static char *next_string(char **at, char *end)
{
	char *text = *at;
	size_t length = strnlen(text, (size_t)(end - text));

	if (text + length >= end)
		return NULL;
	*at = text + length + 1;
	return text;
}

static int parse(struct command *command, size_t length)
{
	struct sudo_request head;
	char *at = command->bytes + sizeof(head);
	char *end = command->bytes + length;

	if (length < sizeof(head))
		return -EBADMSG;
	memcpy(&head, command->bytes, sizeof(head));
	if (head.kind != SUDO_RUN || !head.argc || head.argc > ARGC_MAX || head.envc > SUDO_STRINGS_MAX)
		return -EBADMSG;
	command->argv = calloc(head.argc + 1, sizeof(char *));
	command->env = calloc(head.envc + 1, sizeof(char *));
	if (!command->argv || !command->env)
		return -ENOMEM;
	command->cwd = next_string(&at, end);
	if (!command->cwd || command->cwd[0] != '/' || strlen(command->cwd) >= 4096)
		return -EBADMSG;
	for (; command->argc < head.argc; command->argc++) {
		command->argv[command->argc] = next_string(&at, end);
		if (!command->argv[command->argc])
			return -EBADMSG;
	}
	for (; command->envc < head.envc; command->envc++) {
		char *entry = next_string(&at, end);

		if (!entry || entry[0] == '=' || !strchr(entry, '='))
			return -EBADMSG;
		command->env[command->envc] = entry;
	}
	return at == end ? 0 : -EBADMSG;
}

/* Exactly three descriptors came, and they are the command's. The kernel rounds the buffer for them up, so there may be
 * one more, which a caller could send again and again to fill our table: close what is not taken. */
static int take_fds(struct command *command, const struct cmsghdr *rights)
{
	size_t count = (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int);

	for (size_t i = 0; i < count; i++) {
		int fd;

		memcpy(&fd, CMSG_DATA(rights) + i * sizeof(fd), sizeof(fd));
		if (i < ARRAY_SIZE(command->fds))
			command->fds[i] = fd;
		else
			close(fd);
	}
	return count == ARRAY_SIZE(command->fds) ? 0 : -EBADMSG;
}

static int receive(int fd, struct command *command)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * 3)];
	} control;
	struct iovec iov = {command->bytes, SUDO_REQUEST_MAX};
	struct msghdr message = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	struct cmsghdr *rights;
	ssize_t n;
	int rc;

	linger_begin();
	n = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	rc = n < 0 ? -errno : 0;
	rights = n >= 0 ? CMSG_FIRSTHDR(&message) : NULL;
	if (rights && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS)
		rc = take_fds(command, rights);
	linger_end();
	if (rc == 0 && (message.msg_flags & (MSG_CTRUNC | MSG_TRUNC)))
		rc = -EMSGSIZE;
	return rc < 0 ? rc : (int)n;
}

static void tell_paddockd(struct init *init, const struct sudo_call *call, const struct command *command)
{
	guest_message(Sudo) sudo = PADDOCK__INTERNAL__GUEST_SUDO__INIT;
	guest_reply reply = GUEST_REPLY_INIT;
	size_t bytes = 0;

	while (sudo.n_argv < command->argc && (bytes += strlen(command->argv[sudo.n_argv]) + 8) < NOTICE_BYTES_MAX)
		sudo.n_argv++;
	sudo.argv = command->argv;
	sudo.cwd = command->cwd;
	sudo.caller_pid = (uint32_t)call->caller;
	sudo.allowed = init->sudo_allowed;
	reply.result_case = GUEST_RESULT(SUDO);
	reply.sudo = &sudo;
	session_event(init, &reply);
}

static int start(struct init *init, struct sudo_call *call, struct command *command)
{
	struct spawn_plan plan = {.argv = command->argv,
				  .env = command->env,
				  .n_env = command->envc,
				  .cwd = command->cwd,
				  .uid = 0,
				  .bare_env = true,
				  .nofile = init->nofile};

	memcpy(plan.fds, command->fds, sizeof(plan.fds));
	return process_start_sudo(init, &plan, call);
}

/* The first message of a call. */
static int take_command(struct init *init, struct sudo_call *call)
{
	struct command command = {.fds = {-1, -1, -1}, .bytes = malloc(SUDO_REQUEST_MAX)};
	int rc = command.bytes ? receive(call->source.fd, &command) : -ENOMEM;

	if (rc == -EAGAIN) {
		command_free(&command);
		return 0;
	}
	if (rc >= 0)
		rc = rc ? parse(&command, (size_t)rc) : -ECONNRESET;
	if (rc == 0 && command.fds[2] < 0)
		rc = -EBADMSG;
	if (rc == 0 && !init->session) {
		answer(call, SUDO_REFUSED, 1, "the sandbox is being taken over; try again");
		rc = -EAGAIN;
	}
	if (rc == 0) {
		tell_paddockd(init, call, &command);
		if (!init->sudo_allowed) {
			answer(call, SUDO_REFUSED, 1, "the policy of this sandbox does not allow sudo");
			rc = -EPERM;
		} else {
			rc = start(init, call, &command);
			if (rc < 0)
				answer(call, SUDO_REFUSED, 1, strerror(-rc));
		}
	}
	command_free(&command);
	return rc;
}

/* Later messages: signals for the command. */
static int take_signal(struct sudo_call *call)
{
	struct sudo_request request;
	ssize_t n;
	int rc;

	linger_begin();
	n = recv(call->source.fd, &request, sizeof(request), MSG_DONTWAIT);
	rc = n < 0 ? -errno : 0;
	linger_end();
	if (rc < 0)
		return rc == -EAGAIN ? 0 : rc;
	if (n != (ssize_t)sizeof(request) || request.kind != SUDO_SIGNAL || request.value < 1 || request.value > 64)
		return -ECONNRESET;
	process_kill(call->process, (int)request.value, false);
	return 0;
}

static void call_ready(struct init *init, struct source *source, uint32_t events)
{
	struct sudo_call *call = CONTAINER_OF(source, struct sudo_call, source);
	int rc = call->process ? take_signal(call) : take_command(init, call);

	if (rc == 0)
		return;
	if (call->process) {
		process_kill(call->process, SIGHUP, false);
		close_connection(init, call);
	} else {
		call_free(init, call);
	}
}

/*
 * No call is taken that could not be told: without a link to paddockd, or while it does not read, callers wait. The
 * rate is bounded too, because each call makes paddockd write a record.
 */
static bool take_token(struct init *init)
{
	struct sudo *sudo = init->sudo;
	uint64_t now = init_now();

	sudo->tokens += (now - sudo->refilled) * RATE_PER_SECOND;
	sudo->refilled = now;
	if (sudo->tokens > BURST * 1000)
		sudo->tokens = BURST * 1000;
	if (sudo->tokens < 1000 || sudo->n_calls >= CALLS_MAX || !session_is_idle(init)) {
		source_set(init, &sudo->listen, 0);
		if (init->session)
			init_wake_at(init, now + RETRY_MS);
		return false;
	}
	sudo->tokens -= 1000;
	return true;
}

void sudo_resume(struct init *init)
{
	if (init->sudo && init->session)
		source_set(init, &init->sudo->listen, EPOLLIN);
}

static void listen_ready(struct init *init, struct source *source, uint32_t events)
{
	int fd = take_token(init) ? accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK) : -1;
	struct sudo_call *call = fd < 0 ? NULL : calloc(1, sizeof(*call));
	struct ucred peer;
	socklen_t size = sizeof(peer);

	if (!call) {
		linger_begin();
		cleanup_fd(&fd);
		linger_end();
		return;
	}
	call->next = init->sudo->calls;
	init->sudo->calls = call;
	init->sudo->n_calls++;
	if (source_add(init, &call->source, fd, EPOLLIN, call_ready) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 || (peer.uid != 0 && peer.uid != 1000)) {
		call_free(init, call);
		return;
	}
	call->caller = peer.pid;
	call->uid = peer.uid;
}

/* Nothing of the sandbox runs yet, so /run holds what the warden mounted. */
static int open_socket(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = SUDO_SOCKET};
	_cleanup_fd_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || (mkdir("/run/paddock", 0755) < 0 && errno != EEXIST))
		return -errno;
	unlink(SUDO_SOCKET);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || chmod(SUDO_SOCKET, 0666) < 0 ||
	    listen(fd, 64) < 0)
		return -errno;
	return STEAL_FD(fd);
}

void sudo_listen(struct init *init)
{
	int old = setfsuid(0); /* /run is root's; a capability is not needed for that */
	int fd = open_socket();

	setfsuid((uid_t)old);
	if (fd < 0) {
		fprintf(stderr, "paddock-init: no sudo: %s\n", strerror(-fd));
		return;
	}
	init->sudo = calloc(1, sizeof(*init->sudo));
	if (init->sudo)
		init->sudo->refilled = init_now() - BURST * 1000 / RATE_PER_SECOND;
	if (!init->sudo || source_add(init, &init->sudo->listen, fd, EPOLLIN, listen_ready) < 0)
		close(fd);
}
