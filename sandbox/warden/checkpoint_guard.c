#include "checkpoint_guard.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "checkpoint_cure.h"
#include "checkpoint_private.h"
#include "kernel.h"
#include "sandbox/base/cleanup.h"

/*
 * When a tracer dies, the kernel lets its tracees run on, wherever they are, before anybody hears of its death. So the
 * guard is CRIU's own tracer: CRIU stops at the begin of its end (PTRACE_EVENT_EXIT), whatever ends it, SIGKILL included, and
 * is held there until the sandbox is frozen again.
 */

#define AGAIN_MS 100 /* a timer that finds nobody waiting comes again */

struct word {
	int status; /* of CRIU, as waitpid() says it */
	bool is_late;
	struct pdk_error err; /* it was not even started */
	struct cure_report report;
};

static pid_t criu;
static int criu_fd = -1; /* its pidfd: its number may be another's when the timer comes late */
static volatile sig_atomic_t is_late;

static void on_time(int signal)
{
	is_late = 1;
	pidfd_send_signal(criu_fd, SIGKILL, NULL, 0);
}

static void set_timer(uint64_t ms)
{
	struct itimerval timer = {.it_value = {.tv_sec = (time_t)(ms / 1000), .tv_usec = (long)(ms % 1000 * 1000)}};

	if (ms)
		timer.it_interval = (struct timeval){.tv_usec = AGAIN_MS * 1000};
	setitimer(ITIMER_REAL, &timer, NULL);
}

static void go_on(pid_t pid, int request, int signal)
{
	ptrace((enum __ptrace_request)request, pid, NULL, (void *)(intptr_t)signal);
}

/* One stop of CRIU. */
static void pass(const struct checkpoint_plan *plan, int status)
{
	int event = status >> 16, signal = WSTOPSIG(status);

	if (event == PTRACE_EVENT_EXIT) {
		(void)file_write(plan->cgroup, "cgroup.freeze", "1");
		go_on(criu, PTRACE_CONT, 0);
	} else if (event == PTRACE_EVENT_STOP) {
		/* Somebody has stopped it; it goes on when somebody says so, or ends in time. */
		go_on(criu, signal == SIGTRAP ? PTRACE_CONT : PTRACE_LISTEN, 0);
	} else {
		go_on(criu, PTRACE_CONT, signal);
	}
}

/* What it has left behind has its sockets to the processes, or the lock. */
static void end_orphans(void)
{
	char path[64], text[512];
	pid_t pid;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", getpid());
	while (file_read(AT_FDCWD, path, text, sizeof(text)) > 0) {
		pid = (pid_t)strtol(text, NULL, 10);
		if (pid <= 0 || kill(pid, SIGKILL) < 0 || waitpid(pid, NULL, 0) < 0)
			return;
	}
}

static int begin(const struct checkpoint_plan *plan, int dir, int (*execute)(const struct checkpoint_plan *, int),
		 struct pdk_error *err)
{
	struct sigaction action = {.sa_handler = on_time};
	int gate[2];
	char go = 1;

	if (pipe2(gate, O_CLOEXEC) < 0)
		return pdk_fail_errno(err, -errno, "make a pipe");
	criu = fork();
	if (criu == 0) {
		signal(SIGPIPE, SIG_DFL);
		close(gate[1]);
		if (read(gate[0], &go, 1) == 1)
			execute(plan, dir);
		_exit(127);
	}
	criu_fd = criu < 0 ? -1 : pidfd_open(criu, 0);
	if (criu_fd < 0 || ptrace(PTRACE_SEIZE, criu, NULL, (void *)(uintptr_t)PTRACE_O_TRACEEXIT) < 0)
		return pdk_fail_errno(err, -errno, "watch CRIU");
	sigaction(SIGALRM, &action, NULL);
	set_timer(plan->limit_ms);
	return write(gate[1], &go, 1) == 1 ? 0 : pdk_fail_errno(err, -errno, "start CRIU");
}

static void watch(const struct checkpoint_plan *plan, int *ret_status)
{
	for (;;) {
		pid_t pid = waitpid(criu, ret_status, __WALL);

		if (pid < 0 && errno != EINTR)
			return;
		if (pid == criu && !WIFSTOPPED(*ret_status))
			return;
		if (pid == criu)
			pass(plan, *ret_status);
	}
}

