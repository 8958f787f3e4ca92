#include "sandbox/archive/archive.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/*
 * Theory of operation
 *
 * libarchive only reads; every file is made here, below one directory descriptor. A name of the archive is first
 * checked as text (relative, no ".."), then its parent is opened by the kernel under rules that the text
 * cannot bend: RESOLVE_BENEATH without symbolic links, so "a -> /etc" followed by "a/passwd" fails. A template is a
 * whole root, where /bin may be a link to usr/bin: there links are followed, but as if the directory were "/". The last
 * component is never followed: what is there is removed, unless it is a directory, and made anew.
 *
 * Modes and times of directories are set at the end, last first, because a read-only one must be filled before.
 */

#define BLOCK (64u << 10)
#define DEPTH_MAX 512

struct directory {
	char *path;
	mode_t mode;
	uid_t uid;
	gid_t gid;
	struct timespec modified;
};

struct extraction {
	const struct extract_options *options;
	struct archive *archive;
	int root;
	uint64_t entries;
	uint64_t bytes;
	char parent_path[PATH_MAX]; /* of parent, which stays open: the next entry is mostly its neighbour */
	int parent;
	struct directory *directories;
	size_t n_directories;
	size_t size_directories;
};

static int refuse(const char *name, const char *why)
{
	/* Whoever passes it on has room for a line: the reason must be in it. */
	return archive_fail(ARCHIVE_EXIT_REFUSED, "%.150s%s: %s", name, strlen(name) > 150 ? "..." : "", why);
}

/* What openat2() and its like say about a name of the archive. */
static int fail_name(int error, const char *name)
{
	if (error == ELOOP || error == EXDEV || error == ENOTDIR)
		return refuse(name, "leads through a symbolic link or a file");
	return archive_fail_errno(error, "%.400s", name);
}

static int open_below(const struct extraction *extraction, const char *path, int flags)
{
	struct open_how how = {.flags = (unsigned int)(flags | O_CLOEXEC), .resolve = RESOLVE_NO_MAGICLINKS};

	how.resolve |= extraction->options->is_template ? RESOLVE_IN_ROOT : RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
	return (int)syscall(SYS_openat2, extraction->root, path, &how, sizeof(how));
}

/* Names */

/* Write the clean form: no "./", no double slash; "" is the directory itself. */
static int clean_name(const char *name, char clean[PATH_MAX])
{
	size_t length = 0;
	int depth = 0;

	if (!name || !name[0] || strlen(name) >= PATH_MAX)
		return refuse(name ? name : "?", "the name is missing or too long");
	if (name[0] == '/')
		return refuse(name, "the name is absolute");
	clean[0] = '\0';
	while (*name) {
		size_t n = strcspn(name, "/");

		if (n == 2 && name[0] == '.' && name[1] == '.')
			return refuse(name, "the name contains \"..\"");
		if (n > NAME_MAX || depth > DEPTH_MAX)
			return refuse(name, "a component is too long, or there are too many");
		if (n && !(n == 1 && name[0] == '.')) {
			if (length)
				clean[length++] = '/';
			memcpy(clean + length, name, n);
			length += n;
			clean[length] = '\0';
			depth++;
		}
		name += n;
		name += *name == '/';
	}
	return 0;
}

/* Directories on the way that the archive does not mention come into being with 0755. */
static int make_parents(struct extraction *extraction, const char *path)
{
	char partial[PATH_MAX];

	for (const char *at = path;; at++) {
		_cleanup_fd_ int fd = -1;
		_cleanup_fd_ int above = -1;
		const char *slash;

		at += strcspn(at, "/");
		snprintf(partial, sizeof(partial), "%.*s", (int)(at - path), path);
		fd = open_below(extraction, partial, O_PATH | O_DIRECTORY);
		if (fd < 0 && errno != ENOENT)
			return -errno;
		if (fd < 0) {
			slash = strrchr(partial, '/');
			if (slash)
				partial[slash - partial] = '\0';
			above = open_below(extraction, slash ? partial : ".", O_PATH | O_DIRECTORY);
			if (above < 0 || mkdirat(above, slash ? slash + 1 : partial, 0755) < 0)
				return -errno;
		}
		if (!*at)
			return 0;
	}
}

