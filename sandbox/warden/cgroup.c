#include "cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "kernel.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/fault.h"
#include "sandbox/base/hash.h"

#define CGROUP_PATH_MAX 1024
#define V1_MAX 3

/* A hierarchy that is in use. v1 ones carry the controllers that we set limits in. */
struct hierarchy {
	int group;  /* descriptor of .../paddock-<hash> */
	int parent; /* and of what it is in */
	bool cpu, memory, pids;
};

static struct hierarchy v2 = {.group = -1, .parent = -1};
static int home = -1; /* the v2 cgroup that the warden itself is in */
static char group_name[64];
static struct hierarchy v1[V1_MAX];
static int v1_count;

/* What the mount table and /proc/self/cgroup say about one hierarchy. */
struct discovery {
	char v2_mount[CGROUP_PATH_MAX];
	char v1_mount[V1_MAX][CGROUP_PATH_MAX];
	char v1_controllers[V1_MAX][256];
	int v1_count;
};

static bool list_has(const char *list, const char *word)
{
	size_t length = strlen(word);

	for (const char *at = list; (at = strstr(at, word)); at += length) {
		char before = at == list ? ',' : at[-1];
		char after = at[length];

		if (strchr(", ", before) && (after == '\0' || strchr(", \n", after)))
			return true;
	}
	return false;
}

static bool wanted_v1(const char *options)
{
	return list_has(options, "cpu") || list_has(options, "memory") || list_has(options, "pids");
}

static int discover(struct discovery *d)
{
	_cleanup_file_ FILE *mounts = fopen("/proc/self/mounts", "re");
	char line[4096];

	memset(d, 0, sizeof(*d));
	if (!mounts)
		return -errno;
	while (fgets(line, sizeof(line), mounts)) {
		char where[CGROUP_PATH_MAX], type[64], opts[512];

		if (sscanf(line, "%*s %1023s %63s %511s", where, type, opts) != 3)
			continue;
		if (strcmp(type, "cgroup2") == 0 && !d->v2_mount[0])
			snprintf(d->v2_mount, sizeof(d->v2_mount), "%s", where);
		if (strcmp(type, "cgroup") == 0 && wanted_v1(opts) && d->v1_count < V1_MAX) {
			snprintf(d->v1_mount[d->v1_count], CGROUP_PATH_MAX, "%s", where);
			snprintf(d->v1_controllers[d->v1_count++], 256, "%.255s", opts);
		}
	}
	return 0;
}

/* The warden's own path in the v2 tree (`controller` NULL) or in the v1 hierarchy of a controller. */
static int own_path(const char *controller, char *path)
{
	_cleanup_file_ FILE *file = fopen("/proc/self/cgroup", "re");
	char line[CGROUP_PATH_MAX + 256];

	if (!file)
		return -errno;
	while (fgets(line, sizeof(line), file)) {
		char *names = strchr(line, ':');
		char *where = names ? strchr(names + 1, ':') : NULL;

		if (!where)
			continue;
		*where++ = '\0';
		where[strcspn(where, "\n")] = '\0';
		names++;
		if (controller ? list_has(names, controller) : names[0] == '\0') {
			snprintf(path, CGROUP_PATH_MAX, "%.1000s", where);
			return 0;
		}
	}
	return -ENOENT;
}

/* In a v2 tree that has controllers, a cgroup with processes cannot hand controllers down: step aside into a leaf
 * of our own first. `own` may already be that leaf when the warden was started again from inside it. */
