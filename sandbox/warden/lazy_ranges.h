#ifndef PADDOCK_WARDEN_LAZY_RANGES_H
#define PADDOCK_WARDEN_LAZY_RANGES_H

#include <stddef.h>
#include <stdint.h>

/* The memory of one process that is still missing, and where in its file of pages it is. Sorted, never overlapping. */

struct lazy_range {
	uint64_t start, end; /* addresses, of whole pages */
	uint64_t offset;     /* of `start`, in the file */
};

struct lazy_ranges {
	struct lazy_range *at;
	size_t n, size;
};

/* All of one process that serves pages together: what a sandbox can have made of them by moving and unmapping. */
#define LAZY_RANGES_MAX (1u << 20)

/* Behind all others. 0, or -ENOMEM, also over LAZY_RANGES_MAX. */
int lazy_ranges_append(struct lazy_ranges *ranges, uint64_t start, uint64_t end, uint64_t offset);
int lazy_ranges_copy(const struct lazy_ranges *from, struct lazy_ranges *ret);
/* Forget what there is from `start` to `end`. */
int lazy_ranges_remove(struct lazy_ranges *ranges, uint64_t start, uint64_t end);
/* What there was in `from` is in `to` now, and nothing else is there. The two do not overlap. */
int lazy_ranges_move(struct lazy_ranges *ranges, uint64_t from, uint64_t to, uint64_t length);
/* The range that holds an address, or the next one behind it, or NULL. */
const struct lazy_range *lazy_ranges_find(const struct lazy_ranges *ranges, uint64_t address);
void lazy_ranges_free(struct lazy_ranges *ranges);

#endif