/* Open the parent of a clean name; *ret_name is its last component. */
static int open_parent(struct extraction *extraction, const char *path, int *ret_fd, const char **ret_name)
{
	const char *slash = strrchr(path, '/');
	char parent[PATH_MAX] = ".";
	int rc;

	if (slash)
		snprintf(parent, sizeof(parent), "%.*s", (int)(slash - path), path);
	*ret_name = slash ? slash + 1 : path;
	if (extraction->parent < 0 || strcmp(parent, extraction->parent_path) != 0) {
		cleanup_fd(&extraction->parent);
		extraction->parent = open_below(extraction, parent, O_PATH | O_DIRECTORY);
		if (extraction->parent < 0 && errno == ENOENT) {
			rc = make_parents(extraction, parent);
			if (rc < 0)
				return fail_name(-rc, path);
			extraction->parent = open_below(extraction, parent, O_PATH | O_DIRECTORY);
		}
		if (extraction->parent < 0)
			return fail_name(errno, path);
		snprintf(extraction->parent_path, sizeof(extraction->parent_path), "%s", parent);
	}
	*ret_fd = extraction->parent;
	return 0;
}

/* What the archive makes at a name takes the place of what was there; only a directory stays. */
static int make_room(struct extraction *extraction, int parent, const char *name, const char *path)
{
	if (unlinkat(parent, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR)
		return archive_fail_errno(errno, "%.400s", path);
	if (unlinkat(parent, name, AT_REMOVEDIR) < 0)
		return refuse(path, "is a directory that is not empty");
	/* The parent that is kept open may be what was removed. */
	cleanup_fd(&extraction->parent);
	extraction->parent = -1;
	return 0;
}

/* Kinds of entries */

static struct timespec modified_of(struct archive_entry *entry)
{
	return (struct timespec){archive_entry_mtime(entry), archive_entry_mtime_nsec(entry)};
}

static mode_t mode_of(const struct extraction *extraction, struct archive_entry *entry)
{
	/* Set-uid does nothing in a sandbox; a template keeps the bits so that it stays what it was. */
	return archive_entry_perm(entry) & (extraction->options->is_template ? 07777u : 0777u);
}

static int set_owner(struct extraction *extraction, int dir, const char *name, struct archive_entry *entry)
{
	int64_t uid = archive_entry_uid(entry), gid = archive_entry_gid(entry);

	if (!extraction->options->keep_owner)
		return 0;
	if (uid < 0 || uid > 0xfffffffe || gid < 0 || gid > 0xfffffffe)
		return EINVAL;
	return fchownat(dir, name, (uid_t)uid, (gid_t)gid, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) < 0 ? errno : 0;
}

static int count_bytes(struct extraction *extraction, uint64_t bytes, const char *path)
{
	if (bytes > extraction->options->max_bytes - extraction->bytes)
		return archive_fail(ARCHIVE_EXIT_LIMIT, "%.400s: more than %" PRIu64 " bytes unpacked", path,
				    extraction->options->max_bytes);
	extraction->bytes += bytes;
	return 0;
}

static int write_at(int fd, const char *bytes, size_t length, int64_t offset)
{
	while (length) {
		ssize_t n = pwrite(fd, bytes, length, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno;
		bytes += n;
		length -= (size_t)n;
		offset += n;
	}
	return 0;
}

static int write_content(struct extraction *extraction, int fd, uint64_t size, const char *path)
{
	for (;;) {
		const void *block;
		size_t length;
		int64_t offset;
		int rc = archive_read_data_block(extraction->archive, &block, &length, &offset);

		if (rc == ARCHIVE_EOF)
			break;
		if (rc < ARCHIVE_WARN)
			return refuse(path, archive_error_string(extraction->archive));
		if (offset < 0 || (uint64_t)offset > size || length > size - (uint64_t)offset)
			return refuse(path, "has more content than it says");
		rc = write_at(fd, block, length, offset);
		if (rc)
			return archive_fail_errno(rc, "%.400s", path);
	}
	return ftruncate(fd, (off_t)size) < 0 ? archive_fail_errno(errno, "%.400s", path) : 0;
}

static int make_file(struct extraction *extraction, struct archive_entry *entry, const char *path)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, modified_of(entry)};
	int64_t size = archive_entry_size(entry);
	_cleanup_fd_ int fd = -1;
	const char *name;
	int parent;
	int rc = open_parent(extraction, path, &parent, &name);

	if (rc == 0 && (size < 0 || !name[0]))
		rc = refuse(path, "is not a file that could be made");
	/* The size that it says, so that holes count too. */
	if (rc == 0)
		rc = count_bytes(extraction, (uint64_t)size, path);
	if (rc == 0)
		rc = make_room(extraction, parent, name, path);
	if (rc == 0)
		rc = open_parent(extraction, path, &parent, &name);
	if (rc)
		return rc;
	fd = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return archive_fail_errno(errno, "%.400s", path);
	rc = write_content(extraction, fd, (uint64_t)size, path);
	if (rc)
		return rc;
	rc = set_owner(extraction, fd, "", entry);
	if (rc || fchmod(fd, mode_of(extraction, entry)) < 0)
		return archive_fail_errno(rc ? rc : errno, "%.400s", path);
	futimens(fd, times);
	return 0;
}

