#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "btrfs.h"
#include "cgroup.h"
#include "checkpoint_guard.h"
#include "checkpoint_private.h"
#include "criu.h"
#include "images.h"
#include "kernel.h"
#include "lazy.h"
#include "options.h"
#include "pool.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/fault.h"
#include "snapshot.h"

/*
 * The dump, of a sandbox whose leaf is frozen; it is frozen again when CRIU is done. Nothing of the sandbox changes:
 *
 *	`<id>.new` <- CRIU's images, made fit for a restore; the layer's token; the manifest
 *	`<id>`	   <- renamed; then the pool is synced, once, before anybody is told
 */

#define MOUNTS_MAX 64
#define SETTLE_TRIES 100
#define FOLLOW_MS 2
#define NICE (-10)

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

struct arguments {
	const char *list[CRIU_ARGS_MAX];
	char text[MOUNTS_MAX][160];
	size_t n, n_text;
};

static void add(struct arguments *arguments, const char *value)
{
	if (arguments->n + 1 < CRIU_ARGS_MAX)
		arguments->list[arguments->n++] = value;
}

static char *room(struct arguments *arguments)
{
	return arguments->n_text < MOUNTS_MAX ? arguments->text[arguments->n_text++] : NULL;
}

/* Mounts that the warden makes anew. CRIU itself takes care of `/`, /proc and its own parts, and of the three bounded
 * tmpfs with all that is in them. */
static bool is_external(const char *path, const char *type)
{
	if (strcmp(path, "/") == 0 || strcmp(type, "proc") == 0)
		return false;
	return strcmp(path, "/tmp") != 0 && strcmp(path, "/run") != 0 && strcmp(path, "/dev/shm") != 0;
}

static int add_mounts(struct arguments *arguments, pid_t pid)
{
	char path[64], line[2048], point[256], type[64], key[64], *dash;
	_cleanup_file_ FILE *mounts = NULL;

	snprintf(path, sizeof(path), "/proc/%d/mountinfo", pid);
	mounts = fopen(path, "re");
	if (!mounts)
		return -errno;
	while (fgets(line, sizeof(line), mounts)) {
		char *text;

		dash = strstr(line, " - ");
		if (!dash || sscanf(line, "%*s %*s %*s %*s %255s", point) != 1 || sscanf(dash, " - %63s", type) != 1)
			return -EBADMSG;
		if (!is_external(point, type))
			continue;
		text = room(arguments);
		if (!text || strlen(point) > 60)
			return -E2BIG;
		checkpoint_mount_key(point, key);
		snprintf(text, 160, "mnt[%.60s]:%.60s", point, key);
		add(arguments, "--external");
		add(arguments, text);
	}
	return 0;
}

static int inode_of(pid_t pid, const char *link, unsigned long *ret)
{
	char path[64], target[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, link);
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return -errno;
	target[n] = '\0';
	return sscanf(target, "%*[a-z]:[%lu]", ret) == 1 ? 0 : -EBADMSG;
}

/*
 * A dump asks each process some thirty questions, one after the other, and on a busy machine each answer waits for its
 * turn: 200 processes stood still for 10 s instead of 2. So it goes before others, but one dump only: who pauses his
 * sandboxes all the time gains no more than that.
 */
static void hurry(const struct checkpoint_plan *plan)
{
	if (plan->alone)
		setpriority(PRIO_PROCESS, 0, NICE); /* of use only */
}

