#include "probe.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

/* F01, F02, F09, F14, F20, F21, F26, F27: what of the host's file systems can be read, written or reached. */

/* F01: absent, empty or refused. */
static void probe_masked(void)
{
	static const char *const masked[] = {"/proc/acpi",
					     "/proc/asound",
					     "/proc/interrupts",
					     "/proc/kcore",
					     "/proc/keys",
					     "/proc/key-users",
					     "/proc/kmsg",
					     "/proc/kallsyms",
					     "/proc/latency_stats",
					     "/proc/pagetypeinfo",
					     "/proc/sched_debug",
					     "/proc/scsi",
					     "/proc/slabinfo",
					     "/proc/timer_list",
					     "/proc/timer_stats",
					     "/proc/vmallocinfo",
					     "/sys/firmware",
					     "/sys/devices/virtual/powercap",
					     "/sys/devices/system/cpu/cpu0/thermal_throttle",
					     "/sys/kernel",
					     "/sys/fs/cgroup",
					     "/proc/sysrq-trigger"};

	for (size_t i = 0; i < sizeof(masked) / sizeof(masked[0]); i++) {
		char text[64];
		struct stat info;
		ssize_t n = 0;
		int fd = open(masked[i], O_RDONLY | O_NONBLOCK | O_CLOEXEC);

		if (fd >= 0 && fstat(fd, &info) == 0 && S_ISDIR(info.st_mode)) {
			DIR *dir = fdopendir(fd);
			struct dirent *entry;

			while ((entry = readdir(dir))) {
				if (entry->d_name[0] != '.')
					n++;
			}
			closedir(dir);
		} else if (fd >= 0) {
			n = read(fd, text, sizeof(text));
			close(fd);
		}
		expect_true("F01", masked[i], n <= 0, fd < 0 ? "absent or refused" : "empty");
	}
	expect_allowed("F01", "control: /proc/meminfo", open("/proc/meminfo", O_RDONLY | O_CLOEXEC));
}

static int writable;

/* F02: nothing below these opens for writing. */
static void walk(const char *path, int depth)
{
	struct dirent *entry;
	DIR *dir = opendir(path);
	char below[4096];

	while (dir && (entry = readdir(dir))) {
		int fd;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if ((size_t)snprintf(below, sizeof(below), "%s/%s", path, entry->d_name) >= sizeof(below))
			continue;
		if (entry->d_type == DT_DIR && depth < 12) {
			walk(below, depth + 1);
		} else if (entry->d_type == DT_REG) {
			fd = open(below, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
			if (fd >= 0) {
				if (writable++ < 5)
					expect_true("F02", below, false, "opens for writing");
				close(fd);
			}
		}
	}
	if (dir)
		closedir(dir);
}

static void probe_writable(void)
{
	static const char *const trees[] = {"/proc/sys",    "/proc/irq", "/proc/bus", "/proc/fs",
					    "/proc/driver", "/proc/tty", "/sys"};
	static const char *const files[] = {"/proc/sysrq-trigger",
					    "/proc/mtrr",
					    "/proc/sys/kernel/core_pattern",
					    "/proc/sys/kernel/modprobe",
					    "/proc/sys/vm/memfd_noexec",
					    "/proc/1/uid_map",
					    "/proc/self/uid_map"};

	for (size_t i = 0; i < sizeof(trees) / sizeof(trees[0]); i++)
		walk(trees[i], 0);
	expect_true("F02", "/proc and /sys trees", writable == 0, "nothing opens for writing");
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		int fd = open(files[i], O_WRONLY | O_CLOEXEC);

		REFUSED("F02", files[i], fd < 0 ? -1 : write(fd, "0", 1), EACCES, EPERM, EROFS, ENOENT, EINVAL, EIO);
		if (fd >= 0)
			close(fd);
	}
	expect_allowed("F02", "control: /proc/self/comm", open("/proc/self/comm", O_WRONLY | O_CLOEXEC));
}

/* F09, F26, F27: three descriptors, pipes, terminals or /dev/null; magic links lead to our own root. */
void probe_descriptors(void)
{
	char path[64], what[128], target[256];
	struct stat root, link;

	for (int fd = 0; fd < 1024; fd++) {
		struct stat info;
		ssize_t n;
		bool plain;

		if (fstat(fd, &info) < 0)
			continue;
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		n = readlink(path, target, sizeof(target) - 1);
		target[n > 0 ? n : 0] = '\0';
		snprintf(what, sizeof(what), "descriptor %d", fd);
		plain = S_ISFIFO(info.st_mode) || S_ISSOCK(info.st_mode) ||
			(S_ISCHR(info.st_mode) && (info.st_rdev == makedev(1, 3) || isatty(fd)));
		expect_true("F26", what, fd <= 2 && !S_ISDIR(info.st_mode), target);
		expect_true("F27", what, plain, target);
	}
	stat("/", &root);
	expect_true("F09", "/proc/self/root is our root",
		    stat("/proc/self/root/", &link) == 0 && link.st_ino == root.st_ino && link.st_dev == root.st_dev,
		    "same");
	expect_true("F09", "dot-dot ends at our root", stat("/../../../..", &link) == 0 && link.st_ino == root.st_ino,
		    "same");
	REFUSED("F09", "/proc/1/root", open("/proc/1/root/", O_RDONLY | O_CLOEXEC), EACCES, EPERM, ENOENT);
	REFUSED("F09", "/proc/1/cwd", open("/proc/1/cwd/", O_RDONLY | O_CLOEXEC), EACCES, EPERM, ENOENT);
}

