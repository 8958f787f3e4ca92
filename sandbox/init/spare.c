#include "sandbox/init/spare.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define PAUSE_MS 2u /* without a command, before one is made for the next */
#define UNUSED_MS 5000u
#define TEXT_MAX (16u << 10)
#define STRINGS_MAX 512u
#define N_FDS 4u /* the plan's three and the report's */

/* What is sent: this, then the strings, each with its end: the directory, argv, the sandbox's environment, the plan's.
 */
struct order {
	uid_t uid;
	bool terminal;
	bool bare_env;
	struct rlimit nofile;
	uint32_t n_argv;
	uint32_t n_sandbox_env;
	uint32_t n_env;
};

union descriptors {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(sizeof(int) * N_FDS)];
};

/* The child's side */

struct received {
	struct order order;
	char text[TEXT_MAX];
	char *strings[STRINGS_MAX + 3]; /* each of the three lists ends with NULL */
};

/* The next `n` strings as a list. `at` moves on; both sides are ours, so what is in a message fits. */
static char **take_strings(char **at, char ***list, uint32_t n)
{
	char **first = *list;

	for (uint32_t i = 0; i < n; i++) {
		*(*list)++ = *at;
		*at += strlen(*at) + 1;
	}
	*(*list)++ = NULL;
	return first;
}

static void read_plan(struct received *received, const int fds[3], struct spawn_plan *plan)
{
	const struct order *order = &received->order;
	char **list = received->strings;
	char *at = received->text;

	*plan = (struct spawn_plan){.cwd = at,
				    .n_env = order->n_env,
				    .uid = order->uid,
				    .fds = {fds[0], fds[1], fds[2]},
				    .terminal = order->terminal,
				    .bare_env = order->bare_env,
				    .nofile = order->nofile};
	at += strlen(at) + 1;
	plan->argv = take_strings(&at, &list, order->n_argv);
	plan->sandbox_env = take_strings(&at, &list, order->n_sandbox_env);
	plan->env = take_strings(&at, &list, order->n_env);
}

/* Wait for a plan. The other end is init's alone: its end means that there will be none. */
static bool receive(int channel, struct received *received, int fds[N_FDS])
{
	struct iovec iov[] = {{&received->order, sizeof(received->order)}, {received->text, sizeof(received->text)}};
	union descriptors control;
	struct msghdr message = {
		.msg_iov = iov, .msg_iovlen = 2, .msg_control = &control, .msg_controllen = sizeof(control)};
	ssize_t n;

	do
		n = recvmsg(channel, &message, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < (ssize_t)sizeof(received->order) || message.msg_controllen != CMSG_SPACE(sizeof(int) * N_FDS))
		return false;
	memcpy(fds, CMSG_DATA(&control.align), sizeof(int) * N_FDS);
	return true;
}

static void __attribute__((noreturn)) run_spare(int channel)
{
	static struct received received; /* zero, and untouched by init */
	struct spawn_plan plan;
	int fds[N_FDS];

	/* It may live for a while: it must not hold the ends of other processes' pipes, init's link, or the warden's.
	 */
	if (dup2(0, STDERR_FILENO) < 0 || (channel != INIT_LISTEN_FD && dup2(channel, INIT_LISTEN_FD) < 0))
		_exit(127);
	fcntl(INIT_LISTEN_FD, F_SETFD, FD_CLOEXEC);
	syscall(SYS_close_range, INIT_LISTEN_FD + 1, ~0u, 0);
	spawn_settle_child();
	setsid();
	if (!receive(INIT_LISTEN_FD, &received, fds))
		_exit(0);
	read_plan(&received, fds, &plan);
	spawn_execute(&plan, fds[3]);
}

/* init's side */

