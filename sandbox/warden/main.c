#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bootid.h"
#include "cgroup.h"
#include "checkpoint.h"
#include "child.h"
#include "doctor.h"
#include "handover.h"
#include "import.h"
#include "inodes.h"
#include "kernel.h"
#include "log.h"
#include "loop.h"
#include "options.h"
#include "pool.h"
#include "ranges.h"
#include "rootfs.h"
#include "sandbox.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/linger.h"
#include "seccomp.h"
#include "serve.h"
#include "snapshot.h"
#include "template.h"
#include "tools.h"

/*
 * paddock-warden: the only root process. One thread, one epoll (loop.h); everything it holds can be found again by
 * enumeration after it was killed (sandbox_reconcile()), so nothing depends on what it does at exit.
 */

#ifndef PADDOCK_LIBEXECDIR
#error "PADDOCK_LIBEXECDIR and PADDOCK_POLICYDIR come from the build"
#endif

struct options options = {
	.data_dir = "/var/lib/paddock",
	.runtime_dir = "/run/paddock",
	.libexec_dir = PADDOCK_LIBEXECDIR,
	.policy_dir = PADDOCK_POLICYDIR,
	.pool_bytes = 20ull << 30,
	.checkpoint_timeout = 60,
	.compress = "none",
	.range_base = 0x10000000,
	.lazy_restore = true,
};

#define LOCK_TRIES 20
#define LOCK_WAIT_US 100000

static struct watch signals = {.fd = -1};

/* A warden that was never installed takes what was built beside it: BUILD/sandbox/warden/paddock-warden finds
 * BUILD/libexec and BUILD/policies. Whoever could change those could change this program. */
static void use_build_tree(void)
{
	static char libexec[700], policies[700];
	char path[500], probe[800];
	ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);
	char *name;

	if (length <= 0 || length >= (ssize_t)sizeof(path) - 1)
		return;
	path[length] = '\0';
	name = strstr(path, "/sandbox/warden/paddock-warden");
	if (!name)
		return;
	*name = '\0';
	snprintf(libexec, sizeof(libexec), "%s/libexec", path);
	snprintf(policies, sizeof(policies), "%s/policies", path);
	snprintf(probe, sizeof(probe), "%s/paddock-init", libexec);
	if (access(probe, X_OK) < 0)
		return;
	options.libexec_dir = libexec;
	options.policy_dir = policies;
}

static void usage(FILE *out)
{
	fputs("usage: paddock-warden --user NAME [options]\n"
	      "       paddock-warden --check [-o json]\n"
	      "  --data-dir DIR      where the storage pool is (/var/lib/paddock)\n"
	      "  --runtime-dir DIR   sockets and state, on tmpfs (/run/paddock)\n"
	      "  --user NAME         the user that paddockd runs as\n"
	      "  --pool-size SIZE    of a new pool image, with K, M, G or T (20G); it is sparse\n"
	      "  --compress HOW      processes and memory on disk: none, lzo or zstd (none)\n"
	      "  --libexec-dir DIR   paddock-init, paddock-archive, paddock-sudo\n"
	      "  --policy-dir DIR    seccomp/default.policy\n"
	      "  --range-base ID     first host uid of the sandboxes' ranges (268435456)\n"
	      "  --checkpoint-timeout SECONDS\n"
	      "                      that a pause to disk or a resume may take, beside a second for each 16 MiB of "
	      "memory (60)\n"
	      "  --allow-memfd-exec  start on a kernel before 6.3, where a sandbox can run programs from memory "
	      "files,\n"
	      "                      which no gate on execve sees\n"
	      "  --lazy-restore HOW  auto: programs go on before their memory is back where that is sooner; off: after "
	      "it (auto)\n"
	      "  --check             say what this host lacks, and how to mend it\n",
	      out);
}

static int parse_size(const char *text, uint64_t *ret)
{
	char *end;
	unsigned long long value;
	unsigned int shift = 0;

	errno = 0;
	value = strtoull(text, &end, 10);
	switch (*end) {
	case 'K':
		shift = 10;
		break;
	case 'M':
		shift = 20;
		break;
	case 'G':
		shift = 30;
		break;
	case 'T':
		shift = 40;
		break;
	case '\0':
		break;
	default:
		return -EINVAL;
	}
	if (errno || end == text || *text == '-' || (*end && end[1]) || value > (UINT64_MAX >> shift))
		return -EINVAL;
	*ret = value << shift;
	return 0;
}