/* F03 seen from inside: /dev is ours. */
static void probe_dev(void)
{
	struct stat info;
	static const char *const devices[] = {
		"/dev/mem", "/dev/kmsg", "/dev/fuse",           "/dev/loop-control",  "/dev/kvm", "/dev/net/tun",
		"/dev/vda", "/dev/sda",  "/dev/mapper/control", "/dev/btrfs-control", "/dev/port"};

	for (size_t i = 0; i < sizeof(devices) / sizeof(devices[0]); i++)
		REFUSED("F03", devices[i], open(devices[i], O_RDONLY | O_CLOEXEC), ENOENT, EACCES, EPERM, ENXIO);
	expect_true("F03", "/dev/null is the null device",
		    stat("/dev/null", &info) == 0 && info.st_rdev == makedev(1, 3), "1:3");
	REFUSED("F14", "mknod of a device", mknod("/tmp/probe-device", S_IFCHR | 0666, makedev(1, 1)), EPERM);
	REFUSED("F14", "mknod of a whiteout", mknod("/tmp/probe-whiteout", S_IFBLK | 0666, makedev(8, 0)), EPERM);
	expect_allowed("F14", "control: mkfifo", mkfifo("/tmp/probe-fifo", 0600));
	unlink("/tmp/probe-fifo");
}

static void probe_attributes(void)
{
	int fd = open("/var/tmp/probe-file", O_CREAT | O_RDWR | O_CLOEXEC, 0600);

	expect_allowed("F14", "control: a new file", fd);
	REFUSED("F14", "trusted.overlay.opaque", setxattr("/var/tmp", "trusted.overlay.opaque", "y", 1, 0), EPERM,
		EOPNOTSUPP, EACCES);
	REFUSED("F14", "trusted.overlay.redirect",
		setxattr("/var/tmp/probe-file", "trusted.overlay.redirect", "/etc", 4, 0), EPERM, EOPNOTSUPP);
	/* Root of the sandbox may store one: nosuid and no_new_privs make it mean nothing. */
	if (getuid() != 0)
		REFUSED("F13", "security.capability",
			fsetxattr(fd, "security.capability", "\1\0\0\2\377\377\377\377\377\377\377\377\0\0\0\0\0\0\0\0",
				  20, 0),
			EPERM, EINVAL, EOPNOTSUPP);
	unlink("/var/tmp/probe-file");
	close(fd);
}

/* F21 */
static void probe_mount_points(void)
{
	static const char *const points[] = {"/proc", "/dev", "/tmp", "/dev/pts", "/dev/shm", "/proc/sys"};

	for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
		REFUSED("F21", points[i], rmdir(points[i]), EBUSY, EPERM, EACCES, EROFS, ENOENT, ENOTEMPTY);
		REFUSED("F21", points[i], rename(points[i], "/moved"), EBUSY, EPERM, EACCES, EROFS, ENOENT, EXDEV);
		REFUSED("F21", points[i], umount2(points[i], MNT_DETACH), EPERM);
	}
	expect_allowed("F21", "control: mkdir and rmdir",
		       mkdir("/tmp/probe-dir", 0700) || rmdir("/tmp/probe-dir") ? -1 : 0);
}

/* F20: a lower file that only root may write cannot be written through a mapping, and what root writes is copied up. */
static void probe_lower(void)
{
	const char *path = "/usr/bin/env";
	char *map;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int pipes[2];

	map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	REFUSED("F20", "MAP_SHARED write of a read-only descriptor", map == MAP_FAILED ? -1 : 0, EACCES, EPERM);
	map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	expect_allowed("F20", "control: MAP_SHARED read", map == MAP_FAILED ? -1 : 0);
	REFUSED("F20", "mprotect to writable", mprotect(map, 4096, PROT_READ | PROT_WRITE), EACCES, EPERM);
	if (pipe(pipes) == 0) {
		loff_t at = 0;

		/* The page-cache pages of a lower file in a pipe stay read-only: what follows is appended, not merged into them. */
		expect_allowed("F20", "control: splice", splice(fd, &at, pipes[1], NULL, 100, 0));
		expect_allowed("F20", "write after splice", write(pipes[1], "EVIL", 4));
		close(pipes[0]);
		close(pipes[1]);
	}
	REFUSED("F20", "copy_file_range to a read-only descriptor",
		syscall(SYS_copy_file_range, fd, NULL, fd, NULL, 10UL, 0U), EBADF, EPERM, EINVAL);
	REFUSED("F20", "fallocate of a read-only descriptor", fallocate(fd, 0, 0, 10), EBADF, EPERM, ENODEV);
	close(fd);
}

/* K10, memfd: a program that is in no file system does not run. */
static void probe_memfd(void)
{
	int fd = memfd_create("program", MFD_CLOEXEC), self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	char buffer[65536];
	ssize_t n;

	while (fd >= 0 && (n = read(self, buffer, sizeof(buffer))) > 0) {
		if (write(fd, buffer, (size_t)n) != n)
			break;
	}
	REFUSED("K10", "execveat of a memfd",
		fd < 0 ? -1 : syscall(SYS_execveat, fd, "", (char *[]){"x", "--nothing", NULL}, NULL, AT_EMPTY_PATH),
		EACCES, EPERM);
	if (fd >= 0)
		close(fd);
	close(self);
}

void probe_files(void)
{
	probe_masked();
	probe_writable();
	probe_dev();
	probe_attributes();
	probe_mount_points();
	probe_lower();
	probe_memfd();
}
