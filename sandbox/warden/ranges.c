#include "ranges.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel.h"
#include "log.h"
#include "sandbox/base/cleanup.h"
#include "userns.h"

#define RANGES_DIR "/run/paddock-ranges"
#define BLOCKS (USERNS_SLOTS / RANGES_BLOCK)
#define BLOCK_IDS (RANGES_BLOCK * USERNS_IDS)

/* A child that a killed warden had just made holds its lock too, for a moment. */
#define RECLAIM_TRIES 20
#define RECLAIM_WAIT_US 100000

static int dir_fd = -1;
static int locks[BLOCKS]; /* descriptor + 1; 0: not ours */

int ranges_setup(struct pdk_error *err)
{
	struct stat st;

	if (file_mkdir(AT_FDCWD, RANGES_DIR, 0700) < 0)
		return pdk_fail_errno(err, -errno, "make " RANGES_DIR);
	dir_fd = open(RANGES_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (dir_fd < 0 || fstat(dir_fd, &st) < 0)
		return pdk_fail_errno(err, -errno, "open " RANGES_DIR);
	if (st.st_uid != geteuid() || st.st_mode & 022)
		return pdk_fail(err, -EPERM, PDK_FAILED_PRECONDITION,
				RANGES_DIR " belongs to another user or others can write to it");
	return 0;
}

bool ranges_held(uint32_t slot)
{
	return slot < USERNS_SLOTS && locks[slot / RANGES_BLOCK] > 0;
}

static int lock_block(uint32_t block)
{
	_cleanup_fd_ int fd = -1;
	char name[16];

	snprintf(name, sizeof(name), "%u", userns_base(block * RANGES_BLOCK));
	fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
		return -errno;
	return STEAL_FD(fd);
}

/* Any of its four ids will do: a process that is changing them is of the sandbox too. */
static bool has_id_of(const char *pid, uint32_t first)
{
	unsigned int ids[4];
	char path[300], text[4096], *line;

	snprintf(path, sizeof(path), "/proc/%s/status", pid);
	if (file_read(AT_FDCWD, path, text, sizeof(text)) <= 0)
		return false;
	line = strstr(text, "\nUid:");
	if (!line || sscanf(line, "\nUid: %u %u %u %u", &ids[0], &ids[1], &ids[2], &ids[3]) != 4)
		return false;
	for (int i = 0; i < 4; i++)
		if (ids[i] >= first && ids[i] - first < BLOCK_IDS)
			return true;
	return false;
}

/* Does a process live that has an id of the block? If that cannot be seen, one does. The pid 1 of a sandbox is there
 * from its first to its last moment, so it is seen in one look. */
static bool is_inhabited(uint32_t block)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	bool found = !proc;

	while (!found && (entry = readdir(proc)))
		found = entry->d_name[0] >= '1' && entry->d_name[0] <= '9' &&
			has_id_of(entry->d_name, userns_base(block * RANGES_BLOCK));
	if (proc)
		closedir(proc);
	return found;
}

bool ranges_reclaim(uint32_t slot)
{
	int fd = -EWOULDBLOCK;

	if (slot >= USERNS_SLOTS)
		return false;
	if (ranges_held(slot))
		return true;
	for (int i = 0; i < RECLAIM_TRIES && fd == -EWOULDBLOCK; i++) {
		if (i)
			usleep(RECLAIM_WAIT_US);
		fd = lock_block(slot / RANGES_BLOCK);
	}
	if (fd < 0)
		return false;
	locks[slot / RANGES_BLOCK] = fd + 1;
	return true;
}

int ranges_extend(void)
{
	for (uint32_t block = 0; block < BLOCKS; block++) {
		int fd = locks[block] ? -EBUSY : lock_block(block);

		if (fd < 0)
			continue;
		if (is_inhabited(block)) {
			close(fd);
			continue;
		}
		locks[block] = fd + 1;
		log_info("range_taken", NULL, "host ids %u to %u", userns_base(block * RANGES_BLOCK),
			 userns_base(block * RANGES_BLOCK) + (BLOCK_IDS - 1));
		return 0;
	}
	return -EAGAIN;
}
