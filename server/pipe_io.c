#include "pipe_io.h"

#include "sandbox/base/cleanup.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>

#define PIPE_SIZE_MAX (1 << 20)

bool pipe_check(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode);
}

size_t pipe_grow(int fd)
{
	int size;

	/* Fails when the user's share of pipe memory is used up: the pipe works as it is. */
	(void)fcntl(fd, F_SETPIPE_SZ, PIPE_SIZE_MAX);
	size = fcntl(fd, F_GETPIPE_SZ);
	return size > 0 ? (size_t)size : 0;
}

/* Before Linux 6.4 pipes know no RWF_NOWAIT; moving bytes with SPLICE_F_NONBLOCK does not wait there either. */

static ssize_t old_read(int fd, void *data, size_t length)
{
	struct iovec iov = {.iov_base = data, .iov_len = length};
	ssize_t n = vmsplice(fd, &iov, 1, SPLICE_F_NONBLOCK);

	return n < 0 ? -errno : n;
}

static ssize_t old_write(int fd, const void *data, size_t length)
{
	int ends[2];
	ssize_t n;

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	n = write(ends[1], data, length);
	if (n > 0)
		n = splice(ends[0], NULL, fd, NULL, (size_t)n, SPLICE_F_NONBLOCK);
	n = n < 0 ? -errno : n;
	close(ends[0]);
	close(ends[1]);
	return n;
}

ssize_t pipe_read(int fd, void *data, size_t length)
{
	struct iovec iov = {.iov_base = data, .iov_len = length};
	ssize_t n;

	do {
		n = preadv2(fd, &iov, 1, -1, RWF_NOWAIT);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EOPNOTSUPP)
		return old_read(fd, data, length);
	return n < 0 ? -errno : n;
}

ssize_t pipe_write(int fd, const void *data, size_t length)
{
	struct iovec iov = {.iov_base = (void *)data, .iov_len = length};
	ssize_t n;

	do {
		n = pwritev2(fd, &iov, 1, -1, RWF_NOWAIT);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EOPNOTSUPP)
		return old_write(fd, data, length);
	return n < 0 ? -errno : n;
}
