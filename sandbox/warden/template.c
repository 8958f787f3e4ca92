#include "template.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "btrfs.h"
#include "kernel.h"
#include "log.h"
#include "pool.h"
#include "sandbox.h"
#include "sandbox/base/cleanup.h"
#include "snapshot.h"

static struct template_info *list;
static unsigned int count;

struct template_info *template_find(const char *id)
{
	struct template_info *info = list;

	while (info && strcmp(info->id, id) != 0)
		info = info->next;
	return info;
}

void template_each(void (*visit)(const struct template_info *info, void *arg), void *arg)
{
	for (struct template_info *info = list, *next; info; info = next) {
		next = info->next;
		visit(info, arg);
	}
}

unsigned int template_count(void)
{
	return count;
}

static struct template_info *add(const char *id, const char *digest, uint64_t files, uint64_t bytes)
{
	struct template_info *info = calloc(1, sizeof(*info));

	if (!info)
		return NULL;
	snprintf(info->id, sizeof(info->id), "%s", id);
	snprintf(info->digest, sizeof(info->digest), "%s", digest);
	info->files = files;
	info->bytes = bytes;
	info->next = list;
	list = info;
	count++;
	return info;
}

static void meta_name(const char *id, char name[64])
{
	snprintf(name, 64, "%s.meta", id);
}

static int meta_write(const char *id, const char *digest, uint64_t files, uint64_t bytes)
{
	char name[64], text[200];
	int length = snprintf(text, sizeof(text), "%s %" PRIu64 " %" PRIu64 "\n", digest, files, bytes);
	_cleanup_fd_ int fd = -1;

	meta_name(id, name);
	fd = openat(pool_dir(POOL_TEMPLATES), name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || write(fd, text, (size_t)length) != length || fsync(fd) < 0)
		return -errno;
	return 0;
}

/* The id is the start of the digest: a record that says something else is not ours. */
static bool meta_read(const char *id, char digest[80], uint64_t *files, uint64_t *bytes)
{
	char name[64], text[200];

	meta_name(id, name);
	if (file_read(pool_dir(POOL_TEMPLATES), name, text, sizeof(text)) <= 0 ||
	    sscanf(text, "%79s %" SCNu64 " %" SCNu64, digest, files, bytes) != 3)
		return false;
	return strncmp(digest, "sha256:", 7) == 0 && strncmp(digest + 7, id + 1, TEMPLATE_ID_LEN - 1) == 0;
}

static void remove_files(const char *id)
{
	char name[64];
	int fd = pool_open_directory(POOL_TEMPLATES, id);

	if (fd >= 0) {
		/* The kernel does not rename a read-only subvolume. */
		btrfs_subvolume_set_readonly(fd, false);
		close(fd);
	}
	pool_discard(POOL_TEMPLATES, id);
	meta_name(id, name);
	unlinkat(pool_dir(POOL_TEMPLATES), name, 0);
}

static void reconcile_one(const char *name)
{
	_cleanup_fd_ int fd = -1;
	char digest[80];
	uint64_t files, bytes;

	if (!template_id_valid(name))
		return;
	fd = pool_open_directory(POOL_TEMPLATES, name);
	if (fd >= 0 && btrfs_subvolume_readonly(fd) && meta_read(name, digest, &files, &bytes)) {
		add(name, digest, files, bytes);
		return;
	}
	log_info("template_removed", name, "half-made");
	remove_files(name);
}

void template_reconcile(void)
{
	pool_enumerate(POOL_TEMPLATES, reconcile_one);
}

/* Everything that is mounted over inside a sandbox must be a directory of the image, and there must be a shell. */
static int check_content(int fd, struct pdk_error *err)
{
	_cleanup_fd_ int shell = kernel_openat2(fd, "bin/sh", O_PATH, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
	struct stat st;

	if (shell < 0 || fstat(shell, &st) < 0 || !S_ISREG(st.st_mode) || !(st.st_mode & 0111))
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "the template has no /bin/sh");
	return 0;
}

int template_commit(const char *name, const char *digest, uint64_t files, uint64_t bytes, struct template_info **ret,
		    struct pdk_error *err)
{
	_cleanup_fd_ int fd = pool_open_directory(POOL_IMPORT, name);
	char id[TEMPLATE_ID_SIZE];
	struct template_info *info;
	int rc = fd < 0 ? pdk_fail_errno(err, fd, "open the imported template") : check_content(fd, err);

	if (rc < 0)
		return rc;
	snprintf(id, sizeof(id), "t%.40s", digest + 7);
	info = template_find(id);
	if (info && info->state != TEMPLATE_DAMAGED) {
		*ret = info;
		return pool_discard(POOL_IMPORT, name);
	}
	if (info)
		remove_files(id); /* damaged: the fresh copy takes its place */
	/* Order for a power cut: content and record are on disk before the name, the read-only mark comes last. */
	if (syncfs(fd) < 0 || (rc = meta_write(id, digest, files, bytes)) < 0 ||
	    renameat2(pool_dir(POOL_IMPORT), name, pool_dir(POOL_TEMPLATES), id, RENAME_NOREPLACE) < 0)
		return pdk_fail_errno(err, rc < 0 ? rc : -errno, "store the template");
	rc = btrfs_subvolume_set_readonly(fd, true);
	if (rc == 0 && syncfs(fd) < 0)
		rc = -errno;
	if (rc < 0)
		return pdk_fail_errno(err, rc, "make the template read-only");
	if (!info)
		info = add(id, digest, files, bytes);
	if (!info)
		return pdk_fail_errno(err, -ENOMEM, "hold another template");
	info->state = TEMPLATE_READY;
	*ret = info;
	return 0;
}

int template_remove(const char *id, struct pdk_error *err)
{
	struct template_info *info = template_find(id);
	struct template_info **at = &list;

	if (!info)
		return pdk_fail(err, -ENOENT, PDK_NOT_FOUND, "no such template");
	if (sandbox_uses_template(id) || snapshot_uses_template(id))
		return pdk_fail(err, -EBUSY, PDK_FAILED_PRECONDITION,
				"the template is used by a sandbox or a snapshot");
	remove_files(id);
	while (*at != info)
		at = &(*at)->next;
	*at = info->next;
	count--;
	free(info);
	return 0;
}
