#include "floor_criu.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sandbox/base/cleanup.h"

#define NET_FD 100
#define READY_TRIES 6000 /* milliseconds */

static char root[300], images[300];
static const char *unpacked; /* NULL: the system's */

static void fail(const char *what)
{
	fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
	exit(1);
}

void floor_criu_setup(const char *criu, const char *work)
{
	struct stat st;

	snprintf(root, sizeof(root), "%s/tree", work);
	snprintf(images, sizeof(images), "%s/images", work);
	unpacked = stat(criu, &st) == 0 && S_ISDIR(st.st_mode) ? criu : NULL;
	/* A restored tree is a child of this process again. */
	if ((mkdir(root, 0755) < 0 && errno != EEXIST) || (mkdir(images, 0700) < 0 && errno != EEXIST) ||
	    mount("/", root, NULL, MS_BIND, NULL) < 0 || prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
		fail("prepare for CRIU");
}

static void mount_memory(const char *point)
{
	if (mount("tmpfs", point, "tmpfs", 0, "size=64m") < 0)
		_exit(125);
}

/* Process 1: the host's files, a /proc of its own, three small file systems in memory, nothing open outside. */
static void become(char *const *argv)
{
	int fd;

	if (mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || chdir(root) < 0 ||
	    mount("proc", "proc", "proc", 0, NULL) < 0)
		_exit(125);
	mount_memory("tmp");
	mount_memory("run");
	mount_memory("dev");
	if (mknod("dev/null", S_IFCHR | 0666, makedev(1, 3)) < 0)
		_exit(125);
	if (syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || setsid() < 0)
		_exit(125);
	fd = open("/tmp/out", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	for (int i = 0; i < 3; i++)
		dup2(fd, i);
	close_range(3, ~0u, 0);
	execv(argv[0], argv);
	_exit(127);
}

static pid_t start(char *const *argv)
{
	struct clone_args args = {.flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS,
				  .exit_signal = SIGCHLD};
	pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	char ready[64];

	if (pid == 0)
		become(argv);
	if (pid < 0)
		fail("clone3");
	snprintf(ready, sizeof(ready), "/proc/%d/root/tmp/ready", pid);
	for (int i = 0; i < READY_TRIES && access(ready, F_OK) < 0; i++)
		usleep(1000);
	return access(ready, F_OK) == 0 ? pid : -1;
}

static void execute(const char *const *arguments)
{
	const char *argv[40];
	char loader[300], libraries[300], program[300];
	size_t n = 0;

	snprintf(program, sizeof(program), "%s%s", unpacked ? unpacked : "", "/usr/sbin/criu");
	if (unpacked) {
		snprintf(loader, sizeof(loader), "%s/usr/lib64/ld-linux-x86-64.so.2", unpacked);
		snprintf(libraries, sizeof(libraries), "%s/usr/lib/x86_64-linux-gnu", unpacked);
		argv[n++] = loader;
		argv[n++] = "--library-path";
		argv[n++] = libraries;
	}
	argv[n++] = program;
	while (*arguments)
		argv[n++] = *arguments++;
	argv[n] = NULL;
	execv(argv[0], (char *const *)(uintptr_t)argv);
	_exit(127);
}

static bool timed(const char *const *arguments, int net, struct sample *sample)
{
	uint64_t begin = bench_now_ns();
	pid_t pid = fork();
	int status = -1;

	if (pid == 0) {
		dup2(net, NET_FD);
		execute(arguments);
	}
	waitpid(pid, &status, 0);
	sample_add(sample, bench_now_ns() - begin);
	return status == 0;
}

static void show_log(const char *name)
{
	char path[320], line[512];
	_cleanup_file_ FILE *log = NULL;

	snprintf(path, sizeof(path), "%s/%s", images, name);
	log = fopen(path, "re");
	while (log && fgets(line, sizeof(line), log))
		if (strstr(line, "Error"))
			fputs(line, stderr);
}

static pid_t read_pid(void)
{
	char path[320];
	_cleanup_file_ FILE *file = NULL;
	int pid;

	snprintf(path, sizeof(path), "%s/pid", images);
	file = fopen(path, "re");
	return file && fscanf(file, "%d", &pid) == 1 ? pid : -1;
}

static void empty_images(void)
{
	char *const argv[] = {(char *)"find", images, (char *)"-mindepth", (char *)"1", (char *)"-delete", NULL};
	pid_t pid = fork();

	if (pid == 0) {
		execvp(argv[0], argv);
		_exit(127);
	}
	waitpid(pid, NULL, 0);
}

static bool dump_once(pid_t pid, int net, struct sample *sample)
{
	char tree[16], external[64];
	struct stat st;
	const char *const arguments[] = {"dump",
					 "--tree",
					 tree,
					 "--images-dir",
					 images,
					 "--log-file",
					 "dump.log",
					 "-v1",
					 "--external",
					 external,
					 "--network-lock",
					 "skip",
					 "--manage-cgroups=ignore",
					 "--tcp-established",
					 NULL};

	fstat(net, &st);
	snprintf(tree, sizeof(tree), "%d", pid);
	snprintf(external, sizeof(external), "net[%lu]:net", (unsigned long)st.st_ino);
	empty_images();
	if (!timed(arguments, net, sample)) {
		show_log("dump.log");
		return false;
	}
	waitpid(pid, NULL, 0);
	return true;
}

static bool restore_once(int net, struct sample *sample)
{
	const char *const arguments[] = {"restore",
					 "--images-dir",
					 images,
					 "--log-file",
					 "restore.log",
					 "-v1",
					 "--root",
					 root,
					 "--inherit-fd",
					 "fd[100]:net",
					 "--manage-cgroups=ignore",
					 "--tcp-established",
					 "--restore-detached",
					 "--pidfile",
					 "pid",
					 NULL};

	if (timed(arguments, net, sample))
		return true;
	show_log("restore.log");
	return false;
}

bool floor_criu(char *const *argv, int rounds, struct sample *dump, struct sample *restore)
{
	char path[64];
	_cleanup_fd_ int net = -1;
	pid_t pid = start(argv);
	bool works = pid > 0;

	snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
	net = open(path, O_RDONLY | O_CLOEXEC);
	for (int i = 0; works && i < rounds; i++) {
		works = dump_once(pid, net, dump) && restore_once(net, restore);
		pid = works ? read_pid() : pid;
	}
	if (pid > 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	return works;
}
