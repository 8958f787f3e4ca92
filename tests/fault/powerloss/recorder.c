/*
 * Preloaded into the driver: writes down what it does to the files below POWERLOSS_DIR, into POWERLOSS_LOG.
 * Paths in the recording are relative to that directory. The real system calls are made directly, so nothing here
 * depends on the order in which libraries are found.
 */
#include "tests/fault/powerloss/event.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;
static char root[PATH_MAX];
static size_t root_length;
static uint64_t next_id;

__attribute__((constructor)) static void start(void)
{
	const char *dir = getenv("POWERLOSS_DIR"), *log = getenv("POWERLOSS_LOG");

	if (!dir || !log || !realpath(dir, root))
		_exit(99);
	root_length = strlen(root);
	log_fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (log_fd < 0)
		_exit(99);
}

static void put(const void *data, size_t length)
{
	if (syscall(SYS_write, log_fd, data, length) != (long)length)
		_exit(99);
}

static void note(struct event event, const void *data, size_t length)
{
	event.length = (uint32_t)length;
	put(&event, sizeof(event));
	put(data, length);
	put("\0\0\0\0\0\0\0", event_padding(event.length));
}

/* The path of a descriptor below the root, or false. */
static bool path_of(int fd, char path[PATH_MAX])
{
	char link[64], full[PATH_MAX];
	ssize_t length;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	length = readlink(link, full, sizeof(full) - 1);
	if (length < (ssize_t)root_length || memcmp(full, root, root_length))
		return false;
	full[length] = '\0';
	if (full[root_length] != '\0' && full[root_length] != '/')
		return false;
	strcpy(path, full[root_length] ? full + root_length + 1 : "");
	return true;
}

static bool is_lock_file(const char *path)
{
	size_t length = strlen(path);

	return (length >= 8 && !strcmp(path + length - 8, "lock.mdb")) || !strcmp(path, "store.lock");
}

/* A file whose bytes are followed. */
static bool follows(int fd, struct event *event)
{
	char path[PATH_MAX];
	struct stat st;

	if (fd == log_fd || !path_of(fd, path) || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || is_lock_file(path))
		return false;
	*event = (struct event){.inode = st.st_ino};
	return true;
}

/* Note a write before it is made; if the descriptor is O_DSYNC, note its return too. */
static ssize_t do_write(int fd, const struct iovec *iov, int count, off_t offset, bool at)
{
	struct event event;
	int saved;
	ssize_t done;

	pthread_mutex_lock(&lock);
	if (fd == STDOUT_FILENO)
		note((struct event){.kind = EVENT_ACK}, iov[0].iov_base, iov[0].iov_len);
	if (!follows(fd, &event)) {
		pthread_mutex_unlock(&lock);
		return at ? syscall(SYS_pwritev, fd, iov, count, offset, 0) : syscall(SYS_writev, fd, iov, count);
	}
	event.kind = EVENT_WRITE;
	event.id = ++next_id;
	event.offset = (uint64_t)(at ? offset : syscall(SYS_lseek, fd, 0, SEEK_CUR));
	for (int i = 0; i < count; i++) {
		note(event, iov[i].iov_base, iov[i].iov_len);
		event.offset += iov[i].iov_len;
	}
	done = at ? syscall(SYS_pwritev, fd, iov, count, offset, 0) : syscall(SYS_writev, fd, iov, count);
	saved = errno;
	if (done >= 0 && (fcntl(fd, F_GETFL) & O_DSYNC)) {
		event.kind = EVENT_WRITTEN;
		note(event, NULL, 0);
	}
	pthread_mutex_unlock(&lock);
	errno = saved;
	return done;
}

ssize_t write(int fd, const void *data, size_t length)
{
	return do_write(fd, &(struct iovec){(void *)data, length}, 1, 0, false);
}

ssize_t writev(int fd, const struct iovec *iov, int count)
{
	return do_write(fd, iov, count, 0, false);
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset)
{
	return do_write(fd, &(struct iovec){(void *)data, length}, 1, offset, true);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset)
{
	return do_write(fd, &(struct iovec){(void *)data, length}, 1, offset, true);
}

ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
	return do_write(fd, iov, count, offset, true);
}

ssize_t pwritev64(int fd, const struct iovec *iov, int count, off64_t offset)
{
	return do_write(fd, iov, count, offset, true);
}

static int do_sync(int fd, long call)
{
	char path[PATH_MAX];
	struct event event;
	struct stat st;
	int rc;

	pthread_mutex_lock(&lock);
	rc = (int)syscall(call, fd);
	if (!rc && follows(fd, &event)) {
		event.kind = EVENT_SYNC;
		note(event, NULL, 0);
	} else if (!rc && path_of(fd, path) && !fstat(fd, &st) && S_ISDIR(st.st_mode)) {
		note((struct event){.kind = EVENT_SYNC_DIR}, path, strlen(path));
	}
	pthread_mutex_unlock(&lock);
	return rc;
}