static int v2_make_room(const char *mount, char *own, const char *leaf, struct pdk_error *err)
{
	char path[2 * CGROUP_PATH_MAX + 64];
	_cleanup_fd_ int dir = -1;
	char *slash = strrchr(own, '/');
	int rc;

	if (slash && strcmp(slash + 1, leaf) == 0) {
		*slash = '\0';
		return 0;
	}
	snprintf(path, sizeof(path), "%s%s", mount, own);
	dir = open(path, O_DIRECTORY | O_PATH | O_CLOEXEC);
	if (dir < 0)
		return pdk_fail_errno(err, -errno, "open the warden's own cgroup");
	if (faccessat(dir, "cgroup.type", F_OK, 0) < 0)
		return 0; /* the root cgroup: processes may stay */
	rc = file_mkdir(dir, leaf, 0755);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "make a cgroup for the warden (is the unit's Delegate= set?)");
	snprintf(path, sizeof(path), "%s/cgroup.procs", leaf);
	rc = file_write(dir, path, "0");
	return rc < 0 ? pdk_fail_errno(err, rc, "move the warden into its own cgroup") : 0;
}

static int open_group(const char *mount, const char *own, const char *name, struct hierarchy *h, struct pdk_error *err)
{
	char path[2 * CGROUP_PATH_MAX + 64];
	_cleanup_fd_ int parent = -1;
	int rc;

	snprintf(path, sizeof(path), "%s%s", mount, own);
	parent = open(path, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	if (parent < 0)
		return pdk_fail_errno(err, -errno, "open the warden's own cgroup");
	rc = file_mkdir(parent, name, 0755);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "make the cgroup for sandboxes");
	rc = openat(parent, name, O_DIRECTORY | O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (rc < 0)
		return pdk_fail_errno(err, -errno, "open the cgroup for sandboxes");
	h->group = rc;
	h->parent = STEAL_FD(parent);
	return 0;
}

/* Hand the controllers that this v2 tree has down to the leaves. */
static int v2_enable(const char *mount, const char *own, struct pdk_error *err)
{
	static const char *const wanted[] = {"cpu", "memory", "pids", "io"};
	char path[2 * CGROUP_PATH_MAX + 64], available[256];
	_cleanup_fd_ int parent = -1;

	snprintf(path, sizeof(path), "%s%s", mount, own);
	parent = open(path, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	if (parent < 0 || file_read(parent, "cgroup.controllers", available, sizeof(available)) < 0)
		return pdk_fail_errno(err, -errno, "read cgroup.controllers");
	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
		char word[16];
		int rc;

		if (!list_has(available, wanted[i]))
			continue;
		snprintf(word, sizeof(word), "+%s", wanted[i]);
		rc = file_write(parent, "cgroup.subtree_control", word);
		if (rc == 0)
			rc = file_write(v2.group, "cgroup.subtree_control", word);
		if (rc < 0 && i < 3)
			return pdk_fail_errno(err, rc, "hand the %s controller down", wanted[i]);
	}
	v2.cpu = list_has(available, "cpu");
	v2.memory = list_has(available, "memory");
	v2.pids = list_has(available, "pids");
	return 0;
}

static int open_home(const char *mount)
{
	char own[CGROUP_PATH_MAX], path[2 * CGROUP_PATH_MAX + 64];
	int rc = own_path(NULL, own);

	if (rc < 0)
		return rc;
	snprintf(path, sizeof(path), "%s%s", mount, own);
	home = open(path, O_DIRECTORY | O_PATH | O_CLOEXEC);
	return home < 0 ? -errno : 0;
}

static int setup_v2(const struct discovery *d, const char *name, struct pdk_error *err)
{
	char own[CGROUP_PATH_MAX], leaf[80], available[256], path[2 * CGROUP_PATH_MAX + 64];
	int rc = own_path(NULL, own);

	if (!d->v2_mount[0] || rc < 0)
		return pdk_fail(err, -ENODEV, PDK_FAILED_PRECONDITION, "no cgroup v2 tree is mounted");
	snprintf(leaf, sizeof(leaf), "warden-%s", name);
	snprintf(path, sizeof(path), "%s%s/cgroup.controllers", d->v2_mount, own);
	if (file_read(AT_FDCWD, path, available, sizeof(available)) < 0)
		available[0] = '\0';
	if (list_has(available, "memory") || list_has(available, "pids") || list_has(available, "cpu")) {
		rc = v2_make_room(d->v2_mount, own, leaf, err);
		if (rc < 0)
			return rc;
	}
	rc = open_home(d->v2_mount);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "open the warden's own cgroup");
	rc = open_group(d->v2_mount, own, name, &v2, err);
	return rc < 0 ? rc : v2_enable(d->v2_mount, own, err);
}

