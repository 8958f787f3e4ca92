#include "doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/loop.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cgroup.h"
#include "child.h"
#include "kernel.h"
#include "lazy.h"
#include "log.h"
#include "options.h"
#include "sandbox/base/cleanup.h"

/* Each check does the thing, in a child where it has an effect; asking for a version number would only guess. */

static bool in_child(bool (*check)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(check() ? 0 : 1);
	return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool try_namespaces(void)
{
	return unshare(CLONE_NEWUSER) == 0 &&
	       unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP) == 0;
}

static bool has_namespaces(void)
{
	return in_child(try_namespaces);
}

static bool is_root(void)
{
	return geteuid() == 0;
}

static bool has_cgroups(void)
{
	struct pdk_error err;

	return cgroup_check(&err) == 0;
}

static bool try_cgroup_kill(void)
{
	_cleanup_file_ FILE *mounts = fopen("/proc/self/mounts", "re");
	char line[4096], where[1024], type[64], path[1100];

	/* The root cgroup has no cgroup.kill; any child has, if the kernel knows it (5.14). */
	while (mounts && fgets(line, sizeof(line), mounts)) {
		if (sscanf(line, "%*s %1023s %63s", where, type) != 2 || strcmp(type, "cgroup2") != 0)
			continue;
		snprintf(path, sizeof(path), "%s/paddock-check-%d", where, getpid());
		if (mkdir(path, 0755) < 0)
			return true; /* delegated: the create will tell */
		snprintf(path, sizeof(path), "%s/paddock-check-%d/cgroup.kill", where, getpid());
		bool found = access(path, F_OK) == 0;
		snprintf(path, sizeof(path), "%s/paddock-check-%d", where, getpid());
		rmdir(path);
		return found;
	}
	return false;
}

static bool has_seccomp(void)
{
	unsigned int action = SECCOMP_RET_ERRNO;

	return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

static bool has_filesystem(const char *name)
{
	_cleanup_file_ FILE *file = fopen("/proc/filesystems", "re");
	char line[128];

	while (file && fgets(line, sizeof(line), file)) {
		char *at = strrchr(line, '\t');

		line[strcspn(line, "\n")] = '\0';
		if (at && strcmp(at + 1, name) == 0)
			return true;
	}
	return false;
}

/* Asking for the type loads the module, where there are modules. */
static bool has_type(const char *name)
{
	int fd = fsopen(name, FSOPEN_CLOEXEC);

	if (fd >= 0)
		close(fd);
	return fd >= 0 || has_filesystem(name);
}

static bool has_overlay(void)
{
	return has_type("overlay");
}

static bool has_btrfs(void)
{
	return has_type("btrfs");
}

static bool has_loop(void)
{
	_cleanup_fd_ int fd = open("/dev/loop-control", O_RDWR | O_CLOEXEC | O_NOFOLLOW);

	return fd >= 0 && ioctl(fd, LOOP_CTL_GET_FREE) >= 0;
}

static bool has_mkfs(void)
{
	return access("/usr/sbin/mkfs.btrfs", X_OK) == 0 || access("/sbin/mkfs.btrfs", X_OK) == 0;
}

static bool has_idmap(void)
{
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = 0x7fffffff};

	/* A kernel that knows the flag complains about the descriptor, an older one about the flag. */
	return mount_setattr(-1, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0 && errno == EBADF;
}

static bool has_net_sysctl(void)
{
	return access("/proc/sys/net/ipv4/ip_unprivileged_port_start", F_OK) == 0;
}

/* What the operator has allowed to be missing is not missed; the log says so at every start. */
static bool has_memfd_noexec(void)
{
	return child_has_memfd_noexec() || options.allow_memfd_exec;
}

static bool has_program(const char *name)
{
	char path[700];

	snprintf(path, sizeof(path), "%s/%s", options.libexec_dir, name);
	return access(path, X_OK) == 0;
}

static bool has_init(void)
{
	return has_program("paddock-init");
}

static bool has_archive(void)
{
	return has_program("paddock-archive");
}

static bool has_policy(void)
{
	char path[700];

	snprintf(path, sizeof(path), "%s/seccomp/default.policy", options.policy_dir);
	return access(path, R_OK) == 0;
}

static bool has_lazy_restore(void)
{
	lazy_setup();
	return !lazy_missing();
}

static const struct {
	const char *name;
	bool (*check)(void);
	const char *mend;
} features[] = {
	{"root", is_root, "run paddock-warden as root"},
	{"namespaces", has_namespaces,
	 "enable user, pid, mount, net, ipc, uts and cgroup namespaces (sysctl user.max_*_namespaces), outside of a "
	 "chroot"},
	{"cgroup", has_cgroups,
	 "mount a cgroup v2 tree, and give the cpu, memory and pids controllers to v2 (Delegate=yes) or v1"},
	{"cgroup.kill", try_cgroup_kill, "use Linux 5.14 or newer"},
	{"seccomp", has_seccomp, "build the kernel with CONFIG_SECCOMP_FILTER"},
	{"overlayfs", has_overlay, "modprobe overlay"},
	{"btrfs", has_btrfs, "modprobe btrfs"},
	{"loop", has_loop, "modprobe loop, or put the data directory on btrfs"},
	{"mkfs.btrfs", has_mkfs, "apt install btrfs-progs"},
	{"idmapped mounts", has_idmap, "use Linux 5.19 or newer"},
	{"vm.memfd_noexec", has_memfd_noexec,
	 "use Linux 6.3 or newer (on Debian 12: apt install -t bookworm-backports linux-image-amd64), or give "
	 "--allow-memfd-exec: then sandboxes can run programs from memory files, which no gate on execve sees"},
	{"unprivileged ports", has_net_sysctl, "build the kernel with CONFIG_INET and CONFIG_SYSCTL"},
	{"paddock-init", has_init, "install Paddock's programs, or give --libexec-dir"},
	{"paddock-archive", has_archive, "install Paddock's programs, or give --libexec-dir"},
	{"seccomp policy", has_policy, "install Paddock's policies, or give --policy-dir"},
	{"lazy restore", has_lazy_restore,
	 "use Linux 6.1 or newer with CONFIG_USERFAULTFD, and CAP_SYS_PTRACE: without it a large sandbox is resumed "
	 "and "
	 "copied all at once"},
};

/* Paddock does without it, and says so. */
static bool is_optional(size_t i)
{
	return features[i].check == has_lazy_restore;
}

static void print_json(size_t i, bool ok, bool first)
{
	char name[64], mend[400];

	log_json_string(name, sizeof(name), features[i].name);
	log_json_string(mend, sizeof(mend), ok ? "" : features[i].mend);
	printf("%s\n  {\"name\": %s, \"ok\": %s, \"needed\": %s, \"mend\": %s}", first ? "[" : ",", name,
	       ok ? "true" : "false", is_optional(i) ? "false" : "true", mend);
}

int doctor_run(bool all, bool json)
{
	int missing = 0;

	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		bool ok;

		if (!all && is_optional(i))
			continue;
		ok = features[i].check();
		missing += !ok && !is_optional(i);
		if (all && json)
			print_json(i, ok, i == 0);
		else if (all)
			printf("%-20s %s%s\n", features[i].name,
			       ok               ? "ok"
			       : is_optional(i) ? "without: "
						: "MISSING: ",
			       ok ? "" : features[i].mend);
		else if (!ok)
			fprintf(stderr, "paddock-warden: missing %s: %s\n", features[i].name, features[i].mend);
	}
	if (all && json)
		printf("\n]\n");
	return missing;
}
