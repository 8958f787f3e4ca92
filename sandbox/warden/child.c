#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

#include "caps.h"
#include "cgroup.h"
#include "handover.h"
#include "kernel.h"
#include "options.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/fault.h"
#include "seccomp.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x10u
#endif
#define INIT_ID 65533

/* Descriptors of a child are first moved above all fixed numbers, then down to them. */
#define FD_PARK 20
#define FD_STATUS 6
#define FD_PROGRAM 5
#define FIRST_STACK 131072

int child_has_memfd_noexec(void)
{
	return access("/proc/sys/vm/memfd_noexec", F_OK) == 0;
}

int child_load_program(const char *name, mode_t mode, struct pdk_error *err)
{
	char path[700];
	_cleanup_fd_ int file = -1;
	_cleanup_fd_ int memory = -1;
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", options.libexec_dir, name);
	file = open(path, O_RDONLY | O_CLOEXEC);
	if (file < 0 || fstat(file, &st) < 0)
		return pdk_fail_errno(err, -errno, "open %s", name);
	memory = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);
	if (memory < 0 && errno == EINVAL) /* before 6.3 every memfd is executable */
		memory = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (memory < 0)
		return pdk_fail_errno(err, -errno, "make a memory file for %s", name);
	for (off_t left = st.st_size; left > 0;) {
		ssize_t n = sendfile(memory, file, NULL, (size_t)left);

		if (n <= 0)
			return pdk_fail_errno(err, n < 0 ? -errno : -EIO, "copy %s", name);
		left -= n;
	}
	if (fchmod(memory, mode) < 0 ||
	    fcntl(memory, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
		return pdk_fail_errno(err, -errno, "seal %s", name);
	return STEAL_FD(memory);
}

static void tell(int status, const char *step, int rc)
{
	struct child_failure failure = {.error = -rc};

	snprintf(failure.step, sizeof(failure.step), "%s", step);
	if (write(status, &failure, sizeof(failure)) < 0)
		_exit(2);
}

static void fail(int status, const char *step, int rc) __attribute__((noreturn));
static void fail(int status, const char *step, int rc)
{
	tell(status, step, rc);
	_exit(1);
}

static int open_null(void)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int park(int fd)
{
	int high = fcntl(fd, F_DUPFD_CLOEXEC, FD_PARK);

	return high < 0 ? -errno : high;
}

/* As main.c has set them up: all are default but these two. */
static void reset_signals(void)
{
	sigset_t none;

	signal(SIGPIPE, SIG_DFL);
	signal(SIGHUP, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	umask(022);
}

/* A program in anonymous memory would be invisible to a gate on execve. Per pid namespace; the kernel lets only the
 * host's root id write it, with CAP_SYS_ADMIN over the namespace. */
static int refuse_memory_programs(void)
{
	int rc = file_write(AT_FDCWD, "/proc/sys/vm/memfd_noexec", "2");

	return rc == -ENOENT && options.allow_memfd_exec ? 0 : rc;
}

/* File-system work as the sandbox's root, with the host's capabilities: see rootfs.c. */
static int become_mounter(uint32_t base)
{
	if (prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP) < 0 || setresgid(base, base, base) < 0 ||
	    setresuid(base, base, base) < 0)
		return -errno;
	return 0;
}

/* Id 0 of the user namespace that the caller is in. */
static int become_root(void)
{
	return setresuid(0, 0, 0) < 0 || setresgid(0, 0, 0) < 0 ? -errno : 0;
}

static int limit_resources(void)
{
	struct rlimit core = {0, 0}, files;

	if (setrlimit(RLIMIT_CORE, &core) < 0 || getrlimit(RLIMIT_NOFILE, &files) < 0)
		return -errno;
	files.rlim_cur = files.rlim_max < 1024 ? files.rlim_max : 1024;
	return setrlimit(RLIMIT_NOFILE, &files) < 0 ? -errno : 0;
}

/* The last steps: nothing of the host's authority is left after this, and it cannot come back. */
static int drop_authority(uid_t id, int ambient)
{
	int rc = limit_resources();

	if (rc == 0)
		rc = caps_bound();
	if (rc < 0)
		return rc;
	/* Without a keyring of its own the child would keep the host session's. */
	if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 && errno != ENOSYS)
		return -errno;
	rc = caps_become(id, ambient);
	if (rc < 0)
		return rc;
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
}