static int setup_v1(const struct discovery *d, int i, const char *name, struct pdk_error *err)
{
	struct hierarchy *h = &v1[v1_count];
	const char *opts = d->v1_controllers[i];
	char own[CGROUP_PATH_MAX];
	int rc;

	h->cpu = list_has(opts, "cpu");
	h->memory = list_has(opts, "memory");
	h->pids = list_has(opts, "pids");
	rc = own_path(h->cpu ? "cpu" : h->memory ? "memory" : "pids", own);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "find the warden's own cgroup");
	rc = open_group(d->v1_mount[i], own, name, h, err);
	if (rc == 0)
		v1_count++;
	return rc;
}

static int check_complete(struct pdk_error *err)
{
	bool cpu = v2.cpu, memory = v2.memory, pids = v2.pids;

	for (int i = 0; i < v1_count; i++) {
		cpu |= v1[i].cpu;
		memory |= v1[i].memory;
		pids |= v1[i].pids;
	}
	if (!cpu || !memory || !pids)
		return pdk_fail(err, -ENODEV, PDK_FAILED_PRECONDITION, "no %s controller in any cgroup hierarchy",
				!memory ? "memory"
				: !pids ? "pids"
					: "cpu");
	return 0;
}

int cgroup_setup(const char *runtime_dir, struct pdk_error *err)
{
	struct discovery d;
	int rc = discover(&d);

	if (rc < 0)
		return pdk_fail_errno(err, rc, "read the mount table");
	snprintf(group_name, sizeof(group_name), "paddock-%012" PRIx64,
		 hash64_bytes(HASH64_BEGIN, runtime_dir, strlen(runtime_dir)) & 0xffffffffffffu);
	rc = setup_v2(&d, group_name, err);
	for (int i = 0; rc == 0 && i < d.v1_count; i++)
		rc = setup_v1(&d, i, group_name, err);
	return rc < 0 ? rc : check_complete(err);
}

void cgroup_teardown(void)
{
	/* rmdir refuses a cgroup with a leaf in it: living sandboxes keep theirs. */
	for (int i = 0; i < v1_count; i++)
		unlinkat(v1[i].parent, group_name, AT_REMOVEDIR);
	unlinkat(v2.parent, group_name, AT_REMOVEDIR);
}

int cgroup_check(struct pdk_error *err)
{
	char own[CGROUP_PATH_MAX], path[2 * CGROUP_PATH_MAX + 64], available[256] = "";
	bool cpu, memory, pids;
	struct discovery d;

	if (discover(&d) < 0 || !d.v2_mount[0] || own_path(NULL, own) < 0)
		return pdk_fail(err, -ENODEV, PDK_FAILED_PRECONDITION, "no cgroup v2 tree is mounted");
	snprintf(path, sizeof(path), "%s%s/cgroup.controllers", d.v2_mount, own);
	if (file_read(AT_FDCWD, path, available, sizeof(available)) < 0)
		return pdk_fail(err, -ENODEV, PDK_FAILED_PRECONDITION, "the warden's own v2 cgroup cannot be read");
	cpu = list_has(available, "cpu");
	memory = list_has(available, "memory");
	pids = list_has(available, "pids");
	for (int i = 0; i < d.v1_count; i++) {
		cpu |= list_has(d.v1_controllers[i], "cpu");
		memory |= list_has(d.v1_controllers[i], "memory");
		pids |= list_has(d.v1_controllers[i], "pids");
	}
	if (!cpu || !memory || !pids)
		return pdk_fail(err, -ENODEV, PDK_FAILED_PRECONDITION, "no %s controller",
				!memory ? "memory"
				: !pids ? "pids"
					: "cpu");
	return 0;
}

