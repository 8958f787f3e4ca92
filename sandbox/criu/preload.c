#include <errno.h>
#include <fcntl.h>
#include <linux/ioctl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

/*
 * Put in front of the C library of CRIU. Two calls that the kernel reserves for capabilities over the initial user
 * namespace have an equal that needs none:
 *
 *   - SO_SNDBUFFORCE and SO_RCVBUFFORCE, which CRIU uses for every socket that it restores. It restores inside the
 *     sandbox's user namespace; what the sandbox could set itself is within what SO_SNDBUF and SO_RCVBUF allow.
 *   - prlimit() of another process, when root has no CAP_SYS_RESOURCE (as in some containers and virtual machines) and
 *     the process belongs to a user namespace of another owner. /proc/PID/limits says the same.
 *
 * Newer kernels know some options of unix sockets for no other family any more, where CRIU asks for them and sets them
 * for every socket: there they are off.
 *
 * A call that succeeds is not touched.
 *
 * A lazy restore needs a userfaultfd of each restored process, which the kernel makes for whoever holds /dev/userfaultfd;
 * and whose owner hears of forks, if that was asked for by the host's root. Nothing in the sandbox may hold the device,
 * so each process fetches it from the server of pages (sandbox/warden/lazy_server.c) at the abstract socket that
 * PADDOCK_PAGES names, for that one call, and has the server ask for the rest. When CRIU only wants to know whether there
 * is such a thing, it hears yes: the warden has tried, and does not ask for a lazy restore where there is none.
 *
 * In a dump, stops of the processes that CRIU traces are not told to it by SIGCHLD where it has no handler for that: it waits
 * for each with wait4(). It is traced itself then, by the guard, and each signal would be a stop of its own.
 *
 * And one is a messenger: the "script" PADDOCK_HOOK, which CRIU executes in a child at each step, tells the warden when
 * all processes are there and none has run, and waits for its word.
 */

#define PADDOCK_HOOK "paddock-hook"
#define FD_SAY 103
#define FD_HEAR 104

extern char **environ;
long syscall(long number, ...);
int ioctl(int fd, unsigned long request, ...);
int sigaction(int number, const struct sigaction *action, struct sigaction *old);
int __sigaction(int number, const struct sigaction *action,
		struct sigaction *old); /* the C library's other name of it */
int execvp(const char *file, char *const argv[]);
int execvpe(const char *file, char *const argv[], char *const environment[]);
int setsockopt(int fd, int level, int name, const void *value, socklen_t length);
int getsockopt(int fd, int level, int name, void *value, socklen_t *length);

static long raw(long number, const long a[6])
{
	register long r10 __asm__("r10") = a[3];
	register long r8 __asm__("r8") = a[4];
	register long r9 __asm__("r9") = a[5];
	long rc;

	__asm__ volatile("syscall"
			 : "=a"(rc)
			 : "a"(number), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return rc;
}

static const char *limit(const char *at, rlim_t *ret)
{
	char *end;

	at += strspn(at, " ");
	if (strncmp(at, "unlimited", 9) == 0) {
		*ret = RLIM_INFINITY;
		return at + 9;
	}
	*ret = strtoull(at, &end, 10);
	return end;
}

static int limit_from_proc(int pid, unsigned int resource, struct rlimit *ret)
{
	static const char *const names[] = {
		"Max cpu time",       "Max file size",     "Max data size",         "Max stack size",
		"Max core file size", "Max resident set",  "Max processes",         "Max open files",
		"Max locked memory",  "Max address space", "Max file locks",        "Max pending signals",
		"Max msgqueue size",  "Max nice priority", "Max realtime priority", "Max realtime timeout",
	};
	char path[64], text[4096], *line;
	ssize_t n;
	int fd;

	if (resource >= sizeof(names) / sizeof(names[0]))
		return -1;
	snprintf(path, sizeof(path), "/proc/%d/limits", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	line = strstr(text, names[resource]);
	if (!line || strlen(line) < 26)
		return -1;
	limit(limit(line + 26, &ret->rlim_cur), &ret->rlim_max);
	return 0;
}

static int made = -1; /* the userfaultfd of this process */

/* One byte, and a descriptor with it: sent if `fd` >= 0, else received. */
static int pass(int to, int fd)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {.header = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))}};
	char byte = 'u';
	struct iovec part = {.iov_base = &byte, .iov_len = 1};
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};

	if (fd >= 0) {
		memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
		return sendmsg(to, &message, MSG_NOSIGNAL) == 1 ? 0 : -1;
	}
	if (recvmsg(to, &message, MSG_CMSG_CLOEXEC) != 1 || message.msg_controllen < CMSG_LEN(sizeof(int)))
		return -1;
	memcpy(&fd, CMSG_DATA(&control.header), sizeof(fd));
	return fd;
}

static int connect_to_pages(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const char *name = getenv("PADDOCK_PAGES");
	size_t length = name ? strlen(name) : 0;
	int fd;

	if (length == 0 || length >= sizeof(address.sun_path))
		return -1;
	memcpy(address.sun_path + 1, name, length);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address,
			       (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length)) < 0) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static long make_userfaultfd(long flags)
{
	int server = connect_to_pages(), device = server < 0 ? -1 : pass(server, -1), fd = -1;
	char answer;

	if (device >= 0) {
		const long arguments[6] = {device, USERFAULTFD_IOC_NEW, flags};

		fd = (int)raw(SYS_ioctl, arguments);
		close(device);
	}
	if (fd >= 0 && (pass(server, fd) < 0 || read(server, &answer, 1) != 1)) {
		close(fd);
		fd = -1;
	}
	if (server >= 0)
		close(server);
	made = fd;
	return fd < 0 ? -EPERM : fd;
}

