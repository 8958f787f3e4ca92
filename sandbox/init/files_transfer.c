#include "sandbox/init/files.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

/*
 * Reading and writing the content of one file, through a pipe whose other end paddockd has. The bytes are
 * spliced; where the file system cannot, they are copied through a buffer.
 */

#define CHUNK (256u << 10)
#define UNSIZED_MAX (64u << 20) /* of files like those in /proc, whose size is said to be 0 */

/* Move up to `length` bytes; *offset (NULL: the descriptor's own) goes with them. */
static ssize_t move_bytes(int from, off_t *from_offset, int to, off_t *to_offset, size_t length, bool *can_splice)
{
	static char bytes[CHUNK];
	ssize_t n, done = 0;

	if (length > CHUNK)
		length = CHUNK;
	if (*can_splice) {
		n = splice(from, from_offset, to, to_offset, length, SPLICE_F_MOVE);
		if (n >= 0 || (errno != EINVAL && errno != EOPNOTSUPP))
			return n < 0 ? -errno : n;
		*can_splice = false;
	}
	n = from_offset ? pread(from, bytes, length, *from_offset) : read(from, bytes, length);
	if (n < 0)
		return -errno;
	while (done < n) {
		ssize_t m = to_offset ? pwrite(to, bytes + done, (size_t)(n - done), *to_offset)
				      : write(to, bytes + done, (size_t)(n - done));

		if (m < 0 && errno != EINTR)
			return -errno;
		if (m > 0) {
			done += m;
			if (to_offset)
				*to_offset += m;
		}
	}
	if (from_offset)
		*from_offset += n;
	return n;
}

static int open_regular(const char *path, int flags, mode_t mode, struct stat *st, struct pdk_error *err)
{
	_cleanup_fd_ int fd = path_open_at(AT_FDCWD, path, flags | O_NONBLOCK | O_NOCTTY, mode);

	if (fd == -ENXIO || fd == -ENODEV) /* a FIFO that nobody reads, a socket, a device */
		return pdk_fail(err, fd, PDK_FAILED_PRECONDITION, "%.300s: not a regular file", path);
	if (fd < 0)
		return path_fail(err, fd, path);
	if (fstat(fd, st) < 0)
		return path_fail(err, -errno, path);
	if (!S_ISREG(st->st_mode))
		return pdk_fail(err, -EINVAL, PDK_FAILED_PRECONDITION, "%.300s: %s", path,
				S_ISDIR(st->st_mode) ? "is a directory" : "not a regular file");
	return STEAL_FD(fd);
}

/* Reading */

static uint64_t bytes_to_read(const guest_message(Read) * request, const struct stat *st)
{
	uint64_t size = st->st_size ? (uint64_t)st->st_size : UNSIZED_MAX;
	uint64_t left = size > request->offset ? size - request->offset : 0;

	/* Not what is added meanwhile: a file that grows as fast as it is read would have no end. */
	return request->length && request->length < left ? request->length : left;
}

static int send_content(struct worker *worker, int fd, off_t offset, uint64_t length)
{
	bool can_splice = true;

	while (length && !worker->stopped) {
		ssize_t n;
		/* Wait for room, so that an order to stop is heard while paddockd does not read. */
		int rc = worker_wait(worker, worker->pipe, POLLOUT, -1);

		if (rc < 0)
			return rc;
		if (!rc)
			continue;
		n = move_bytes(fd, &offset, worker->pipe, NULL, length < CHUNK ? length : CHUNK, &can_splice);
		if (n <= 0)
			return (int)n;
		length -= (uint64_t)n;
	}
	return 0;
}

int files_read(struct worker *worker, const guest_message(Read) * request, struct pdk_error *err)
{
	guest_message(File) file = PADDOCK__INTERNAL__GUEST_FILE__INIT;
	guest_reply done = GUEST_REPLY_INIT;
	_cleanup_fd_ int fd = -1;
	char path[PATH_MAX];
	struct stat st;
	int rc = files_make_path(worker, &request->path, path, err);

	if (rc < 0)
		return rc;
	if (request->offset > INT64_MAX)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "offset: too large");
	fd = open_regular(path, O_RDONLY, 0, &st, err);
	if (fd < 0)
		return fd;
	files_describe(worker, path, &st, &file);
	worker_reply_file(worker, &file, true);
	rc = send_content(worker, fd, (off_t)request->offset, bytes_to_read(request, &st));
	if (rc == -EPIPE || rc == -ECANCELED)
		return pdk_fail(err, rc, PDK_CANCELLED, "the reader went away");
	if (rc < 0)
		return path_fail(err, rc, path);
	close(worker->pipe);
	worker->pipe = -1;
	worker_reply(worker, &done, false);
	return 0;
}

/* Writing */

struct upload {
	const guest_message(Write) * request;
	char path[PATH_MAX];
	int dir; /* written aside: where the file goes, and its name there */
	char name[NAME_MAX + 1];
	int fd;
	char temporary[32]; /* its name while it has one */
	bool replaces;      /* a file is there now */
	struct stat old;
};

