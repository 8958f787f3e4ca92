#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <sys/wait.h>
#include <unistd.h>

/*
 * K05 to K14: system calls that must not pass. The arguments are harmless and wrong in a way that the kernel reports
 * with another error when the call does arrive (ENOENT, EFAULT, EBADF, EINVAL), so an EPERM here is the filter's.
 */

#define NR_OPEN_TREE_ATTR 467
#define NR_QUOTACTL_FD 443
#define NR_MEMFD_SECRET 447
#define NR_PROCESS_MADVISE 440
#define NR_MOUNT_SETATTR 442
#define HIGH(x) ((long)(x) | (1L << 32))
#define TOP(x) ((long)((unsigned long)(x) | (1UL << 63)))
#define NOWHERE ((long)"/nowhere/at-all")
#define BAD 0x7fffffffL

struct forbidden {
	const char *id, *name;
	long number;
	long args[5];
	int also; /* acceptable beside EPERM; 0: nothing */
};

static const struct forbidden forbidden[] = {
	{"K05", "mount", SYS_mount, {NOWHERE, NOWHERE, NOWHERE}, 0},
	{"K05", "umount2", SYS_umount2, {NOWHERE}, 0},
	{"K05", "pivot_root", SYS_pivot_root, {NOWHERE, NOWHERE}, 0},
	{"K05", "fsopen", SYS_fsopen, {NOWHERE}, 0},
	{"K05", "fsconfig", SYS_fsconfig, {-1, 100}, 0},
	{"K05", "fsmount", SYS_fsmount, {-1}, 0},
	{"K05", "fspick", SYS_fspick, {-1, NOWHERE}, 0},
	{"K05", "move_mount", SYS_move_mount, {-1, NOWHERE, -1, NOWHERE}, 0},
	{"K05", "open_tree", SYS_open_tree, {-1, NOWHERE}, 0},
	{"K05", "open_tree_attr", NR_OPEN_TREE_ATTR, {-1, NOWHERE}, ENOSYS},
	{"K05", "mount_setattr", NR_MOUNT_SETATTR, {-1, NOWHERE, 0, 0, 0}, 0},
	{"K05", "chroot", SYS_chroot, {NOWHERE}, 0},
	{"K05", "setns", SYS_setns, {-1, 0}, 0},
	{"K05", "unshare", SYS_unshare, {CLONE_NEWNS}, 0},
	{"K06", "bpf", SYS_bpf, {-1, 0, 0}, 0},
	{"K06", "perf_event_open", SYS_perf_event_open, {0, 0, -1, -1, 0}, 0},
	{"K06", "userfaultfd", SYS_userfaultfd, {0xffff}, 0},
	{"K06", "io_uring_setup", SYS_io_uring_setup, {1, 0}, ENOSYS},
	{"K06", "io_uring_enter", SYS_io_uring_enter, {-1}, ENOSYS},
	{"K06", "io_uring_register", SYS_io_uring_register, {-1}, ENOSYS},
	{"K06", "fanotify_init", SYS_fanotify_init, {-1, 0}, 0},
	{"K07", "keyctl", SYS_keyctl, {BAD}, ENOSYS},
	{"K07", "add_key", SYS_add_key, {0, 0, 0, 0, 0}, ENOSYS},
	{"K07", "request_key", SYS_request_key, {0, 0, 0, 0}, ENOSYS},
	{"K08", "kexec_load", SYS_kexec_load, {0, 0, 0, -1}, ENOSYS},
	{"K08", "kexec_file_load", SYS_kexec_file_load, {-1, -1, 0, 0, -1}, ENOSYS},
	{"K08", "init_module", SYS_init_module, {0, 0, 0}, ENOSYS},
	{"K08", "finit_module", SYS_finit_module, {-1, 0, 0}, ENOSYS},
	{"K08", "delete_module", SYS_delete_module, {NOWHERE, 0}, ENOSYS},
	{"K08", "reboot", SYS_reboot, {1, 1, 1}, ENOSYS},
	{"K08", "swapon", SYS_swapon, {NOWHERE, 0}, ENOSYS},
	{"K08", "swapoff", SYS_swapoff, {NOWHERE}, ENOSYS},
	{"K08", "acct", SYS_acct, {NOWHERE}, ENOSYS},
	{"K08", "quotactl", SYS_quotactl, {-1, NOWHERE, 0, 0}, ENOSYS},
	{"K08", "quotactl_fd", NR_QUOTACTL_FD, {-1, -1, 0, 0}, ENOSYS},
	{"K08", "nfsservctl", SYS_nfsservctl, {0}, ENOSYS},
	{"K08", "iopl", SYS_iopl, {77}, ENOSYS},
	{"K08", "ioperm", SYS_ioperm, {1 << 20, 1, 1}, ENOSYS},
	{"K09", "clock_settime", SYS_clock_settime, {CLOCK_MONOTONIC, 0}, 0},
	{"K09", "settimeofday", SYS_settimeofday, {1, 1}, 0},
	{"K09", "syslog", SYS_syslog, {BAD, 0, 0}, 0},
	{"K09", "sethostname", SYS_sethostname, {0, -1}, 0},
	{"K09", "setdomainname", SYS_setdomainname, {0, -1}, 0},
	{"K09", "lookup_dcookie", SYS_lookup_dcookie, {0, 0, 0}, ENOSYS},
	{"K10", "open_by_handle_at", SYS_open_by_handle_at, {-1, 0, 0}, 0},
	{"K10", "pidfd_getfd", SYS_pidfd_getfd, {-1, 0, 0}, ENOSYS},
	{"K10", "kcmp", SYS_kcmp, {BAD, BAD, BAD}, ENOSYS},
	{"K10", "process_madvise", NR_PROCESS_MADVISE, {-1, 0, 0, 0, 0}, ENOSYS},
	{"K10", "migrate_pages", SYS_migrate_pages, {BAD, 0, 0, 0}, ENOSYS},
	{"K10", "move_pages", SYS_move_pages, {BAD, 1, 0, 0, 0}, ENOSYS},
	{"K10", "mbind", SYS_mbind, {1, 1, BAD, 0, 0}, ENOSYS},
	{"K10", "set_mempolicy", SYS_set_mempolicy, {BAD, 0, 0}, ENOSYS},
	{"K10", "modify_ldt", SYS_modify_ldt, {BAD, 0, 0}, ENOSYS},
	{"K10", "personality", SYS_personality, {0x0400000}, ENOSYS},
	{"K10", "ustat", SYS_ustat, {-1, 0}, ENOSYS},
	{"K10", "sysfs", SYS_sysfs, {BAD}, ENOSYS},
	{"K10", "uselib", SYS_uselib, {NOWHERE}, ENOSYS},
	{"K10", "memfd_secret", NR_MEMFD_SECRET, {BAD}, ENOSYS},
};

