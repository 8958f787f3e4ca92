#include "sandbox/init/spawn.h"

#include "sandbox/init/account.h"
#include "sandbox/init/spare.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define OOM_SCORE "500" /* the kernel takes a runaway program, not init */
#define ENV_MAX 8192u
#define REPORT_FD 3

struct child {
	const struct spawn_plan *plan;
	struct account account;
	int report;
	char *env[ENV_MAX + 1];
	size_t n_env;
	char own[6][320]; /* the variables that init sets itself */
};

static void send_report(struct child *child, enum spawn_stage stage, int error, const char *text)
{
	struct spawn_report report = {.stage = stage, .error = error};

	snprintf(report.text, sizeof(report.text), "%s", text);
	(void)!write(child->report, &report, sizeof(report));
}

static void __attribute__((noreturn)) give_up(struct child *child, enum spawn_stage stage, const char *text)
{
	send_report(child, stage, errno, text);
	_exit(127);
}

static void default_signals(void)
{
	sigset_t none;

	/* An ignored signal would stay ignored across the exec; init ignores SIGPIPE only. */
	signal(SIGPIPE, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static void place_descriptors(struct child *child)
{
	const struct spawn_plan *plan = child->plan;

	for (int i = 0; i < 3; i++) {
		if (dup2(plan->fds[i], i) < 0)
			give_up(child, SPAWN_SETUP, "descriptors");
	}
	if (plan->terminal && ioctl(0, TIOCSCTTY, 0) < 0)
		give_up(child, SPAWN_SETUP, "terminal");
	/* The rest is init's. From here on the user may stop this process, and another one's input must still end. */
	if (dup3(child->report, REPORT_FD, O_CLOEXEC) < 0)
		give_up(child, SPAWN_SETUP, "descriptors");
	child->report = REPORT_FD;
	syscall(SYS_close_range, REPORT_FD + 1, ~0u, 0);
}

/* The file belongs to root while we are not dumpable, and raising the score needs no capability. */
static void raise_oom_score(void)
{
	int old = setfsuid(0);
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC | O_NOCTTY);

	if (fd >= 0) {
		(void)!write(fd, OOM_SCORE, strlen(OOM_SCORE));
		close(fd);
	}
	setfsuid((uid_t)old);
}

/* Set a NAME=value; a later one replaces an earlier one. */
static void set_env(struct child *child, char *entry)
{
	size_t name = strcspn(entry, "=") + 1;

	for (size_t i = 0; i < child->n_env; i++) {
		if (strncmp(child->env[i], entry, name) == 0) {
			child->env[i] = entry;
			return;
		}
	}
	if (child->n_env == ENV_MAX) {
		errno = E2BIG;
		give_up(child, SPAWN_EXEC, "the environment");
	}
	child->env[child->n_env++] = entry;
}

static void build_env(struct child *child)
{
	const struct spawn_plan *plan = child->plan;
	const char *const names[] = {"HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG"};
	const char *const values[] = {child->account.home,  child->account.name, child->account.name,
				      child->account.shell, DEFAULT_PATH,        "C.UTF-8"};
	static char term[] = "TERM=xterm-256color";

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(child->own[i], sizeof(child->own[i]), "%s=%s", names[i], values[i]);
		set_env(child, child->own[i]);
	}
	if (plan->terminal)
		set_env(child, term);
	for (char *const *entry = plan->sandbox_env; entry && *entry && !plan->bare_env; entry++)
		set_env(child, *entry);
	for (size_t i = 0; i < plan->n_env; i++)
		set_env(child, plan->env[i]);
	child->env[child->n_env] = NULL;
}

static const char *env_value(const struct child *child, const char *name)
{
	size_t length = strlen(name);

	for (size_t i = 0; i < child->n_env; i++) {
		if (strncmp(child->env[i], name, length) == 0 && child->env[i][length] == '=')
			return child->env[i] + length + 1;
	}
	return NULL;
}

static void enter_directory(struct child *child)
{
	const char *cwd = child->plan->cwd[0] ? child->plan->cwd : child->account.home;
	char real[PATH_MAX];

	/* A home that does not exist is no reason to refuse; a directory that was asked for is. */
	if (chdir(cwd) < 0 && (child->plan->cwd[0] || chdir("/") < 0))
		give_up(child, SPAWN_CWD, cwd);
	if (syscall(SYS_getcwd, real, sizeof(real)) < 0)
		snprintf(real, sizeof(real), "%s", cwd);
	send_report(child, SPAWN_READY, 0, real);
}