static int leaf_open(const struct hierarchy *h, const char *id)
{
	int fd = openat(h->group, id, O_DIRECTORY | O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	return fd < 0 ? -errno : fd;
}

static int write_number(int leaf, const char *file, uint64_t value)
{
	char text[32];

	snprintf(text, sizeof(text), "%" PRIu64, value);
	return file_write(leaf, file, text);
}

static int limit_memory_v1(int leaf, uint64_t bytes)
{
	/* memsw must never be below the memory limit: lower memory first, or raise memsw first. */
	int rc = write_number(leaf, "memory.limit_in_bytes", bytes);

	if (faccessat(leaf, "memory.memsw.limit_in_bytes", F_OK, 0) < 0)
		return rc;
	if (rc < 0) {
		rc = write_number(leaf, "memory.memsw.limit_in_bytes", bytes);
		return rc < 0 ? rc : write_number(leaf, "memory.limit_in_bytes", bytes);
	}
	return write_number(leaf, "memory.memsw.limit_in_bytes", bytes);
}

static int limit_memory_v2(int leaf, uint64_t bytes)
{
	int rc = write_number(leaf, "memory.max", bytes);

	if (rc == 0 && faccessat(leaf, "memory.swap.max", F_OK, 0) == 0)
		rc = file_write(leaf, "memory.swap.max", "0");
	return rc;
}

static int limit_cpu(int leaf, bool is_v2, uint32_t millis)
{
	char text[64];

	/* A period of 100 ms: a quota of n millis is n * 100 us in it. The kernel's least quota is 1 ms. */
	if (is_v2) {
		snprintf(text, sizeof(text), "%" PRIu64 " 100000", (uint64_t)millis * 100);
		return file_write(leaf, "cpu.max", millis ? text : "max");
	}
	if (!millis)
		return file_write(leaf, "cpu.cfs_quota_us", "-1");
	return write_number(leaf, "cpu.cfs_quota_us", (uint64_t)millis * 100);
}

static int leaf_limit(const struct hierarchy *h, int leaf, const struct warden_limits *limits, struct pdk_error *err)
{
	bool is_v2 = h == &v2;
	int rc = 0;

	if (h->memory)
		rc = is_v2 ? limit_memory_v2(leaf, limits->memory_bytes) : limit_memory_v1(leaf, limits->memory_bytes);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "set the memory limit");
	if (h->cpu)
		rc = limit_cpu(leaf, is_v2, limits->cpu_millis);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "set the cpu limit");
	if (h->pids)
		rc = write_number(leaf, "pids.max", limits->max_pids);
	return rc < 0 ? pdk_fail_errno(err, rc, "set the process limit") : 0;
}

static int leaf_create(const struct hierarchy *h, const char *id, const struct warden_limits *limits, int *ret,
		       struct pdk_error *err)
{
	_cleanup_fd_ int leaf = -1;
	int rc;

	if (mkdirat(h->group, id, 0755) < 0)
		return pdk_fail_errno(err, -errno, "make the sandbox's cgroup");
	leaf = leaf_open(h, id);
	if (leaf < 0)
		return pdk_fail_errno(err, leaf, "open the sandbox's cgroup");
	rc = leaf_limit(h, leaf, limits, err);
	if (rc == 0 && ret)
		*ret = STEAL_FD(leaf);
	return rc;
}

int cgroup_create(const char *id, const struct warden_limits *limits, int *ret_v2, struct pdk_error *err)
{
	int rc;

	for (int i = 0; i < v1_count; i++) {
		rc = leaf_create(&v1[i], id, limits, NULL, err);
		if (rc < 0)
			return rc;
		FAULT("create_cgroup_v1");
	}
	return leaf_create(&v2, id, limits, ret_v2, err);
}

