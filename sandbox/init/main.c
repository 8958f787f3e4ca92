#include "sandbox/init/init.h"

#include "sandbox/base/linger.h"
#include "sandbox/init/job.h"
#include "sandbox/init/process.h"
#include "sandbox/init/session.h"
#include "sandbox/init/spare.h"
#include "sandbox/init/sudo.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>

int source_add(struct init *init, struct source *source, int fd, uint32_t events,
	       void (*ready)(struct init *init, struct source *source, uint32_t events))
{
	source->fd = fd;
	source->events = 0;
	source->ready = ready;
	source_set(init, source, events);
	return source->events == events ? 0 : -ENOSPC;
}

void source_set(struct init *init, struct source *source, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = source};
	int op = !events ? EPOLL_CTL_DEL : source->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

	if (source->fd < 0 || events == source->events)
		return;
	if (epoll_ctl(init->epoll, op, source->fd, &event) == 0 || !events)
		source->events = events;
}

void source_close(struct init *init, struct source *source)
{
	if (source->fd < 0 || !source->ready)
		return;
	source_set(init, source, 0);
	close(STEAL_FD(source->fd));
}

uint64_t init_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void init_wake_at(struct init *init, uint64_t deadline)
{
	struct itimerspec current;
	struct itimerspec next = {.it_value = {(time_t)(deadline / 1000), (long)(deadline % 1000) * 1000000}};
	uint64_t now = init_now();
	uint64_t left;

	timerfd_gettime(init->timer.fd, &current);
	left = (uint64_t)current.it_value.tv_sec * 1000 + (uint64_t)current.it_value.tv_nsec / 1000000;
	if (current.it_value.tv_sec || current.it_value.tv_nsec) {
		if (now + left <= deadline)
			return;
	}
	timerfd_settime(init->timer.fd, TFD_TIMER_ABSTIME, &next, NULL);
}

static void timer_ready(struct init *init, struct source *source, uint32_t events)
{
	uint64_t ticks;

	if (read(source->fd, &ticks, sizeof(ticks)) < 0)
		return;
	/* After a pause this comes first, but how long it was is waiting in the link. */
	session_catch_up(init);
	process_check_deadlines(init);
	job_check_deadlines(init);
	sudo_resume(init);
	spare_check_deadline(init);
}

/* Reap everything: our own children and the orphans that the kernel gives to pid 1. */
static void signals_ready(struct init *init, struct source *source, uint32_t events)
{
	struct signalfd_siginfo info;
	int status;
	pid_t pid;

	while (read(source->fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
		;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (process_ended(init, pid, status))
			continue;
		spare_ended(init, pid);
		job_ended(init, pid, status);
	}
}

static int open_loop(struct init *init)
{
	sigset_t mask;
	int rc;

	init->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (init->epoll < 0)
		return -errno;
	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	signal(SIGPIPE, SIG_IGN);
	linger_setup();
	rc = source_add(init, &init->listen, INIT_LISTEN_FD, EPOLLIN, session_accept);
	if (rc < 0)
		return rc;
	rc = source_add(init, &init->signals, signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK), EPOLLIN, signals_ready);
	if (rc < 0)
		return rc;
	return source_add(init, &init->timer, timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK), EPOLLIN,
			  timer_ready);
}

/* 0 and 1 become /dev/null, 2 stays for a last word to the warden, 3 and 4 are its gifts; all else is closed. */
static int settle_descriptors(struct init *init)
{
	_cleanup_fd_ int null = -1;
	struct stat st;

	syscall(SYS_close_range, INIT_FDS_USED, ~0u, 0);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || (fcntl(2, F_GETFD) < 0 && dup2(null, 2) < 0))
		return -errno;
	if (fstat(INIT_LISTEN_FD, &st) < 0 || !S_ISSOCK(st.st_mode))
		return -EBADF;
	fcntl(INIT_LISTEN_FD, F_SETFD, FD_CLOEXEC);
	fcntl(INIT_LISTEN_FD, F_SETFL, O_NONBLOCK);
	init->archive_fd = fcntl(INIT_ARCHIVE_FD, F_SETFD, FD_CLOEXEC) == 0 ? INIT_ARCHIVE_FD : -1;
	return 0;
}

static void run(struct init *init)
{
	for (;;) {
		struct epoll_event event;
		int timeout = session_check(init) ? 0 : -1;
		int n;

		/* One event at a time: no handler can free what a later event of the same batch points to. */
		n = epoll_wait(init->epoll, &event, 1, timeout);
		if (n == 1) {
			struct source *source = event.data.ptr;

			source->ready(init, source, event.events);
		} else if (n < 0 && errno != EINTR) {
			return;
		}
	}
}

int main(void)
{
	static struct init init;
	int rc;

	/* Nobody inside may trace us or look into our memory; no program that we start can gain privileges. */
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	prctl(PR_SET_NAME, "paddock-init", 0, 0, 0);
	umask(022);
	getrlimit(RLIMIT_NOFILE, &init.nofile);
	setrlimit(RLIMIT_NOFILE, &(struct rlimit){init.nofile.rlim_max, init.nofile.rlim_max});
	rc = settle_descriptors(&init);
	if (rc == 0)
		rc = open_loop(&init);
	if (rc < 0) {
		fprintf(stderr, "paddock-init: cannot start: %s\n", strerror(-rc));
		return 1;
	}
	sudo_listen(&init);
	run(&init);
	return 1;
}
