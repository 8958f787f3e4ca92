#include "sandbox/archive/archive.h"

#include "sandbox/archive/sha256.h"
#include "sandbox/archive/tree.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>

/*
 * The digest of a tree: SHA-256 over one record for each entry, in the order of the walk:
 *
 *	TYPE SP MODE(octal, 07777) SP UID SP GID SP SIZE SP HEX NUL PATH NUL
 *
 * TYPE is d, f, l, p, s, c or b; SIZE is 0 except for files; HEX is the SHA-256 of a file's content or a link's
 * target, or "-". Times and link counts are not in it: two imports of one archive have the same digest.
 */

struct digest {
	struct sha256 sha256;
	uint64_t files;
	uint64_t bytes;
};

static char type_of(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR:
		return 'd';
	case S_IFREG:
		return 'f';
	case S_IFLNK:
		return 'l';
	case S_IFIFO:
		return 'p';
	case S_IFSOCK:
		return 's';
	case S_IFCHR:
		return 'c';
	default:
		return 'b';
	}
}

static int hash_file(const struct tree_entry *entry, uint64_t *ret_size, char hex[2 * SHA256_SIZE + 1])
{
	static char bytes[262144];
	_cleanup_fd_ int fd =
		openat(entry->dir, entry->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	uint8_t digest[SHA256_SIZE];
	struct sha256 sha256;
	ssize_t n;

	if (fd < 0)
		return -1;
	sha256_init(&sha256);
	while ((n = read(fd, bytes, sizeof(bytes))) > 0)
		sha256_update(&sha256, bytes, (size_t)n);
	if (n < 0)
		return -1;
	*ret_size = sha256.length;
	sha256_finish(&sha256, digest);
	sha256_hex(digest, hex);
	return 0;
}

static int hash_link(const struct tree_entry *entry, char hex[2 * SHA256_SIZE + 1])
{
	uint8_t digest[SHA256_SIZE];
	char target[PATH_MAX];
	struct sha256 sha256;
	ssize_t n = readlinkat(entry->dir, entry->name, target, sizeof(target));

	if (n < 0)
		return -1;
	sha256_init(&sha256);
	sha256_update(&sha256, target, (size_t)n);
	sha256_finish(&sha256, digest);
	sha256_hex(digest, hex);
	return 0;
}

static int visit(const struct tree_entry *entry, void *arg)
{
	struct digest *digest = arg;
	char hex[2 * SHA256_SIZE + 1] = "-";
	char record[256];
	uint64_t size = 0;
	int rc = 0;
	int n;

	if (S_ISREG(entry->st->st_mode))
		rc = hash_file(entry, &size, hex);
	else if (S_ISLNK(entry->st->st_mode))
		rc = hash_link(entry, hex);
	if (rc < 0)
		return archive_fail_errno(errno, "%.400s", entry->path);
	n = snprintf(record, sizeof(record), "%c %04o %u %u %" PRIu64 " %s", type_of(entry->st->st_mode),
		     entry->st->st_mode & 07777, entry->st->st_uid, entry->st->st_gid, size, hex);
	sha256_update(&digest->sha256, record, (size_t)n + 1);
	sha256_update(&digest->sha256, entry->path, strlen(entry->path) + 1);
	digest->files += S_ISREG(entry->st->st_mode);
	digest->bytes += size;
	return 0;
}

int archive_digest(const char *directory)
{
	struct digest digest = {};
	uint8_t bytes[SHA256_SIZE];
	char hex[2 * SHA256_SIZE + 1];
	_cleanup_fd_ int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc;

	if (fd < 0)
		return archive_fail_errno(errno, "%.400s", directory);
	sha256_init(&digest.sha256);
	rc = tree_walk(fd, ".", "", visit, &digest);
	if (rc)
		return rc == -1 ? archive_fail_errno(errno, "%.400s", directory) : rc;
	sha256_finish(&digest.sha256, bytes);
	sha256_hex(bytes, hex);
	printf("sha256:%s %" PRIu64 " %" PRIu64 "\n", hex, digest.files, digest.bytes);
	return fflush(stdout) ? ARCHIVE_EXIT_SYSTEM : ARCHIVE_EXIT_OK;
}
