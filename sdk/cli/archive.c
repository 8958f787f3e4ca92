#include "archive.h"

#include "sandbox/base/cleanup.h"
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PIECE_SIZE (1u << 20)

/* libarchive's own text for a failure of ours would hide its cause, so that is kept apart. */
struct packing {
	archive_sink sink;
	void *arg;
	struct pdk_error err;
	int rc;
};

static la_ssize_t pack_write(struct archive *archive, void *arg, const void *data, size_t length)
{
	struct packing *packing = arg;

	packing->rc = packing->sink(packing->arg, data, length, &packing->err);
	if (packing->rc < 0) {
		archive_set_error(archive, -packing->rc, "write");
		return -1;
	}
	return (la_ssize_t)length;
}

static int archive_fail(struct archive *archive, struct pdk_error *err, const char *what)
{
	int number = archive_errno(archive);
	const char *text = archive_error_string(archive);

	return pdk_fail(err, number > 0 ? -number : -EIO, pdk_code_of_errno(number > 0 ? number : EIO), "%s: %s", what,
			text ? text : "it failed");
}

static int pack_content(struct archive *out, int fd, struct archive_entry *entry, void *buffer, struct pdk_error *err)
{
	int64_t left = archive_entry_size(entry);

	/* A file that grew meanwhile is cut at its size in the header; one that shrank is filled by libarchive. */
	while (left > 0) {
		ssize_t n = read(fd, buffer, left < PIECE_SIZE ? (size_t)left : PIECE_SIZE);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return pdk_fail_errno(err, -errno, "%s", archive_entry_pathname(entry));
		if (n == 0)
			break;
		if (archive_write_data(out, buffer, (size_t)n) < 0)
			return archive_fail(out, err, archive_entry_pathname(entry));
		left -= n;
	}
	return 0;
}

/* Strip the tree's own name, and the owner: files belong to the sandbox's user. */
static bool pack_rename(struct archive_entry *entry, size_t prefix)
{
	const char *name = archive_entry_pathname(entry) + prefix;
	_cleanup_free_ char *copy = NULL;

	while (*name == '/')
		name++;
	if (!*name)
		return false;
	copy = strdup(name);
	if (!copy)
		abort();
	archive_entry_set_pathname(entry, copy);
	if (archive_entry_hardlink(entry)) {
		_cleanup_free_ char *target = strdup(archive_entry_hardlink(entry));

		if (!target || strlen(target) <= prefix)
			abort();
		archive_entry_set_hardlink(entry, target + prefix + (target[prefix] == '/'));
	}
	archive_entry_set_uid(entry, 0);
	archive_entry_set_gid(entry, 0);
	archive_entry_set_uname(entry, NULL);
	archive_entry_set_gname(entry, NULL);
	return true;
}

static int pack_entry(struct archive *out, struct archive_entry *entry, size_t prefix, void *buffer,
		      struct pdk_error *err)
{
	_cleanup_free_ char *source = strdup(archive_entry_sourcepath(entry));
	_cleanup_fd_ int fd = -1;
	mode_t type = archive_entry_filetype(entry);