static int set_user(const char *name)
{
	struct passwd *user = getpwnam(name);
	char *end;
	unsigned long id;

	if (user) {
		options.client_uid = user->pw_uid;
		options.client_gid = user->pw_gid;
		return 0;
	}
	id = strtoul(name, &end, 10);
	if (*name == '\0' || *end || id > 0x7fffffff)
		return -EINVAL;
	options.client_uid = (uid_t)id;
	options.client_gid = (gid_t)id;
	return 0;
}

static int parse_range(const char *text)
{
	char *end;
	unsigned long base = strtoul(text, &end, 0);

	if (*end || base < 65536 || base % 65536 || base > 0x70000000)
		return -EINVAL;
	options.range_base = (uint32_t)base;
	return 0;
}

static int parse_seconds(const char *text)
{
	char *end;
	unsigned long seconds = strtoul(text, &end, 10);

	if (*end || end == text || *text == '-' || seconds < 1 || seconds > 86400)
		return -EINVAL;
	options.checkpoint_timeout = (uint32_t)seconds;
	return 0;
}

static int parse_option(int option, const char *value, bool *has_user)
{
	switch (option) {
	case 'd':
		options.data_dir = value;
		return *value == '/' && strlen(value) < 400 ? 0 : -EINVAL;
	case 'r':
		options.runtime_dir = value;
		return *value == '/' && strlen(value) < 90 ? 0 : -EINVAL;
	case 'u':
		*has_user = true;
		return set_user(value);
	case 's':
		return parse_size(value, &options.pool_bytes) < 0 || options.pool_bytes < (256u << 20) ? -EINVAL : 0;
	case 'z':
		options.compress = value;
		return strcmp(value, "none") && strcmp(value, "lzo") && strcmp(value, "zstd") ? -EINVAL : 0;
	case 'l':
		options.libexec_dir = value;
		return strlen(value) < 600 ? 0 : -EINVAL;
	case 'p':
		options.policy_dir = value;
		return strlen(value) < 600 ? 0 : -EINVAL;
	case 'b':
		return parse_range(value);
	case 't':
		return parse_seconds(value);
	case 'm':
		options.allow_memfd_exec = true;
		return 0;
	case 'y':
		options.lazy_restore = strcmp(value, "auto") == 0;
		return options.lazy_restore || strcmp(value, "off") == 0 ? 0 : -EINVAL;
	case 'c':
		options.check_only = true;
		return 0;
	case 'o':
		options.json = strcmp(value, "json") == 0;
		return options.json ? 0 : -EINVAL;
	case 'h':
		usage(stdout);
		exit(0);
	default:
		return -EINVAL;
	}
}