int cgroup_join_v1(const char *id)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/tasks", id);
	for (int i = 0; i < v1_count; i++) {
		int rc = file_write(v1[i].group, path, "0");

		if (rc < 0)
			return rc;
	}
	return 0;
}

static int for_leaf_limit(const struct hierarchy *h, const char *id, const struct warden_limits *limits,
			  struct pdk_error *err)
{
	_cleanup_fd_ int leaf = leaf_open(h, id);

	if (leaf < 0)
		return pdk_fail_errno(err, leaf, "open the sandbox's cgroup");
	return leaf_limit(h, leaf, limits, err);
}

int cgroup_limit(const char *id, const struct warden_limits *limits, struct pdk_error *err)
{
	int rc = for_leaf_limit(&v2, id, limits, err);

	for (int i = 0; rc == 0 && i < v1_count; i++)
		rc = for_leaf_limit(&v1[i], id, limits, err);
	return rc;
}

static int for_leaf_cpu(const struct hierarchy *h, const char *id, uint32_t millis)
{
	_cleanup_fd_ int leaf = -1;

	if (!h->cpu)
		return 0;
	leaf = leaf_open(h, id);
	return leaf < 0 ? leaf : limit_cpu(leaf, h == &v2, millis);
}

int cgroup_limit_cpu(const char *id, uint32_t millis)
{
	int rc = for_leaf_cpu(&v2, id, millis);

	for (int i = 0; rc == 0 && i < v1_count; i++)
		rc = for_leaf_cpu(&v1[i], id, millis);
	return rc;
}

static int v2_write(const char *id, const char *file, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", id, file);
	return file_write(v2.group, path, text);
}

int cgroup_kill(const char *id)
{
	int rc = v2_write(id, "cgroup.kill", "1");

	return rc == -ENOENT ? 0 : rc;
}

int cgroup_freeze(const char *id, bool frozen)
{
	return v2_write(id, "cgroup.freeze", frozen ? "1" : "0");
}

int cgroup_frozen(const char *id)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/cgroup.events", id);
	return file_read_key(v2.group, path, "frozen", 0) == 1;
}

bool cgroup_freezing(const char *id)
{
	char path[128], text[8];

	snprintf(path, sizeof(path), "%s/cgroup.freeze", id);
	return file_read(v2.group, path, text, sizeof(text)) > 0 && text[0] == '1';
}

int cgroup_take_out(pid_t pid)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", pid);
	return file_write(home, "cgroup.procs", text);
}

static int leaf_remove(const struct hierarchy *h, const char *id)
{
	if (unlinkat(h->group, id, AT_REMOVEDIR) == 0 || errno == ENOENT)
		return 0;
	return -errno;
}

int cgroup_remove(const char *id)
{
	int rc = 0;

	for (int i = 0; i < v1_count; i++) {
		int one = leaf_remove(&v1[i], id);

		if (one < 0)
			rc = one;
		FAULT("kill_cgroup_v1");
	}
	/* The v2 leaf goes last: as long as it is there, the sandbox is known to the next start. */
	return rc < 0 ? rc : leaf_remove(&v2, id);
}

static void usage_memory_v1(int leaf, struct warden_usage *usage)
{
	usage->memory_bytes = file_read_number(leaf, "memory.usage_in_bytes", 0);
	usage->memory_peak_bytes = file_read_number(leaf, "memory.max_usage_in_bytes", 0);
	usage->oom_kills = file_read_key(leaf, "memory.oom_control", "oom_kill", 0);
}

static void usage_memory_v2(int leaf, struct warden_usage *usage)
{
	usage->memory_bytes = file_read_number(leaf, "memory.current", 0);
	usage->memory_peak_bytes = file_read_number(leaf, "memory.peak", usage->memory_bytes);
	usage->oom_kills = file_read_key(leaf, "memory.events", "oom_kill", 0);
}