	if (type != AE_IFREG && type != AE_IFDIR && type != AE_IFLNK)
		return 0;
	if (!source || !pack_rename(entry, prefix))
		return 0;
	if (type == AE_IFREG && archive_entry_size(entry) > 0) {
		fd = open(source, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
		if (fd < 0)
			return pdk_fail_errno(err, -errno, "%s", source);
	}
	if (archive_write_header(out, entry) < ARCHIVE_WARN)
		return archive_fail(out, err, source);
	return fd >= 0 ? pack_content(out, fd, entry, buffer, err) : 0;
}

static int pack_tree(struct archive *disk, struct archive *out, const char *path, struct pdk_error *err)
{
	_cleanup_free_ void *buffer = malloc(PIECE_SIZE);
	struct archive_entry *entry = archive_entry_new();
	size_t prefix = strlen(path);
	int rc = 0, step;

	if (!buffer || !entry)
		abort();
	while (rc == 0 && (step = archive_read_next_header2(disk, entry)) != ARCHIVE_EOF) {
		if (step < ARCHIVE_WARN) {
			rc = archive_fail(disk, err, path);
			break;
		}
		archive_read_disk_descend(disk);
		rc = pack_entry(out, entry, prefix, buffer, err);
		archive_entry_clear(entry);
	}
	archive_entry_free(entry);
	return rc;
}

int archive_pack(const char *path, archive_sink sink, void *arg, struct pdk_error *err)
{
	struct packing packing = {.sink = sink, .arg = arg};
	struct archive *disk = archive_read_disk_new();
	struct archive *out = archive_write_new();
	int rc;

	archive_read_disk_set_symlink_physical(disk);
	archive_read_disk_set_behavior(disk, ARCHIVE_READDISK_NO_XATTR | ARCHIVE_READDISK_NO_ACL |
						     ARCHIVE_READDISK_NO_FFLAGS);
	archive_write_set_format_pax_restricted(out);
	archive_write_set_bytes_per_block(out, 256 << 10);
	archive_write_set_bytes_in_last_block(out, 1);
	if (archive_write_open(out, &packing, NULL, pack_write, NULL) != ARCHIVE_OK)
		rc = archive_fail(out, err, "tar");
	else if (archive_read_disk_open(disk, path) != ARCHIVE_OK)
		rc = archive_fail(disk, err, path);
	else
		rc = pack_tree(disk, out, path, err);
	if (rc == 0 && archive_write_close(out) != ARCHIVE_OK)
		rc = archive_fail(out, err, "tar");
	if (packing.rc < 0)
		rc = pdk_fail(err, packing.rc, packing.err.code, "%s", packing.err.text);
	archive_read_free(disk);
	archive_write_free(out);
	return rc;
}

struct unpacking {
	archive_source source;
	void *arg;
	struct pdk_error err;
	int rc;
};

static la_ssize_t unpack_read(struct archive *archive, void *arg, const void **ret_data)
{
	struct unpacking *unpacking = arg;
	ssize_t n = unpacking->source(unpacking->arg, ret_data, &unpacking->err);

	if (n < 0) {
		unpacking->rc = (int)n;
		archive_set_error(archive, (int)-n, "read");
	}
	return n;
}

static bool name_safe(const char *name)
{
	const char *part = name;

	if (*name == '/' || !*name)
		return false;
	while (part) {
		const char *end = strchrnul(part, '/');

		if (end - part == 2 && part[0] == '.' && part[1] == '.')
			return false;
		part = *end ? end + 1 : NULL;
	}
	return true;
}

/* "old/rest" -> "new/rest". Allocated. */
static char *name_replaced(const char *name, const char *rename)
{
	const char *rest;
	char *out;

	while (!strncmp(name, "./", 2))
		name += 2;
	rest = strchrnul(name, '/');
	if (!rename)
		return strdup(name);
	if (asprintf(&out, "%s%s", rename, rest) < 0)
		abort();
	return out;
}

/* 1: unpack it, 0: skip it. */
static int unpack_prepare(struct archive_entry *entry, const char *rename, struct pdk_error *err)
{
	const char *name = archive_entry_pathname(entry), *link = archive_entry_hardlink(entry);
	_cleanup_free_ char *new_name = NULL, *new_link = NULL;
	mode_t type = archive_entry_filetype(entry);

	if (!name || !name_safe(name) || (link && !name_safe(link)))
		return pdk_fail(err, -EBADMSG, PDK_DATA_LOSS, "the archive names a file outside of it");
	if (!link && type != AE_IFREG && type != AE_IFDIR && type != AE_IFLNK)
		return 0;
	new_name = name_replaced(name, rename);
	archive_entry_set_pathname(entry, new_name);
	if (link) {
		new_link = name_replaced(link, rename);
		archive_entry_set_hardlink(entry, new_link);
	}
	archive_entry_set_perm(entry, archive_entry_perm(entry) & 0777);
	return 1;
}

static int unpack_content(struct archive *in, struct archive *disk, const char *name, struct pdk_error *err)
{
	const void *data;
	size_t length;
	int64_t offset;
	int rc;

	while ((rc = archive_read_data_block(in, &data, &length, &offset)) != ARCHIVE_EOF) {
		if (rc < ARCHIVE_WARN)
			return archive_fail(in, err, name);
		if (archive_write_data_block(disk, data, length, offset) < ARCHIVE_WARN)
			return archive_fail(disk, err, name);
	}
	return 0;
}

static int unpack_entries(struct archive *in, struct archive *disk, const char *rename, uint64_t *ret_entries,
			  struct pdk_error *err)
{
	struct archive_entry *entry;
	int rc, step;

	while ((step = archive_read_next_header(in, &entry)) != ARCHIVE_EOF) {
		if (step < ARCHIVE_WARN)
			return archive_fail(in, err, "archive");
		rc = unpack_prepare(entry, rename, err);
		if (rc < 0)
			return rc;
		if (rc == 0)
			continue;
		if (archive_write_header(disk, entry) < ARCHIVE_WARN)
			return archive_fail(disk, err, archive_entry_pathname(entry));
		rc = unpack_content(in, disk, archive_entry_pathname(entry), err);
		if (rc < 0)
			return rc;
		if (archive_write_finish_entry(disk) < ARCHIVE_WARN)
			return archive_fail(disk, err, archive_entry_pathname(entry));
		(*ret_entries)++;
	}
	return 0;
}

/* libarchive checks every component of a name for symbolic links only in relative names, so go there. */
static int unpack_below(const char *directory, struct archive *in, struct archive *disk, const char *rename,
			uint64_t *ret_entries, struct pdk_error *err)
{
	_cleanup_fd_ int here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	int rc;

	if (chdir(directory) < 0)
		return pdk_fail_errno(err, -errno, "%s", directory);
	rc = unpack_entries(in, disk, rename, ret_entries, err);
	if (rc == 0 && archive_write_close(disk) < ARCHIVE_WARN)
		rc = archive_fail(disk, err, directory);
	if (here >= 0 && fchdir(here) < 0 && rc == 0)
		rc = pdk_fail_errno(err, -errno, "working directory");
	return rc;
}

int archive_unpack(const char *directory, const char *rename, archive_source source, void *arg, uint64_t *ret_entries,
		   struct pdk_error *err)
{
	struct unpacking unpacking = {.source = source, .arg = arg};
	struct archive *in = archive_read_new();
	struct archive *disk = archive_write_disk_new();
	uint64_t entries = 0;
	int rc;

	archive_read_support_format_tar(in);
	archive_read_support_filter_gzip(in);
	archive_write_disk_set_options(disk, ARCHIVE_EXTRACT_TIME | ARCHIVE_EXTRACT_SECURE_SYMLINKS |
						     ARCHIVE_EXTRACT_SECURE_NODOTDOT |
						     ARCHIVE_EXTRACT_SECURE_NOABSOLUTEPATHS);
	if (archive_read_open(in, &unpacking, NULL, unpack_read, NULL) != ARCHIVE_OK)
		rc = archive_fail(in, err, "archive");
	else
		rc = unpack_below(directory, in, disk, rename, &entries, err);
	if (unpacking.rc < 0)
		rc = pdk_fail(err, unpacking.rc, unpacking.err.code, "%s", unpacking.err.text);
	archive_read_free(in);
	archive_write_free(disk);
	if (rc == 0)
		*ret_entries = entries;
	return rc;
}
