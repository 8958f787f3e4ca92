#include "loopdev.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sandbox/base/cleanup.h"

static int device_open(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* The kernel tells device and inode of the backing file: a name could lie, or lie in another namespace. */
static int find_attached(const struct stat *image, char *path, size_t size)
{
	DIR *dir = opendir("/sys/block");
	struct dirent *entry;
	int found = -ENOENT;

	while (dir && found < 0 && (entry = readdir(dir))) {
		struct loop_info64 info;
		int fd;

		if (strncmp(entry->d_name, "loop", 4) != 0)
			continue;
		snprintf(path, size, "/dev/%.32s", entry->d_name);
		fd = device_open(path);
		if (fd < 0)
			continue;
		if (ioctl(fd, LOOP_GET_STATUS64, &info) == 0 && info.lo_inode == image->st_ino &&
		    info.lo_device == image->st_dev)
			found = fd;
		else
			close(fd);
	}
	if (dir)
		closedir(dir);
	return found;
}

static int attach_new(int image, char *path, size_t size)
{
	_cleanup_fd_ int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	struct loop_config config = {
		.fd = (unsigned int)image,
		.block_size = 4096,
		.info = {.lo_flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO},
	};

	if (control < 0)
		return -errno;
	for (int attempt = 0; attempt < 64; attempt++) {
		int number = ioctl(control, LOOP_CTL_GET_FREE);
		int fd;

		if (number < 0)
			return -errno;
		snprintf(path, size, "/dev/loop%d", number);
		/* Without udev a new device may have no node. */
		if (access(path, F_OK) < 0)
			mknod(path, S_IFBLK | 0600, (dev_t)((7u << 8) | (unsigned int)number));
		fd = device_open(path);
		if (fd < 0)
			return fd;
		if (ioctl(fd, LOOP_CONFIGURE, &config) == 0)
			return fd;
		close(fd);
		if (errno == EINVAL && (config.info.lo_flags & LO_FLAGS_DIRECT_IO))
			config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
		else if (errno != EBUSY)
			return -errno;
	}
	return -EBUSY;
}

int loopdev_attach(int image, char *path, size_t size)
{
	struct stat st;
	int fd;

	if (fstat(image, &st) < 0)
		return -errno;
	fd = find_attached(&st, path, size);
	return fd == -ENOENT ? attach_new(image, path, size) : fd;
}