/* A script without "#!" is the shell's, as execvp() has it. */
static void execute_as_script(struct child *child, const char *program)
{
	char *const *argv = child->plan->argv;
	const char *script[4096 + 3] = {"/bin/sh", program};
	size_t n = 2;

	for (size_t i = 1; argv[0] && argv[i] && n < ARRAY_SIZE(script) - 1; i++)
		script[n++] = argv[i];
	execve(script[0], (char *const *)(uintptr_t)script, child->env);
}

static void execute(struct child *child, const char *program)
{
	execve(program, child->plan->argv, child->env);
	if (errno == ENOEXEC) {
		execute_as_script(child, program);
		errno = ENOEXEC;
	}
}

static void search_and_execute(struct child *child)
{
	const char *name = child->plan->argv[0];
	const char *path = env_value(child, "PATH");
	int kept = ENOENT;

	if (strchr(name, '/')) {
		execute(child, name);
		return;
	}
	if (!name[0] || strlen(name) > NAME_MAX) {
		errno = ENOENT;
		return;
	}
	for (const char *at = path ? path : DEFAULT_PATH;; at++) {
		size_t length = strcspn(at, ":");
		char program[PATH_MAX + NAME_MAX + 2];

		if (length < PATH_MAX) {
			snprintf(program, sizeof(program), "%.*s%s%s", (int)length, at, length ? "/" : "", name);
			execute(child, program);
			if (errno != ENOENT && errno != ENOTDIR)
				kept = errno;
		}
		at += length;
		if (!*at)
			break;
	}
	errno = kept;
}

void spawn_settle_child(void)
{
	default_signals();
	raise_oom_score();
}

void spawn_execute(const struct spawn_plan *plan, int report)
{
	static struct child child; /* zero, and untouched by init: clearing 70 KB would cost a fault for every page */

	child.plan = plan;
	child.report = report;
	place_descriptors(&child);
	setrlimit(RLIMIT_NOFILE, &plan->nofile);
	account_load(plan->uid, &child.account);
	if (account_become(&child.account) < 0)
		give_up(&child, SPAWN_IDENTITY, child.account.name);
	build_env(&child);
	enter_directory(&child);
	search_and_execute(&child);
	give_up(&child, SPAWN_EXEC, plan->argv[0]);
}

static pid_t fork_child(const struct spawn_plan *plan, int report)
{
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	spawn_settle_child();
	setsid();
	spawn_execute(plan, report);
}

int spawn(struct init *init, const struct spawn_plan *plan, int *ret_report)
{
	_cleanup_fd_ int report = -1;
	int ends[2];
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	report = ends[0];
	fcntl(report, F_SETFL, O_NONBLOCK);
	pid = spare_take(init, plan, ends[1]);
	if (!pid)
		pid = fork_child(plan, ends[1]);
	close(ends[1]);
	if (pid < 0)
		return -errno;
	*ret_report = STEAL_FD(report);
	return pid;
}

int spawn_read_report(int fd, struct spawn_report *report, bool *ready)
{
	for (;;) {
		struct spawn_report next;
		ssize_t n = read(fd, &next, sizeof(next)); /* below PIPE_BUF: whole or not at all */

		if (n == 0)
			return 1;
		if (n < 0)
			return errno == EAGAIN ? 0 : 1;
		if (n != (ssize_t)sizeof(next))
			return 1;
		next.text[sizeof(next.text) - 1] = '\0';
		if (next.stage == SPAWN_READY)
			*ready = true;
		*report = next;
	}
}

int spawn_explain(const struct spawn_report *report, struct pdk_error *err)
{
	switch (report->stage) {
	case SPAWN_READY:
		break;
	case SPAWN_CWD:
		if (report->error == ENOENT)
			return pdk_fail(err, -ENOENT, PDK_NOT_FOUND, "cwd: %.300s does not exist", report->text);
		return pdk_fail(err, -report->error, PDK_FAILED_PRECONDITION, "cwd: cannot enter %.300s: %s",
				report->text, strerror(report->error));
	case SPAWN_EXEC:
		if (report->error == ENOENT)
			return pdk_fail(err, -ENOENT, PDK_FAILED_PRECONDITION, "cannot run %.300s: not found",
					report->text);
		return pdk_fail(err, -report->error, PDK_FAILED_PRECONDITION, "cannot run %.300s: %s", report->text,
				strerror(report->error));
	case SPAWN_IDENTITY:
		return pdk_fail(err, -report->error, PDK_FAILED_PRECONDITION, "cannot become %.60s: %s", report->text,
				strerror(report->error));
	case SPAWN_SETUP:
		return pdk_fail(err, -report->error, PDK_INTERNAL, "cannot set up the %.60s: %s", report->text,
				strerror(report->error));
	}
	return pdk_fail(err, -ECHILD, PDK_ABORTED, "the process was killed before the program started");
}