/* What may be written over: a regular file that the user may write. */
static int check_old(struct upload *upload, struct pdk_error *err)
{
	const guest_message(Write) *request = upload->request;

	if (fstatat(upload->dir, upload->name, &upload->old, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : path_fail(err, -errno, upload->path);
	if (request->exclusive)
		return path_fail(err, -EEXIST, upload->path);
	if (!S_ISREG(upload->old.st_mode))
		return pdk_fail(err, -EINVAL, PDK_FAILED_PRECONDITION, "%.300s: %s", upload->path,
				S_ISDIR(upload->old.st_mode) ? "is a directory" : "not a regular file");
	if (faccessat(upload->dir, upload->name, W_OK, 0) < 0)
		return path_fail(err, -errno, upload->path);
	upload->replaces = true;
	return 0;
}

static void make_temporary_name(struct upload *upload)
{
	unsigned long long number = 0;

	(void)!getrandom(&number, sizeof(number), 0);
	snprintf(upload->temporary, sizeof(upload->temporary), ".paddock-%016llx", number);
}

/* A file without a name where the file system can; else one that is unlinked if the call breaks. */
static int open_aside(struct upload *upload, struct pdk_error *err)
{
	upload->fd = path_open_at(upload->dir, ".", O_TMPFILE | O_RDWR, 0600);
	if (upload->fd == -EOPNOTSUPP || upload->fd == -EISDIR || upload->fd == -EINVAL) {
		make_temporary_name(upload);
		upload->fd = path_open_at(upload->dir, upload->temporary, O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW, 0600);
		if (upload->fd < 0)
			upload->temporary[0] = '\0';
	}
	return upload->fd < 0 ? path_fail(err, upload->fd, upload->path) : 0;
}

static int open_upload(struct worker *worker, struct upload *upload, struct pdk_error *err)
{
	const guest_message(Write) *request = upload->request;
	int flags = O_WRONLY | O_CREAT | (request->append ? O_APPEND : 0) | (request->exclusive ? O_EXCL : 0);
	int rc = files_make_path(worker, &request->path, upload->path, err);

	if (rc < 0)
		return rc;
	if (request->offset > INT64_MAX || (!request->in_place && (request->offset || request->append)) ||
	    (request->append && request->offset) || (request->in_place && request->n_metadata) || request->mode > 0777)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT,
				"mode, offset, append, metadata: cannot be used like this");
	if (request->make_parents)
		rc = path_make_parents(upload->path);
	if (rc < 0)
		return path_fail(err, rc, upload->path);
	if (request->in_place) {
		upload->fd = open_regular(upload->path, flags, request->mode ? request->mode : 0644, &upload->old, err);
		return upload->fd < 0 ? upload->fd : 0;
	}
	upload->dir = path_open_target_parent(upload->path, upload->name);
	if (upload->dir < 0)
		return path_fail(err, upload->dir, upload->path);
	rc = check_old(upload, err);
	if (rc == 0)
		rc = open_aside(upload, err);
	return rc < 0 ? rc : files_metadata_store(upload->fd, request, upload->path, err);
}

/* Bytes until the pipe ends. */
static int receive_content(struct worker *worker, struct upload *upload)
{
	off_t offset = (off_t)upload->request->offset;
	bool can_splice = !upload->request->append;

	for (;;) {
		int rc = worker_wait(worker, worker->pipe, POLLIN, -1);
		ssize_t n;

		if (rc < 0)
			return rc;
		if (!rc)
			continue;
		n = move_bytes(worker->pipe, NULL, upload->fd, upload->request->append ? NULL : &offset, CHUNK,
			       &can_splice);
		if (n <= 0)
			return (int)n;
	}
}

/* The new file takes the place of the old one, with its mode and owner where we may. */
static int put_in_place(struct upload *upload)
{
	mode_t mode =
		upload->replaces ? upload->old.st_mode & 0777 : (upload->request->mode ? upload->request->mode : 0644);
	char self[64];

	if (upload->replaces && fchown(upload->fd, upload->old.st_uid, upload->old.st_gid) < 0 && errno != EPERM)
		return -errno;
	if (fchmod(upload->fd, mode) < 0)
		return -errno;
	if (!upload->temporary[0]) {
		snprintf(self, sizeof(self), "/proc/self/fd/%d", upload->fd);
		if (!upload->replaces && linkat(AT_FDCWD, self, upload->dir, upload->name, AT_SYMLINK_FOLLOW) == 0)
			return 0;
		if (!upload->replaces && (errno != EEXIST || upload->request->exclusive))
			return -errno;
		make_temporary_name(upload);
		if (linkat(AT_FDCWD, self, upload->dir, upload->temporary, AT_SYMLINK_FOLLOW) < 0) {
			upload->temporary[0] = '\0';
			return -errno;
		}
	}
	if (upload->request->exclusive) {
		/* A hard link does not replace what came meanwhile. */
		if (linkat(upload->dir, upload->temporary, upload->dir, upload->name, 0) < 0)
			return -errno;
		return 0;
	}
	if (renameat(upload->dir, upload->temporary, upload->dir, upload->name) < 0)
		return -errno;
	upload->temporary[0] = '\0';
	return 0;
}

static int take_upload(struct worker *worker, struct upload *upload, struct pdk_error *err)
{
	guest_reply ready = GUEST_REPLY_INIT;
	int rc;

	worker_reply(worker, &ready, true);
	rc = receive_content(worker, upload);
	if (rc == 0)
		rc = worker_wait_commit(worker);
	if (rc == -ECANCELED)
		return pdk_fail(err, rc, PDK_CANCELLED, "the write was given up");
	if (rc == 0 && !upload->request->in_place)
		rc = put_in_place(upload);
	if (rc < 0)
		return path_fail(err, rc, upload->path);
	return files_reply_stat(worker, upload->fd, "", upload->path, err);
}

int files_write(struct worker *worker, const guest_message(Write) * request, struct pdk_error *err)
{
	static struct upload upload;
	int rc;

	upload = (struct upload){.request = request, .dir = -1, .fd = -1};
	rc = open_upload(worker, &upload, err);
	if (rc == 0)
		rc = take_upload(worker, &upload, err);
	if (upload.temporary[0])
		unlinkat(upload.dir, upload.temporary, 0);
	cleanup_fd(&upload.fd);
	cleanup_fd(&upload.dir);
	return rc;
}
