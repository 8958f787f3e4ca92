#include "lazy_ranges.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static size_t in_use; /* by all */

/* Room for `more`. */
static int reserve(struct lazy_ranges *ranges, size_t more)
{
	size_t size = ranges->size ? ranges->size : 16;
	void *grown;

	if (in_use + more > LAZY_RANGES_MAX)
		return -ENOMEM;
	while (size < ranges->n + more)
		size *= 2;
	if (size == ranges->size)
		return 0;
	grown = reallocarray(ranges->at, size, sizeof(ranges->at[0]));
	if (!grown)
		return -ENOMEM;
	ranges->at = grown;
	ranges->size = size;
	return 0;
}

/* Put `count` of them, or as many holes, where number `at` is. */
static void make_room(struct lazy_ranges *ranges, size_t at, size_t count)
{
	memmove(ranges->at + at + count, ranges->at + at, (ranges->n - at) * sizeof(ranges->at[0]));
	ranges->n += count;
	in_use += count;
}

static void close_gap(struct lazy_ranges *ranges, size_t at, size_t count)
{
	memmove(ranges->at + at, ranges->at + at + count, (ranges->n - at - count) * sizeof(ranges->at[0]));
	ranges->n -= count;
	in_use -= count;
}

/* The first that ends behind the address. */
static size_t search(const struct lazy_ranges *ranges, uint64_t address)
{
	size_t low = 0, high = ranges->n;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (ranges->at[middle].end > address)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

int lazy_ranges_append(struct lazy_ranges *ranges, uint64_t start, uint64_t end, uint64_t offset)
{
	int rc = reserve(ranges, 1);

	if (rc < 0)
		return rc;
	ranges->at[ranges->n++] = (struct lazy_range){start, end, offset};
	in_use++;
	return 0;
}

int lazy_ranges_copy(const struct lazy_ranges *from, struct lazy_ranges *ret)
{
	struct lazy_ranges copy = {0};
	int rc = reserve(&copy, from->n);

	if (rc < 0)
		return rc;
	if (from->n)
		memcpy(copy.at, from->at, from->n * sizeof(copy.at[0]));
	copy.n = from->n;
	in_use += copy.n;
	*ret = copy;
	return 0;
}

/* No range reaches over the address any more. */
static int split(struct lazy_ranges *ranges, uint64_t address)
{
	size_t i = search(ranges, address);
	struct lazy_range *range;
	int rc;

	if (i == ranges->n || ranges->at[i].start >= address)
		return 0;
	rc = reserve(ranges, 1);
	if (rc < 0)
		return rc;
	make_room(ranges, i, 1);
	range = &ranges->at[i];
	range[0].end = address;
	range[1].offset += address - range[1].start;
	range[1].start = address;
	return 0;
}

int lazy_ranges_remove(struct lazy_ranges *ranges, uint64_t start, uint64_t end)
{
	size_t first, behind;
	int rc = split(ranges, start);

	if (rc == 0)
		rc = split(ranges, end);
	if (rc < 0)
		return rc;
	first = search(ranges, start);
	behind = search(ranges, end);
	/* Nothing reaches over `end`: one that ends behind it starts there or later. */
	close_gap(ranges, first, behind - first);
	return 0;
}

int lazy_ranges_move(struct lazy_ranges *ranges, uint64_t from, uint64_t to, uint64_t length)
{
	struct lazy_range *moved = NULL;
	size_t first, count;
	int rc = lazy_ranges_remove(ranges, to, to + length);

	if (rc == 0)
		rc = split(ranges, from);
	if (rc == 0)
		rc = split(ranges, from + length);
	if (rc < 0)
		return rc;
	first = search(ranges, from);
	count = search(ranges, from + length) - first;
	if (count == 0)
		return 0;
	moved = malloc(count * sizeof(*moved));
	if (!moved)
		return -ENOMEM;
	memcpy(moved, ranges->at + first, count * sizeof(*moved));
	close_gap(ranges, first, count);
	for (size_t i = 0; i < count; i++) {
		moved[i].start += to - from;
		moved[i].end += to - from;
	}
	/* There was room for them a moment ago. */
	first = search(ranges, to);
	make_room(ranges, first, count);
	memcpy(ranges->at + first, moved, count * sizeof(*moved));
	free(moved);
	return 0;
}

const struct lazy_range *lazy_ranges_find(const struct lazy_ranges *ranges, uint64_t address)
{
	size_t i = search(ranges, address);

	return i < ranges->n ? &ranges->at[i] : NULL;
}

void lazy_ranges_free(struct lazy_ranges *ranges)
{
	in_use -= ranges->n;
	free(ranges->at);
	*ranges = (struct lazy_ranges){0};
}