static void prepare(struct init *init)
{
	int pair[2];
	pid_t pid;

	if (init->spare_pid || !init->session || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return;
	pid = fork();
	if (pid == 0)
		run_spare(pair[1]);
	close(pair[1]);
	if (pid < 0) {
		close(pair[0]);
		return;
	}
	init->spare_pid = pid;
	init->spare_fd = pair[0];
	init->spare_deadline = init_now() + UNUSED_MS;
	init_wake_at(init, init->spare_deadline);
}

void spare_prepare(struct init *init, bool pause)
{
	if (init->spare_pid)
		return;
	if (!pause) {
		prepare(init);
		return;
	}
	init->spare_deadline = init_now() + PAUSE_MS;
	init_wake_at(init, init->spare_deadline);
}

/* It sees the end of its socket and exits; who knows its pid no more reaps it like any orphan. */
static void let_go(struct init *init)
{
	init->spare_pid = 0;
	init->spare_deadline = 0;
	cleanup_fd(&init->spare_fd);
	init->spare_fd = -1;
}

void spare_dismiss(struct init *init)
{
	init->spare_deadline = 0;
	if (!init->spare_pid)
		return;
	/* The one child that init waits for: it is killed, has nothing to give back, and nothing can hold it up. */
	kill(init->spare_pid, SIGKILL);
	waitpid(init->spare_pid, NULL, 0);
	let_go(init);
}

void spare_check_deadline(struct init *init)
{
	if (!init->spare_deadline)
		return;
	if (init->spare_deadline > init_now()) {
		init_wake_at(init, init->spare_deadline);
		return;
	}
	init->spare_deadline = 0;
	if (init->spare_pid)
		let_go(init);
	else
		prepare(init);
}

void spare_ended(struct init *init, pid_t pid)
{
	if (pid == init->spare_pid)
		let_go(init);
}

/* Where the strings of one message gather; -1: they are too many or too long. */
struct text {
	char bytes[TEXT_MAX];
	size_t length;
	unsigned int n;
};

static int add(struct text *text, const char *string)
{
	size_t size = strlen(string) + 1;

	if (size > sizeof(text->bytes) - text->length || text->n == STRINGS_MAX)
		return -1;
	memcpy(text->bytes + text->length, string, size);
	text->length += size;
	text->n++;
	return 0;
}

/* Up to `n` strings, or the NULL that ends the list. How many; -1: they do not fit. */
static int add_list(struct text *text, char *const *list, size_t n)
{
	size_t i;

	for (i = 0; i < n && list && list[i]; i++) {
		if (add(text, list[i]) < 0)
			return -1;
	}
	return (int)i;
}

static int write_order(const struct spawn_plan *plan, struct order *order, struct text *text)
{
	int argv, sandbox_env, env;

	text->length = 0;
	text->n = 0;
	if (add(text, plan->cwd) < 0)
		return -1;
	argv = add_list(text, plan->argv, SIZE_MAX);
	sandbox_env = argv < 0 ? -1 : add_list(text, plan->sandbox_env, SIZE_MAX);
	env = sandbox_env < 0 ? -1 : add_list(text, plan->env, plan->n_env);
	if (env < 0)
		return -1;
	*order = (struct order){.uid = plan->uid,
				.terminal = plan->terminal,
				.bare_env = plan->bare_env,
				.nofile = plan->nofile,
				.n_argv = (uint32_t)argv,
				.n_sandbox_env = (uint32_t)sandbox_env,
				.n_env = (uint32_t)env};
	return 0;
}

static bool send_order(int channel, struct order *order, struct text *text, const int fds[N_FDS])
{
	struct iovec iov[] = {{order, sizeof(*order)}, {text->bytes, text->length}};
	union descriptors control = {};
	struct msghdr message = {
		.msg_iov = iov, .msg_iovlen = 2, .msg_control = &control, .msg_controllen = sizeof(control)};

	control.align.cmsg_level = SOL_SOCKET;
	control.align.cmsg_type = SCM_RIGHTS;
	control.align.cmsg_len = CMSG_LEN(sizeof(int) * N_FDS);
	memcpy(CMSG_DATA(&control.align), fds, sizeof(int) * N_FDS);
	return sendmsg(channel, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)(sizeof(*order) + text->length);
}

pid_t spare_take(struct init *init, const struct spawn_plan *plan, int report)
{
	const int fds[N_FDS] = {plan->fds[0], plan->fds[1], plan->fds[2], report};
	static struct text text;
	struct order order;
	pid_t pid = init->spare_pid;

	if (!pid || write_order(plan, &order, &text) < 0)
		return 0;
	/* One that was killed meanwhile takes nothing. */
	if (!send_order(init->spare_fd, &order, &text, fds))
		pid = 0;
	let_go(init);
	return pid;
}
