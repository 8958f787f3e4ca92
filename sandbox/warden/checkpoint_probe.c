#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "checkpoint_private.h"
#include "criu.h"
#include "kernel.h"
#include "options.h"
#include "sandbox/base/cleanup.h"

/*
 * CRIU finds out what the kernel can before it does anything, which takes longer than the restore of a small sandbox, and
 * keeps that in /run/criu.kdat. Inside a sandbox's namespaces it can neither read the host's file nor write one, and its
 * answers are others. So it is asked once, in namespaces in which nothing of a sandbox has run yet, and what it writes
 * there is put in the place of that file, read-only, for every restore of this warden.
 */

#define CACHE "/run/criu.kdat"
#define CACHE_MAX 65536

static void cache_path(char path[600])
{
	snprintf(path, 600, "%s/criu/inside.kdat", options.runtime_dir);
}

static void ask(const struct checkpoint_plan *plan, int work) __attribute__((noreturn));
static void ask(const struct checkpoint_plan *plan, int work)
{
	static const char *const check[] = {"check", NULL};
	int null = open("/dev/null", O_RDWR);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (unshare(CLONE_NEWNS) < 0 || move_mount(work, "", AT_FDCWD, "/run", MOVE_MOUNT_F_EMPTY_PATH) < 0 ||
	    checkpoint_enter(plan) < 0)
		_exit(126);
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	dup2(null, STDERR_FILENO);
	criu_execute(check);
	_exit(127);
}

static int keep(int work, const char *path)
{
	static char bytes[CACHE_MAX];
	char aside[620];
	_cleanup_fd_ int from = openat(work, "criu.kdat", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	_cleanup_fd_ int to = -1;
	ssize_t n = from < 0 ? -1 : read(from, bytes, sizeof(bytes));

	if (n <= 0 || n == CACHE_MAX)
		return -ENODATA;
	snprintf(aside, sizeof(aside), "%s.%d", path, getpid());
	to = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (to < 0 || write(to, bytes, (size_t)n) != n || fchmod(to, 0444) < 0 || rename(aside, path) < 0)
		return -errno;
	return 0;
}

void checkpoint_probe(const struct checkpoint_plan *plan)
{
	_cleanup_fd_ int work = -1;
	char path[600];
	int status;
	pid_t pid;

	cache_path(path);
	if (access(path, R_OK) == 0)
		return;
	work = checkpoint_make_work(plan);
	pid = work < 0 ? -1 : fork();
	if (pid == 0)
		ask(plan, work);
	if (pid > 0 && waitpid(pid, &status, 0) == pid)
		(void)keep(work, path); /* without it a restore only takes longer */
}

void checkpoint_place_probe(void)
{
	_cleanup_fd_ int target = open(CACHE, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	char path[600];

	cache_path(path);
	if (target >= 0)
		(void)!mount(path, CACHE, NULL, MS_BIND, NULL);
}