/* Everything above `last` is closed; of the rest only the standard ones and those up to `keep` survive the execve. */
static int check_descriptors(int keep, int last)
{
	if (syscall(SYS_close_range, (unsigned int)last + 1, ~0u, 0) < 0)
		return -errno;
	for (int fd = 0; fd <= last; fd++) {
		int flags = fcntl(fd, F_GETFD);

		if (flags < 0 ? fd <= keep : (fd <= keep) == ((flags & FD_CLOEXEC) != 0))
			return -EBADF;
	}
	return 0;
}

static void exec_program(int status, char *const *argv) __attribute__((noreturn));
static void exec_program(int status, char *const *argv)
{
	static char *const environment[] = {(char *)"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
					    NULL};
	int rc = seccomp_load();

	if (rc < 0)
		fail(status, "load the system call filter", rc);
	FAULT("child_filtered");
	tell(status, "", 0);
	syscall(SYS_execveat, FD_PROGRAM, "", argv, environment, AT_EMPTY_PATH);
	fail(status, "execute the program", -errno);
}

/* The first process, in the sandbox's namespaces; its capabilities are those over the sandbox's user namespace. It
 * still has the host's root id, which has no name inside: see refuse_memory_programs(). */
static int enter_sandbox(const struct child_plan *plan, const struct rootfs_parts *parts, const char **step)
{
	int rc;

	*step = "set the host name";
	if (setsid() < 0 || sethostname(plan->hostname, strlen(plan->hostname)) < 0)
		return -errno;
	*step = "set vm.memfd_noexec";
	rc = refuse_memory_programs();
	if (rc < 0)
		return rc;
	rc = rootfs_enter(parts, step);
	if (rc < 0)
		return rc;
	FAULT("child_pivoted");
	*step = "change ids";
	return become_root();
}

struct descriptors {
	int status, listener;
};

/* By their place in the sandbox, where a checkpoint finds them again; nothing of the image has run yet, and this mount
 * is ours. */
static int open_program(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	return fd < 0 ? -errno : park(fd);
}

/* What the builder hands to the first process. */
struct first {
	const struct child_plan *plan;
	struct rootfs_parts parts;
	struct descriptors fds;
};

static int run_first(void *arg)
{
	static char *const argv[] = {(char *)"paddock-init", NULL};
	const struct first *first = arg;
	const struct descriptors *fds = &first->fds;
	const char *step;
	int rc = enter_sandbox(first->plan, &first->parts, &step), null, program, archive;

	if (rc < 0)
		fail(fds->status, step, rc);
	null = open_null();
	if (null >= 0)
		null = park(null); /* before the limit on descriptors: the warden may hold thousands */
	if (null < 0)
		fail(fds->status, "open /dev/null", null);
	program = open_program(ROOTFS_PROGRAMS "/paddock-init");
	archive = open_program(ROOTFS_PROGRAMS "/paddock-archive");
	if (program < 0 || archive < 0)
		fail(fds->status, "open init", program < 0 ? program : archive);
	rc = drop_authority(INIT_ID, 1);
	if (rc < 0)
		fail(fds->status, "drop privileges", rc);
	FAULT("child_dropped");
	if (dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0 || dup2(fds->listener, 3) < 0 ||
	    dup2(archive, 4) < 0 || dup3(program, FD_PROGRAM, O_CLOEXEC) < 0 ||
	    dup3(fds->status, FD_STATUS, O_CLOEXEC) < 0)
		fail(fds->status, "place descriptors", -errno);
	rc = check_descriptors(4, FD_STATUS);
	if (rc < 0)
		fail(FD_STATUS, "check descriptors", rc);
	exec_program(FD_STATUS, argv);
}

