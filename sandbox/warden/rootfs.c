#include "rootfs.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "bootid.h"
#include "kernel.h"
#include "netns.h"
#include "options.h"
#include "pool.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/fault.h"

/*
 * Theory of operation. The warden's private namespace holds, below RUNTIME_DIR: `pool` (the storage pool),
 * `dev` (a tmpfs with our device nodes), `mask` (a tmpfs with an empty file and an empty directory), `programs` (one
 * with init and its helper) and the plain directory `root`. Two processes, each with a copy of it, all by descriptors:
 *
 * The builder, with the host's capabilities (rootfs_prepare()), in a namespace that the host owns:
 *  1. attaches a clone of the pool, idmapped to the sandbox's range, over its own copy of `pool`; layers are
 *     named relative to it, so the overlay sees files with the sandbox's host ids, and on disk they are 0..65535;
 *  2. makes the overlay and the bounded file systems as detached mounts. They belong to the host: no capability
 *     inside could change their options, were there one.
 *
 * The first process of the sandbox, in a namespace that the sandbox's user namespace owns (rootfs_enter()):
 *  3. attaches the overlay on `root` and everything else inside it. A directory of the image is reached by
 *     openat2(RESOLVE_NO_SYMLINKS) from the overlay's own descriptor: an image whose /dev is a symlink fails;
 *  4. mounts and masks its /proc, pivots, and detaches the old root, with the pool and every other mount of the host.
 *
 * The builder's file-system ids are those of the sandbox's root while the overlay is mounted: the kernel works on
 * the layers with the mounter's credentials, and an id without a mapping could not even make a whiteout.
 */

#define MOUNT_COMMON (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)

static char dev_path[512], mask_path[512], root_path[512], programs_path[512];
static bool has_mtrr;

enum mask_kind { MASK_ABSENT, MASK_FILE, MASK_DIRECTORY };

/* What exists of these is covered by an empty file or directory; what they are is looked up once, when we start. */
static struct mask {
	const char *name;
	enum mask_kind kind;
} masked[] = {
	{.name = "acpi"},          {.name = "asound"},       {.name = "interrupts"},  {.name = "kcore"},
	{.name = "keys"},          {.name = "key-users"},    {.name = "kmsg"},        {.name = "kallsyms"},
	{.name = "latency_stats"}, {.name = "pagetypeinfo"}, {.name = "sched_debug"}, {.name = "scsi"},
	{.name = "slabinfo"},      {.name = "timer_list"},   {.name = "timer_stats"}, {.name = "vmallocinfo"},
	{.name = "kpagecount"},    {.name = "kpageflags"},   {.name = "kpagecgroup"}, {.name = "modules"},
	{.name = "config.gz"},
};
static const char *const readonly_of_init[] = {"1/oom_score_adj", "1/oom_adj"};
static const char *const readonly[] = {"sys", "sysrq-trigger", "irq", "bus", "fs"};

/* --- once, in the warden --- */

static int tmpfs_at(const char *path, unsigned long flags, const char *data, struct pdk_error *err)
{
	if (file_mkdir(AT_FDCWD, path, 0700) < 0 || mount("tmpfs", path, "tmpfs", flags, data) < 0)
		return pdk_fail_errno(err, -errno, "mount a tmpfs");
	return 0;
}

static int make_devices(int dir)
{
	static const struct {
		const char *name;
		unsigned int major, minor;
	} nodes[] = {{"null", 1, 3},   {"zero", 1, 5},    {"full", 1, 7},
		     {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};
	static const char *const links[][2] = {{"pts/ptmx", "ptmx"},
					       {"/proc/self/fd", "fd"},
					       {"/proc/self/fd/0", "stdin"},
					       {"/proc/self/fd/1", "stdout"},
					       {"/proc/self/fd/2", "stderr"}};

	for (size_t i = 0; i < ARRAY_SIZE(nodes); i++)
		if (mknodat(dir, nodes[i].name, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)) < 0 ||
		    fchmodat(dir, nodes[i].name, 0666, 0) < 0)
			return -errno;
	for (size_t i = 0; i < ARRAY_SIZE(links); i++)
		if (symlinkat(links[i][0], dir, links[i][1]) < 0)
			return -errno;
	return mkdirat(dir, "pts", 0755) < 0 || mkdirat(dir, "shm", 0755) < 0 ? -errno : 0;
}