static int one_forbidden(void *arg)
{
	const struct forbidden *call = arg;

	expect_refused(call->id, call->name,
		       syscall(call->number, call->args[0], call->args[1], call->args[2], call->args[3], call->args[4]),
		       (const int[]){EPERM, call->also ? call->also : EPERM, 0});
	return 0;
}

static void set_time(void)
{
	struct timex change = {.modes = ADJ_TICK, .tick = 1};
	struct timespec now;

	REFUSED("K09", "adjtimex(set)", syscall(SYS_adjtimex, &change), EPERM);
	expect_allowed("K09", "control: clock_gettime", syscall(SYS_clock_gettime, CLOCK_REALTIME, &now));
}

static const struct {
	const char *name;
	unsigned long flag;
} namespaces[] = {
	{"NEWNS", CLONE_NEWNS},     {"NEWCGROUP", CLONE_NEWCGROUP}, {"NEWUTS", CLONE_NEWUTS}, {"NEWIPC", CLONE_NEWIPC},
	{"NEWUSER", CLONE_NEWUSER}, {"NEWPID", CLONE_NEWPID},       {"NEWNET", CLONE_NEWNET},
};

static long try_clone(unsigned long flags)
{
	long pid = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);

	if (pid == 0)
		_exit(0);
	if (pid > 0) {
		waitpid((pid_t)pid, NULL, 0);
		errno = 0;
	}
	return pid;
}

static int unshare_body(void *arg)
{
	const unsigned long *flags = arg;

	return syscall(SYS_unshare, *flags) < 0 ? errno : 0;
}

static long try_unshare(unsigned long flags)
{
	int rc = in_child(unshare_body, &flags);

	errno = rc;
	return rc ? -1 : 0;
}

static void probe_clone(void)
{
	char what[64];

	for (size_t i = 0; i < sizeof(namespaces) / sizeof(namespaces[0]); i++) {
		const char *id = namespaces[i].flag == CLONE_NEWUSER ? "K19" : "K12";

		snprintf(what, sizeof(what), "clone(%s)", namespaces[i].name);
		REFUSED(id, what, try_clone(namespaces[i].flag), EPERM);
		snprintf(what, sizeof(what), "clone(%s with high bits)", namespaces[i].name);
		REFUSED(id, what, try_clone(namespaces[i].flag | 1UL << 32 | 1UL << 63), EPERM);
		snprintf(what, sizeof(what), "unshare(%s)", namespaces[i].name);
		REFUSED(id, what, try_unshare(namespaces[i].flag), EPERM);
		snprintf(what, sizeof(what), "unshare(%s with high bits)", namespaces[i].name);
		REFUSED(id, what, try_unshare(namespaces[i].flag | 1UL << 32), EPERM);
	}
	expect_allowed("K12", "control: clone(SIGCHLD)", try_clone(0));
	expect_allowed("K19", "control: clone(SIGCHLD)", try_clone(0));
}

static void *thread_body(void *arg)
{
	return arg;
}

