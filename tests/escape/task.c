#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

/* K01 to K04: what this process is. K20 to K24: what it can do to pid 1, to terminals, to its own confinement. */

/* CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT SETFCAP AUDIT_WRITE */
#define CAPS_AT_MOST                                                                                                   \
	(1UL << 0 | 1UL << 1 | 1UL << 3 | 1UL << 4 | 1UL << 5 | 1UL << 6 | 1UL << 7 | 1UL << 8 | 1UL << 10 |           \
	 1UL << 18 | 1UL << 31 | 1UL << 29)

static bool status_field(const char *name, char *value, size_t size)
{
	char line[4096];
	FILE *f = fopen("/proc/self/status", "re");
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f)) {
		if (strncmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':') {
			snprintf(value, size, "%s", line + strlen(name) + 1 + strspn(line + strlen(name) + 1, " \t"));
			value[strcspn(value, "\n")] = '\0';
			found = true;
		}
	}
	if (f)
		fclose(f);
	return found;
}

static void probe_namespaces(void)
{
	static const char *const names[] = {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"};
	char path[64], mine[128], variable[32];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const char *host;
		ssize_t n;

		snprintf(path, sizeof(path), "/proc/self/ns/%s", names[i]);
		snprintf(variable, sizeof(variable), "HOST_NS_%s", names[i]);
		n = readlink(path, mine, sizeof(mine) - 1);
		mine[n > 0 ? n : 0] = '\0';
		host = getenv(variable);
		expect_true("K01", names[i],
			    host && n > 0 && strncmp(mine, names[i], strlen(names[i])) == 0 && strcmp(host, mine) != 0,
			    mine);
	}
}

static void probe_ids(const char *file)
{
	unsigned long inside = 1, host = 0, count = 0;
	char what[96];
	FILE *f = fopen(file, "re");
	bool ok = f && fscanf(f, "%lu %lu %lu", &inside, &host, &count) == 3;

	snprintf(what, sizeof(what), "%lu %lu %lu", inside, host, count);
	expect_true("K02", file, ok && inside == 0 && host >= 65536 && count <= 65536, what);
	if (f)
		fclose(f);
}

