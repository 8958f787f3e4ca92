#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "caps.h"
#include "cgroup.h"
#include "checkpoint_private.h"
#include "kernel.h"
#include "sandbox/base/cleanup.h"
#include "userns.h"

/*
 * The second lock behind the sealed images: before a restored process runs its first instruction, each of its threads
 * is looked at from outside. All of them must be what the warden would have made: ids of the sandbox's range, no
 * capability beyond the bounding set, a system call filter, no_new_privs, and the namespaces of the sandbox.
 */

struct wanted {
	const struct checkpoint_plan *plan;
	struct stat user, net, pid, mnt, ipc, uts, cgroup;
	unsigned int seen;
};

static int namespace_of(pid_t pid, const char *name, struct stat *ret)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/%s", pid, name);
	return stat(path, ret) < 0 ? -errno : 0;
}

static bool same(const struct stat *a, const struct stat *b)
{
	return a->st_ino == b->st_ino && a->st_dev == b->st_dev;
}

static bool ids_are_inside(const char *status, const char *name, uint32_t base)
{
	const char *line = strstr(status, name);
	unsigned int ids[4];

	if (!line || sscanf(line + strlen(name), "%u %u %u %u", &ids[0], &ids[1], &ids[2], &ids[3]) != 4)
		return false;
	for (int i = 0; i < 4; i++)
		if (ids[i] < base || ids[i] - base >= USERNS_IDS)
			return false;
	return true;
}

static bool number_is(const char *status, const char *name, unsigned int value)
{
	const char *line = strstr(status, name);
	unsigned int found;

	return line && sscanf(line + strlen(name), "%u", &found) == 1 && found == value;
}

static bool caps_are_bounded(const char *status)
{
	static const char *const sets[] = {"\nCapInh:", "\nCapPrm:", "\nCapEff:", "\nCapBnd:", "\nCapAmb:"};

	for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
		const char *line = strstr(status, sets[i]);
		uint64_t held;

		if (!line || sscanf(line + strlen(sets[i]), "%" SCNx64, &held) != 1 || (held & ~caps_allowed()))
			return false;
	}
	return true;
}

/* What is wrong with a thread, or NULL. */
static const char *look_at(pid_t pid, const char *thread, uint32_t base)
{
	char path[96], status[4096];

	snprintf(path, sizeof(path), "/proc/%d/task/%.16s/status", pid, thread);
	if (file_read(AT_FDCWD, path, status, sizeof(status)) <= 0)
		return "it cannot be looked at";
	if (!ids_are_inside(status, "\nUid:", base) || !ids_are_inside(status, "\nGid:", base))
		return "its ids are not the sandbox's";
	if (!caps_are_bounded(status))
		return "it has a capability that no sandbox has";
	if (!number_is(status, "\nNoNewPrivs:", 1))
		return "no_new_privs is off";
	if (!number_is(status, "\nSeccomp:", 2))
		return "it has no system call filter";
	return NULL;
}

static const char *look_at_threads(pid_t pid, uint32_t base)
{
	char path[64];
	struct dirent *entry;
	const char *wrong = NULL;
	unsigned int n = 0;
	DIR *threads;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	threads = opendir(path);
	while (threads && !wrong && (entry = readdir(threads)))
		if (entry->d_name[0] != '.') {
			wrong = look_at(pid, entry->d_name, base);
			n++;
		}
	if (threads)
		closedir(threads);
	return wrong ? wrong : n ? NULL : "it has no threads";
}

static const char *look_at_namespaces(pid_t pid, const struct wanted *wanted)
{
	const struct {
		const char *name;
		const struct stat *wanted;
	} spaces[] = {{"user", &wanted->user}, {"net", &wanted->net}, {"mnt", &wanted->mnt},
		      {"ipc", &wanted->ipc},   {"uts", &wanted->uts}, {"cgroup", &wanted->cgroup}};
	struct stat st;

	for (size_t i = 0; i < ARRAY_SIZE(spaces); i++)
		if (namespace_of(pid, spaces[i].name, &st) < 0 || !same(&st, spaces[i].wanted))
			return "it is in another namespace";
	return NULL;
}

static int check_process(pid_t pid, struct wanted *wanted, struct pdk_error *err)
{
	const char *wrong;
	struct stat st;

	/* CRIU and its helpers are in the leaf too, but not in the sandbox's pid namespace; they end with the restore.
	 */
	if (namespace_of(pid, "pid", &st) < 0 || !same(&st, &wanted->pid))
		return 0;
	wanted->seen++;
	wrong = look_at_namespaces(pid, wanted);
	if (!wrong)
		wrong = look_at_threads(pid, wanted->plan->rootfs.base);
	if (wrong)
		return pdk_fail(err, -EPERM, PDK_DATA_LOSS, "a process of the checkpoint was refused: %s", wrong);
	return 0;
}

/* The namespaces of the first process: the sandbox's own two, and others that are not the warden's. */
static int fill_wanted(struct wanted *wanted, pid_t first)
{
	struct stat *const mine[] = {&wanted->pid, &wanted->mnt, &wanted->ipc, &wanted->uts, &wanted->cgroup};
	static const char *const names[] = {"pid", "mnt", "ipc", "uts", "cgroup"};
	struct stat st;

	if (fstat(wanted->plan->rootfs.userns, &wanted->user) < 0 || fstat(wanted->plan->netns, &wanted->net) < 0)
		return -errno;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		int rc = namespace_of(first, names[i], mine[i]);

		if (rc < 0)
			return rc;
		if (namespace_of(getpid(), names[i], &st) < 0 || same(&st, mine[i]))
			return -EPERM;
	}
	return 0;
}

bool checkpoint_is_inside(pid_t pid, pid_t first)
{
	struct stat one, other;

	return namespace_of(pid, "pid", &one) == 0 && namespace_of(first, "pid", &other) == 0 && same(&one, &other);
}

int checkpoint_verify(const struct checkpoint_plan *plan, pid_t first, struct pdk_error *err)
{
	struct wanted wanted = {.plan = plan};
	int fd = cgroup_open_procs(plan->id);
	_cleanup_file_ FILE *procs = fd < 0 ? NULL : fdopen(fd, "re");
	int pid, rc = procs ? fill_wanted(&wanted, first) : -ENOENT;

	if (rc < 0)
		return pdk_fail_errno(err, rc, "look at the restored processes");
	while (rc == 0 && fscanf(procs, "%d", &pid) == 1)
		if (pid > 0)
			rc = check_process(pid, &wanted, err);
	if (rc == 0 && wanted.seen == 0)
		rc = pdk_fail(err, -ESRCH, PDK_INTERNAL, "no restored process is in the sandbox's cgroup");
	return rc;
}
