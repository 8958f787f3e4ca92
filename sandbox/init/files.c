#include "sandbox/init/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#define RENAME_NO_REPLACE 1u

enum file_type { TYPE_REGULAR = 1, TYPE_DIRECTORY, TYPE_SYMLINK, TYPE_OTHER };

uint32_t files_type(mode_t mode)
{
	if (S_ISREG(mode))
		return TYPE_REGULAR;
	if (S_ISDIR(mode))
		return TYPE_DIRECTORY;
	return S_ISLNK(mode) ? TYPE_SYMLINK : TYPE_OTHER;
}

void files_describe(struct worker *worker, const char *path, const struct stat *st, guest_message(File) * file)
{
	file->path.data = (uint8_t *)(uintptr_t)path;
	file->path.len = strlen(path);
	file->type = files_type(st->st_mode);
	file->mode = st->st_mode & 07777;
	file->size = (uint64_t)st->st_size;
	file->uid = st->st_uid;
	file->gid = st->st_gid;
	file->user = (char *)(uintptr_t)account_user_name(&worker->names, st->st_uid);
	file->group = (char *)(uintptr_t)account_group_name(&worker->names, st->st_gid);
	file->modified_unix_ms = (int64_t)st->st_mtim.tv_sec * 1000 + st->st_mtim.tv_nsec / 1000000;
	file->inode = st->st_ino;
	file->links = (uint32_t)st->st_nlink;
}

int files_make_path(struct worker *worker, const ProtobufCBinaryData *bytes, char path[PATH_MAX], struct pdk_error *err)
{
	return path_make(bytes, worker->account.home, path, err);
}

int files_reply_stat(struct worker *worker, int dir, const char *name, const char *path, struct pdk_error *err)
{
	guest_message(File) file = PADDOCK__INTERNAL__GUEST_FILE__INIT;
	char target[PATH_MAX];
	struct stat st;
	int rc;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) < 0)
		return path_fail(err, -errno, path);
	files_describe(worker, path, &st, &file);
	rc = files_metadata_load(dir, name, st.st_mode, &file, &(size_t){0});
	if (rc < 0)
		return path_fail(err, rc, path);
	if (S_ISLNK(st.st_mode)) {
		ssize_t n = readlinkat(dir, name, target, sizeof(target));

		file.symlink_target.data = (uint8_t *)target;
		file.symlink_target.len = n < 0 ? 0 : (size_t)n;
	}
	worker_reply_file(worker, &file, false);
	return 0;
}

int files_stat(struct worker *worker, const guest_message(Stat) * request, struct pdk_error *err)
{
	_cleanup_fd_ int fd = -1;
	char path[PATH_MAX];
	int rc = files_make_path(worker, &request->path, path, err);

	if (rc < 0)
		return rc;
	fd = path_open_at(AT_FDCWD, path, O_PATH | (request->follow ? 0 : O_NOFOLLOW), 0);
	if (fd < 0)
		return path_fail(err, fd, path);
	return files_reply_stat(worker, fd, "", path, err);
}

/*
 * Make a directory and open it. The umask does not count, because the mode was named; so it is changed by the
 * descriptor: by its name it could be another's by then, and root may be the one who asks.
 */
static int make_dir(const char *path, mode_t mode)
{
	_cleanup_fd_ int parent = -1;
	_cleanup_fd_ int fd = -1;
	char name[NAME_MAX + 1];

	parent = path_open_parent(path, name);
	if (parent < 0)
		return parent == -EINVAL ? -EEXIST : parent; /* "/", "..": it is there */
	if (mkdirat(parent, name, 0700) < 0)
		return -errno;
	fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fchmod(fd, mode) < 0)
		return -errno;
	return STEAL_FD(fd);
}

