#include "tools.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "kernel.h"
#include "log.h"
#include "options.h"
#include "pool.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/hash.h"

static char layer[32];

const char *tools_layer(void)
{
	return layer[0] ? layer : NULL;
}

static int hash_file(int fd, char name[32])
{
	uint64_t hash = HASH64_BEGIN, length = 0;
	unsigned char bytes[16384];
	ssize_t n;

	while ((n = read(fd, bytes, sizeof(bytes))) > 0) {
		hash = hash64_bytes(hash, bytes, (size_t)n);
		length += (uint64_t)n;
	}
	if (n < 0 || lseek(fd, 0, SEEK_SET) < 0)
		return -errno;
	snprintf(name, 32, "%016" PRIx64 "-%" PRIx64, hash, length & 0xffffff);
	return 0;
}

static int copy_file(int from, int dir, const char *path)
{
	_cleanup_fd_ int to = openat(dir, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0755);
	char bytes[16384];
	ssize_t n;

	if (to < 0)
		return -errno;
	while ((n = read(from, bytes, sizeof(bytes))) > 0)
		if (write(to, bytes, (size_t)n) != n)
			return -EIO;
	return n < 0 || fchmod(to, 0755) < 0 || fsync(to) < 0 ? -errno : 0;
}

/* The directory gets its final name when it is complete. */
static int build(int source, const char *name)
{
	static const char *const parents[] = {"new", "new/usr", "new/usr/bin"};
	int dir = pool_dir(POOL_TOOLS);
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(parents); i++)
		rc = file_mkdir(dir, parents[i], 0755);
	if (rc == 0)
		rc = copy_file(source, dir, "new/usr/bin/sudo");
	if (rc == 0 && renameat2(dir, "new", dir, name, RENAME_NOREPLACE) < 0)
		rc = -errno;
	return rc;
}

int tools_setup(struct pdk_error *err)
{
	char path[700], name[32];
	_cleanup_fd_ int source = -1;
	mode_t mask;
	int rc;

	snprintf(path, sizeof(path), "%s/paddock-sudo", options.libexec_dir);
	source = open(path, O_RDONLY | O_CLOEXEC);
	if (source < 0) {
		log_warning("tools", NULL, "no paddock-sudo is installed: sandboxes have no sudo");
		return 0;
	}
	rc = hash_file(source, name);
	if (rc == 0 && faccessat(pool_dir(POOL_TOOLS), name, F_OK, AT_SYMLINK_NOFOLLOW) < 0) {
		mask = umask(022);
		rc = build(source, name);
		umask(mask);
	}
	if (rc < 0)
		return pdk_fail_errno(err, rc, "install the tools layer");
	snprintf(layer, sizeof(layer), "%s", name);
	return 0;
}