static int remember_directory(struct extraction *extraction, struct archive_entry *entry, const char *path)
{
	struct directory *directory;

	if (extraction->n_directories == extraction->size_directories) {
		size_t size = extraction->size_directories ? extraction->size_directories * 2 : 256;

		directory = realloc(extraction->directories, size * sizeof(*directory));
		if (!directory)
			return archive_fail_errno(ENOMEM, "%.400s", path);
		extraction->directories = directory;
		extraction->size_directories = size;
	}
	directory = &extraction->directories[extraction->n_directories];
	*directory = (struct directory){
		.path = strdup(path),
		.mode = mode_of(extraction, entry),
		.uid = (uid_t)archive_entry_uid(entry),
		.gid = (gid_t)archive_entry_gid(entry),
		.modified = modified_of(entry),
	};
	if (!directory->path)
		return archive_fail_errno(ENOMEM, "%.400s", path);
	extraction->n_directories++;
	return 0;
}

static int make_directory(struct extraction *extraction, struct archive_entry *entry, const char *path)
{
	const char *name;
	struct stat st;
	int parent;
	int rc;

	if (!path[0])
		return extraction->options->is_template ? remember_directory(extraction, entry, ".") : 0;
	rc = open_parent(extraction, path, &parent, &name);
	if (rc)
		return rc;
	if (mkdirat(parent, name, 0700) < 0) {
		if (errno != EEXIST || fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			return archive_fail_errno(errno, "%.400s", path);
		/* In a template "bin" may be a link already; then the directory is what it leads to. */
		if (S_ISLNK(st.st_mode) && extraction->options->is_template)
			return 0;
		if (!S_ISDIR(st.st_mode)) {
			rc = make_room(extraction, parent, name, path);
			if (rc == 0 && mkdirat(parent, name, 0700) < 0)
				rc = archive_fail_errno(errno, "%.400s", path);
		}
	}
	return rc ? rc : remember_directory(extraction, entry, path);
}

static int make_symlink(struct extraction *extraction, struct archive_entry *entry, const char *path)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, modified_of(entry)};
	const char *target = archive_entry_symlink(entry);
	const char *name;
	int parent;
	int rc;

	if (!path[0] || !target || !target[0] || strlen(target) >= PATH_MAX)
		return refuse(path, "is a symbolic link without a proper target");
	rc = open_parent(extraction, path, &parent, &name);
	if (rc == 0)
		rc = make_room(extraction, parent, name, path);
	if (rc == 0)
		rc = open_parent(extraction, path, &parent, &name);
	if (rc)
		return rc;
	if (symlinkat(target, parent, name) < 0)
		return archive_fail_errno(errno, "%.400s", path);
	rc = set_owner(extraction, parent, name, entry);
	if (rc)
		return archive_fail_errno(rc, "%.400s", path);
	utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW);
	return 0;
}

/* Both names are inside; linkat() does not follow the last component of either. */
static int make_hard_link(struct extraction *extraction, const char *target, const char *path)
{
	_cleanup_fd_ int target_dir = -1;
	char clean[PATH_MAX];
	const char *name, *target_name;
	int parent;
	int rc = clean_name(target, clean);

	if (rc == 0 && (!clean[0] || !path[0] || strcmp(clean, path) == 0))
		return rc ? rc : refuse(path, "is a link to itself or to nothing");
	if (rc == 0)
		rc = open_parent(extraction, clean, &parent, &target_name);
	if (rc)
		return rc;
	target_dir = fcntl(parent, F_DUPFD_CLOEXEC, 0);
	rc = open_parent(extraction, path, &parent, &name);
	if (rc == 0)
		rc = make_room(extraction, parent, name, path);
	if (rc == 0)
		rc = open_parent(extraction, path, &parent, &name);
	if (rc)
		return rc;
	if (linkat(target_dir, target_name, parent, name, 0) < 0) {
		if (errno == ENOENT || errno == EPERM)
			return refuse(path, "is a hard link to what the archive did not make");
		return archive_fail_errno(errno, "%.400s", path);
	}
	return 0;
}

static int make_fifo(struct extraction *extraction, struct archive_entry *entry, const char *path)
{
	const char *name;
	int parent;
	int rc = open_parent(extraction, path, &parent, &name);

	if (rc == 0)
		rc = make_room(extraction, parent, name, path);
	if (rc == 0)
		rc = open_parent(extraction, path, &parent, &name);
	if (rc)
		return rc;
	if (mkfifoat(parent, name, mode_of(extraction, entry) & 0777) < 0)
		return archive_fail_errno(errno, "%.400s", path);
	rc = set_owner(extraction, parent, name, entry);
	return rc ? archive_fail_errno(rc, "%.400s", path) : 0;
}