static int execute(const struct checkpoint_plan *plan, int dir)
{
	struct arguments arguments = {.n = 0};
	unsigned long net;
	char tree[16], freezer[40], *external = room(&arguments);
	int rc = inode_of(plan->pid, "ns/net", &net);

	if (rc < 0 || (rc = add_mounts(&arguments, plan->pid)) < 0)
		return rc;
	snprintf(tree, sizeof(tree), "%d", plan->pid);
	snprintf(external, 160, "net[%lu]:net", net);
	snprintf(freezer, sizeof(freezer), "/proc/self/fd/%d", CHECKPOINT_FD + 1);
	if (dup2(dir, CHECKPOINT_FD) < 0 || dup2(plan->cgroup, CHECKPOINT_FD + 1) < 0 ||
	    dup2(plan->lock, CHECKPOINT_FD + 2) < 0)
		return -errno;
	const char *const rest[] = {"dump",
				    "--tree",
				    tree,
				    "--images-dir",
				    "/proc/self/fd/100",
				    "--log-file",
				    "dump.log",
				    "-v2",
				    "--leave-running",
				    "--external",
				    external,
				    "--network-lock",
				    "skip",
				    "--tcp-established",
				    "--manage-cgroups=ignore",
				    "--freeze-cgroup",
				    freezer,
				    "--ghost-limit",
				    "1G",
				    "--file-locks"};

	hurry(plan);
	/* The command comes first, the mounts behind it. */
	memmove(arguments.list + sizeof(rest) / sizeof(rest[0]), arguments.list, arguments.n * sizeof(char *));
	memcpy(arguments.list, rest, sizeof(rest));
	criu_execute(arguments.list);
	return -errno;
}

/* /run of our own copy of the mounts is memory that lasts as long as the warden. */
static int place_cache(void)
{
	char path[600];

	int rc = unshare(CLONE_NEWNS) < 0 ? -errno : checkpoint_place_devpts();

	if (rc < 0)
		return rc;
	if (strncmp(options.runtime_dir, "/run/", 5) == 0)
		return 0; /* then it is memory already */
	snprintf(path, sizeof(path), "%s/criu", options.runtime_dir);
	return mount(path, "/run", NULL, MS_BIND, NULL) < 0 ? -errno : 0;
}

/* Whether a process of the leaf waits where no tracer can stop it. */
static bool one_is_stuck(const char *id)
{
	int fd = cgroup_open_procs(id), pid;
	_cleanup_file_ FILE *procs = fd < 0 ? NULL : fdopen(fd, "re");
	char path[64], text[512], *state;
	bool stuck = false;

	while (procs && !stuck && fscanf(procs, "%d", &pid) == 1) {
		snprintf(path, sizeof(path), "/proc/%d/stat", pid);
		if (pid <= 0 || file_read(AT_FDCWD, path, text, sizeof(text)) <= 0)
			continue;
		state = strrchr(text, ')');
		stuck = state && strncmp(state, ") D", 3) == 0;
	}
	return stuck;
}

/* A process that has called vfork() cannot be stopped before its child has executed a program, and the frozen child
 * never does: CRIU would wait for it in vain. It takes a moment of running to be past that. */
static void settle(const char *id)
{
	for (int i = 0; i < SETTLE_TRIES; i++) {
		for (int spin = 0; spin < 100 && !cgroup_frozen(id); spin++)
			usleep(100);
		if (!one_is_stuck(id))
			return;
		cgroup_freeze(id, false);
		usleep(1000);
		cgroup_freeze(id, true);
	}
}

static int make_directory(enum pool_dir parent, const char *name, char aside[40])
{
	int rc, dir;

	snprintf(aside, 40, "%.24s.new", name);
	rc = pool_discard(parent, aside);
	if (rc == 0)
		rc = btrfs_subvolume_create(pool_dir(parent), aside);
	if (rc < 0)
		return rc;
	dir = openat(pool_dir(parent), aside, O_DIRECTORY | O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (dir < 0 || fchmod(dir, 0700) < 0)
		return -errno;
	rc = strcmp(options.compress, "none") == 0 ? 0 : btrfs_compress(dir, options.compress);
	return rc < 0 ? rc : dir;
}

static void followed(struct images_follower **follower)
{
	images_follower_free(*follower);
}

/* Until the guard ends. */
static void follow(pid_t guard, struct images_follower *follower)
{
	_cleanup_fd_ int pidfd = pidfd_open(guard, 0);
	struct pollfd end = {.fd = pidfd, .events = POLLIN};

	while (pidfd >= 0 && poll(&end, 1, FOLLOW_MS) == 0)
		images_follow(follower);
}

static int take_images(const struct checkpoint_plan *plan, int dir, struct images_follower *follower,
		       struct pdk_error *err)
{
	struct checkpoint_notes notes = {0};
	struct guard guard;
	int rc = inode_of(plan->pid, "fd/3", &notes.listener);

	snprintf(notes.template_id, sizeof(notes.template_id), "%s", plan->rootfs.template_id);
	if (rc == 0)
		rc = checkpoint_write_notes(dir, &notes);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "look at the sandbox");
	/* Neither ends with us: while CRIU works, its own code runs in the sandbox's processes, and it takes that out again
	 * also when nobody wants the images any more. Until then they have the lock. */
	rc = guard_start(plan, dir, execute, &guard, err);
	if (rc < 0)
		return rc;
	if (follower)
		follow(guard.pid, follower);
	return guard_wait(&guard, dir, err);
}

