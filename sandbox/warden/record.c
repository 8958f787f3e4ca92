#include "record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "kernel.h"
#include "options.h"
#include "sandbox/base/cleanup.h"

static int sandboxes = -1;

int record_setup(void)
{
	char path[600];
	int rc;

	snprintf(path, sizeof(path), "%s/sandboxes", options.runtime_dir);
	rc = file_mkdir(AT_FDCWD, path, 0700);
	if (rc < 0)
		return rc;
	sandboxes = open(path, O_DIRECTORY | O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	return sandboxes < 0 ? -errno : 0;
}

static int directory(const char *id)
{
	int fd = openat(sandboxes, id, O_DIRECTORY | O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	return fd < 0 ? -errno : fd;
}

static int write_state(int dir, const struct record *record, int flags)
{
	_cleanup_fd_ int fd = openat(dir, "state", O_WRONLY | O_CLOEXEC | O_NOFOLLOW | flags, 0600);

	if (fd < 0)
		return -errno;
	return pwrite(fd, record, sizeof(*record), 0) == (ssize_t)sizeof(*record) ? 0 : -EIO;
}

int record_create(const struct record *record)
{
	_cleanup_fd_ int dir = -1;

	if (mkdirat(sandboxes, record->id, 0700) < 0)
		return -errno;
	dir = directory(record->id);
	return dir < 0 ? dir : write_state(dir, record, O_CREAT | O_EXCL);
}

int record_update(const struct record *record)
{
	_cleanup_fd_ int dir = directory(record->id);

	return dir < 0 ? dir : write_state(dir, record, 0);
}

int record_load(const char *id, struct record *ret)
{
	_cleanup_fd_ int dir = directory(id);
	_cleanup_fd_ int fd = dir < 0 ? -1 : openat(dir, "state", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct record record;

	if (fd < 0)
		return -ENOENT;
	if (pread(fd, &record, sizeof(record), 0) != (ssize_t)sizeof(record) || record.magic != RECORD_MAGIC ||
	    strncmp(record.id, id, sizeof(record.id)) != 0 ||
	    !memchr(record.template_id, '\0', sizeof(record.template_id)))
		return -EBADMSG;
	*ret = record;
	return 0;
}

/* Without a descriptor of the directory, so that it works when there is none to be had. */
int record_remove(const char *id)
{
	static const char *const files[] = {"init.sock", "lazy", "hurry", "state"};
	char path[300];

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		snprintf(path, sizeof(path), "%.270s/%s", id, files[i]);
		unlinkat(sandboxes, path, 0);
	}
	return unlinkat(sandboxes, id, AT_REMOVEDIR) < 0 && errno != ENOENT ? -errno : 0;
}

void record_enumerate(void (*found)(const char *id))
{
	file_each(sandboxes, false, found);
}

int record_lock(const char *id)
{
	_cleanup_fd_ int dir = directory(id);

	if (dir < 0)
		return dir;
	return flock(dir, LOCK_EX | LOCK_NB) < 0 ? -errno : STEAL_FD(dir);
}

bool record_locked(const char *id)
{
	_cleanup_fd_ int fd = record_lock(id);

	return fd == -EWOULDBLOCK;
}

int record_open_lazy(const char *id, bool make)
{
	_cleanup_fd_ int dir = directory(id);
	int fd = dir < 0 ? -1
			 : openat(dir, "lazy", O_RDWR | O_CLOEXEC | O_NOFOLLOW | (make ? O_CREAT | O_EXCL : 0), 0600);

	return fd < 0 ? -errno : fd;
}

int record_open_hurry(const char *id, bool make)
{
	_cleanup_fd_ int dir = directory(id);
	int fd;

	if (dir < 0 || (make && mkfifoat(dir, "hurry", 0600) < 0))
		return -errno;
	fd = openat(dir, "hurry", (make ? O_RDWR : O_WRONLY) | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

/* Names of sockets are short and paths are not: reach the directory through its descriptor. */
static int socket_at(const char *id, int (*use)(int, const struct sockaddr *, socklen_t))
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	_cleanup_fd_ int dir = directory(id);
	_cleanup_fd_ int fd = -1;

	if (dir < 0)
		return dir;
	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/init.sock", dir);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || use(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	return STEAL_FD(fd);
}

int record_listen(const char *id)
{
	_cleanup_fd_ int fd = socket_at(id, bind);

	if (fd < 0)
		return fd;
	return listen(fd, 4) < 0 ? -errno : STEAL_FD(fd);
}

int record_connect(const char *id)
{
	return socket_at(id, connect);
}
