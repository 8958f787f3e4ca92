#include "faults.h"

#include <errno.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

_Atomic int fault_data_errno, fault_sync_errno, fault_meta_errno, fault_space_gone;

static int fail(int error)
{
	errno = error;
	return -1;
}

/* liblmdb is linked dynamically, so these come before libc's. */
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset)
{
	int error = length < 4096 ? fault_meta_errno : fault_data_errno;

	return error ? fail(error) : syscall(SYS_pwrite64, fd, data, length, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off_t offset)
{
	return pwrite(fd, data, length, offset);
}

ssize_t writev(int fd, const struct iovec *iov, int count)
{
	return fault_data_errno ? fail(fault_data_errno) : syscall(SYS_writev, fd, iov, count);
}

int fdatasync(int fd)
{
	return fault_sync_errno ? fail(fault_sync_errno) : (int)syscall(SYS_fdatasync, fd);
}

int fstatvfs(int fd, struct statvfs *ret)
{
	*ret = (struct statvfs){.f_bsize = 4096, .f_frsize = 4096, .f_bavail = fault_space_gone ? 1 : 1 << 20};
	return 0;
}