/* The server has done this already. */
static int is_known_api(int fd, unsigned long request, void *argument)
{
	struct uffdio_api *api = argument;

	if (fd < 0 || fd != made || request != UFFDIO_API)
		return 0;
	api->features = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_UNMAP |
			UFFD_FEATURE_EVENT_REMOVE;
	api->ioctls = 1ull << _UFFDIO_REGISTER | 1ull << _UFFDIO_UNREGISTER | 1ull << _UFFDIO_API;
	return 1;
}

static int finish(long rc)
{
	if (rc >= 0)
		return (int)rc;
	errno = (int)-rc;
	return -1;
}

static int is_for_unix_only(long rc, int level, int name)
{
	return rc == -EOPNOTSUPP && level == SOL_SOCKET && (name == SO_PASSCRED || name == SO_PASSSEC);
}

int getsockopt(int fd, int level, int name, void *value, socklen_t *length)
{
	const long arguments[6] = {fd, level, name, (long)value, (long)length, 0};
	long rc = raw(SYS_getsockopt, arguments);

	if (!is_for_unix_only(rc, level, name) || *length < sizeof(int))
		return finish(rc);
	*(int *)value = 0;
	*length = sizeof(int);
	return 0;
}

int setsockopt(int fd, int level, int name, const void *value, socklen_t length)
{
	long arguments[6] = {fd, level, name, (long)value, (long)length, 0};
	long rc = raw(SYS_setsockopt, arguments);

	if (rc == -EPERM && level == SOL_SOCKET && (name == SO_SNDBUFFORCE || name == SO_RCVBUFFORCE)) {
		arguments[2] = name == SO_SNDBUFFORCE ? SO_SNDBUF : SO_RCVBUF;
		rc = raw(SYS_setsockopt, arguments);
	}
	if (is_for_unix_only(rc, level, name) && length == sizeof(int) && *(const int *)value == 0)
		return 0;
	return finish(rc);
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list list;
	void *argument;

	va_start(list, request);
	argument = va_arg(list, void *);
	va_end(list);
	if (is_known_api(fd, request, argument))
		return 0;
	const long arguments[6] = {fd, (long)request, (long)argument};

	return finish(raw(SYS_ioctl, arguments));
}

long syscall(long number, ...)
{
	long arguments[6], rc;
	va_list list;

	va_start(list, number);
	for (int i = 0; i < 6; i++)
		arguments[i] = va_arg(list, long);
	va_end(list);
	if (number == SYS_userfaultfd && arguments[0] == 0)
		rc = made = eventfd(0, EFD_CLOEXEC); /* a question */
	else if (number == SYS_userfaultfd)
		rc = make_userfaultfd(arguments[0]);
	else
		rc = raw(number, arguments);
	if (rc == -EPERM && number == SYS_prlimit64 && !arguments[2] && arguments[3] &&
	    limit_from_proc((int)arguments[0], (unsigned int)arguments[1], (struct rlimit *)arguments[3]) == 0)
		return 0;
	if ((unsigned long)rc < -4095UL)
		return rc;
	errno = (int)-rc;
	return -1;
}

static int is_dump;

int sigaction(int number, const struct sigaction *action, struct sigaction *old)
{
	struct sigaction quiet;

	if (!is_dump || number != SIGCHLD || !action || action->sa_handler != SIG_DFL)
		return __sigaction(number, action, old);
	quiet = *action;
	quiet.sa_flags |= SA_NOCLDSTOP;
	return __sigaction(number, &quiet, old);
}

static void __attribute__((constructor)) begin(int argc, char **argv)
{
	const struct sigaction usual = {.sa_handler = SIG_DFL};

	is_dump = argc > 1 && strcmp(argv[1], "dump") == 0;
	sigaction(SIGCHLD, &usual, NULL);
}

/* CRIU has closed all descriptors of the child that runs a script; its own are still there, and pipes can be opened
 * again. */
static int open_of_parent(int fd, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", getppid(), fd);
	return open(path, flags | O_CLOEXEC);
}

/* The exit status of the script. A warden that is gone, or refuses, closes the pipe. */
static int hook(void)
{
	const char *action = getenv("CRTOOLS_SCRIPT_ACTION"), *first = getenv("CRTOOLS_INIT_PID");
	int say, hear;
	char word;

	if (!action || strcmp(action, "pre-resume") != 0)
		return 0;
	say = open_of_parent(FD_SAY, O_WRONLY);
	hear = open_of_parent(FD_HEAR, O_RDONLY);
	if (!first || say < 0 || hear < 0 || write(say, first, strlen(first)) != (ssize_t)strlen(first))
		return 1;
	return read(hear, &word, 1) == 1 ? 0 : 1;
}

/* The contents of a tmpfs go through tar: one more process for each, to make them smaller, costs more than it saves. */
static void drop(char **argv, const char *option)
{
	char **to = argv;

	for (; *argv; argv++)
		if (strcmp(*argv, option) != 0)
			*to++ = *argv;
	*to = NULL;
}

int execvp(const char *file, char *const argv[])
{
	if (strcmp(file, PADDOCK_HOOK) == 0)
		_exit(hook());
	if (strcmp(file, "tar") == 0)
		drop((char **)argv, "--gzip");
	return execvpe(file, argv, environ);
}