static int make_entry(struct extraction *extraction, struct archive_entry *entry)
{
	char path[PATH_MAX];
	int rc = clean_name(archive_entry_pathname(entry), path);

	if (rc)
		return rc;
	if (++extraction->entries > extraction->options->max_entries)
		return archive_fail(ARCHIVE_EXIT_LIMIT, "more than %" PRIu64 " entries",
				    extraction->options->max_entries);
	if (archive_entry_hardlink(entry))
		return make_hard_link(extraction, archive_entry_hardlink(entry), path);
	switch (archive_entry_filetype(entry)) {
	case AE_IFREG:
		return make_file(extraction, entry, path);
	case AE_IFDIR:
		return make_directory(extraction, entry, path);
	case AE_IFLNK:
		return make_symlink(extraction, entry, path);
	case AE_IFIFO:
		return path[0] ? make_fifo(extraction, entry, path) : refuse(".", "is not a directory");
	case AE_IFCHR:
	case AE_IFBLK:
		if (extraction->options->is_template) {
			extraction->entries--;
			return 0;
		}
		return refuse(path, "is a device");
	default:
		return refuse(path, "is of an unknown kind");
	}
}

static int finish_directory(struct extraction *extraction, const struct directory *directory)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, directory->modified};
	/* The archive may have put something else in its place: then that is not ours to change. */
	_cleanup_fd_ int fd = open_below(extraction, directory->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);

	if (fd < 0)
		return errno == ENOENT || errno == ENOTDIR || errno == ELOOP
			       ? 0
			       : archive_fail_errno(errno, "%.400s", directory->path);
	if (extraction->options->keep_owner && fchown(fd, directory->uid, directory->gid) < 0)
		return archive_fail_errno(errno, "%.400s", directory->path);
	if (fchmod(fd, directory->mode) < 0)
		return archive_fail_errno(errno, "%.400s", directory->path);
	futimens(fd, times);
	return 0;
}

static int finish_directories(struct extraction *extraction)
{
	int rc = 0;

	for (size_t i = extraction->n_directories; i-- > 0;) {
		if (rc == 0)
			rc = finish_directory(extraction, &extraction->directories[i]);
		free(extraction->directories[i].path);
	}
	free(extraction->directories);
	return rc;
}

/* Tar only, and the filters that the contract names. */
static struct archive *open_archive(void)
{
	struct archive *archive = archive_read_new();

	if (!archive)
		return NULL;
	if (archive_read_support_format_tar(archive) < ARCHIVE_WARN ||
	    archive_read_support_filter_gzip(archive) < ARCHIVE_WARN ||
	    archive_read_support_filter_bzip2(archive) < ARCHIVE_WARN ||
	    archive_read_support_filter_xz(archive) < ARCHIVE_WARN ||
	    archive_read_support_filter_zstd(archive) < ARCHIVE_WARN) {
		archive_read_free(archive);
		return NULL;
	}
	return archive;
}

static int extract_all(struct extraction *extraction)
{
	struct archive_entry *entry;

	if (archive_read_open_fd(extraction->archive, 0, BLOCK) < ARCHIVE_WARN)
		return refuse("archive", archive_error_string(extraction->archive));
	for (;;) {
		int rc = archive_read_next_header(extraction->archive, &entry);

		if (rc == ARCHIVE_EOF)
			return 0;
		if (rc < ARCHIVE_WARN)
			return refuse("archive", archive_error_string(extraction->archive));
		rc = make_entry(extraction, entry);
		if (rc)
			return rc;
	}
}

/* The padding behind the last entry: whoever writes it must not get a broken pipe. */
static void drain_input(void)
{
	static char bytes[BLOCK];

	while (read(0, bytes, sizeof(bytes)) > 0)
		;
}

int archive_extract(const struct extract_options *options)
{
	struct extraction extraction = {.options = options, .parent = -1};
	int rc, finished;

	extraction.root = open(options->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (extraction.root < 0)
		return archive_fail_errno(errno, "%.400s", options->directory);
	extraction.archive = open_archive();
	if (!extraction.archive)
		return archive_fail_errno(ENOMEM, "libarchive");
	rc = extract_all(&extraction);
	finished = finish_directories(&extraction);
	archive_read_free(extraction.archive);
	cleanup_fd(&extraction.parent);
	close(extraction.root);
	if (rc || finished)
		return rc ? rc : finished;
	drain_input();
	printf("entries %" PRIu64 " bytes %" PRIu64 "\n", extraction.entries, extraction.bytes);
	return fflush(stdout) ? ARCHIVE_EXIT_SYSTEM : ARCHIVE_EXIT_OK;
}