static int parse_options(int argc, char **argv)
{
	static const struct option longs[] = {
		{"data-dir", required_argument, NULL, 'd'},
		{"runtime-dir", required_argument, NULL, 'r'},
		{"user", required_argument, NULL, 'u'},
		{"pool-size", required_argument, NULL, 's'},
		{"compress", required_argument, NULL, 'z'},
		{"libexec-dir", required_argument, NULL, 'l'},
		{"policy-dir", required_argument, NULL, 'p'},
		{"range-base", required_argument, NULL, 'b'},
		{"checkpoint-timeout", required_argument, NULL, 't'},
		{"allow-memfd-exec", no_argument, NULL, 'm'},
		{"lazy-restore", required_argument, NULL, 'y'},
		{"check", no_argument, NULL, 'c'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	bool has_user = false;
	int option;

	while ((option = getopt_long(argc, argv, "o:h", longs, NULL)) >= 0)
		if (option == '?' || parse_option(option, optarg, &has_user) < 0) {
			fprintf(stderr, "paddock-warden: bad value for an option; see --help\n");
			return -EINVAL;
		}
	if (optind < argc || (!has_user && !options.check_only)) {
		fprintf(stderr, "paddock-warden: %s; see --help\n",
			optind < argc ? "too many arguments" : "--user is needed");
		return -EINVAL;
	}
	return 0;
}

static void on_signal(struct watch *watch, uint32_t events)
{
	struct signalfd_siginfo info;

	if (read(watch->fd, &info, sizeof(info)) == (ssize_t)sizeof(info) && info.ssi_signo != SIGCHLD) {
		log_info("stop", NULL, "signal %u; sandboxes live on", info.ssi_signo);
		loop_stop();
	}
}

static int setup_signals(struct pdk_error *err)
{
	sigset_t set;
	int fd, rc;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (int i = 1; i <= SIGRTMAX; i++)
		signal(i, SIG_DFL); /* not what we were started with: children count on it (child.c) */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	linger_setup();
	fd = signalfd(-1, &set, SFD_CLOEXEC);
	rc = fd < 0 ? -errno : loop_add(&signals, fd, EPOLLIN, on_signal);
	return rc < 0 ? pdk_fail_errno(err, rc, "watch signals") : 0;
}

/* A helper that a killed warden had just forked holds the lock too, for a moment. */
static int take_lock(int lock)
{
	for (int i = 0; i < LOCK_TRIES; i++) {
		if (flock(lock, LOCK_EX | LOCK_NB) == 0)
			return 0;
		usleep(LOCK_WAIT_US);
	}
	return -EWOULDBLOCK;
}

/* Directories, the lock that makes this the only warden of the runtime directory, a private mount namespace. */
static int setup_place(struct pdk_error *err)
{
	struct rlimit files;
	char path[600];
	int lock;

	umask(022); /* every mode below is spelled out */
	if (file_mkdir(AT_FDCWD, options.data_dir, 0755) < 0 || file_mkdir(AT_FDCWD, options.runtime_dir, 0755) < 0)
		return pdk_fail_errno(err, -errno, "make the data or runtime directory");
	snprintf(path, sizeof(path), "%s/warden.lock", options.runtime_dir);
	lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (lock < 0 || take_lock(lock) < 0)
		return pdk_fail(err, -EBUSY, PDK_FAILED_PRECONDITION, "another warden uses this runtime directory");
	if (prctl(PR_SET_DUMPABLE, 0) < 0 || chdir("/") < 0)
		return pdk_fail_errno(err, -errno, "settle down");
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return pdk_fail_errno(err, -errno, "make a private mount namespace");
	return 0;
}

static bool is_below(const char *path, const char *above)
{
	size_t length = strlen(above);

	return strncmp(path, above, length) == 0 && (path[length] == '/' || path[length] == '\0' || length == 1);
}

/* Every sandbox's child starts with a copy of our namespace and then throws it away, mount by mount: keep only what it
 * needs. Descriptors of what is detached (cgroups) stay good. */
static void drop_mounts(void)
{
	_cleanup_file_ FILE *mounts = fopen("/proc/self/mounts", "re");
	char line[4096], path[1024];

	while (mounts && fgets(line, sizeof(line), mounts)) {
		if (sscanf(line, "%*s %1023s", path) != 1 || strcmp(path, "/proc") == 0 || strcmp(path, "/dev") == 0 ||
		    is_below(path, options.runtime_dir) || is_below(options.runtime_dir, path))
			continue;
		umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW);
	}
}

static int setup(struct pdk_error *err)
{
	char policy[700];
	int rc = loop_open();

	if (rc < 0)
		return pdk_fail_errno(err, rc, "make an epoll");
	snprintf(policy, sizeof(policy), "%s/seccomp/default.policy", options.policy_dir);
	if ((rc = setup_place(err)) < 0 || (rc = ranges_setup(err)) < 0 || (rc = setup_signals(err)) < 0 ||
	    (rc = seccomp_setup(policy, err)) < 0 || (rc = cgroup_setup(options.runtime_dir, err)) < 0 ||
	    (rc = pool_open(err)) < 0 || (rc = rootfs_setup(err)) < 0 || (rc = bootid_setup(err)) < 0 ||
	    (rc = tools_setup(err)) < 0 || (rc = sandbox_setup(err)) < 0 || (rc = checkpoint_setup(err)) < 0 ||
	    (rc = import_setup(err)) < 0 || (rc = handover_setup(err)) < 0)
		return rc;
	drop_mounts();
	template_reconcile();
	sandbox_reconcile();
	snapshot_reconcile();
	pool_reconcile();
	return serve_setup(err);
}

/* Of two times to sleep, where -1 is for ever. */
static int sooner(int one, int other)
{
	return one < 0 || (other >= 0 && other < one) ? other : one;
}

/* What to do when nobody asks: one piece at a time, soonest deadline decides how long to sleep. */
static int idle(void)
{
	int ms = sooner(sooner(sandbox_tick(), import_tick()), inodes_tick());

	if (import_work() || sandbox_refill() || pool_trash_work())
		return 0;
	return sooner(ms, pool_tick());
}

int main(int argc, char **argv)
{
	struct pdk_error err;

	use_build_tree();
	if (parse_options(argc, argv) < 0)
		return 2;
	if (options.check_only)
		return doctor_run(true, options.json) ? 1 : 0;
	if (doctor_run(false, false) > 0)
		return 1;
	if (setup(&err) < 0) {
		log_error("start_failed", NULL, &err);
		return 1;
	}
	if (!child_has_memfd_noexec())
		log_warning("memfd_exec_allowed", NULL,
			    "the kernel has no vm.memfd_noexec: sandboxes can run programs from memory files");
	log_info("started", NULL, "%u sandboxes, %u templates", sandbox_count(), template_count());
	loop_run(idle);
	import_stop();
	cgroup_teardown();
	return 0;
}
