#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel.h"
#include "lazy_private.h"
#include "lazy_space.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/fault.h"

/*
 * The server of pages of one lazy restore, in two halves of its life:
 *
 *	restore	  CRIU connects and hands over a userfaultfd for each process. With the host's authority, which two things
 *		  need: that the library in CRIU can make one (the kernel refuses it to the root of a user namespace, who
 *		  could halt the kernel in the middle of a copy with it; ours never leaves CRIU), and being told of forks.
 *		  When the child that restores ends without a word, so do we: nothing has run.
 *	serve	  After its word. Without authority, filtered, on open descriptors alone: pages are given when they are
 *		  touched, and by and by the rest. We end when nothing is missing, or with the first process.
 *
 * When the last descriptor of a userfaultfd is closed, the kernel takes what is missing for zeros: nothing may run then. So
 * there is a second process, the guard, which shares our table of descriptors (also those that the kernel puts there when a
 * process forks) and does nothing but wait. If we end before our time, it still holds them all, so that whoever touches a
 * missing page waits; it ends the sandbox, and lets go when nothing is left of it. When the guard ends, we start another.
 *
 * Each page is checked against the digest of its chunk before it is given. If that is wrong, or anything else, the sandbox is
 * ended, and `lazy` of its record says why.
 */

#define EVENTS_AT_ONCE 64
#define SPACES_MAX 8192
#define LATE_MAX 256
#define LATE_MS 1
#define LATE_MAX_MS 10000 /* then the sandbox has no memory for its pages */
#define LOOK_MS 500
#define TURN_MS 20
#define ROUND_CHUNKS 16
/* The rest is brought when the first answer is given; to copies of a snapshot late, as many have a short life, and share
 * what they do not touch: it is only on disk and in the page cache, once. */
#define DELAY_MS 100
#define DELAY_COPY_MS 30000
#define NOBODY 65534
#define LAST_WORD 0x52535446

struct late {
	struct space *space;
	uint64_t address;
};

static struct {
	const struct lazy *lazy;
	struct lazy_ends ends;
	int epoll, criu, self, guard, init;
	bool admitted, hurried, has_turn;
	bool *over; /* shared with the guard: we may end */
	struct space *spaces;
	unsigned int n_spaces;
	struct late late[LATE_MAX];
	unsigned int n_late;
	unsigned long long late_since, bring_at, look_at;
	unsigned int handed; /* processes of which CRIU has handed over the memory */
} server;

/* What an event is about, where it is not a space. */
static char source_boss, source_pages, source_makers, source_criu, source_hurry, source_guard, source_init;

/* --- the end --- */

static void end_sandbox(const char *reason)
{
	char byte;

	/* What was written first counts. */
	if (pread(server.ends.record, &byte, 1, 0) == 0)
		(void)!pwrite(server.ends.record, reason, strlen(reason), 0);
	for (;;) {
		struct pollfd init = {.fd = server.init, .events = POLLIN};

		(void)!write(server.ends.killer, "1", 1);
		if (poll(&init, 1, 100) > 0)
			return;
	}
}

static void __attribute__((noreturn)) give_up(const char *reason)
{
	struct lazy_answer answer = {.error = reason == space_failure() ? EBADMSG : EAGAIN};

	if (!server.admitted) {
		snprintf(answer.text, sizeof(answer.text), "%.159s", reason);
		send(server.ends.boss, &answer, sizeof(answer), MSG_NOSIGNAL);
		_exit(1);
	}
	end_sandbox(reason);
	*server.over = true;
	_exit(1);
}

static void __attribute__((noreturn)) finish(void)
{
	FAULT("lazy_finish");
	*server.over = true;
	_exit(0);
}

/* --- the guard --- */

static void __attribute__((noreturn)) run_guard(void)
{
	struct pollfd self = {.fd = server.self, .events = POLLIN};

	prctl(PR_SET_NAME, "paddock-guard");
	while (poll(&self, 1, -1) <= 0)
		;
	if (!*server.over)
		end_sandbox("the server of its memory was ended before all of it was back");
	_exit(0);
}

static void watch(int fd, void *what)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = what};

	if (epoll_ctl(server.epoll, EPOLL_CTL_ADD, fd, &event) < 0)
		give_up("the server of its memory has no room left");
}

static void start_guard(void)
{
	struct clone_args args = {.flags = CLONE_FILES | CLONE_PIDFD,
				  .pidfd = (uint64_t)(uintptr_t)&server.guard,
				  .exit_signal = SIGCHLD};
	pid_t pid = kernel_clone3(&args);

	if (pid == 0)
		run_guard();
	if (pid < 0)
		give_up("the server of its memory has lost its guard");
	watch(server.guard, &source_guard);
}

