#ifndef PADDOCK_WARDEN_LAZY_SPACE_H
#define PADDOCK_WARDEN_LAZY_SPACE_H

#include "lazy_private.h"
#include "lazy_ranges.h"

/*
 * An address space of which pages are missing, in the server of pages. The kernel tells, in order, of what happens to it:
 *
 *	a page is touched	it is given, with those of its chunk; where nothing was, zeros
 *	memory is unmapped	what is missing there will never come (also by MADV_DONTNEED: it is zeros from then on)
 *	memory is moved		what is missing comes to the new place
 *	the process forks	the child is a space of its own, with what was missing at that moment
 *
 * Whoever causes one of the last three waits until we have read of it, and meanwhile the kernel lets no page in (EAGAIN).
 */
struct space {
	struct space *next;
	int fd;
	const struct lazy_file *file;
	struct lazy_ranges missing;
	uint64_t expected;   /* where the next fault is if its memory is read from front to end */
	unsigned int streak; /* then so many chunks are given ahead */
	bool is_child;       /* forked since: nothing is brought to it before it asks, or somebody hurries */
	bool is_over;        /* its process has ended, or nothing is missing: to be removed */
};

enum space_result {
	SPACE_DONE,
	SPACE_LATER, /* the kernel would not, for now */
	SPACE_FAILED /* space_failure() says why; nothing can be given any more */
};

/* Of this process of the checkpoint, with this userfaultfd, which is the space's. NULL without memory. */
struct space *space_create(const struct lazy_file *file, int fd);
void space_free(struct space *space);

/* A page of it was touched. */
enum space_result space_fault(struct space *space, uint64_t address);
/* Bring a chunk of what is missing. */
enum space_result space_bring(struct space *space);
/* Let whoever waits for a page ask again. */
void space_wake(const struct space *space, uint64_t address);
/* The events that are there to be read. What `fork` is given is a new child. */
enum space_result space_read_events(struct space *space, int (*fault)(struct space *space, uint64_t address),
				    int (*fork)(struct space *child));
/* It may have ended; the kernel does not tell. */
void space_look(struct space *space);
const char *space_failure(void);

#endif
