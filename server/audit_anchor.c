#include "audit.h"

#include "sandbox/base/cleanup.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/*
 * The head anchor is one line of text, "paddock-audit-head 1 COUNT HASH TIME", replaced by rename. It is
 * written after the records it speaks of are durable, so it can be behind the log but never ahead of it: a log that is
 * shorter than its anchor, or has another hash at the anchor's place, was cut, rolled back or rewritten.
 */

#define ANCHOR_NAME "audit.head"
#define ANCHOR_NEW "audit.head.new"
#define ANCHOR_ACCEPT "audit.accept"
#define ANCHOR_FORMAT "paddock-audit-head 1 %" SCNu64 " %64[0-9a-f] %" SCNd64

static int write_synced(int dir_fd, const char *text, size_t length)
{
	_cleanup_fd_ int fd = openat(dir_fd, ANCHOR_NEW, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return -errno;
	for (ssize_t done; length; text += done, length -= (size_t)done) {
		done = write(fd, text, length);
		if (done < 0)
			return -errno;
	}
	return fsync(fd) < 0 ? -errno : 0;
}

int audit_anchor_write(int dir_fd, const struct audit_head *head, int64_t wall_ms)
{
	char text[160], hash[2 * AUDIT_HASH_SIZE + 1];
	int rc;

	for (unsigned int i = 0; i < AUDIT_HASH_SIZE; i++)
		snprintf(hash + 2 * i, 3, "%02x", head->hash[i]);
	snprintf(text, sizeof(text), "paddock-audit-head 1 %" PRIu64 " %s %" PRId64 "\n", head->count, hash, wall_ms);
	rc = write_synced(dir_fd, text, strlen(text));
	if (rc < 0)
		return rc;
	if (renameat(dir_fd, ANCHOR_NEW, dir_fd, ANCHOR_NAME) < 0 || fsync(dir_fd) < 0)
		return -errno;
	return 0;
}

static int hex_digit(char c)
{
	return c <= '9' ? c - '0' : c - 'a' + 10;
}

int audit_anchor_read(int dir_fd, struct audit_head *ret)
{
	char text[256] = "", hash[2 * AUDIT_HASH_SIZE + 1];
	struct audit_head head;
	int64_t wall_ms;
	_cleanup_fd_ int fd = openat(dir_fd, ANCHOR_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return -errno;
	if (read(fd, text, sizeof(text) - 1) < 0)
		return -errno;
	if (sscanf(text, ANCHOR_FORMAT, &head.count, hash, &wall_ms) != 3 || strlen(hash) != 2 * AUDIT_HASH_SIZE)
		return -EBADMSG;
	for (unsigned int i = 0; i < AUDIT_HASH_SIZE; i++)
		head.hash[i] = (uint8_t)(hex_digit(hash[2 * i]) << 4 | hex_digit(hash[2 * i + 1]));
	*ret = head;
	return 0;
}

bool audit_anchor_accepted(int dir_fd)
{
	return unlinkat(dir_fd, ANCHOR_ACCEPT, 0) == 0;
}
