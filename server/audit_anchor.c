#include "audit.h"

#include "log.h"
#include "sandbox/base/cleanup.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/*
 * Two files beside the store hold signed checkpoints (audit_sign.c). The head anchor, DIR/audit.head, is the
 * newest, replaced by rename. DIR/audit.checkpoints is the history, a line each, only ever appended to. Both are
 * written after the records that they speak of are durable, so they can be behind the log but never ahead of it: a log
 * that is shorter, or has another hash at their places, was cut, rolled back or rewritten. The history's lines also go
 * to the store and to the daemon's log, which is the copy that an attacker on this box cannot take back.
 */

#define ANCHOR_NAME "audit.head"
#define ANCHOR_NEW "audit.head.new"
#define ANCHOR_ACCEPT "audit.accept"
#define HISTORY_NAME "audit.checkpoints"

static int write_all(int fd, const char *text, size_t length)
{
	for (ssize_t done; length; text += done, length -= (size_t)done) {
		done = write(fd, text, length);
		if (done < 0)
			return -errno;
	}
	return fsync(fd) < 0 ? -errno : 0;
}

/* ---- the head anchor ---- */

int audit_anchor_write(int dir_fd, const char *checkpoint)
{
	_cleanup_fd_ int fd = openat(dir_fd, ANCHOR_NEW, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	char line[AUDIT_CHECKPOINT_MAX + 1];
	int rc;

	if (fd < 0)
		return -errno;
	snprintf(line, sizeof(line), "%s\n", checkpoint);
	rc = write_all(fd, line, strlen(line));
	if (rc < 0)
		return rc;
	if (renameat(dir_fd, ANCHOR_NEW, dir_fd, ANCHOR_NAME) < 0 || fsync(dir_fd) < 0)
		return -errno;
	return 0;
}

int audit_anchor_read(int dir_fd, struct audit_head *ret)
{
	char text[AUDIT_CHECKPOINT_MAX + 2] = "";
	_cleanup_fd_ int fd = openat(dir_fd, ANCHOR_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return -errno;
	if (read(fd, text, sizeof(text) - 1) < 0)
		return -errno;
	text[strcspn(text, "\n")] = '\0';
	return audit_checkpoint_read(text, ret);
}

bool audit_anchor_accepted(int dir_fd)
{
	if (unlinkat(dir_fd, ANCHOR_ACCEPT, 0) == 0)
		return true;
	/* The directory is root's and sticky: what root left there cannot be taken away, so it would count for ever. */
	if (errno != ENOENT)
		log_event(LOG_ERROR, "audit.accept_unusable", "error", strerror(errno), "hint",
			  "audit.accept must belong to the user that paddockd runs as", NULL);
	return false;
}

/* ---- the history ---- */

int audit_history_append(int dir_fd, const char *checkpoint)
{
	_cleanup_fd_ int fd =
		openat(dir_fd, HISTORY_NAME, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	char line[AUDIT_CHECKPOINT_MAX + 1];
	struct stat before;
	int rc;

	if (fd < 0 || fstat(fd, &before) < 0)
		return -errno;
	snprintf(line, sizeof(line), "%s\n", checkpoint);
	rc = write_all(fd, line, strlen(line));
	if (rc < 0) { /* a piece of a line must not stay in front of the next one */
		if (ftruncate(fd, before.st_size) < 0)
			log_event(LOG_ERROR, "audit.history_torn", "error", strerror(errno), NULL);
		return rc;
	}
	return before.st_size == 0 && fsync(dir_fd) < 0 ? -errno : 0;
}

int audit_history_each(int dir_fd, int (*visit)(int rc, const struct audit_head *head, void *arg), void *arg)
{
	int fd = openat(dir_fd, HISTORY_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	_cleanup_file_ FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
	char line[AUDIT_CHECKPOINT_MAX + 2];
	int rc = 0;

	if (!file)
		return -errno;
	while (!rc && fgets(line, sizeof(line), file)) {
		size_t length = strcspn(line, "\n");
		struct audit_head head = {};
		int read;

		if (!line[length] && feof(file)) /* the power went while it was written: nobody relied on it */
			break;
		read = line[length] ? 0 : -EBADMSG;
		line[length] = '\0';
		rc = visit(read < 0 ? read : audit_checkpoint_read(line, &head), &head, arg);
	}
	return rc;
}

/* Cut off what a power cut left of a line, so that the next one starts at a line's beginning. */
int audit_history_mend(int dir_fd)
{
	_cleanup_fd_ int fd = openat(dir_fd, HISTORY_NAME, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	char tail[AUDIT_CHECKPOINT_MAX];
	off_t size, start;
	ssize_t length;
	char *newline;

	if (fd < 0)
		return -errno;
	size = lseek(fd, 0, SEEK_END);
	start = size > (off_t)sizeof(tail) ? size - (off_t)sizeof(tail) : 0;
	length = pread(fd, tail, sizeof(tail), start);
	if (length <= 0)
		return length < 0 ? -errno : 0;
	newline = memrchr(tail, '\n', (size_t)length);
	if (!newline && start) /* no line is that long: leave the evidence as it is */
		return -EBADMSG;
	start += newline ? newline + 1 - tail : 0;
	return start < size && ftruncate(fd, start) < 0 ? -errno : 0;
}

int audit_history_retire(int dir_fd, int64_t wall_ms)
{
	char name[64];

	snprintf(name, sizeof(name), HISTORY_NAME ".%lld", (long long)wall_ms);
	if (renameat(dir_fd, HISTORY_NAME, dir_fd, name) < 0)
		return errno == ENOENT ? 0 : -errno;
	return fsync(dir_fd) < 0 ? -errno : 0;
}