static void leaf_usage(const struct hierarchy *h, const char *id, struct warden_usage *usage)
{
	_cleanup_fd_ int leaf = leaf_open(h, id);

	if (leaf < 0)
		return;
	if (h->memory)
		(h == &v2 ? usage_memory_v2 : usage_memory_v1)(leaf, usage);
	if (h->pids)
		usage->pids = (uint32_t)file_read_number(leaf, "pids.current", 0);
	/* Every v2 cgroup counts its processor time, whether or not it has the cpu controller. */
	if (h == &v2)
		usage->cpu_usec = file_read_key(leaf, "cpu.stat", "usage_usec", 0);
}

/* "some avg10=0.00 avg60=0.00 avg300=0.00 total=1234" comes first. */
static uint64_t io_wait_usec(int leaf)
{
	char text[512], *total;

	if (file_read(leaf, "io.pressure", text, sizeof(text)) <= 0)
		return 0;
	total = strstr(text, "total=");
	return total ? strtoull(total + strlen("total="), NULL, 10) : 0;
}

void cgroup_activity(const char *id, uint64_t *ret_cpu_usec, uint64_t *ret_io_usec)
{
	_cleanup_fd_ int leaf = leaf_open(&v2, id);

	*ret_cpu_usec = leaf < 0 ? 0 : file_read_key(leaf, "cpu.stat", "usage_usec", 0);
	*ret_io_usec = leaf < 0 ? 0 : io_wait_usec(leaf);
}

/* What can be given back: files' pages, of which tmpfs' are some. Both in one read, since the kernel adds up for each. */
static uint64_t page_cache_bytes(int leaf, bool is_v2)
{
	char text[4096];
	uint64_t files, shared;

	if (file_read(leaf, "memory.stat", text, sizeof(text)) <= 0)
		return 0;
	files = text_key(text, is_v2 ? "file" : "cache", 0);
	shared = text_key(text, "shmem", 0);
	return files > shared ? files - shared : 0;
}

static void leaf_sample(const struct hierarchy *h, const char *id, struct warden_usage *usage, uint64_t *ret_cache)
{
	bool is_v2 = h == &v2;
	_cleanup_fd_ int leaf = h->memory || is_v2 ? leaf_open(h, id) : -ENODEV;

	if (leaf < 0)
		return;
	if (is_v2)
		usage->cpu_usec = file_read_key(leaf, "cpu.stat", "usage_usec", 0);
	if (!h->memory)
		return;
	usage->memory_bytes = file_read_number(leaf, is_v2 ? "memory.current" : "memory.usage_in_bytes", 0);
	*ret_cache = page_cache_bytes(leaf, is_v2);
}

void cgroup_sample(const char *id, struct warden_usage *usage, uint64_t *ret_cache)
{
	*ret_cache = 0;
	leaf_sample(&v2, id, usage, ret_cache);
	for (int i = 0; i < v1_count; i++)
		leaf_sample(&v1[i], id, usage, ret_cache);
}

void cgroup_usage(const char *id, struct warden_usage *usage)
{
	leaf_usage(&v2, id, usage);
	for (int i = 0; i < v1_count; i++)
		leaf_usage(&v1[i], id, usage);
}

int cgroup_open_leaf(const char *id)
{
	int fd = openat(v2.group, id, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

	return fd < 0 ? -errno : fd;
}

static int open_in_leaf(const char *id, const char *file, int flags)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", id, file);
	fd = openat(v2.group, path, flags | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

int cgroup_open_procs(const char *id)
{
	return open_in_leaf(id, "cgroup.procs", O_RDONLY);
}

int cgroup_open_kill(const char *id)
{
	return open_in_leaf(id, "cgroup.kill", O_WRONLY);
}

static void enumerate_group(const struct hierarchy *h, void (*found)(const char *id))
{
	file_each(h->group, true, found);
}

void cgroup_enumerate(void (*found)(const char *id))
{
	for (int i = 0; i < v1_count; i++)
		enumerate_group(&v1[i], found);
	enumerate_group(&v2, found);
}
