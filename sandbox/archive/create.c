#include "sandbox/archive/archive.h"

#include "sandbox/archive/tree.h"
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <string.h>

/* A pax stream of a tree. Names start with the last component of the path; links stay links; sockets and devices
 * are left out. A file that changes meanwhile keeps the size of its header, so the stream stays well-formed. */

struct creation {
	const struct create_options *options;
	struct archive *archive;
	struct archive_entry_linkresolver *links;
};

static int fail_archive(struct creation *creation, const char *path)
{
	int error = archive_errno(creation->archive);

	return archive_fail(ARCHIVE_EXIT_SYSTEM, "%.400s: %s", path,
			    error == EPIPE ? "the reader went away" : archive_error_string(creation->archive));
}

/* A pattern without a slash fits the last component; one with, the name behind the first component. */
static bool is_excluded(const struct create_options *options, const struct tree_entry *entry)
{
	const char *below = strchr(entry->path, '/');

	if (!below)
		return false;
	for (unsigned int i = 0; i < options->n_excludes; i++) {
		const char *pattern = options->excludes[i];

		if (strchr(pattern, '/') ? fnmatch(pattern, below + 1, FNM_PATHNAME) == 0
					 : fnmatch(pattern, entry->name, 0) == 0)
			return true;
	}
	return false;
}

static int write_zeros(struct creation *creation, uint64_t length)
{
	static const char zeros[65536];

	while (length) {
		size_t n = length < sizeof(zeros) ? (size_t)length : sizeof(zeros);

		if (archive_write_data(creation->archive, zeros, n) != (la_ssize_t)n)
			return -1;
		length -= n;
	}
	return 0;
}

static int write_content(struct creation *creation, int fd, uint64_t size, const char *path)
{
	static char bytes[262144];

	while (size) {
		ssize_t n = read(fd, bytes, size < sizeof(bytes) ? (size_t)size : sizeof(bytes));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return archive_fail_errno(errno, "%.400s", path);
		if (n == 0) /* it shrank */
			return write_zeros(creation, size) < 0 ? fail_archive(creation, path) : 0;
		if (archive_write_data(creation->archive, bytes, (size_t)n) != n)
			return fail_archive(creation, path);
		size -= (uint64_t)n;
	}
	return 0;
}

static int open_file(const struct tree_entry *entry)
{
	_cleanup_fd_ int fd =
		openat(entry->dir, entry->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	return S_ISREG(st.st_mode) ? STEAL_FD(fd) : -EINVAL;
}

static int describe(struct archive_entry *header, const struct tree_entry *entry)
{
	char target[PATH_MAX];
	ssize_t n;

	archive_entry_copy_stat(header, entry->st);
	archive_entry_copy_pathname(header, entry->path);
	if (!S_ISREG(entry->st->st_mode))
		archive_entry_set_size(header, 0);
	if (!S_ISLNK(entry->st->st_mode))
		return 0;
	n = readlinkat(entry->dir, entry->name, target, sizeof(target) - 1);
	if (n < 0)
		return -errno;
	target[n] = '\0';
	archive_entry_copy_symlink(header, target);
	return 0;
}

static int add_entry(struct creation *creation, const struct tree_entry *entry, struct archive_entry **header)
{
	_cleanup_fd_ int fd = -1;
	struct archive_entry *sparse = NULL;
	int rc = describe(*header, entry);

	if (rc == -ENOENT)
		return 0;
	if (rc < 0)
		return archive_fail_errno(-rc, "%.400s", entry->path);
	if (S_ISREG(entry->st->st_mode)) {
		fd = open_file(entry);
		if (fd == -ENOENT || fd == -EINVAL || fd == -ELOOP)
			return 0; /* gone, or something else by now */
		if (fd < 0)
			return archive_fail_errno(-fd, "%.400s", entry->path);
	}
	archive_entry_linkify(creation->links, header, &sparse);
	/* A warning is a name that is no UTF-8: it is written as it is. */
	if (archive_write_header(creation->archive, *header) < ARCHIVE_WARN)
		return fail_archive(creation, entry->path);
	if (fd < 0 || archive_entry_hardlink(*header) || archive_entry_size(*header) <= 0)
		return 0;
	return write_content(creation, fd, (uint64_t)archive_entry_size(*header), entry->path);
}

static int visit(const struct tree_entry *entry, void *arg)
{
	struct creation *creation = arg;
	mode_t mode = entry->st->st_mode;
	struct archive_entry *header;
	int rc;

	if (is_excluded(creation->options, entry))
		return TREE_SKIP;
	if (!S_ISREG(mode) && !S_ISDIR(mode) && !S_ISLNK(mode) && !S_ISFIFO(mode))
		return 0;
	header = archive_entry_new();
	if (!header)
		return archive_fail_errno(ENOMEM, "%.400s", entry->path);
	rc = add_entry(creation, entry, &header);
	archive_entry_free(header);
	return rc;
}

static int open_stream(struct creation *creation)
{
	const char *compress = creation->options->compress;
	int rc = archive_write_set_format_pax_restricted(creation->archive);

	if (rc == ARCHIVE_OK && compress)
		rc = strcmp(compress, "gzip") == 0 ? archive_write_add_filter_gzip(creation->archive)
						   : archive_write_add_filter_zstd(creation->archive);
	/* No padding to a tape's block: the stream ends where it ends. */
	if (rc == ARCHIVE_OK)
		rc = archive_write_set_bytes_in_last_block(creation->archive, 1);
	if (rc == ARCHIVE_OK)
		rc = archive_write_open_fd(creation->archive, 1);
	return rc == ARCHIVE_OK ? 0 : fail_archive(creation, "archive");
}

/* Where the walk starts: the parent, and the last component as it is named. */
static int write_tree(struct creation *creation)
{
	_cleanup_free_ char *path = strdup(creation->options->path);
	const char *name;
	char *slash;
	int rc;

	if (!path)
		return archive_fail_errno(ENOMEM, "archive");
	while (strlen(path) > 1 && path[strlen(path) - 1] == '/')
		path[strlen(path) - 1] = '\0';
	slash = strrchr(path, '/');
	name = slash && slash[1] ? slash + 1 : slash ? "." : path;
	if (slash && slash[1]) {
		_cleanup_fd_ int dir = -1;

		*slash = '\0';
		dir = open(path[0] ? path : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (dir < 0)
			return archive_fail_errno(errno, "%.400s", creation->options->path);
		rc = tree_walk(dir, name, name, visit, creation);
	} else {
		rc = tree_walk(AT_FDCWD, slash ? "/" : path, name, visit, creation);
	}
	return rc == -1 ? archive_fail_errno(errno, "%.400s", creation->options->path) : rc;
}

int archive_create(const struct create_options *options)
{
	struct creation creation = {.options = options};
	int rc;

	creation.archive = archive_write_new();
	creation.links = archive_entry_linkresolver_new();
	if (!creation.archive || !creation.links)
		return archive_fail_errno(ENOMEM, "libarchive");
	archive_entry_linkresolver_set_strategy(creation.links, ARCHIVE_FORMAT_TAR_PAX_RESTRICTED);
	rc = open_stream(&creation);
	if (rc == 0)
		rc = write_tree(&creation);
	if (rc == 0 && archive_write_close(creation.archive) < ARCHIVE_WARN)
		rc = fail_archive(&creation, "archive");
	/* After an error nothing more is written: a stream that breaks off must not look whole. */
	if (rc)
		_exit(rc);
	archive_entry_linkresolver_free(creation.links);
	archive_write_free(creation.archive);
	return 0;
}