/* Killed by somebody: what it stands for must not be missing for long. */
static void replace_guard(void)
{
	waitid(P_PIDFD, (id_t)server.guard, &(siginfo_t){0}, WEXITED);
	close(server.guard);
	start_guard();
}

/* --- spaces --- */

/* They are only removed between events. */
static unsigned int count_living(void)
{
	unsigned int n = 0;

	for (struct space *space = server.spaces; space; space = space->next) {
		space_look(space);
		n += !space->is_over;
	}
	return n;
}

static int add_space(struct space *space)
{
	if (server.n_spaces >= SPACES_MAX && count_living() >= SPACES_MAX)
		return -ENOSPC;
	space->next = server.spaces;
	server.spaces = space;
	server.n_spaces++;
	watch(space->fd, space);
	return 0;
}

static void forget_late(const struct space *space)
{
	unsigned int kept = 0;

	for (unsigned int i = 0; i < server.n_late; i++)
		if (server.late[i].space != space)
			server.late[kept++] = server.late[i];
	server.n_late = kept;
}

/* Remove those that are over. What is left of a child that nobody brings anything to holds nobody up. */
static void sweep(void)
{
	struct space **at = &server.spaces, *space;

	while ((space = *at)) {
		if (!space->is_over) {
			at = &space->next;
			continue;
		}
		*at = space->next;
		forget_late(space);
		/* Somebody else may have it open still, and then its events would come. */
		epoll_ctl(server.epoll, EPOLL_CTL_DEL, space->fd, NULL);
		space_free(space);
		server.n_spaces--;
	}
}

static void require(enum space_result result)
{
	if (result == SPACE_FAILED)
		give_up(space_failure());
}

static int on_fault(struct space *space, uint64_t address)
{
	enum space_result result = space_fault(space, address);

	if (result == SPACE_LATER && server.n_late == LATE_MAX)
		space_wake(space, address); /* it asks again */
	else if (result == SPACE_LATER)
		server.late[server.n_late++] = (struct late){space, address};
	return result == SPACE_FAILED ? -1 : 0;
}

static void try_late(void)
{
	unsigned long long now = clock_ms();
	unsigned int n = server.n_late;
	struct late late[LATE_MAX];

	if (n == 0) {
		server.late_since = now;
		return;
	}
	if (now - server.late_since > LATE_MAX_MS)
		give_up("there was no room for its memory");
	memcpy(late, server.late, n * sizeof(late[0]));
	server.n_late = 0;
	for (unsigned int i = 0; i < n; i++)
		if (on_fault(late[i].space, late[i].address) < 0)
			give_up(space_failure());
	if (server.n_late < n)
		server.late_since = now;
}

/* --- the restore --- */

static int receive_fd(int from)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	char byte, path[64], target[40];
	struct iovec part = {.iov_base = &byte, .iov_len = 1};
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(from, &message, MSG_CMSG_CLOEXEC);
	const struct cmsghdr *header = n > 0 ? CMSG_FIRSTHDR(&message) : NULL;
	int fd;

	if (!header || header->cmsg_type != SCM_RIGHTS || header->cmsg_len != CMSG_LEN(sizeof(int)))
		return -EPROTO;
	memcpy(&fd, CMSG_DATA(header), sizeof(fd));
	/* Whatever else it is, nothing is asked of it. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, target, sizeof(target) - 1);
	target[n > 0 ? n : 0] = '\0';
	if (strcmp(target, "anon_inode:[userfaultfd]") != 0) {
		close(fd);
		return -EPROTO;
	}
	return fd;
}

static int send_device(int to)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {.header = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))}};
	struct iovec part = {.iov_base = (char *)"d", .iov_len = 1};
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};

	memcpy(CMSG_DATA(&control.header), &server.ends.device, sizeof(int));
	return sendmsg(to, &message, MSG_NOSIGNAL) == 1 ? 0 : -EIO;
}

/* The library in CRIU, in a process that is being restored: it gets the device, makes a userfaultfd of its own memory, and
 * we have that tell of forks. CRIU hands the same to us again, with the number of the process. */
