#include <errno.h>
#include <fcntl.h>
#include <linux/securebits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bootid.h"
#include "cgroup.h"
#include "checkpoint_private.h"
#include "child.h"
#include "criu.h"
#include "images.h"
#include "kernel.h"
#include "lazy.h"
#include "log.h"
#include "options.h"
#include "pool.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/fault.h"
#include "snapshot.h"

/*
 * The restore takes two processes beside CRIU's own. The supervisor has the host's capabilities and checks; the runner,
 * born in the sandbox's cgroup, makes the file systems, enters the sandbox's user and network namespace, and becomes
 * CRIU.
 *
 * CRIU calls back when all processes are there and none has run (its "pre-resume" script: one line of shell on two
 * pipes). The supervisor then waits for the check of their pages, which went on meanwhile, verifies every one of them,
 * and ends the cgroup if it finds anything. The server of pages of a lazy restore (lazy.h) is told that it is on its
 * own. What it lets go is frozen, so that CRIU can end, in whatever way, before anything
 * runs: until then a failure leaves the checkpoint as it was. The rest is the warden's (sandbox_take_restored()).
 */

#define FD_LISTENER (CHECKPOINT_FD + 2)
#define FD_SAY (CHECKPOINT_FD + 3)
#define FD_HEAR (CHECKPOINT_FD + 4)
#define HOOK "paddock-hook" /* in sandbox/criu/preload.c, as are the numbers of its descriptors */

/* --- the runner --- */

static const char *images_name(const struct checkpoint_plan *plan)
{
	return plan->snapshot ? plan->snapshot : plan->id;
}

