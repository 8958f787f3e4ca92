#include "lazy_space.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "sandbox/base/cleanup.h"

#define EVENTS_AT_ONCE 16
#define ZEROS_AT_ONCE 16
#define CACHED 16
#define AHEAD_MAX 16 /* chunks */
#define AHEAD_BYTES (4u << 20)
#define NOWHERE 0x1000 /* an address that nobody can map (vm.mmap_min_addr) */

static char failure[160];

const char *space_failure(void)
{
	return failure;
}

static enum space_result __attribute__((format(printf, 1, 2))) fail(const char *format, ...)
{
	va_list list;

	va_start(list, format);
	vsnprintf(failure, sizeof(failure), format, list);
	va_end(list);
	return SPACE_FAILED;
}

/* --- chunks that were read last --- */

static struct cached {
	const struct chunk_file *file;
	size_t number, length;
	uint8_t bytes[CHUNK_BYTES];
} cache[CACHED];

/* A checked chunk, or NULL: failure() says why. */
static const struct cached *take_chunk(const struct lazy_file *file, size_t number)
{
	static unsigned int turn;
	struct cached *slot;
	int rc;

	for (unsigned int i = 0; i < CACHED; i++)
		if (cache[i].file == &file->pages && cache[i].number == number)
			return &cache[i];
	slot = &cache[turn++ % CACHED];
	slot->file = NULL;
	rc = chunk_file_read(&file->pages, number, slot->bytes);
	if (rc < 0) {
		fail(rc == -EBADMSG ? "its memory on disk is damaged: pages-%u.img"
				    : "its memory on disk cannot be read: pages-%u.img",
		     file->map.pages);
		return NULL;
	}
	slot->file = &file->pages;
	slot->number = number;
	slot->length = (size_t)rc;
	return slot;
}

/* --- into the space --- */

void space_wake(const struct space *space, uint64_t address)
{
	struct uffdio_range page = {.start = address & ~(uint64_t)(PAGE_BYTES - 1), .len = PAGE_BYTES};

	ioctl(space->fd, UFFDIO_WAKE, &page);
}

/* After a copy of which the first page was refused: how to go on. `*step` becomes one page when areas of memory meet in
 * what was asked for; `*skip`: this page needs nothing. */
static enum space_result refused(struct space *space, int error, uint64_t address, uint64_t *step, bool *skip)
{
	*skip = false;
	switch (error) {
	case EEXIST: /* somebody was faster */
		space_wake(space, address);
		*skip = true;
		return SPACE_DONE;
	case ENOENT: /* not one area, or none any more */
		*skip = *step == PAGE_BYTES;
		*step = PAGE_BYTES;
		return SPACE_DONE;
	case ESRCH:
		space->is_over = true;
		return SPACE_DONE;
	case EAGAIN:
	case ENOMEM:
		return SPACE_LATER;
	default:
		return fail("its memory cannot be given back: %s", strerror(error));
	}
}

/* What is given is no longer missing, nor is what has no place any more. */
static enum space_result copy(struct space *space, uint64_t start, uint64_t end, const uint8_t *bytes)
{
	uint64_t at = start, step = end - start;
	enum space_result result = SPACE_DONE;

	while (at < end && !space->is_over && result == SPACE_DONE) {
		struct uffdio_copy page = {
			.dst = at, .src = (uintptr_t)bytes + (at - start), .len = step < end - at ? step : end - at};
		bool skip;

		if (ioctl(space->fd, UFFDIO_COPY, &page) == 0) {
			at += page.len;
		} else if (page.copy > 0) {
			at += (uint64_t)page.copy;
		} else {
			result = refused(space, errno, at, &step, &skip);
			at += skip ? PAGE_BYTES : 0;
		}
	}
	if (at > start && lazy_ranges_remove(&space->missing, start, at) < 0)
		return fail("its memory is in too many pieces");
	space->is_over |= space->missing.n == 0;
	return result;
}

/* All of the range's chunk that belongs to `address`. */
static enum space_result give(struct space *space, const struct lazy_range *range, uint64_t address)
{
	uint64_t offset = range->offset + (address - range->start), start = range->start, end = range->end;
	const struct cached *chunk = take_chunk(space->file, (size_t)(offset / CHUNK_BYTES));
	uint64_t first = offset - offset % CHUNK_BYTES;

	if (!chunk)
		return SPACE_FAILED;
	if (range->offset < first)
		start += first - range->offset;
	offset = range->offset + (start - range->start);
	if (end - start > first + chunk->length - offset)
		end = start + (first + chunk->length - offset);
	return copy(space, start, end, chunk->bytes + (offset - first));
}

/* Nothing was there when the checkpoint was made. */
static enum space_result give_zeros(struct space *space, uint64_t page, const struct lazy_range *next)
{
	struct uffdio_zeropage zero = {.range = {.start = page, .len = ZEROS_AT_ONCE * PAGE_BYTES}};
	uint64_t step = PAGE_BYTES;
	bool skip;

	if (next && next->start - page < zero.range.len)
		zero.range.len = next->start - page;
	if (ioctl(space->fd, UFFDIO_ZEROPAGE, &zero) == 0 || zero.zeropage > 0)
		return SPACE_DONE;
	if (errno == ENOENT && zero.range.len > PAGE_BYTES) {
		zero.range.len = PAGE_BYTES;
		if (ioctl(space->fd, UFFDIO_ZEROPAGE, &zero) == 0)
			return SPACE_DONE;
	}
	/* What is not mapped any more is asked for again, elsewhere. */
	if (errno == ENOENT)
		space_wake(space, page);
	return refused(space, errno, page, &step, &skip);
}