static void make_one(void)
{
	struct timeval patience = {.tv_sec = 5};
	struct uffdio_api api = {.api = UFFD_API, .features = LAZY_FEATURES};
	_cleanup_fd_ int maker = accept4(server.ends.makers, NULL, NULL, SOCK_CLOEXEC);
	_cleanup_fd_ int fd = -1;

	if (maker < 0)
		return;
	setsockopt(maker, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (send_device(maker) < 0)
		return;
	fd = receive_fd(maker);
	if (fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0)
		send(maker, "k", 1, MSG_NOSIGNAL);
}

static const struct lazy_file *find_file(int pid)
{
	for (unsigned int i = 0; i < server.lazy->n; i++)
		if (server.lazy->files[i].map.pid == pid)
			return &server.lazy->files[i];
	return NULL;
}

static void accept_criu(void)
{
	if (server.criu >= 0)
		return;
	server.criu = accept4(server.ends.pages, NULL, NULL, SOCK_CLOEXEC);
	if (server.criu >= 0)
		watch(server.criu, &source_criu);
}

/* CRIU's protocol: a process's number, and its userfaultfd; less than zero: it has ended, and waits for its parent; and a
 * last word when all are there. */
static void hear_criu(void)
{
	struct space *space;
	const struct lazy_file *file;
	int pid = 0, fd;
	ssize_t n = recv(server.criu, &pid, sizeof(pid), MSG_WAITALL);

	if (n != (ssize_t)sizeof(pid) || server.admitted) {
		close(STEAL_FD(server.criu));
		return;
	}
	if (pid < 0 || pid == LAST_WORD)
		return;
	file = find_file(pid);
	fd = receive_fd(server.criu);
	space = file && fd >= 0 ? space_create(file, fd) : NULL;
	if (!space || add_space(space) < 0)
		give_up("CRIU restores a process that is not in the checkpoint");
	server.handed += file->map.lazy_bytes > 0;
}

/* --- the word --- */

static int confine(void)
{
	const struct rlimit none = {0, 0}, data = {128u << 20, 128u << 20};

	if (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0 ||
	    prctl(PR_SET_DUMPABLE, 0) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    setrlimit(RLIMIT_CORE, &none) < 0 || setrlimit(RLIMIT_DATA, &data) < 0)
		return -errno;
	return lazy_filter();
}

static void close_restore(void)
{
	const int all[] = {server.ends.pages, server.ends.makers, server.ends.device};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		close(all[i]);
}

static bool is_readable(int fd)
{
	struct pollfd end = {.fd = fd, .events = POLLIN};

	return fd >= 0 && poll(&end, 1, 0) > 0;
}

/* All that CRIU has said by now. No memory may be left out: it would be zeros. */
static void hear_the_rest(void)
{
	unsigned int wanted = 0;

	if (server.criu < 0 && is_readable(server.ends.pages))
		accept_criu();
	while (is_readable(server.criu))
		hear_criu();
	for (unsigned int i = 0; i < server.lazy->n; i++)
		wanted += server.lazy->files[i].map.lazy_bytes > 0;
	if (server.handed != wanted)
		give_up("CRIU has not handed over the memory of every process");
}

static void hear_boss(void)
{
	struct lazy_answer answer = {0};
	pid_t first = 0;
	int rc;

	if (recv(server.ends.boss, &first, sizeof(first), MSG_DONTWAIT) != (ssize_t)sizeof(first))
		_exit(0); /* it came to nothing */
	hear_the_rest();
	server.init = pidfd_open(first, 0);
	if (server.init < 0)
		give_up("the restored sandbox ended at once");
	close_restore();
	rc = confine();
	if (rc < 0)
		give_up("the server of its memory cannot give up its authority");
	server.admitted = true;
	watch(server.init, &source_init);
	start_guard();
	server.bring_at = clock_ms() + (server.lazy->is_copy && !server.lazy->tight ? DELAY_COPY_MS : DELAY_MS);
	send(server.ends.boss, &answer, sizeof(answer), MSG_NOSIGNAL);
	close(server.ends.boss);
	FAULT("lazy_serving");
}

/* --- ahead of what is asked for --- */

static bool is_to_be_brought(const struct space *space)
{
	return !space->is_over && (!space->is_child || server.hurried);
}

static struct space *next_space(void)
{
	for (struct space *space = server.spaces; space; space = space->next)
		if (is_to_be_brought(space))
			return space;
	return NULL;
}

/* Of all servers of a warden one at a time works ahead, half of its time; who is waited for does not ask. */
static bool take_turn(void)
{
	if (!server.has_turn)
		server.has_turn = server.hurried || flock(server.ends.turn, LOCK_EX | LOCK_NB) == 0;
	return server.has_turn;
}

static void bring(unsigned long long now)
{
	enum space_result result = SPACE_DONE;
	struct space *space;

	if (!take_turn()) {
		server.bring_at = now + TURN_MS;
		return;
	}
	for (int i = 0;
	     i < ROUND_CHUNKS && result == SPACE_DONE && !is_readable(server.epoll) && (space = next_space()); i++) {
		result = space_bring(space);
		require(result);
	}
	now = clock_ms();
	server.bring_at = now + (result == SPACE_LATER ? LATE_MS : server.hurried || server.lazy->tight ? 0 : 2);
}

static void hurry(void)
{
	char bytes[64];

	(void)!read(server.ends.hurry, bytes, sizeof(bytes));
	server.hurried = true;
	server.bring_at = 0;
}

/* --- the loop --- */

static void read_events(struct space *space)
{
	enum space_result result = space_read_events(space, on_fault, add_space);

	require(result);
	if (result == SPACE_LATER)
		server.look_at = 0; /* those that are over are in the way */
}

static void on_event(void *source)
{
	if (source == &source_boss)
		hear_boss();
	else if (source == &source_pages)
		accept_criu();
	else if (source == &source_makers)
		make_one();
	else if (source == &source_criu)
		hear_criu();
	else if (source == &source_hurry)
		hurry();
	else if (source == &source_guard)
		replace_guard();
	else if (source == &source_init)
		finish(); /* nobody is left who could touch anything */
	else
		read_events(source);
}

static int timeout(unsigned long long now)
{
	unsigned long long next = server.look_at;

	if (!server.admitted)
		return server.n_late ? LATE_MS : -1;
	if (server.n_late)
		return LATE_MS;
	if (next_space() && server.bring_at < next)
		next = server.bring_at;
	return next <= now ? 0 : (int)(next - now);
}

static void look_at_spaces(unsigned long long now)
{
	server.look_at = now + LOOK_MS;
	for (struct space *space = server.spaces; space; space = space->next)
		space_look(space);
	sweep();
}

static void turn(void)
{
	struct epoll_event events[EVENTS_AT_ONCE];
	int n = epoll_wait(server.epoll, events, EVENTS_AT_ONCE, timeout(clock_ms()));
	unsigned long long now;

	for (int i = 0; i < n; i++)
		on_event(events[i].data.ptr);
	sweep();
	try_late();
	if (!server.admitted)
		return;
	now = clock_ms();
	if (now >= server.look_at)
		look_at_spaces(now);
	if (now >= server.bring_at && next_space())
		bring(now);
	sweep();
	if (!server.spaces)
		finish();
}

static int compare(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

/* Of all descriptors of the warden. */
static int keep_only(const struct lazy *lazy, const struct lazy_ends *ends)
{
	const int some[] = {ends->boss,   ends->pages, ends->makers, ends->device,
			    ends->record, ends->hurry, ends->killer, ends->turn};
	size_t n = ARRAY_SIZE(some);
	_cleanup_free_ int *all = calloc(n + lazy->n, sizeof(*all));
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), next = 3;

	if (!all)
		return -ENOMEM;
	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	memcpy(all, some, sizeof(some));
	for (unsigned int i = 0; i < lazy->n; i++)
		all[n++] = lazy->files[i].pages.fd;
	qsort(all, n, sizeof(*all), compare);
	for (size_t i = 0; i < n; i++) {
		if (all[i] > next)
			close_range((unsigned int)next, (unsigned int)all[i] - 1, 0);
		next = all[i] + 1;
	}
	return close_range((unsigned int)next, ~0u, 0);
}

static void prepare(const struct lazy *lazy, const struct lazy_ends *ends)
{
	prctl(PR_SET_NAME, "paddock-pages");
	setsid();
	signal(SIGPIPE, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	/* Before anything else of this machine it must not be ended for want of memory; it needs little. */
	(void)!file_write(AT_FDCWD, "/proc/self/oom_score_adj", "-1000");
	if (keep_only(lazy, ends) < 0)
		_exit(1);
	server.lazy = lazy;
	server.ends = *ends;
	server.criu = server.guard = server.init = -1;
	server.self = pidfd_open(getpid(), 0);
	server.epoll = epoll_create1(EPOLL_CLOEXEC);
	server.over = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (server.self < 0 || server.epoll < 0 || server.over == MAP_FAILED)
		_exit(1);
}

void lazy_serve(const struct lazy *lazy, const struct lazy_ends *ends)
{
	prepare(lazy, ends);
	watch(ends->boss, &source_boss);
	watch(ends->pages, &source_pages);
	watch(ends->makers, &source_makers);
	watch(ends->hurry, &source_hurry);
	for (;;)
		turn();
}