/* The layer was mounted "volatile", and a mark in it forbids another mount. Its data is on disk when the pool is
 * synced, which is after the images have their name. */
static int finish_layer(const struct checkpoint_plan *plan)
{
	_cleanup_fd_ int layer = pool_open_directory(POOL_SANDBOXES, plan->id);
	int rc = layer < 0 ? layer : checkpoint_unmark_layer(layer);

	return rc < 0 ? rc : checkpoint_put_token(layer, plan->token);
}

/* Under its name, and with `durable` on the disk as well: all that was written, in one go. */
static int commit(enum pool_dir where, const char *aside, const char *name, bool durable)
{
	int parent = pool_dir(where);
	int rc = pool_discard(where, name);

	if (rc == 0 && renameat2(parent, aside, parent, name, RENAME_NOREPLACE) < 0)
		rc = -errno;
	return rc == 0 && durable && syncfs(parent) < 0 ? -errno : rc;
}

/* CRIU dumps what is there. All that is still missing comes first, while the sandbox runs. */
static int freeze_whole(struct checkpoint_plan *plan, struct pdk_error *err)
{
	int rc = lazy_finish(plan->id, err);

	if (rc < 0)
		return rc;
	FAULT("lazy_whole");
	rc = cgroup_freeze(plan->id, true);
	(void)cgroup_limit_cpu(plan->id, 0); /* as of one that is frozen from the start */
	plan->frozen_ns = now_ns();
	return rc < 0 ? pdk_fail_errno(err, rc, "freeze the sandbox") : 0;
}

static int dump(const struct checkpoint_plan *plan, struct checkpoint_result *result, struct pdk_error *err)
{
	const struct images_binding binding = {
		.id = plan->id, .template_id = plan->rootfs.template_id, .token = plan->token};
	_cleanup_(followed) struct images_follower *follower = NULL;
	_cleanup_fd_ int dir = -1;
	char aside[40];
	int rc = place_cache();

	if (rc == 0)
		rc = dir = make_directory(POOL_CHECKPOINTS, plan->id, aside);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "make a place for the checkpoint");
	follower = images_follower_create(dir, true);
	settle(plan->id);
	FAULT("dump_begun");
	rc = take_images(plan, dir, follower, err);
	if (rc < 0)
		return rc;
	FAULT("dump_written");
	rc = images_adapt(dir);
	if (rc == 0)
		rc = finish_layer(plan);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "finish the checkpoint");
	rc = images_seal(dir, follower, &binding, &result->bytes, err);
	if (rc < 0)
		return rc;
	FAULT("dump_sealed");
	rc = commit(POOL_CHECKPOINTS, aside, plan->id, true);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "store the checkpoint");
	btrfs_quota_usage(dir, &result->stored_bytes); /* exact: the commit was one of btrfs's */
	return 0;
}

/* Memory and layer are copied: it may go on. Nothing that follows needs it. */
static int run_on(const struct checkpoint_plan *plan, struct checkpoint_result *result)
{
	int rc = cgroup_limit_cpu(plan->id, plan->cpu_millis);

	if (rc == 0)
		rc = cgroup_freeze(plan->id, false);
	if (rc < 0)
		return rc;
	result->runs_on = true;
	result->stopped_usec = (now_ns() - plan->frozen_ns) / 1000;
	rc = write(plan->status, result, sizeof(*result)) == (ssize_t)sizeof(*result) ? 0 : -EPIPE;
	result->runs_on = false;
	return rc;
}