static void say(int to, const struct word *word) __attribute__((noreturn));
static void say(int to, const struct word *word)
{
	/* A job that is gone needs no answer. */
	_exit(write(to, word, sizeof(*word)) != (ssize_t)sizeof(*word));
}

/* A warden that is started again must not find its predecessor's locks and sockets in our hands. */
static void keep_only(int *fds, size_t n)
{
	unsigned int from = STDERR_FILENO + 1;

	for (size_t i = 0; i < n; i++) {
		size_t least = i;

		for (size_t j = i + 1; j < n; j++)
			if (fds[j] < fds[least])
				least = j;
		int fd = fds[least];

		fds[least] = fds[i];
		fds[i] = fd;
		if ((unsigned int)fd > from)
			close_range(from, (unsigned int)fd - 1, 0);
		from = (unsigned int)fd + 1;
	}
	close_range(from, ~0u, 0);
}

static void run(const struct checkpoint_plan *plan, int dir, int (*execute)(const struct checkpoint_plan *, int),
		int to) __attribute__((noreturn));
static void run(const struct checkpoint_plan *plan, int dir, int (*execute)(const struct checkpoint_plan *, int),
		int to)
{
	int kept[] = {plan->lock, plan->cgroup, dir, to};
	struct word word = {.status = -1};
	struct cure *cure;

	keep_only(kept, ARRAY_SIZE(kept));
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	/* The host's memory is worth less than what CRIU has in its hands: both are small, and the end of either costs
	 * somebody a pause. */
	(void)file_write(AT_FDCWD, "/proc/self/oom_score_adj", "-1000");
	if (cure_create(plan->cgroup, &cure, &word.err) < 0 || begin(plan, dir, execute, &word.err) < 0)
		say(to, &word);
	watch(plan, &word.status);
	set_timer(0);
	word.is_late = is_late && word.status != 0;
	end_orphans();
	if (word.status != 0) {
		cure_apply(cure, &word.report);
		cure_sweep(plan->pid);
	}
	say(to, &word);
}

int guard_start(const struct checkpoint_plan *plan, int dir,
		int (*execute)(const struct checkpoint_plan *plan, int dir), struct guard *ret, struct pdk_error *err)
{
	int word[2];

	if (pipe2(word, O_CLOEXEC) < 0)
		return pdk_fail_errno(err, -errno, "make a pipe");
	ret->pid = fork();
	if (ret->pid == 0) {
		close(word[0]);
		run(plan, dir, execute, word[1]);
	}
	close(word[1]);
	ret->word = word[0];
	if (ret->pid > 0)
		return 0;
	close(word[0]);
	return pdk_fail_errno(err, -errno, "start a child");
}

/* What has become of the processes belongs to the reason. */
static void add_report(const struct cure_report *report, struct pdk_error *err)
{
	const char *who = *report->who ? report->who : "a process of the sandbox";
	char reason[120];

	if (!report->lost)
		return;
	snprintf(reason, sizeof(reason), "%.119s", err->text);
	if (report->lost == 1)
		snprintf(err->text, sizeof(err->text), "%s; %s ended with it", reason, who);
	else
		snprintf(err->text, sizeof(err->text), "%s; %s and %u more ended with it", reason, who,
			 report->lost - 1);
}

int guard_wait(struct guard *guard, int dir, struct pdk_error *err)
{
	struct word word;
	ssize_t n = read(guard->word, &word, sizeof(word));
	int rc;

	close(guard->word);
	waitpid(guard->pid, NULL, 0);
	if (n != (ssize_t)sizeof(word))
		return pdk_fail(err, -EAGAIN, PDK_UNAVAILABLE, "what watches over CRIU was ended");
	if (word.err.code) {
		*err = word.err;
		return -EAGAIN;
	}
	if (word.is_late)
		rc = pdk_fail(err, -ETIMEDOUT, PDK_DEADLINE_EXCEEDED, "CRIU did not end in time");
	else
		rc = checkpoint_explain(word.status, dir, "dump.log", err);
	if (rc < 0)
		add_report(&word.report, err);
	return rc;
}