int fsync(int fd)
{
	return do_sync(fd, SYS_fsync);
}

int fdatasync(int fd)
{
	return do_sync(fd, SYS_fdatasync);
}

int ftruncate(int fd, off_t size)
{
	struct event event;
	int rc;

	pthread_mutex_lock(&lock);
	if (follows(fd, &event)) {
		event.kind = EVENT_TRUNCATE;
		event.offset = (uint64_t)size;
		note(event, NULL, 0);
	}
	rc = (int)syscall(SYS_ftruncate, fd, size);
	pthread_mutex_unlock(&lock);
	return rc;
}

int ftruncate64(int fd, off64_t size)
{
	return ftruncate(fd, size);
}

/* Writes through a shared mapping are not seen here: a store that makes them cannot be judged. */
int msync(void *address, size_t length, int flags)
{
	(void)address, (void)length, (void)flags;
	_exit(98);
}

/* ---- names ---- */

static int do_open(int dir_fd, const char *name, int flags, mode_t mode)
{
	char path[PATH_MAX];
	struct event event;
	bool existed;
	int fd;

	if (!(flags & O_CREAT))
		return (int)syscall(SYS_openat, dir_fd, name, flags, mode);
	pthread_mutex_lock(&lock);
	existed = !faccessat(dir_fd, name, F_OK, AT_SYMLINK_NOFOLLOW);
	fd = (int)syscall(SYS_openat, dir_fd, name, flags, mode);
	if (fd >= 0 && follows(fd, &event) && path_of(fd, path)) {
		event.kind = EVENT_CREATE;
		if (!existed)
			note(event, path, strlen(path));
		event.kind = EVENT_TRUNCATE;
		if (existed && (flags & O_TRUNC))
			note(event, NULL, 0);
	}
	pthread_mutex_unlock(&lock);
	return fd;
}

#define OPEN_MODE(flags)                                                                                               \
	mode_t mode = 0;                                                                                               \
	if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                         \
		va_list ap;                                                                                            \
		va_start(ap, flags);                                                                                   \
		mode = va_arg(ap, mode_t);                                                                             \
		va_end(ap);                                                                                            \
	}

int open(const char *name, int flags, ...)
{
	OPEN_MODE(flags)
	return do_open(AT_FDCWD, name, flags, mode);
}

int open64(const char *name, int flags, ...)
{
	OPEN_MODE(flags)
	return do_open(AT_FDCWD, name, flags, mode);
}

int openat(int dir_fd, const char *name, int flags, ...)
{
	OPEN_MODE(flags)
	return do_open(dir_fd, name, flags, mode);
}

int openat64(int dir_fd, const char *name, int flags, ...)
{
	OPEN_MODE(flags)
	return do_open(dir_fd, name, flags, mode);
}

/* The store names everything relative to a descriptor of its directory. */
static bool name_at(int dir_fd, const char *name, char path[PATH_MAX])
{
	size_t length;

	if (dir_fd == AT_FDCWD || name[0] == '/' || !path_of(dir_fd, path))
		return false;
	length = strlen(path);
	snprintf(path + length, PATH_MAX - length, "%s%s", length ? "/" : "", name);
	return true;
}

int mkdirat(int dir_fd, const char *name, mode_t mode)
{
	char path[PATH_MAX];
	int rc;

	pthread_mutex_lock(&lock);
	rc = (int)syscall(SYS_mkdirat, dir_fd, name, mode);
	if (!rc && name_at(dir_fd, name, path))
		note((struct event){.kind = EVENT_MKDIR}, path, strlen(path));
	pthread_mutex_unlock(&lock);
	return rc;
}

int unlinkat(int dir_fd, const char *name, int flags)
{
	char path[PATH_MAX];
	int rc;

	pthread_mutex_lock(&lock);
	rc = (int)syscall(SYS_unlinkat, dir_fd, name, flags);
	if (!rc && name_at(dir_fd, name, path))
		note((struct event){.kind = EVENT_UNLINK}, path, strlen(path));
	pthread_mutex_unlock(&lock);
	return rc;
}

int renameat(int old_fd, const char *old, int new_fd, const char *new)
{
	char paths[2 * PATH_MAX], to[PATH_MAX];
	size_t length;
	int rc;

	pthread_mutex_lock(&lock);
	rc = (int)syscall(SYS_renameat, old_fd, old, new_fd, new);
	if (!rc && name_at(old_fd, old, paths) && name_at(new_fd, new, to)) {
		length = strlen(paths) + 1;
		strcpy(paths + length, to);
		note((struct event){.kind = EVENT_RENAME}, paths, length + strlen(to));
	}
	pthread_mutex_unlock(&lock);
	return rc;
}