/* The capabilities of the host end here. */
static int enter_owner(const struct child_plan *plan)
{
	int rc = become_root();

	if (rc < 0)
		return rc;
	return setns(plan->rootfs.userns, CLONE_NEWUSER) < 0 || setns(plan->netns, CLONE_NEWNET) < 0 ? -errno : 0;
}

/*
 * The first process shares the builder's memory, which is a copy of the warden's, until it executes init; copying it
 * once more would cost a tenth of a millisecond. Both are in the sandbox's cgroup. (The builder itself has a copy: who
 * kills for want of memory kills all that share it.) The builder stands still meanwhile: would it end first, the
 * kernel would look for a new owner of the memory among all children of the warden.
 */
static pid_t clone_first(struct first *first)
{
	static char stack[FIRST_STACK] __attribute__((aligned(16)));
	const int flags = CLONE_VM | CLONE_VFORK | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS |
			  CLONE_NEWCGROUP | CLONE_PARENT | CLONE_PARENT_SETTID;

	return clone(run_first, stack + sizeof(stack), flags, first, first->plan->first);
}

static int build(struct first *first, const char **step)
{
	const struct child_plan *plan = first->plan;
	int rc;

	*step = "enter the cgroup";
	rc = cgroup_join_v1(plan->id);
	if (rc < 0)
		return rc;
	FAULT("child_joined");
	*step = "change ids";
	rc = become_mounter(plan->rootfs.base);
	if (rc == 0)
		rc = rootfs_prepare(&plan->rootfs, &first->parts, step);
	if (rc < 0)
		return rc;
	*step = "enter the user and network namespace";
	rc = enter_owner(plan);
	if (rc < 0)
		return rc;
	FAULT("child_entered");
	*step = "clone the first process";
	return clone_first(first) < 0 ? -errno : 0;
}

void child_run_builder(const struct child_plan *plan)
{
	struct first first = {.plan = plan, .fds = {plan->status, plan->listener}};
	const char *step = "take descriptors";
	int rc = plan->place >= 0 ? handover_settle(plan->place) : 0;

	if (plan->place < 0)
		first.fds = (struct descriptors){park(plan->status), park(plan->listener)};
	reset_signals();
	if (rc == 0)
		rc = build(&first, &step);
	if (rc < 0)
		fail(first.fds.status, step, rc);
	_exit(0);
}

/* A job's namespaces belong to the host; only its credentials are those of its own user namespace. */
static int confine_job(const struct child_job *job)
{
	int rc = cgroup_join_v1(job->id);

	if (rc < 0)
		return rc;
	if (unshare(CLONE_NEWCGROUP) < 0 || setns(job->netns, CLONE_NEWNET) < 0 || setsid() < 0)
		return -errno;
	return refuse_memory_programs();
}

void child_run_job(const struct child_job *job)
{
	int status = park(job->status), output = park(job->output), program = park(job->program);
	int input = job->input < 0 ? open_null() : job->input;
	const char *step;
	int rc;

	reset_signals();
	input = park(input);
	rc = confine_job(job);
	if (rc < 0)
		fail(status, "enter the cgroup and network", rc);
	rc = rootfs_enter_import(job->name, job->is_template, job->userns, &step);
	if (rc < 0)
		fail(status, step, rc);
	rc = setns(job->userns, CLONE_NEWUSER) < 0 ? -errno : drop_authority(0, 0);
	if (rc < 0)
		fail(status, "drop privileges", rc);
	if (dup2(input, 0) < 0 || dup2(output, 1) < 0 || dup2(output, 2) < 0 /* its one line of error */ ||
	    dup3(program, FD_PROGRAM, O_CLOEXEC) < 0 || dup3(status, FD_STATUS, O_CLOEXEC) < 0)
		fail(status, "place descriptors", -errno);
	syscall(SYS_close_range, 3u, (unsigned int)FD_PROGRAM - 1, 0);
	rc = check_descriptors(2, FD_STATUS);
	if (rc < 0)
		fail(FD_STATUS, "check descriptors", rc);
	exec_program(FD_STATUS, job->argv);
}
