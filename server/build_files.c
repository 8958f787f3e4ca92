#include "build_files.h"

#include "auth.h"
#include "config.h"
#include "loop.h"
#include "sandbox/base/cleanup.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* See build_files.h. A file is named by its number alone, and no number comes twice. */

#define AGE_MAX_NS (86400ull * 1000000000)
#define FOLDER "builds"
#define NAME_SIZE 24

/* What a tenant has: files that are kept, and those that are being uploaded. */
struct build_share {
	struct build_share *next;
	struct build_file *files; /* kept */
	unsigned int n_files;     /* kept */
	unsigned int users;       /* files of both kinds */
	uint64_t bytes;           /* of both */
	char tenant[TENANT_NAME_MAX + 1];
};

struct build_files_limits build_files_limits = {
	.tenant_bytes = 4ull << 30,
	.bytes = 16ull << 30,
	.keep_free = 1ull << 30,
	.tenant_files = 512,
	.files = 4096,
};
static const struct build_files_limits *const limits = &build_files_limits;

static struct build_share *shares;
static uint64_t all_bytes, last_number, disk_free;
static unsigned int n_files; /* kept */
static int folder = -1;

bool build_hash_valid(const char *hash)
{
	return strlen(hash) == BUILD_HASH_LEN && strspn(hash, "0123456789abcdef") == BUILD_HASH_LEN;
}

/* --- the disk, for the worker --- */

static void file_name(uint64_t number, char name[NAME_SIZE])
{
	snprintf(name, NAME_SIZE, "%" PRIu64, number);
}

