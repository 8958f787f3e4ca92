#include "store_journal.h"

#include "boot.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/hash.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/*
 * The file: the boot's id, then records. It is never made shorter: what is left behind the end of newer records has numbers
 * that the store has, or does not add up.
 */

#define NAME "store.journal"
#define MAGIC 0x70646b6au /* "pdkj" */
#define LENGTH_MAX (1u << 20)

struct head {
	uint32_t magic;
	uint32_t audit_records;
	uint64_t length; /* of the operations that follow */
	uint64_t sequence;
	int64_t wall_ms;
	uint64_t boot_ns;
	uint64_t sum; /* of all of the above, and of the operations */
};

static uint64_t sum_of(const struct head *head, const void *bytes)
{
	return hash64_bytes(hash64_bytes(HASH64_BEGIN, head, offsetof(struct head, sum)), bytes, head->length);
}

/* Every operation lies within the batch, and is one that a batch may have. */
static bool is_sound(const struct store_batch *batch)
{
	struct store_op op;
	size_t at = 0;

	while (at < batch->length) {
		if (batch->length - at < sizeof(op))
			return false;
		memcpy(&op, batch->bytes + at, sizeof(op));
		at += sizeof(op);
		if (op.kind > STORE_OP_AUDIT || op.db >= STORE_DB_COUNT || op.key_length > batch->length - at ||
		    op.value_length > batch->length - at - op.key_length)
			return false;
		at += op.key_length + op.value_length;
	}
	return true;
}

/* The record at `*offset`, which moves behind it. NULL: there is none. */
static struct store_batch *read_one(int fd, uint64_t *offset)
{
	struct store_batch *batch = store_batch_create();
	struct head head;

	if (batch && pread(fd, &head, sizeof(head), (off_t)*offset) == (ssize_t)sizeof(head) && head.magic == MAGIC &&
	    head.length > 0 && head.length <= LENGTH_MAX && (batch->bytes = malloc(head.length)) &&
	    pread(fd, batch->bytes, head.length, (off_t)(*offset + sizeof(head))) == (ssize_t)head.length &&
	    head.sum == sum_of(&head, batch->bytes)) {
		batch->length = batch->capacity = head.length;
		batch->audit_records = head.audit_records;
		batch->sequence = head.sequence;
		batch->wall_ms = head.wall_ms;
		batch->boot_ns = head.boot_ns;
		*offset += sizeof(head) + head.length;
		if (is_sound(batch))
			return batch;
	}
	store_batch_free(batch);
	return NULL;
}

static struct store_batch *read_all(struct store_journal *journal)
{
	struct store_batch *first = NULL, **last = &first, *batch;

	while ((batch = read_one(journal->fd, &journal->length))) {
		if (batch->sequence <= journal->sequence) {
			store_batch_free(batch);
			continue;
		}
		journal->sequence = batch->sequence;
		*last = batch;
		last = &batch->next;
	}
	return first;
}

/* An ordinary file that is ours alone. */
static bool is_ours(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() && !(st.st_mode & 077) &&
	       st.st_nlink == 1;
}

static int make(int dir, const char boot[BOOT_ID_MAX])
{
	_cleanup_fd_ int fd = -1;

	if (unlinkat(dir, NAME, 0) < 0 && errno != ENOENT)
		return -errno;
	fd = openat(dir, NAME, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	return pwrite(fd, boot, BOOT_ID_MAX, 0) == BOOT_ID_MAX ? STEAL_FD(fd) : -EIO;
}

int store_journal_open(struct store_journal *journal, const char *path, uint64_t stored, struct store_batch **ret_lost,
		       struct pdk_error *err)
{
	_cleanup_fd_ int dir = open(path, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	_cleanup_fd_ int fd = dir < 0 ? -1 : openat(dir, NAME, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	char boot[BOOT_ID_MAX] = "", found[BOOT_ID_MAX];

	if (dir < 0)
		return pdk_fail_errno(err, -errno, "store: opening the journal's directory");
	if (boot_read_id(boot) == 0)
		return pdk_fail(err, -EIO, PDK_INTERNAL, "store: the kernel does not say its boot id");
	*journal = (struct store_journal){.fd = -1, .sequence = stored, .length = BOOT_ID_MAX};
	*ret_lost = NULL;
	if (fd >= 0 && is_ours(fd) && pread(fd, found, sizeof(found), 0) == (ssize_t)sizeof(found) &&
	    memcmp(found, boot, sizeof(boot)) == 0) {
		journal->fd = STEAL_FD(fd);
		*ret_lost = read_all(journal);
		return 0;
	}
	journal->fd = make(dir, boot);
	return journal->fd < 0 ? pdk_fail_errno(err, journal->fd, "store: making the journal") : 0;
}

void store_journal_close(struct store_journal *journal)
{
	if (journal->fd >= 0)
		close(journal->fd);
	journal->fd = -1;
}

bool store_journal_append(struct store_journal *journal, struct store_batch *batch)
{
	struct head head = {.magic = MAGIC,
			    .audit_records = batch->audit_records,
			    .length = batch->length,
			    .sequence = journal->sequence + 1,
			    .wall_ms = batch->wall_ms,
			    .boot_ns = batch->boot_ns};
	struct iovec parts[] = {{&head, sizeof(head)}, {batch->bytes, batch->length}};
	size_t whole = sizeof(head) + batch->length;

	if (journal->fd < 0 || batch->length == 0 || journal->length + whole > LENGTH_MAX)
		return false;
	head.sum = sum_of(&head, batch->bytes);
	if (pwritev(journal->fd, parts, 2, (off_t)journal->length) != (ssize_t)whole)
		return false; /* what there is of it does not add up */
	journal->length += whole;
	batch->sequence = ++journal->sequence;
	return true;
}

void store_journal_rewind(struct store_journal *journal)
{
	journal->length = BOOT_ID_MAX;
}
