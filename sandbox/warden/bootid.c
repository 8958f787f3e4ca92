#include "bootid.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel.h"
#include "options.h"
#include "sandbox/archive/sha256.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/id.h"

#define UUID_TEXT 38 /* with newline and NUL */

static int place = -1; /* the root of the tmpfs, for the warden */

static void path_of(char *path, size_t size, const char *id)
{
	snprintf(path, size, "%s/boot%s%s", options.runtime_dir, id ? "/" : "", id ? id : "");
}

int bootid_setup(struct pdk_error *err)
{
	char path[600];

	path_of(path, sizeof(path), NULL);
	if (file_mkdir(AT_FDCWD, path, 0755) < 0 ||
	    mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755,size=512m,nr_inodes=131072") < 0)
		return pdk_fail_errno(err, -errno, "mount a tmpfs");
	place = open(path, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	return place < 0 ? pdk_fail_errno(err, -errno, "open the boot ids") : 0;
}

/* As the kernel writes it: a random UUID, with the bits that say so. */
static void derive(const char *id, char text[UUID_TEXT])
{
	static const char purpose[] = "paddock boot id of ";
	uint8_t d[SHA256_SIZE];
	struct sha256 sha256;

	sha256_init(&sha256);
	sha256_update(&sha256, purpose, sizeof(purpose));
	sha256_update(&sha256, id, strlen(id));
	sha256_finish(&sha256, d);
	d[6] = (uint8_t)((d[6] & 0x0f) | 0x40);
	d[8] = (uint8_t)((d[8] & 0x3f) | 0x80);
	snprintf(text, UUID_TEXT, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x\n", d[0], d[1],
		 d[2], d[3], d[4], d[5], d[6], d[7], d[8], d[9], d[10], d[11], d[12], d[13], d[14], d[15]);
}

int bootid_make(const char *id, uint32_t base)
{
	char text[UUID_TEXT];
	_cleanup_fd_ int file = -1;

	bootid_remove(id); /* an earlier life of it may have left one */
	file = openat(place, id, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0444);
	derive(id, text);
	/* A tmpfs takes it whole or not at all. */
	if (file < 0 || write(file, text, strlen(text)) < 0 || fchown(file, base, base) < 0 || fchmod(file, 0444) < 0)
		return -errno;
	return 0;
}

void bootid_remove(const char *id)
{
	unlinkat(place, id, 0);
}

int bootid_cover(int proc, const char *id)
{
	struct mount_attr attr = {.attr_set =
					  MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC};
	_cleanup_fd_ int cover = -1;
	char path[600];

	path_of(path, sizeof(path), id);
	cover = open_tree(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (cover < 0 || mount_setattr(cover, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
		return -errno;
	/* BOOTID_PLACE below "/proc/" */
	return move_mount(cover, "", proc, &BOOTID_PLACE[strlen("/proc/")], MOVE_MOUNT_F_EMPTY_PATH) < 0 ? -errno : 0;
}

int bootid_protect(void)
{
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
	char path[600];

	path_of(path, sizeof(path), NULL);
	return mount_setattr(AT_FDCWD, path, 0, &attr, sizeof(attr)) < 0 ? -errno : 0;
}