int build_files_open(uint64_t number)
{
	char name[NAME_SIZE];
	int fd;

	file_name(number, name);
	fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

int build_file_open_new(void)
{
	int fd = openat(folder, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);

	return fd < 0 ? -errno : fd;
}

int build_file_link(int fd, uint64_t number)
{
	char path[64], name[NAME_SIZE];

	file_name(number, name);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return linkat(AT_FDCWD, path, folder, name, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
}

uint64_t build_files_disk_free(void)
{
	struct statvfs space;

	return fstatvfs(folder, &space) < 0 ? 0 : (uint64_t)space.f_bavail * space.f_frsize;
}

void build_files_set_disk_free(uint64_t bytes)
{
	disk_free = bytes;
}

static void unlink_work(struct worker_job *job)
{
	char name[NAME_SIZE];

	file_name(((struct build_file *)job)->number, name);
	unlinkat(folder, name, 0);
}

static void unlink_done(struct worker_job *job)
{
	free((struct build_file *)job);
}

/* --- shares --- */

static struct build_share *share_find(const char *tenant)
{
	struct build_share *share = shares;

	while (share && strcmp(share->tenant, tenant) != 0)
		share = share->next;
	return share;
}

static struct build_share *share_get(const char *tenant)
{
	struct build_share *share = share_find(tenant);

	if (share)
		return share;
	share = calloc(1, sizeof(*share));
	if (!share)
		return NULL;
	snprintf(share->tenant, sizeof(share->tenant), "%s", tenant);
	share->next = shares;
	shares = share;
	return share;
}

static void share_put(struct build_share *share)
{
	struct build_share **at = &shares;

	if (share->users)
		return;
	while (*at != share)
		at = &(*at)->next;
	*at = share->next;
	free(share);
}

/* Of those who have a file that can go, the one who holds most; the one who asks for `more`, if nobody holds more than
 * it then would. */
static struct build_share *find_largest(struct build_share *asking, uint64_t more)
{
	struct build_share *largest = asking;
	uint64_t most = asking->bytes + more;

	for (struct build_share *share = shares; share; share = share->next) {
		if (share == asking || !share->files || share->bytes <= most)
			continue;
		largest = share;
		most = share->bytes;
	}
	return largest;
}

/* The same by number. */
static struct build_share *find_most_files(struct build_share *asking)
{
	struct build_share *largest = asking;
	unsigned int most = asking->n_files + 1;

	for (struct build_share *share = shares; share; share = share->next) {
		if (share == asking || share->n_files <= most)
			continue;
		largest = share;
		most = share->n_files;
	}
	return largest;
}

/* --- files --- */

static struct build_file **slot_of(struct build_share *share, const char *hash)
{
	struct build_file **at = &share->files;

	while (*at && strcmp((*at)->hash, hash) != 0)
		at = &(*at)->next;
	return at;
}

struct build_file *build_file_create(const char *tenant, const char *hash)
{
	struct build_file *file = calloc(1, sizeof(*file));

	if (file)
		file->share = share_get(tenant);
	if (!file || !file->share) {
		free(file);
		return NULL;
	}
	file->share->users++;
	file->number = ++last_number;
	snprintf(file->hash, sizeof(file->hash), "%s", hash);
	return file;
}

const char *build_file_tenant(const struct build_file *file)
{
	return file->share->tenant;
}

static void unlist(struct build_file *file)
{
	struct build_file **at = &file->share->files;

	while (*at != file)
		at = &(*at)->next;
	*at = file->next;
	file->share->n_files--;
	n_files--;
	file->kept = false;
}

/* What it has is nobody's any more. */
static void uncount(struct build_file *file)
{
	if (file->kept)
		unlist(file);
	all_bytes -= file->bytes;
	file->share->bytes -= file->bytes;
	file->share->users--;
	share_put(STEAL_PTR(file->share));
}

void build_file_drop(struct build_file *file)
{
	if (!file)
		return;
	uncount(file);
	disk_free += file->bytes; /* soon; the next look at the disk will tell */
	file->job.work = unlink_work;
	file->job.done = unlink_done;
	worker_submit(&file->job);
}

/* The one that was not used for longest. False: it has none. */
static bool evict(struct build_share *share)
{
	struct build_file *oldest = share->files;
	bool found = oldest;

	for (struct build_file *file = share->files; file; file = file->next)
		if (file->used_ns < oldest->used_ns)
			oldest = file;
	build_file_drop(oldest);
	return found;
}

static void drop_old(void)
{
	uint64_t now = loop_now_ns();

	for (struct build_share *share = shares, *next_share; share; share = next_share) {
		next_share = share->next;
		for (struct build_file *file = share->files, *next; file; file = next) {
			next = file->next;
			if (now - file->used_ns > AGE_MAX_NS)
				build_file_drop(file);
		}
	}
}

int build_file_grow(struct build_file *file, uint64_t more, struct pdk_error *err)
{
	struct build_share *share = file->share;

	drop_old();
	while (share->bytes + more > limits->tenant_bytes || share->n_files >= limits->tenant_files)
		if (!evict(share))
			return pdk_fail(err, -ENOSPC, PDK_RESOURCE_EXHAUSTED,
					"files for builds: the tenant's room is full");
	while (all_bytes + more > limits->bytes || disk_free < limits->keep_free + more)
		if (!evict(find_largest(share, more)))
			return pdk_fail(err, -ENOSPC, PDK_RESOURCE_EXHAUSTED,
					"files for builds: the server's disk is full");
	while (n_files >= limits->files)
		if (!evict(find_most_files(share)))
			return pdk_fail(err, -ENOSPC, PDK_RESOURCE_EXHAUSTED,
					"files for builds: the server keeps as many as it can");
	file->bytes += more;
	share->bytes += more;
	all_bytes += more;
	disk_free -= more;
	return 0;
}

void build_file_keep(struct build_file *file)
{
	struct build_share *share = file->share;

	build_file_drop(*slot_of(share, file->hash));
	while (share->n_files >= limits->tenant_files)
		(void)evict(share);
	file->used_ns = loop_now_ns();
	file->kept = true;
	file->next = share->files;
	share->files = file;
	share->n_files++;
	n_files++;
}

uint64_t build_files_find(const char *tenant, const char *hash)
{
	struct build_share *share;
	struct build_file *file;

	drop_old();
	share = share_find(tenant);
	file = share ? *slot_of(share, hash) : NULL;
	if (!file)
		return 0;
	file->used_ns = loop_now_ns();
	return file->number;
}

/* --- start and stop --- */

static void empty_folder(void)
{
	int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			unlinkat(folder, entry->d_name, 0);
	if (dir)
		closedir(dir);
	else if (fd >= 0)
		close(fd);
}

int build_files_start(struct pdk_error *err)
{
	_cleanup_fd_ int data = open(server_config.data_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (data < 0 || (mkdirat(data, FOLDER, 0700) < 0 && errno != EEXIST))
		return pdk_fail_errno(err, -errno, "making the folder of files for builds");
	folder = openat(data, FOLDER, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (folder < 0)
		return pdk_fail_errno(err, -errno, "opening the folder of files for builds");
	empty_folder();
	disk_free = build_files_disk_free();
	return build_token_start(err);
}

void build_files_stop(void)
{
	for (struct build_share *share = shares, *next; share; share = next) {
		next = share->next;
		share->users++;
		while (share->files) {
			struct build_file *file = share->files;

			uncount(file);
			free(file);
		}
		share->users--;
		share_put(share);
	}
	if (folder < 0)
		return;
	empty_folder();
	close(STEAL_FD(folder));
}

void build_files_remove_tenant(const char *tenant)
{
	struct build_share *share;

	build_uploads_remove_tenant(tenant);
	while ((share = share_find(tenant)) && evict(share))
		;
}