static void probe_status(void)
{
	static const char *const caps[] = {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"};
	char value[256];

	for (size_t i = 0; i < sizeof(caps) / sizeof(caps[0]); i++) {
		bool ok = status_field(caps[i], value, sizeof(value));
		unsigned long held = ok ? strtoul(value, NULL, 16) : ~0UL;
		unsigned long most = strcmp(caps[i], "CapAmb") == 0 || (getuid() != 0 && i != 3) ? 0 : CAPS_AT_MOST;

		expect_true("K03", caps[i], ok && (held & ~most) == 0, value);
	}
	expect_true("K04", "NoNewPrivs", status_field("NoNewPrivs", value, sizeof(value)) && strcmp(value, "1") == 0,
		    value);
	expect_true("K04", "Seccomp", status_field("Seccomp", value, sizeof(value)) && strcmp(value, "2") == 0, value);
	expect_true("K04", "Groups", status_field("Groups", value, sizeof(value)) && atoi(value) != 65533, value);
}

void probe_task(void)
{
	probe_namespaces();
	probe_ids("/proc/self/uid_map");
	probe_ids("/proc/self/gid_map");
	probe_status();
}

static int traced_body(void *arg)
{
	pause();
	return 0;
}

static void probe_trace_child(void)
{
	pid_t child = fork();
	long rc;

	if (child == 0)
		_exit(traced_body(NULL));
	rc = ptrace(PTRACE_SEIZE, child, 0, 0);
	expect_allowed("K20", "control: ptrace of an own child", rc);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

static void probe_pid_one(void)
{
	static const char *const files[] = {"mem",  "environ", "maps",    "root",  "cwd",  "fd/0",
					    "fd/3", "exe",     "syscall", "stack", "auxv", "io"};
	char path[64], byte = 0, text[256];
	struct iovec here = {&byte, 1}, there = {(void *)0x400000, 1};
	int fd;

	REFUSED("K20", "ptrace(SEIZE, 1)", ptrace(PTRACE_SEIZE, 1, 0, 0), EPERM, ESRCH);
	REFUSED("K20", "ptrace(ATTACH, 1)", ptrace(PTRACE_ATTACH, 1, 0, 0), EPERM, ESRCH);
	REFUSED("K20", "process_vm_readv(1)", syscall(SYS_process_vm_readv, 1, &here, 1UL, &there, 1UL, 0UL), EPERM,
		ESRCH, ENOSYS);
	REFUSED("K20", "process_vm_writev(1)", syscall(SYS_process_vm_writev, 1, &here, 1UL, &there, 1UL, 0UL), EPERM,
		ESRCH, ENOSYS);
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		snprintf(path, sizeof(path), "/proc/1/%s", files[i]);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		/* Some of these open and refuse when they are read. */
		REFUSED("K20", path, fd < 0 ? -1 : read(fd, text, sizeof(text)) > 0 ? 0 : -1, EPERM, EACCES, ENOENT);
		if (fd >= 0)
			close(fd);
	}
	REFUSED("F25", "open /proc/1/exe for writing", open("/proc/1/exe", O_RDWR | O_CLOEXEC), EACCES, EPERM, ENOENT);
	REFUSED("F25", "execve /proc/1/exe", execve("/proc/1/exe", (char *[]){NULL}, NULL), EACCES, EPERM, ENOENT);
	fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	expect_allowed("K20", "control: /proc/self/mem", fd);
	expect_allowed("F25", "control: /proc/self/exe", open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
}

/* P10: no signal of ours moves pid 1. run.py asks the sandbox for a sign of life afterwards. */
static void probe_signal_one(void)
{
	for (int number = 1; number < 65; number++)
		kill(1, number);
	expect_true("P10", "every signal to pid 1", kill(1, 0) == 0 || errno == EPERM, "it is there");
}

static void probe_scheduling(void)
{
	struct sched_param priority = {.sched_priority = 1};
	struct {
		uint32_t size, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t prio;
		uint64_t runtime, deadline, period;
	} attributes = {.size = 48, .policy = 6, .runtime = 1000000, .deadline = 2000000, .period = 2000000};
	FILE *f;
	long rc;

	REFUSED("K22", "SCHED_FIFO", sched_setscheduler(0, SCHED_FIFO, &priority), EPERM);
	REFUSED("K22", "SCHED_RR", sched_setscheduler(0, SCHED_RR, &priority), EPERM);
	REFUSED("K22", "SCHED_DEADLINE", syscall(SYS_sched_setattr, 0, &attributes, 0), EPERM, EINVAL);
	REFUSED("K22", "nice -20", setpriority(PRIO_PROCESS, 0, -20), EPERM, EACCES);
	REFUSED("K22", "ioprio real time", syscall(SYS_ioprio_set, 1, 0, 1 << 13), EPERM);
	expect_allowed("K22", "control: nice 1", setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + 1));
	f = fopen("/proc/self/oom_score_adj", "we");
	rc = f && fputs("-1000", f) >= 0 && fclose(f) == 0 ? 0 : -1;
	REFUSED("K22", "oom_score_adj -1000", rc, EACCES, EPERM, EROFS);
	REFUSED("K22", "oom_score_adj of pid 1", open("/proc/1/oom_score_adj", O_WRONLY | O_CLOEXEC), EROFS, EACCES);
	REFUSED("K22", "oom_adj of pid 1", open("/proc/1/oom_adj", O_WRONLY | O_CLOEXEC), EROFS, EACCES);
	f = fopen("/proc/self/oom_score_adj", "we");
	expect_true("K22", "control: oom_score_adj 1000", f && fputs("1000", f) >= 0 && fclose(f) == 0, "worked");
	REFUSED("K22", "raise a hard limit", setrlimit(RLIMIT_CORE, &(struct rlimit){1 << 20, 1 << 20}), EPERM);
}

static long install_filter(unsigned int flags)
{
	struct sock_filter allow[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
	struct sock_fprog program = {1, allow};

	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

/* K23: further filters can only take away. */
static int stack_body(void *arg)
{
	for (int i = 0; i < 100; i++)
		install_filter(0);
	install_filter(SECCOMP_FILTER_FLAG_TSYNC);
	return syscall(SYS_chroot, "/nowhere") < 0 && errno == EPERM ? 0 : 1;
}

static int listener_body(void *arg)
{
	long fd = install_filter(SECCOMP_FILTER_FLAG_NEW_LISTENER);

	return fd < 0 && (errno == EPERM || errno == EBUSY || errno == ENOSYS || errno == EINVAL) ? 0 : 1;
}

static void probe_filters(void)
{
	expect_true("K23", "NEW_LISTENER", in_child(listener_body, NULL) == 0, "refused");
	expect_true("K23", "100 permissive filters change nothing", in_child(stack_body, NULL) == 0, "still EPERM");
	REFUSED("K24", "PR_SET_MM", prctl(PR_SET_MM, PR_SET_MM_BRK, 0, 0, 0), EPERM, EINVAL);
	REFUSED("K24", "PR_SET_DUMPABLE 2", prctl(PR_SET_DUMPABLE, 2, 0, 0, 0), EINVAL, EPERM);
	/* Root has SETPCAP in its own user namespace, where that gains nothing. */
	if (getuid() != 0)
		REFUSED("K24", "PR_SET_SECUREBITS", prctl(PR_SET_SECUREBITS, 0xff, 0, 0, 0), EPERM);
	REFUSED("K24", "PR_CAP_AMBIENT_RAISE", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 21 /* SYS_ADMIN */, 0, 0),
		EPERM);
	for (int cap = 0; cap < 41; cap++) {
		char what[64];

		if (CAPS_AT_MOST >> cap & 1)
			continue;
		snprintf(what, sizeof(what), "capability %d is not in the bounding set", cap);
		expect_true("K24", what, prctl(PR_CAPBSET_READ, cap, 0, 0, 0) <= 0, "absent");
	}
	expect_allowed("K24", "control: PR_SET_NAME", prctl(PR_SET_NAME, "probe", 0, 0, 0));
}

void probe_peers(void)
{
	probe_trace_child();
	probe_pid_one();
	probe_signal_one();
	probe_scheduling();
	probe_filters();
}

static void probe_one_terminal(const char *name, int fd)
{
	char what[64], letter = 'x', code[2] = {3, 0};
	struct winsize size;

	snprintf(what, sizeof(what), "TIOCSTI on %s", name);
	REFUSED("K21", what, ioctl(fd, TIOCSTI, &letter), EPERM);
	snprintf(what, sizeof(what), "TIOCSTI on %s with bit 32", name);
	REFUSED("K21", what, syscall(SYS_ioctl, fd, TIOCSTI | 1L << 32, &letter), EPERM);
	snprintf(what, sizeof(what), "TIOCLINUX on %s", name);
	REFUSED("K21", what, ioctl(fd, TIOCLINUX, code), EPERM);
	snprintf(what, sizeof(what), "control: TIOCGWINSZ on %s", name);
	expect_allowed("K21", what, ioctl(fd, TIOCGWINSZ, &size));
}

void probe_terminal(void)
{
	int controller = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), terminal;
	char name[64];

	expect_allowed("K21", "control: posix_openpt", controller);
	if (controller < 0)
		return;
	grantpt(controller);
	unlockpt(controller);
	if (ptsname_r(controller, name, sizeof(name)) == 0) {
		terminal = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
		probe_one_terminal("an own terminal", terminal);
		close(terminal);
	}
	if (isatty(0))
		probe_one_terminal("the call's terminal", 0);
	close(controller);
}
