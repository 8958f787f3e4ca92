#include "pool.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "btrfs.h"
#include "handover.h"
#include "kernel.h"
#include "log.h"
#include "loop.h"
#include "loopdev.h"
#include "options.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/fault.h"

#define STOCK_MAX 256
#define TRASH_AGAIN_MS 1000
#define TRASH_TRIES 60
#define TRASH_PAUSE_MS 50 /* one worker for what a burst of kills leaves, and none between the steps of one */

static const char *const names[POOL_DIRS] = {"templates", "sandboxes", "stock",       "import",
					     "trash",     "tools",     "checkpoints", "snapshots"};

static char mount_path[512];
static int root = -1;
static int dirs[POOL_DIRS] = {-1, -1, -1, -1, -1, -1, -1, -1};
static uint64_t stock_names[STOCK_MAX];
static unsigned int stock_count;
static uint64_t next_name;
static bool trash_waits;
static unsigned long long trash_due_ms;
static unsigned int trash_tries; /* of a worker that did not get everything back */
static struct watch trash_worker = {.fd = -1};

int pool_dir(enum pool_dir which)
{
	return dirs[which];
}

int pool_open_directory(enum pool_dir where, const char *name)
{
	int fd = openat(pool_dir(where), name, O_DIRECTORY | O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	return fd < 0 ? -errno : fd;
}

const char *pool_path(void)
{
	return mount_path;
}

static bool on_btrfs(const char *path)
{
	struct statfs fs;

	return statfs(path, &fs) == 0 && fs.f_type == BTRFS_SUPER_MAGIC;
}

/* Runs mkfs.btrfs by its fixed path on our own descriptor, so no name can be swapped below us. */
static int image_format(int image)
{
	char path[64];
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		int copy = dup(image); /* without CLOEXEC */
		int null = open("/dev/null", O_RDWR);

		dup2(null, STDOUT_FILENO); /* it prints advice; the log is JSON */
		dup2(null, STDERR_FILENO);

		snprintf(path, sizeof(path), "/proc/self/fd/%d", copy);
		execle("/usr/sbin/mkfs.btrfs", "mkfs.btrfs", "-q", "-f", "-m", "single", "-d", "single", "-L",
		       "paddock", path, (char *)NULL, (char *[]){NULL});
		execle("/sbin/mkfs.btrfs", "mkfs.btrfs", "-q", "-f", "-m", "single", "-d", "single", "-L", "paddock",
		       path, (char *)NULL, (char *[]){NULL});
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

/* The image gets its final name only when it is formatted: a crash leaves pool.btrfs.new, which is made anew. */
static int image_create(int data, struct pdk_error *err)
{
	_cleanup_fd_ int image =
		openat(data, "pool.btrfs.new", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	int rc;

	if (image < 0 || ftruncate(image, (off_t)options.pool_bytes) < 0)
		return pdk_fail_errno(err, -errno, "make the pool image");
	rc = image_format(image);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "format the pool image with mkfs.btrfs");
	if (fsync(image) < 0 || renameat(data, "pool.btrfs.new", data, "pool.btrfs") < 0 || fsync(data) < 0)
		return pdk_fail_errno(err, -errno, "store the pool image");
	log_info("pool_created", NULL, "%" PRIu64 " bytes", options.pool_bytes);
	return 0;
}

static int mount_image(int data, struct pdk_error *err)
{
	_cleanup_fd_ int image = -1;
	_cleanup_fd_ int device = -1;
	char path[64];
	int rc;

	if (faccessat(data, "pool.btrfs", F_OK, AT_SYMLINK_NOFOLLOW) < 0) {
		rc = image_create(data, err);
		if (rc < 0)
			return rc;
	}
	image = openat(data, "pool.btrfs", O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (image < 0)
		return pdk_fail_errno(err, -errno, "open the pool image");
	device = loopdev_attach(image, path, sizeof(path));
	if (device < 0)
		return pdk_fail_errno(err, device, "attach the pool image to a loop device");
	if (mount(path, mount_path, "btrfs", MS_NOATIME | MS_NODEV | MS_NOSUID, NULL) < 0)
		return pdk_fail_errno(err, -errno, "mount the storage pool");
	return 0;
}

static int mount_directory(int data, struct pdk_error *err)
{
	char path[600];

	if (file_mkdir(data, "pool", 0700) < 0)
		return pdk_fail_errno(err, -errno, "make the pool directory");
	snprintf(path, sizeof(path), "%s/pool", options.data_dir);
	if (mount(path, mount_path, NULL, MS_BIND, NULL) < 0)
		return pdk_fail_errno(err, -errno, "bind the pool directory");
	return 0;
}

static int open_directories(struct pdk_error *err)
{
	root = open(mount_path, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	if (root < 0 || fchmod(root, 0700) < 0)
		return pdk_fail_errno(err, -errno, "open the storage pool");
	for (int i = 0; i < POOL_DIRS; i++) {
		int rc = file_mkdir(root, names[i], 0700);

		if (rc < 0)
			return pdk_fail_errno(err, rc, "make %s in the storage pool", names[i]);
		dirs[i] = openat(root, names[i], O_DIRECTORY | O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		if (dirs[i] < 0)
			return pdk_fail_errno(err, -errno, "open %s in the storage pool", names[i]);
	}
	return 0;
}

int pool_open(struct pdk_error *err)
{
	_cleanup_fd_ int data = open(options.data_dir, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	int rc;

	if (data < 0)
		return pdk_fail_errno(err, -errno, "open the data directory");
	snprintf(mount_path, sizeof(mount_path), "%s/pool", options.runtime_dir);
	rc = file_mkdir(AT_FDCWD, mount_path, 0700);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "make the pool's mount point");
	rc = on_btrfs(options.data_dir) ? mount_directory(data, err) : mount_image(data, err);
	if (rc == 0)
		rc = open_directories(err);
	if (rc < 0)
		return rc;
	rc = btrfs_quota_enable(root);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "turn quotas on in the storage pool");
	next_name = (uint64_t)clock_ms() << 16;
	return 0;
}

void pool_space(uint64_t *ret_total, uint64_t *ret_free)
{
	struct statvfs fs;

	if (fstatvfs(root, &fs) < 0)
		return;
	*ret_total = (uint64_t)fs.f_blocks * fs.f_frsize;
	*ret_free = (uint64_t)fs.f_bavail * fs.f_frsize;
}

/* --- layers --- */

static void name_text(uint64_t number, char text[24])
{
	snprintf(text, 24, "%" PRIx64, number);
}

static int layer_make(int parent, const char *name)
{
	_cleanup_fd_ int layer = -1;
	int rc = btrfs_subvolume_create(parent, name);

	if (rc < 0)
		return rc;
	layer = openat(parent, name, O_DIRECTORY | O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (layer < 0)
		return -errno;
	/* The upper directory's attributes become those of the sandbox's `/`: the umask must not decide. */
	if (mkdirat(layer, "upper", 0755) < 0 || fchmodat(layer, "upper", 0755, 0) < 0 ||
	    mkdirat(layer, "work", 0700) < 0)
		return -errno;
	return 0;
}

int pool_stock(unsigned int wanted)
{
	char name[24];

	if (stock_count >= wanted || stock_count == STOCK_MAX)
		return 0;
	name_text(++next_name, name);
	if (layer_make(dirs[POOL_STOCK], name) < 0)
		return 0;
	stock_names[stock_count++] = next_name;
	return 1;
}

unsigned int pool_stocked(void)
{
	return stock_count;
}

int pool_layer_take(const char *id, uint64_t bytes, struct pdk_error *err)
{
	char name[24];
	int rc;

	if (stock_count > 0) {
		name_text(stock_names[--stock_count], name);
		rc = renameat2(dirs[POOL_STOCK], name, dirs[POOL_SANDBOXES], id, RENAME_NOREPLACE) < 0 ? -errno : 0;
	} else {
		rc = layer_make(dirs[POOL_SANDBOXES], id);
	}
	if (rc < 0)
		return pdk_fail_errno(err, rc, "make the sandbox's disk layer");
	FAULT("create_layer");
	return pool_layer_limit(id, bytes, err);
}

static int layer_open(const char *id)
{
	int fd = openat(dirs[POOL_SANDBOXES], id, O_DIRECTORY | O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	return fd < 0 ? -errno : fd;
}

int pool_limit(int subvolume, uint64_t bytes)
{
	return btrfs_quota_limit(root, subvolume, bytes);
}

int pool_layer_limit(const char *id, uint64_t bytes, struct pdk_error *err)
{
	_cleanup_fd_ int layer = layer_open(id);
	int rc = layer < 0 ? layer : pool_limit(layer, bytes);

	return rc < 0 ? pdk_fail_errno(err, rc, "set the disk limit") : 0;
}

void pool_layer_usage(const char *id, uint64_t *ret_bytes, uint64_t *highest_inode)
{
	_cleanup_fd_ int layer = layer_open(id);

	if (layer < 0)
		return;
	btrfs_quota_usage(layer, ret_bytes);
	btrfs_inode_highest(layer, highest_inode);
}

/* --- trash --- */

static int subvolume_remove(int parent, const char *name)
{
	int rc, fd = openat(parent, name, O_DIRECTORY | O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	uint64_t id = 0;

	if (fd >= 0) {
		btrfs_subvolume_id(fd, &id);
		btrfs_subvolume_set_readonly(fd, false);
		close(fd);
	}
	rc = btrfs_subvolume_destroy(parent, name);
	if (rc == 0 && id)
		btrfs_quota_forget(root, id);
	return rc;
}

int pool_discard(enum pool_dir from, const char *name)
{
	char unique[96];
	int rc;

	snprintf(unique, sizeof(unique), "%.64s.%" PRIx64, name, ++next_name);
	rc = renameat2(dirs[from], name, dirs[POOL_TRASH], unique, RENAME_NOREPLACE) < 0 ? -errno : 0;
	if (rc == -ENOENT)
		return 0;
	/* In a full pool there is no room for a rename, but btrfs keeps some for a removal. */
	if (rc == -ENOSPC || rc == -EDQUOT)
		rc = subvolume_remove(dirs[from], name);
	if (rc < 0)
		return rc;
	if (!trash_waits)
		trash_due_ms = clock_ms() + TRASH_PAUSE_MS;
	trash_waits = true;
	trash_tries = TRASH_TRIES;
	return 0;
}

static bool trash_left; /* in the worker: something could not be removed */

static void trash_remove(const char *name)
{
	if (subvolume_remove(dirs[POOL_TRASH], name) < 0 && unlinkat(dirs[POOL_TRASH], name, 0) < 0)
		trash_left = true;
}

static bool nearly_full(void)
{
	struct statvfs fs;

	return fstatvfs(root, &fs) == 0 && fs.f_bavail < fs.f_blocks / 10;
}

/*
 * The worker is one of our own forks: it touches nothing but trash/, and ends with the warden. It lists the directory
 * by a descriptor of its own (file_each): on btrfs one that was opened earlier does not show what came later.
 *
 * btrfs takes space back in steps, each of which waits for a commit (30 s): the destroyed subvolume is taken apart,
 * what it held is discarded, then the chunks that became empty are given up, without which a pool that was full of data
 * has no room for metadata. In a pool that is nearly full somebody may wait for it, so it is asked to go on, and asked
 * again.
 */
static void trash_empty(void) __attribute__((noreturn));
static void trash_empty(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (handover_settle(-1) < 0)
		_exit(1);
	pool_enumerate(POOL_TRASH, trash_remove);
	if (nearly_full())
		btrfs_sync(root);
	_exit(trash_left || nearly_full());
}

static void trash_worker_ended(struct watch *watch, uint32_t events)
{
	int fd = watch->fd;
	siginfo_t info;

	loop_remove(watch);
	if (waitid(P_PIDFD, (id_t)fd, &info, WEXITED) == 0 && info.si_status != 0 && trash_tries > 0) {
		trash_tries--;
		trash_due_ms = clock_ms() + TRASH_AGAIN_MS;
		trash_waits = true;
	}
	close(fd);
}

int pool_tick(void)
{
	unsigned long long now = clock_ms();

	/* The end of a worker is an event of its own. */
	if (trash_worker.fd >= 0 || !trash_waits)
		return -1;
	return now < trash_due_ms ? (int)(trash_due_ms - now) : 0;
}

int pool_trash_work(void)
{
	int fd = -1;
	struct clone_args args = {
		.flags = CLONE_FILES | CLONE_PIDFD, .pidfd = (uint64_t)(uintptr_t)&fd, .exit_signal = SIGCHLD};
	pid_t pid;

	if (trash_worker.fd >= 0 || !trash_waits || clock_ms() < trash_due_ms)
		return 0;
	trash_waits = false;
	pid = kernel_clone3(&args);
	if (pid == 0)
		trash_empty();
	if (pid < 0)
		return 0;
	return loop_add(&trash_worker, fd, 1 /* EPOLLIN */, trash_worker_ended) == 0;
}

/* --- start --- */

void pool_enumerate(enum pool_dir which, void (*found)(const char *name))
{
	file_each(dirs[which], false, found);
}

static void discard_stock(const char *name)
{
	pool_discard(POOL_STOCK, name);
}

static void discard_unfinished(const char *name)
{
	if (strchr(name, '.'))
		pool_discard(POOL_CHECKPOINTS, name);
}

static void discard_import(const char *name)
{
	pool_discard(POOL_IMPORT, name);
}

void pool_reconcile(void)
{
	pool_enumerate(POOL_STOCK, discard_stock);
	pool_enumerate(POOL_IMPORT, discard_import);
	pool_enumerate(POOL_CHECKPOINTS, discard_unfinished);
	trash_waits = true; /* whatever an earlier warden did not get to */
}