int files_make_dir(struct worker *worker, const guest_message(MakeDir) * request, struct pdk_error *err)
{
	mode_t mode = request->mode ? request->mode & 07777 : 0755;
	_cleanup_fd_ int fd = -1;
	char path[PATH_MAX];
	int rc = files_make_path(worker, &request->path, path, err);

	if (rc < 0)
		return rc;
	if (request->parents)
		rc = path_make_parents(path);
	if (rc < 0)
		return path_fail(err, rc, path);
	fd = make_dir(path, mode);
	if (fd == -EEXIST && request->parents) {
		fd = path_open_at(AT_FDCWD, path, O_PATH | O_DIRECTORY, 0);
		if (fd == -ENOTDIR)
			fd = -EEXIST;
	}
	if (fd < 0)
		return path_fail(err, fd, path);
	return files_reply_stat(worker, fd, "", path, err);
}

int files_move(struct worker *worker, const guest_message(Move) * request, struct pdk_error *err)
{
	_cleanup_fd_ int from_dir = -1;
	_cleanup_fd_ int to_dir = -1;
	char from[PATH_MAX], to[PATH_MAX];
	char from_name[NAME_MAX + 1], to_name[NAME_MAX + 1];
	int rc = files_make_path(worker, &request->from, from, err);

	if (rc == 0)
		rc = files_make_path(worker, &request->to, to, err);
	if (rc < 0)
		return rc;
	from_dir = path_open_parent(from, from_name);
	if (from_dir < 0)
		return path_fail(err, from_dir, from);
	to_dir = path_open_parent(to, to_name);
	if (to_dir < 0)
		return path_fail(err, to_dir, to);
	if (syscall(SYS_renameat2, from_dir, from_name, to_dir, to_name, request->no_replace ? RENAME_NO_REPLACE : 0) <
	    0) {
		if (errno == EXDEV)
			return pdk_fail(err, -EXDEV, PDK_FAILED_PRECONDITION,
					"%.200s: is on another file system; copy it instead", to);
		return path_fail(err, -errno, errno == ENOENT ? from : to);
	}
	return files_reply_stat(worker, to_dir, to_name, to, err);
}

/* Remove what is in a directory. One descriptor per level: a tree deeper than their limit is refused. */
static int remove_tree(int dir, const char *name, uint64_t *removed)
{
	_cleanup_fd_ int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	struct dirent *entry;
	int rc = 0;
	DIR *stream;

	if (fd < 0)
		return -errno;
	stream = fdopendir(fd);
	if (!stream)
		return -ENOMEM;
	STEAL_FD(fd);
	while (rc == 0 && (entry = readdir(stream))) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (unlinkat(dirfd(stream), entry->d_name, 0) == 0)
			++*removed;
		else if (errno == EISDIR || errno == EPERM)
			rc = remove_tree(dirfd(stream), entry->d_name, removed);
		else if (errno != ENOENT)
			rc = -errno;
		/* unlink() of a directory says EISDIR; with EPERM it was something that may not be removed. */
		if (rc == -ENOTDIR)
			rc = -EPERM;
	}
	closedir(stream);
	if (rc < 0)
		return rc;
	if (unlinkat(dir, name, AT_REMOVEDIR) < 0)
		return -errno;
	++*removed;
	return 0;
}

int files_remove(struct worker *worker, const guest_message(Remove) * request, struct pdk_error *err)
{
	_cleanup_fd_ int dir = -1;
	char path[PATH_MAX];
	char name[NAME_MAX + 1];
	uint64_t removed = 0;
	int rc = files_make_path(worker, &request->path, path, err);

	if (rc < 0)
		return rc;
	dir = path_open_parent(path, name);
	if (dir < 0)
		return path_fail(err, dir, path);
	if (unlinkat(dir, name, 0) == 0)
		removed = 1;
	else if (errno != EISDIR)
		rc = -errno;
	else if (request->recursive)
		rc = remove_tree(dir, name, &removed);
	else if (unlinkat(dir, name, AT_REMOVEDIR) == 0)
		removed = 1;
	else
		rc = -errno;
	if (rc < 0)
		return path_fail(err, rc, path);
	worker_reply_count(worker, removed, 0);
	return 0;
}