static int stage(const struct checkpoint_plan *plan, int work)
{
	struct rootfs_parts parts;
	const char *step;
	char path[600];
	int rc;

	/* As the builder of a new sandbox: the layers are worked on with the ids of the sandbox's root. */
	if (prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP) < 0 ||
	    setresgid(plan->rootfs.base, plan->rootfs.base, 0) < 0 ||
	    setresuid(plan->rootfs.base, plan->rootfs.base, 0) < 0)
		return -errno;
	rc = rootfs_prepare(&plan->rootfs, &parts, &step);
	if (rc == 0)
		rc = bootid_protect();
	if (rc < 0)
		return rc;
	snprintf(path, sizeof(path), "%s/root", options.runtime_dir);
	if (move_mount(parts.root, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return -errno;
	snprintf(path, sizeof(path), "%s/stage", options.runtime_dir);
	if (move_mount(parts.pts, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return -errno;
	snprintf(path, sizeof(path), "%s/work", options.runtime_dir);
	return move_mount(work, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0 ? -errno : 0;
}

int checkpoint_enter(const struct checkpoint_plan *plan)
{
	if (setresuid(0, 0, 0) < 0 || setresgid(0, 0, 0) < 0 || setns(plan->rootfs.userns, CLONE_NEWUSER) < 0 ||
	    setresuid(0, 0, 0) < 0 || setresgid(0, 0, 0) < 0 || setns(plan->netns, CLONE_NEWNET) < 0 ||
	    unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWCGROUP) < 0 ||
	    sethostname(plan->hostname, strlen(plan->hostname)) < 0)
		return -errno;
	return 0;
}

#define MOUNTS_MAX 48

struct mounts {
	char text[MOUNTS_MAX][700];
	size_t n;
};

static void add_mount(struct mounts *mounts, const char *inside, const char *name)
{
	char key[64];

	if (mounts->n == MOUNTS_MAX)
		return;
	checkpoint_mount_key(inside, key);
	snprintf(mounts->text[mounts->n++], sizeof(mounts->text[0]), "mnt[%s]:%.500s/%.100s", key, options.runtime_dir,
		 name);
}

static void add_cover(const char *path, bool is_directory, void *arg)
{
	add_mount(arg, path, is_directory ? "mask/dir" : "mask/file");
}

static int execute(const struct checkpoint_plan *plan, unsigned long listener, bool is_lazy)
{
	static struct mounts mounts;
	const char *arguments[CRIU_ARGS_MAX];
	char images[700], root[600], work[600], inherit[64], boot[64];
	size_t n;

	add_mount(&mounts, "/dev", "dev");
	add_mount(&mounts, "/dev/pts", "stage");
	add_mount(&mounts, "/run/init", "programs");
	snprintf(boot, sizeof(boot), "boot/%s", plan->id);
	add_mount(&mounts, BOOTID_PLACE, boot);
	rootfs_each_cover(add_cover, &mounts);
	snprintf(images, sizeof(images), "%s/%s/%s", pool_path(), plan->snapshot ? "snapshots" : "checkpoints",
		 images_name(plan));
	snprintf(work, sizeof(work), "%s/work", options.runtime_dir);
	snprintf(root, sizeof(root), "%s/root", options.runtime_dir);
	snprintf(inherit, sizeof(inherit), "fd[%d]:socket:[%lu]", FD_LISTENER, listener);
	const char *const fixed[] = {"restore",
				     "--images-dir",
				     images,
				     "--work-dir",
				     work,
				     "--log-file",
				     "restore.log",
				     "-v2",
				     "--root",
				     root,
				     "--inherit-fd",
				     inherit,
				     "--tcp-established",
				     "--manage-cgroups=ignore",
				     "--file-locks",
				     "--restore-detached",
				     "--action-script",
				     HOOK};

	memcpy(arguments, fixed, sizeof(fixed));
	n = ARRAY_SIZE(fixed);
	if (is_lazy)
		arguments[n++] = "--lazy-pages";
	for (size_t i = 0; i < mounts.n; i++) {
		arguments[n++] = "--external";
		arguments[n++] = mounts.text[i];
	}
	arguments[n] = NULL;
	criu_execute(arguments);
	return -errno;
}

static void run(const struct checkpoint_plan *plan, unsigned long listener, int work, int say, int hear, bool is_lazy)
	__attribute__((noreturn));
static void run(const struct checkpoint_plan *plan, unsigned long listener, int work, int say, int hear, bool is_lazy)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (dup2(plan->listener, FD_LISTENER) < 0 || dup2(say, FD_SAY) < 0 || dup2(hear, FD_HEAR) < 0 || setsid() < 0 ||
	    cgroup_join_v1(plan->id) < 0 || unshare(CLONE_NEWNS) < 0 || checkpoint_place_devpts() < 0 ||
	    stage(plan, work) < 0)
		_exit(CHECKPOINT_NOT_PREPARED);
	checkpoint_place_probe();
	if (checkpoint_enter(plan) < 0)
		_exit(CHECKPOINT_NOT_PREPARED);
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* another user id has taken it back */
	execute(plan, listener, is_lazy);
	_exit(127);
}

/* --- the supervisor --- */

/* A program in anonymous memory stays refused: the setting belongs to the pid namespace, which is new. */
static int refuse_memory_programs(pid_t first)
{
	char path[64];
	int status;
	pid_t pid;
	_cleanup_fd_ int space = -1;

	if (!child_has_memfd_noexec())
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/ns/pid", first);
	space = open(path, O_RDONLY | O_CLOEXEC);
	if (space < 0)
		return -errno;
	pid = fork();
	if (pid == 0) {
		/* Only a child is in the namespace, and it must not stay in there: it is gone before anything runs. */
		if (setns(space, CLONE_NEWPID) < 0)
			_exit(1);
		pid = fork();
		if (pid == 0)
			_exit(file_write(AT_FDCWD, "/proc/sys/vm/memfd_noexec", "2") < 0);
		_exit(pid < 0 || waitpid(pid, &status, 0) != pid || status != 0);
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0 ? 0 : -EPERM;
}

/* The child that looks at the pages while CRIU restores them. */
struct checker {
	pid_t pid; /* 0: there is none, as there is no need */
	int fd;    /* it says what it found, once */
};

struct finding {
	int rc;
	struct pdk_error err;
};

/* `lazy`: only of those that are restored at once. */
static int checker_start(struct checker *checker, int dir, const struct images_binding *binding,
			 const struct lazy *lazy, struct pdk_error *err)
{
	struct finding finding = {.rc = 0};
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return pdk_fail_errno(err, -errno, "make a pipe");
	checker->fd = ends[0];
	checker->pid = fork();
	if (checker->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		finding.rc = lazy ? lazy_check_rest(lazy, &finding.err)
				  : images_check(dir, binding, IMAGES_PAGES, &finding.err);
		_exit(write(ends[1], &finding, sizeof(finding)) != (ssize_t)sizeof(finding));
	}
	close(ends[1]);
	return checker->pid < 0 ? pdk_fail_errno(err, -errno, "start a child") : 0;
}

/* 0: the pages are good. */
static int checker_wait(const struct checker *checker, struct pdk_error *err)
{
	struct finding finding;

	if (!checker->pid)
		return 0;
	if (read(checker->fd, &finding, sizeof(finding)) != (ssize_t)sizeof(finding))
		return pdk_fail(err, -EIO, PDK_UNAVAILABLE, "the check of the checkpoint was ended");
	if (finding.rc < 0)
		*err = finding.err;
	return finding.rc;
}

/* Wait until it has its finding, or CRIU says something or ends. True: the finding is there. */
static bool checker_was_first(const struct checker *checker, int hook)
{
	struct pollfd ends[] = {{.fd = checker->fd, .events = POLLIN}, {.fd = hook, .events = POLLIN}};

	if (!checker->pid)
		return false;
	while (poll(ends, ARRAY_SIZE(ends), -1) < 0 && errno == EINTR)
		;
	return ends[0].revents;
}

static void checker_end(struct checker *checker)
{
	if (checker->pid > 0) {
		kill(checker->pid, SIGKILL);
		waitpid(checker->pid, NULL, 0);
	}
	if (checker->fd >= 0)
		close(checker->fd);
}

/*
 * CRIU and its messenger were born in the leaf; from here on only what they have restored is in it, so it can be frozen: when
 * CRIU lets go of a process, that stands still before its first instruction, until the warden has written down that it is
 * the sandbox now (sandbox_take_restored()).
 */
static int hold(const struct checkpoint_plan *plan, pid_t first)
{
	int fd = cgroup_open_procs(plan->id), pid, rc = 0;
	_cleanup_file_ FILE *procs = fd < 0 ? NULL : fdopen(fd, "re");

	if (!procs)
		return -ENOENT;
	while (rc == 0 && fscanf(procs, "%d", &pid) == 1)
		if (pid > 0 && !checkpoint_is_inside(pid, first) && (rc = cgroup_take_out(pid)) == -ESRCH)
			rc = 0;
	return rc < 0 ? rc : cgroup_freeze(plan->id, true);
}

/* CRIU has put everything together: look at it, then let it go. */
static int admit(const struct checkpoint_plan *plan, struct lazy *lazy, const char *word, int answer, pid_t *ret_first,
		 struct pdk_error *err)
{
	int first, rc;

	if (sscanf(word, "%d", &first) != 1 || first <= 1)
		return pdk_fail(err, -EPROTO, PDK_INTERNAL, "CRIU did not say what it restored");
	rc = checkpoint_verify(plan, first, err);
	if (rc < 0)
		return rc;
	rc = refuse_memory_programs(first);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "set vm.memfd_noexec");
	FAULT("restore_verified");
	rc = lazy ? lazy_admit(lazy, first, err) : 0;
	if (rc < 0)
		return rc;
	rc = hold(plan, first);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "hold the restored processes");
	FAULT("restore_admitted");
	if (write(answer, "ok\n", 3) != 3)
		return pdk_fail_errno(err, -errno, "let the sandbox go");
	*ret_first = first;
	return 0;
}

/* The word of CRIU, or 0 when it has ended without one: what it has restored so far has the pipe too. */
static ssize_t hear(int hook, pid_t runner, char *word, size_t size)
{
	_cleanup_fd_ int pidfd = pidfd_open(runner, 0);
	struct pollfd either[] = {{.fd = hook, .events = POLLIN}, {.fd = pidfd, .events = POLLIN}};

	if (pidfd < 0 || poll(either, ARRAY_SIZE(either), -1) < 0)
		return -errno;
	return either[0].revents & POLLIN ? read(hook, word, size) : 0;
}

static int watch_over(const struct checkpoint_plan *plan, struct lazy *lazy, int work, pid_t runner, int hook,
		      int answer, struct checker *checker, pid_t *ret_first, struct pdk_error *err)
{
	char word[32] = "";
	bool is_checked = checker_was_first(checker, hook);
	/* CRIU waits for ever for pages that are missing at the end: then it has to be ended by what was found. */
	int rc = is_checked ? checker_wait(checker, err) : 0, ended;
	ssize_t n = rc < 0 ? 0 : hear(hook, runner, word, sizeof(word) - 1);

	/* Also where CRIU has failed: damage is the better reason. */
	if (!is_checked)
		rc = checker_wait(checker, err);
	if (n > 0 && rc == 0)
		rc = admit(plan, lazy, word, answer, ret_first, err);
	if (rc < 0) {
		cgroup_kill(plan->id);
		kill(runner, SIGKILL); /* which may be out of it */
	}
	ended = checkpoint_wait(runner, work, "restore.log", rc < 0 ? NULL : err);
	if (rc == 0 && ended == 0 && n <= 0)
		rc = pdk_fail(err, -EPROTO, PDK_INTERNAL, "CRIU ended without asking");
	return rc < 0 ? rc : ended;
}

/* Where CRIU writes its log: memory, owned by the sandbox's root, as long as somebody holds the descriptor. The images
 * are read only, perhaps by several at once. */
int checkpoint_make_work(const struct checkpoint_plan *plan)
{
	_cleanup_fd_ int fs = fsopen("tmpfs", FSOPEN_CLOEXEC);
	char id[16];
	int mnt;

	snprintf(id, sizeof(id), "%u", plan->rootfs.base);
	if (fs < 0 || fsconfig(fs, FSCONFIG_SET_STRING, "size", "4m", 0) < 0 ||
	    fsconfig(fs, FSCONFIG_SET_STRING, "mode", "0700", 0) < 0 ||
	    fsconfig(fs, FSCONFIG_SET_STRING, "uid", id, 0) < 0 ||
	    fsconfig(fs, FSCONFIG_SET_STRING, "gid", id, 0) < 0 || fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -errno;
	mnt = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
	return mnt < 0 ? -errno : mnt;
}

static int start_runner(const struct checkpoint_plan *plan, struct lazy *lazy, unsigned long listener,
			struct checker *checker, pid_t *ret_first, struct pdk_error *err)
{
	_cleanup_fd_ int work = checkpoint_make_work(plan);
	struct clone_args args = {.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (uint64_t)plan->cgroup};
	int hook[2], answer[2];
	pid_t runner;

	if (work < 0)
		return pdk_fail_errno(err, work, "make a place to work in");
	checkpoint_probe(plan);
	if (lazy && lazy_start(lazy, plan, work, err) < 0)
		return -EAGAIN;
	if (pipe2(hook, O_CLOEXEC) < 0 || pipe2(answer, O_CLOEXEC) < 0)
		return pdk_fail_errno(err, -errno, "make pipes");
	/* Our library opens them again inside, as the sandbox's root. */
	if (fchown(hook[1], plan->rootfs.base, plan->rootfs.base) < 0 ||
	    fchown(answer[0], plan->rootfs.base, plan->rootfs.base) < 0)
		return pdk_fail_errno(err, -errno, "hand pipes to CRIU");
	runner = kernel_clone3(&args);
	if (runner == 0)
		run(plan, listener, work, hook[1], answer[0], lazy);
	if (runner < 0)
		return pdk_fail_errno(err, -errno, "start CRIU");
	close(hook[1]);
	close(answer[0]);
	return watch_over(plan, lazy, work, runner, hook[0], answer[1], checker, ret_first, err);
}

/* Images of a snapshot are good for as many copies as are made while they are in the state that was checked. */
static bool is_known_good(const struct checkpoint_plan *plan, int dir, uint64_t *ret_generation)
{
	*ret_generation = plan->snapshot ? snapshot_generation(dir) : 0;
	return *ret_generation && *ret_generation == plan->checked_generation;
}

/* What stands between a lazy restore and the images makes it a plain one, which looks at all of them. */
static struct lazy *prepare_lazy(const struct checkpoint_plan *plan, int dir)
{
	struct lazy *lazy = NULL;
	int rc = lazy_prepare(plan, dir, &lazy);

	if (rc < 0)
		log_warning("restore_plain", plan->id, "no lazy restore: %s", strerror(-rc));
	return lazy;
}

/* All that CRIU interprets is good before it runs. The pages are looked at meanwhile, by a child; or, if they come lazily,
 * each when it comes. */
static int check_images(const struct checkpoint_plan *plan, int dir, struct checker *checker, struct lazy **ret_lazy,
			uint64_t *ret_generation, struct pdk_error *err)
{
	const struct images_binding binding = {
		.id = images_name(plan), .template_id = plan->rootfs.template_id, .token = plan->token};
	bool is_large = lazy_is_large(dir);
	int rc;

	if (!is_large && is_known_good(plan, dir, ret_generation))
		return images_check_binding(dir, &binding, err);
	rc = is_large ? 0 : checker_start(checker, dir, &binding, NULL, err);
	if (rc == 0)
		rc = images_check(dir, &binding, IMAGES_STRUCTURE, err);
	if (rc < 0 || !is_large)
		return rc;
	*ret_lazy = prepare_lazy(plan, dir);
	if (*ret_lazy)
		*ret_generation = 0; /* not all of them is checked */
	else if (is_known_good(plan, dir, ret_generation))
		return 0;
	return checker_start(checker, dir, &binding, *ret_lazy, err);
}

/* A restore that failed before anything ran has mounted the layer, and left its mark. */
static int unmark_layer(const struct checkpoint_plan *plan)
{
	_cleanup_fd_ int layer = pool_open_directory(POOL_SANDBOXES, plan->id);

	return layer < 0 ? layer : checkpoint_unmark_layer(layer);
}

static void free_lazy(struct lazy **lazy)
{
	lazy_free(*lazy);
}

static int restore(const struct checkpoint_plan *plan, struct checkpoint_result *result, struct pdk_error *err)
{
	_cleanup_fd_ int dir = openat(pool_dir(plan->snapshot ? POOL_SNAPSHOTS : POOL_CHECKPOINTS), images_name(plan),
				      O_DIRECTORY | O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	_cleanup_(checker_end) struct checker checker = {.fd = -1};
	_cleanup_(free_lazy) struct lazy *lazy = NULL;
	struct checkpoint_notes notes;
	int rc;

	if (dir < 0)
		return pdk_fail(err, -ENOENT, PDK_DATA_LOSS, "the checkpoint is gone");
	if (checkpoint_layer_token(plan->id) != plan->token)
		return pdk_fail(err, -EBADMSG, PDK_DATA_LOSS, "the checkpoint does not belong to what is on the disk");
	rc = check_images(plan, dir, &checker, &lazy, &result->generation, err);
	if (rc < 0)
		return rc;
	rc = checkpoint_read_notes(dir, &notes);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "read the notes of the checkpoint");
	rc = unmark_layer(plan);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "take the layer into use");
	FAULT("restore_checked");
	result->lazy = lazy;
	return start_runner(plan, lazy, notes.listener, &checker, &result->pid, err);
}

void checkpoint_run_restore(const struct checkpoint_plan *plan)
{
	struct pdk_error err = {.code = PDK_OK};
	struct checkpoint_result result = {0};
	int rc;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_IGN);
	rc = restore(plan, &result, &err);
	if (rc < 0)
		cgroup_kill(plan->id);
	checkpoint_tell(plan->status, rc, &err, &result);
}