static int exit_body(void *arg)
{
	return 7;
}

static void probe_threads(void)
{
	char here;
	void *there = NULL;
	pthread_t thread;
	pid_t pid = -1;
	char *const argv[] = {"true", NULL}, *const env[] = {NULL};
	long rc = syscall(SYS_clone3, &here, 0);

	REFUSED("K11", "clone3", rc, ENOSYS);
	rc = pthread_create(&thread, NULL, thread_body, &here);
	if (rc == 0)
		pthread_join(thread, &there);
	expect_true("K11", "control: pthread_create", there == &here, "a thread ran");
	expect_true("K11", "control: fork", in_child(exit_body, NULL) == 7, "a child ran");
	rc = posix_spawn(&pid, "/bin/true", NULL, NULL, argv, env);
	expect_true("K11", "control: posix_spawn", rc == 0, "a program ran");
	if (rc == 0)
		waitpid(pid, NULL, 0);
}

static int sweep_body(void *arg)
{
	long rc, number = *(long *)arg;

	alarm(2);
	rc = syscall(number, -1L, -1L, -1L, -1L, -1L, -1L);
	return rc < 0 && errno == ENOSYS ? 99 : 0;
}

static bool sweep_skips(long number)
{
	static const long ends[] = {SYS_exit,  SYS_exit_group, SYS_rt_sigreturn, SYS_fork,          SYS_vfork,
				    SYS_clone, SYS_pause,      SYS_vhangup,      SYS_rt_sigsuspend, SYS_close_range};

	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		if (number == ends[i])
			return true;
	}
	return false;
}

/* K13: a number that nobody knows is ENOSYS, never the end of the process; nothing hangs. */
static void probe_sweep(void)
{
	int killed = 0, hung = 0, unknown_answered = 0;
	char what[64];

	for (long number = 0; number < 1001; number++) {
		int rc = sweep_skips(number) ? 99 : in_child(sweep_body, &number);

		if (rc == 256 + SIGSYS || rc == 256 + SIGKILL)
			killed++;
		if (rc == 256 + SIGALRM)
			hung++;
		if (number > 600 && rc != 99)
			unknown_answered++;
	}
	snprintf(what, sizeof(what), "%d killed, %d hung, %d unknown answered", killed, hung, unknown_answered);
	expect_true("K13", "sweep of 0 to 1000", killed == 0 && hung == 0 && unknown_answered == 0, what);
	expect_allowed("K13", "control: getppid", syscall(SYS_getppid));
}

static int int80_body(void *arg)
{
	long rc = *(long *)arg;

	__asm__ volatile("int $0x80" : "+a"(rc) : "b"(1), "c"(0) : "memory", "r8", "r9", "r10", "r11");
	return rc == -ENOSYS ? 99 : rc < 0 ? 98 : 0;
}

static void probe_other_abis(void)
{
	static const struct {
		const char *name;
		long number;
	} calls[] = {{"getpid", 20}, {"socketcall", 102}, {"mount", 21}, {"unshare", 310}};
	char what[64];

	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		long number = calls[i].number;
		int rc = in_child(int80_body, &number);

		snprintf(what, sizeof(what), "int 0x80 %s", calls[i].name);
		errno = rc == 99 ? ENOSYS : rc >= 256 ? EPERM : EINVAL;
		REFUSED("K14", what, rc == 0 ? 0 : -1, ENOSYS, EPERM);
	}
	REFUSED("K14", "x32 getpid", syscall(0x40000000 | SYS_getpid), ENOSYS, EPERM);
	expect_allowed("K14", "control: getpid", syscall(SYS_getpid));
}

static void probe_controls(void)
{
	int fd = open("/proc/self/status", O_RDONLY);

	expect_allowed("K05", "control: openat", fd);
	expect_allowed("K05", "control: chdir", chdir("/"));
	expect_allowed("K06", "control: epoll_create1", syscall(SYS_epoll_create1, 0));
	expect_allowed("K07", "control: getrandom", syscall(SYS_getrandom, &fd, sizeof(int), 0));
	expect_allowed("K08", "control: uname", syscall(SYS_uname, (char[390]){0}));
	expect_allowed("K10", "control: personality(query)", syscall(SYS_personality, 0xffffffff));
	expect_allowed("K10", "control: memfd_create",
		       syscall(SYS_memfd_create, "x", 1u | 8u /* CLOEXEC, NOEXEC_SEAL */));
	expect_allowed("K10", "control: pidfd_open", syscall(SYS_pidfd_open, getpid(), 0));
}

void probe_syscalls(void)
{
	for (size_t i = 0; i < sizeof(forbidden) / sizeof(forbidden[0]); i++)
		in_child(one_forbidden, (void *)(uintptr_t)&forbidden[i]);
	set_time();
	probe_clone();
	probe_threads();
	probe_other_abis();
	if (!outside)
		probe_sweep();
	probe_controls();
}