/* Who reads on where the last fault ended will go on so: each time twice as much is there before he comes. The thread that
 * waited runs already. */
static enum space_result give_ahead(struct space *space, uint64_t page)
{
	const struct lazy_range *range = lazy_ranges_find(&space->missing, page);
	enum space_result result = SPACE_DONE;

	space->streak = page != space->expected ? 0 : space->streak < AHEAD_MAX / 2 ? 2 * space->streak + 1 : AHEAD_MAX;
	for (unsigned int i = 0;
	     i < space->streak && result == SPACE_DONE && range && range->start - page < AHEAD_BYTES; i++) {
		result = give(space, range, range->start);
		range = space->is_over ? NULL : lazy_ranges_find(&space->missing, page);
	}
	space->expected = range ? range->start : 0;
	/* What could not be given ahead is asked for again. */
	return result == SPACE_LATER ? SPACE_DONE : result;
}

enum space_result space_fault(struct space *space, uint64_t address)
{
	uint64_t page = address & ~(uint64_t)(PAGE_BYTES - 1);
	const struct lazy_range *range = lazy_ranges_find(&space->missing, page);

	if (space->is_over)
		return SPACE_DONE;
	if (range && range->start <= page) {
		enum space_result result = give(space, range, page);

		return result == SPACE_DONE && !space->is_over ? give_ahead(space, page) : result;
	}
	return give_zeros(space, page, range);
}

enum space_result space_bring(struct space *space)
{
	return space->missing.n ? give(space, &space->missing.at[0], space->missing.at[0].start) : SPACE_DONE;
}

void space_look(struct space *space)
{
	struct uffdio_zeropage nowhere = {.range = {.start = NOWHERE, .len = PAGE_BYTES}};

	if (ioctl(space->fd, UFFDIO_ZEROPAGE, &nowhere) < 0 && errno == ESRCH)
		space->is_over = true;
}

/* --- events --- */

struct space *space_create(const struct lazy_file *file, int fd)
{
	struct space *space = calloc(1, sizeof(*space));

	if (!space)
		return NULL;
	space->fd = fd;
	space->file = file;
	for (size_t i = 0; i < file->map.n; i++) {
		const struct pagemap_entry *entry = &file->map.entries[i];

		if (!entry->lazy || lazy_ranges_append(&space->missing, entry->start, entry->end, entry->offset) == 0)
			continue;
		lazy_ranges_free(&space->missing);
		free(space);
		return NULL;
	}
	space->is_over = space->missing.n == 0;
	return space;
}

void space_free(struct space *space)
{
	if (space->fd >= 0)
		close(space->fd);
	lazy_ranges_free(&space->missing);
	free(space);
}

static enum space_result add_child(const struct space *parent, int fd, int (*fork)(struct space *child))
{
	struct space *child = calloc(1, sizeof(*child));

	/* On failure it stays open: the child waits for its pages until it is ended. */
	if (!child || lazy_ranges_copy(&parent->missing, &child->missing) < 0) {
		free(child);
		return fail("its memory is in too many pieces");
	}
	child->fd = fd;
	child->file = parent->file;
	child->is_child = true;
	child->is_over = child->missing.n == 0;
	return fork(child) < 0 ? fail("too many processes were forked before its memory was back") : SPACE_DONE;
}

static enum space_result take_event(struct space *space, const struct uffd_msg *event,
				    int (*fault)(struct space *space, uint64_t address),
				    int (*fork)(struct space *child))
{
	int rc;

	switch (event->event) {
	case UFFD_EVENT_PAGEFAULT:
		rc = fault(space, event->arg.pagefault.address);
		return rc < 0 ? SPACE_FAILED : SPACE_DONE;
	case UFFD_EVENT_FORK:
		return add_child(space, (int)event->arg.fork.ufd, fork);
	case UFFD_EVENT_REMAP:
		rc = lazy_ranges_move(&space->missing, event->arg.remap.from, event->arg.remap.to,
				      event->arg.remap.len);
		break;
	case UFFD_EVENT_REMOVE:
	case UFFD_EVENT_UNMAP:
		rc = lazy_ranges_remove(&space->missing, event->arg.remove.start, event->arg.remove.end);
		break;
	default:
		return fail("its memory told of something unknown");
	}
	space->is_over |= space->missing.n == 0;
	return rc < 0 ? fail("its memory is in too many pieces") : SPACE_DONE;
}

enum space_result space_read_events(struct space *space, int (*fault)(struct space *space, uint64_t address),
				    int (*fork)(struct space *child))
{
	struct uffd_msg events[EVENTS_AT_ONCE];
	enum space_result result = SPACE_DONE;
	ssize_t n = read(space->fd, events, sizeof(events));

	if (n < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
		return SPACE_LATER; /* no room for a child: it waits */
	for (size_t i = 0; n > 0 && i < (size_t)n / sizeof(events[0]) && result == SPACE_DONE; i++)
		result = take_event(space, &events[i], fault, fork);
	return result;
}