static int seal_snapshot(const struct checkpoint_plan *plan, int dir, struct images_follower *follower,
			 const char *aside, struct checkpoint_result *result, struct pdk_error *err)
{
	const struct images_binding binding = {
		.id = plan->snapshot, .template_id = plan->rootfs.template_id, .token = plan->token};
	int rc = images_adapt(dir);

	if (rc == 0)
		rc = snapshot_finish_layer(plan->snapshot, plan->token);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "finish the snapshot");
	rc = images_seal(dir, follower, &binding, &result->bytes, err);
	if (rc < 0)
		return rc;
	FAULT("snapshot_sealed");
	rc = btrfs_subvolume_set_readonly(dir, true);
	if (rc == 0)
		rc = commit(POOL_SNAPSHOTS, aside, plan->snapshot, !plan->brief);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "store the snapshot");
	if (!plan->brief)
		btrfs_quota_usage(dir, &result->stored_bytes);
	return 0;
}

static int snapshot(const struct checkpoint_plan *plan, struct checkpoint_result *result, struct pdk_error *err)
{
	_cleanup_(followed) struct images_follower *follower = NULL;
	_cleanup_fd_ int dir = -1;
	char aside[40];
	int rc = place_cache();

	if (rc == 0)
		rc = dir = make_directory(POOL_SNAPSHOTS, plan->snapshot, aside);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "make a place for the snapshot");
	/* What is on its way to the disk would be waited for when the layer is copied, while nothing runs. */
	follower = images_follower_create(dir, false);
	settle(plan->id);
	FAULT("snapshot_begun");
	rc = take_images(plan, dir, follower, err);
	if (rc < 0)
		return rc;
	FAULT("snapshot_written");
	rc = snapshot_copy_layer(plan->id, plan->snapshot);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "copy the disk layer");
	pool_layer_usage(plan->id, &result->layer_bytes, &(uint64_t){0}); /* exact: the copy was a commit */
	FAULT("snapshot_copied");
	rc = run_on(plan, result);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "let the sandbox go on");
	return seal_snapshot(plan, dir, follower, aside, result, err);
}

/* What stands in for the images is their folder with the notes alone. */
static int layer(const struct checkpoint_plan *plan, struct checkpoint_result *result, struct pdk_error *err)
{
	struct checkpoint_notes notes = {0};
	_cleanup_fd_ int dir = -1;
	char aside[40];
	int rc = dir = make_directory(POOL_SNAPSHOTS, plan->snapshot, aside);

	snprintf(notes.template_id, sizeof(notes.template_id), "%s", plan->rootfs.template_id);
	if (rc >= 0)
		rc = checkpoint_write_notes(dir, &notes);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "make a place for the layer");
	settle(plan->id);
	rc = snapshot_copy_layer(plan->id, plan->snapshot);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "copy the disk layer");
	pool_layer_usage(plan->id, &result->layer_bytes, &(uint64_t){0}); /* exact: the copy was a commit */
	rc = run_on(plan, result);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "let the sandbox go on");
	rc = snapshot_finish_layer(plan->snapshot, 0);
	if (rc == 0)
		rc = btrfs_subvolume_set_readonly(dir, true);
	if (rc == 0)
		rc = commit(POOL_SNAPSHOTS, aside, plan->snapshot, true);
	return rc < 0 ? pdk_fail_errno(err, rc, "store the layer") : 0;
}

static void __attribute__((noreturn))
run(const struct checkpoint_plan *plan,
    int (*work)(const struct checkpoint_plan *plan, struct checkpoint_result *result, struct pdk_error *err))
{
	struct pdk_error err = {.code = PDK_OK};
	struct checkpoint_result result = {0};
	struct checkpoint_plan frozen = *plan;
	int rc;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	rc = plan->is_lazy ? freeze_whole(&frozen, &err) : 0;
	if (rc == 0)
		rc = work(&frozen, &result, &err);
	checkpoint_tell(plan->status, rc, &err, &result);
}

void checkpoint_run_dump(const struct checkpoint_plan *plan)
{
	run(plan, dump);
}

void checkpoint_run_snapshot(const struct checkpoint_plan *plan)
{
	run(plan, snapshot);
}

void checkpoint_run_layer(const struct checkpoint_plan *plan)
{
	run(plan, layer);
}