static int setup_dev(struct pdk_error *err)
{
	_cleanup_fd_ int dir = -1;
	int rc = tmpfs_at(dev_path, MS_NOSUID | MS_NOEXEC, "mode=755,size=64k,nr_inodes=32", err);

	if (rc < 0)
		return rc;
	dir = open(dev_path, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	rc = dir < 0 ? -errno : make_devices(dir);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "make the device nodes");
	if (mount(NULL, dev_path, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NOEXEC, NULL) < 0)
		return pdk_fail_errno(err, -errno, "make the device directory read-only");
	return 0;
}

static int setup_mask(struct pdk_error *err)
{
	const unsigned long flags = MS_NOSUID | MS_NOEXEC | MS_NODEV;
	_cleanup_fd_ int dir = -1;
	_cleanup_fd_ int file = -1;
	int rc = tmpfs_at(mask_path, flags, "mode=755,size=4k,nr_inodes=16", err);

	if (rc < 0)
		return rc;
	dir = open(mask_path, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	if (dir >= 0)
		file = openat(dir, "file", O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0444);
	if (file < 0 || mkdirat(dir, "dir", 0555) < 0 || mkdirat(dir, "jail", 0755) < 0 ||
	    mkdirat(dir, "jail/target", 0755) < 0)
		return pdk_fail_errno(err, -errno, "make the masks");
	close(STEAL_FD(file)); /* a writer would keep the mount from becoming read-only */
	if (mount(NULL, mask_path, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | flags, NULL) < 0)
		return pdk_fail_errno(err, -errno, "make the masks read-only");
	return 0;
}

static enum mask_kind mask_kind(int proc, const char *name)
{
	struct stat st;

	if (fstatat(proc, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return MASK_ABSENT;
	return S_ISDIR(st.st_mode) ? MASK_DIRECTORY : MASK_FILE;
}

static void find_masks(void)
{
	_cleanup_fd_ int proc = open("/proc", O_DIRECTORY | O_PATH | O_CLOEXEC);

	for (size_t i = 0; i < ARRAY_SIZE(masked); i++)
		masked[i].kind = mask_kind(proc, masked[i].name);
}

static int copy_program(int dir, const char *name)
{
	char path[700];
	_cleanup_fd_ int from = -1;
	_cleanup_fd_ int to = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0555);
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", options.libexec_dir, name);
	from = open(path, O_RDONLY | O_CLOEXEC);
	if (from < 0 || to < 0 || fstat(from, &st) < 0)
		return -errno;
	for (off_t left = st.st_size; left > 0;) {
		ssize_t n = sendfile(to, from, NULL, (size_t)left);

		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		left -= n;
	}
	/* Readable, so that init's own /proc files stay writable for it; it makes itself non-dumpable first of all. */
	return fchmod(to, 0555) < 0 ? -errno : 0;
}

static int setup_programs(struct pdk_error *err)
{
	static const char *const names[] = {"paddock-init", "paddock-archive"};
	int rc = tmpfs_at(programs_path, MS_NOSUID | MS_NODEV, "mode=755,size=32m,nr_inodes=8", err);
	_cleanup_fd_ int dir = -1;

	if (rc < 0)
		return rc;
	dir = open(programs_path, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		rc = dir < 0 ? -errno : copy_program(dir, names[i]);
		if (rc < 0)
			return pdk_fail_errno(err, rc, "copy %s", names[i]);
	}
	if (mount(NULL, programs_path, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL) < 0)
		return pdk_fail_errno(err, -errno, "make the programs read-only");
	return 0;
}

int rootfs_setup(struct pdk_error *err)
{
	int rc;

	snprintf(dev_path, sizeof(dev_path), "%s/dev", options.runtime_dir);
	snprintf(mask_path, sizeof(mask_path), "%s/mask", options.runtime_dir);
	snprintf(root_path, sizeof(root_path), "%s/root", options.runtime_dir);
	snprintf(programs_path, sizeof(programs_path), "%s/programs", options.runtime_dir);
	has_mtrr = access("/proc/mtrr", F_OK) == 0;
	find_masks();
	rc = file_mkdir(AT_FDCWD, root_path, 0700);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "make the mount point of roots");
	rc = setup_dev(err);
	if (rc == 0)
		rc = setup_mask(err);
	return rc < 0 ? rc : setup_programs(err);
}

/* --- in the child --- */

/* One component (or a fixed relative path) below an image's directory: never through a symlink. */
static int inside(int dir, const char *path)
{
	int fd = kernel_openat2(dir, path, O_PATH | O_NOFOLLOW, RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH);

	return fd < 0 ? -errno : fd;
}

static int attach(int mnt, int dir, const char *path)
{
	_cleanup_fd_ int at = inside(dir, path);

	if (at < 0)
		return at;
	return move_mount(mnt, "", at, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0 ? -errno : 0;
}

struct option {
	const char *key, *value;
};

/* A new file system as a detached mount. */
static int new_mount(const char *type, const struct option *list, size_t count, unsigned int attributes)
{
	_cleanup_fd_ int fs = fsopen(type, FSOPEN_CLOEXEC);
	int mnt;

	if (fs < 0)
		return -errno;
	for (size_t i = 0; i < count; i++) {
		int rc = list[i].value ? fsconfig(fs, FSCONFIG_SET_STRING, list[i].key, list[i].value, 0)
				       : fsconfig(fs, FSCONFIG_SET_FLAG, list[i].key, NULL, 0);
		if (rc < 0)
			return -errno;
	}
	if (fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -errno;
	mnt = fsmount(fs, FSMOUNT_CLOEXEC, attributes);
	return mnt < 0 ? -errno : mnt;
}

/* Over our own copy of the pool: the same tree, with ids mapped into the sandbox's range. */
static int attach_idmapped(const char *from, int userns, const char *to)
{
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)userns};
	_cleanup_fd_ int tree = open_tree(AT_FDCWD, from, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

	if (tree < 0 || mount_setattr(tree, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0 ||
	    move_mount(tree, "", AT_FDCWD, to, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return -errno;
	return 0;
}

static int mount_overlay(const struct rootfs_plan *plan)
{
	char lower[200], upper[64], work[64];
	struct option list[] = {
		{"lowerdir", lower}, {"upperdir", upper}, {"workdir", work}, {"volatile", NULL}, {"source", "paddock"}};

	if (chdir(pool_path()) < 0)
		return -errno;
	if (plan->tools)
		snprintf(lower, sizeof(lower), "tools/%s:templates/%s", plan->tools, plan->template_id);
	else
		snprintf(lower, sizeof(lower), "templates/%s", plan->template_id);
	snprintf(upper, sizeof(upper), "sandboxes/%s/upper", plan->id);
	snprintf(work, sizeof(work), "sandboxes/%s/work", plan->id);
	return new_mount("overlay", list, ARRAY_SIZE(list), MOUNT_COMMON);
}

static int new_tmpfs(const struct rootfs_plan *plan, const char *mode, uint64_t bytes, unsigned int attributes)
{
	char size[32], inodes[32], id[16];
	struct option list[] = {{"size", size}, {"nr_inodes", inodes}, {"mode", mode},
				{"uid", id},    {"gid", id},           {"source", "tmpfs"}};

	snprintf(size, sizeof(size), "%" PRIu64, bytes);
	/* An inode of tmpfs costs about a kilobyte of the sandbox's memory limit. */
	snprintf(inodes, sizeof(inodes), "%" PRIu64, bytes / 2048 < plan->max_inodes ? bytes / 2048 : plan->max_inodes);
	snprintf(id, sizeof(id), "%" PRIu32, plan->base);
	return new_mount("tmpfs", list, ARRAY_SIZE(list), MOUNT_COMMON | attributes);
}

static int new_devpts(const struct rootfs_plan *plan)
{
	char tty_gid[16];
	struct option list[] = {{"newinstance", NULL}, {"ptmxmode", "0666"}, {"mode", "0620"},
				{"gid", tty_gid},      {"max", "1024"},      {"source", "devpts"}};

	snprintf(tty_gid, sizeof(tty_gid), "%" PRIu32, plan->base + 5);
	return new_mount("devpts", list, ARRAY_SIZE(list), MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
}

static int mount_dev(int root, const struct rootfs_parts *parts)
{
	_cleanup_fd_ int dev = open_tree(AT_FDCWD, dev_path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	int rc = dev < 0 ? -errno : attach(dev, root, "dev");

	if (rc == 0)
		rc = attach(parts->pts, dev, "pts");
	return rc < 0 ? rc : attach(parts->shm, dev, "shm");
}

/* Cover one name in the root of our own proc mount, where no image has a say and no name of these is a symlink; what
 * the kernel does not have needs no mask. */
static int mask_name(int proc, const struct mask *mask, int file, int dir)
{
	/* A module that came after us may have brought it. */
	enum mask_kind kind = mask->kind != MASK_ABSENT ? mask->kind : mask_kind(proc, mask->name);
	_cleanup_fd_ int cover = -1;

	if (kind == MASK_ABSENT)
		return 0;
	cover = open_tree(kind == MASK_DIRECTORY ? dir : file, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (cover < 0)
		return -errno;
	return move_mount(cover, "", proc, mask->name, MOVE_MOUNT_F_EMPTY_PATH) < 0 && errno != ENOENT ? -errno : 0;
}

static int make_readonly(int proc, const char *name)
{
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_COMMON | MOUNT_ATTR_NOEXEC};
	_cleanup_fd_ int tree = open_tree(proc, name, AT_SYMLINK_NOFOLLOW | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

	if (tree < 0)
		return errno == ENOENT ? 0 : -errno;
	if (mount_setattr(tree, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0 ||
	    move_mount(tree, "", proc, name, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return -errno;
	return 0;
}

/* Our own cover files, checked to be what we made: a regular empty file and a directory on a read-only mount. */
static int open_covers(int *ret_file, int *ret_dir)
{
	_cleanup_fd_ int mask = open(mask_path, O_DIRECTORY | O_PATH | O_CLOEXEC);
	struct stat st;

	if (mask < 0)
		return -errno;
	*ret_file = inside(mask, "file");
	*ret_dir = inside(mask, "dir");
	if (*ret_file < 0 || *ret_dir < 0)
		return -ENOENT;
	return fstat(*ret_file, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size != 0 ? -EIO : 0;
}

static int mount_proc(int root)
{
	_cleanup_fd_ int file = -1;
	_cleanup_fd_ int dir = -1;
	_cleanup_fd_ int proc =
		new_mount("proc", &(struct option){"source", "proc"}, 1, MOUNT_COMMON | MOUNT_ATTR_NOEXEC);
	int rc = proc < 0 ? proc : attach(proc, root, "proc");

	if (rc == 0)
		rc = netns_open_low_ports(proc); /* while it can be written */
	if (rc == 0)
		rc = open_covers(&file, &dir);
	for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(masked); i++)
		rc = mask_name(proc, &masked[i], file, dir);
	/* The caller is the process that these belong to. Its end by the kernel is not for the sandbox's root to
	 * choose. */
	for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(readonly_of_init); i++)
		rc = make_readonly(proc, readonly_of_init[i]);
	for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(readonly); i++)
		rc = make_readonly(proc, readonly[i]);
	return rc == 0 && has_mtrr ? make_readonly(proc, "mtrr") : rc;
}

/* init's meeting place with its `sudo` client. Owned by init's id, so the sandbox's user cannot replace it. */
static int new_run(const struct rootfs_plan *plan)
{
	_cleanup_fd_ int run = new_tmpfs(plan, "0755", 16u << 20, MOUNT_ATTR_NOEXEC);

	if (run < 0)
		return run;
	if (mkdirat(run, "paddock", 0755) < 0 || fchmodat(run, "paddock", 0755, 0) < 0 ||
	    fchownat(run, "paddock", plan->base + 65533, plan->base + 65533, AT_SYMLINK_NOFOLLOW) < 0 ||
	    mkdirat(run, "init", 0755) < 0 || fchmodat(run, "init", 0755, 0) < 0 || mkdirat(run, "lock", 01777) < 0 ||
	    fchmodat(run, "lock", 01777, 0) < 0)
		return -errno;
	return STEAL_FD(run);
}

static int attach_programs(int run)
{
	_cleanup_fd_ int tree = open_tree(AT_FDCWD, programs_path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

	return tree < 0 ? -errno : attach(tree, run, "init");
}

void rootfs_each_cover(void (*found)(const char *path, bool is_directory, void *arg), void *arg)
{
	_cleanup_fd_ int proc = open("/proc", O_DIRECTORY | O_PATH | O_CLOEXEC);
	char path[64];

	for (size_t i = 0; i < ARRAY_SIZE(masked); i++) {
		enum mask_kind kind = mask_kind(proc, masked[i].name);

		snprintf(path, sizeof(path), "/proc/%s", masked[i].name);
		if (kind != MASK_ABSENT)
			found(path, kind == MASK_DIRECTORY, arg);
	}
}

static int pivot(int root)
{
	if (fchdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		return -errno;
	return 0;
}

int rootfs_prepare(const struct rootfs_plan *plan, struct rootfs_parts *parts, const char **ret_step)
{
	int rc;

	parts->id = plan->id;
	*ret_step = "map the storage pool into the sandbox's ids";
	rc = attach_idmapped(pool_path(), plan->userns, pool_path());
	if (rc < 0)
		return rc;
	FAULT("child_before_overlay");
	*ret_step = "mount the root file system";
	parts->root = mount_overlay(plan);
	if (parts->root < 0)
		return parts->root;
	FAULT("child_before_dev");
	*ret_step = "make the file systems of /dev, /tmp and /run";
	parts->pts = new_devpts(plan);
	parts->shm = new_tmpfs(plan, "1777", plan->memory_bytes / 2, MOUNT_ATTR_NOEXEC);
	parts->tmp = new_tmpfs(plan, "1777", plan->memory_bytes / 2, 0);
	parts->run = new_run(plan);
	if (parts->pts < 0)
		return parts->pts;
	if (parts->shm < 0)
		return parts->shm;
	return parts->tmp < 0 ? parts->tmp : parts->run < 0 ? parts->run : 0;
}

static int cover_boot_id(const struct rootfs_parts *parts)
{
	_cleanup_fd_ int proc = inside(parts->root, "proc");

	return proc < 0 ? proc : bootid_cover(proc, parts->id);
}

int rootfs_enter(const struct rootfs_parts *parts, const char **ret_step)
{
	int rc;

	*ret_step = "attach the root file system";
	if (move_mount(parts->root, "", AT_FDCWD, root_path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return -errno;
	*ret_step = "mount /dev";
	rc = mount_dev(parts->root, parts);
	if (rc < 0)
		return rc;
	FAULT("child_before_proc");
	*ret_step = "mount /proc";
	rc = mount_proc(parts->root);
	if (rc < 0)
		return rc;
	FAULT("child_before_tmp");
	*ret_step = "give it a boot id of its own";
	rc = cover_boot_id(parts);
	if (rc < 0)
		return rc;
	*ret_step = "mount /tmp and /run";
	rc = attach(parts->tmp, parts->root, "tmp");
	if (rc == 0)
		rc = attach(parts->run, parts->root, "run");
	if (rc == 0)
		rc = attach_programs(parts->run);
	if (rc < 0)
		return rc;
	FAULT("child_before_pivot");
	*ret_step = "enter the root file system";
	return pivot(parts->root);
}

int rootfs_enter_import(const char *name, int is_template, int userns, const char **ret_step)
{
	char from[700], jail[600], target[700];
	_cleanup_fd_ int root = -1;
	int rc;

	snprintf(from, sizeof(from), "%s/%s/%s", pool_path(), is_template ? "templates" : "import", name);
	snprintf(jail, sizeof(jail), "%s/jail", mask_path);
	snprintf(target, sizeof(target), "%s/target", root_path);
	*ret_step = "mount the jail";
	root = open_tree(AT_FDCWD, jail, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (root < 0 || move_mount(root, "", AT_FDCWD, root_path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return -errno;
	*ret_step = "mount the template";
	rc = attach_idmapped(from, userns, target);
	if (rc < 0)
		return rc;
	*ret_step = "enter the jail";
	return pivot(root);
}
