#ifndef PADDOCK_SERVER_USAGE_HISTORY_H
#define PADDOCK_SERVER_USAGE_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What one sandbox has used over time, in less than 4 KiB: the last samples, and of what is older one a minute. Knows no
 * clock: times are those of the caller's, in nanoseconds, and never step back. */

#define USAGE_RECENT 60
#define USAGE_OLDER 140
#define USAGE_OLDER_NS (60 * 1000000000ull)
#define USAGE_SAMPLES_MAX (USAGE_RECENT + USAGE_OLDER)

/* As it is read from the kernel. */
struct usage_reading {
	uint64_t at_ns;
	uint64_t cpu_usec; /* grows, or starts from 0 again */
	uint64_t memory_bytes, cache_bytes, disk_bytes;
};

/* As it is told. */
struct usage_sample {
	uint64_t at_ns; /* to a tenth of a second */
	double cpu_percent;
	uint64_t memory_bytes, cache_bytes, disk_bytes; /* to 4 KiB */
};

struct usage_history;
/* `begin_ns`: since when what it counts is counted. NULL: out of memory. */
struct usage_history *usage_history_create(uint64_t begin_ns);
void usage_history_add(struct usage_history *history, const struct usage_reading *reading);
/* The samples in the range, both ends included, oldest first; how many. */
size_t usage_history_read(const struct usage_history *history, uint64_t from_ns, uint64_t to_ns,
			  struct usage_sample ret[USAGE_SAMPLES_MAX]);
/* The newest one; false: there is none. */
bool usage_history_last(const struct usage_history *history, struct usage_sample *ret);
/* What usage_history_add() would keep of it. */
struct usage_sample usage_history_measure(const struct usage_history *history, const struct usage_reading *reading);

#endif
