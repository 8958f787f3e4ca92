#include "usage_history.h"

#include <stdlib.h>

/*
 * Two rings of points. A point that falls out of the recent ones goes into the older ones, if the last that went there is a
 * minute older. A point has the processor time up to it, so the mean between two points is right whatever was
 * left out between them. That sum is our own: the kernel's counter starts anew when a sandbox comes back from disk. It, like
 * the time, is kept modulo 2^32: of two neighbours only the difference is used.
 */

#define TICK_NS 100000000ull /* 2^32 of them are 13 years */
#define PAGE_SHIFT 12u       /* 2^32 pages are 16 TiB */

struct point {
	uint32_t ticks; /* since `begin_ns` */
	uint32_t cpu_ms;
	uint32_t memory, cache, disk; /* pages */
};

struct usage_history {
	uint64_t begin_ns;
	uint64_t cpu_usec; /* our sum, up to the last reading */
	uint64_t counter;  /* the kernel's then */
	uint16_t n_recent, next_recent, n_older, next_older;
	struct point recent[USAGE_RECENT], older[USAGE_OLDER];
};

_Static_assert(sizeof(struct usage_history) <= 4096, "one for every sandbox");

struct usage_history *usage_history_create(uint64_t begin_ns)
{
	struct usage_history *history = calloc(1, sizeof(*history));

	if (history)
		history->begin_ns = begin_ns;
	return history;
}

static uint32_t pages(uint64_t bytes)
{
	return bytes >> PAGE_SHIFT > UINT32_MAX ? UINT32_MAX : (uint32_t)(bytes >> PAGE_SHIFT);
}

static uint64_t cpu_until(const struct usage_history *history, uint64_t counter)
{
	return history->cpu_usec + (counter >= history->counter ? counter - history->counter : counter);
}

static struct point make_point(const struct usage_history *history, const struct usage_reading *reading)
{
	uint64_t age_ns = reading->at_ns > history->begin_ns ? reading->at_ns - history->begin_ns : 0;

	return (struct point){
		.ticks = (uint32_t)(age_ns / TICK_NS),
		.cpu_ms = (uint32_t)(cpu_until(history, reading->cpu_usec) / 1000),
		.memory = pages(reading->memory_bytes),
		.cache = pages(reading->cache_bytes),
		.disk = pages(reading->disk_bytes),
	};
}

static struct usage_sample show(const struct usage_history *history, const struct point *before,
				const struct point *point)
{
	uint32_t ticks = point->ticks - before->ticks, cpu_ms = point->cpu_ms - before->cpu_ms;

	return (struct usage_sample){
		.at_ns = history->begin_ns + point->ticks * TICK_NS,
		.cpu_percent = ticks ? (double)cpu_ms / ticks : 0, /* a tick is 100 ms: a hundredth of it, 1 % */
		.memory_bytes = (uint64_t)point->memory << PAGE_SHIFT,
		.cache_bytes = (uint64_t)point->cache << PAGE_SHIFT,
		.disk_bytes = (uint64_t)point->disk << PAGE_SHIFT,
	};
}

/* The n-th of all, oldest first. */
static const struct point *nth(const struct usage_history *history, size_t n)
{
	if (n < history->n_older)
		return &history->older[(history->next_older + USAGE_OLDER - history->n_older + n) % USAGE_OLDER];
	n -= history->n_older;
	return &history->recent[(history->next_recent + USAGE_RECENT - history->n_recent + n) % USAGE_RECENT];
}

static size_t count(const struct usage_history *history)
{
	return (size_t)history->n_older + history->n_recent;
}

/* The point before the n-th: what came before all that is kept is only known to be the beginning if nothing was dropped. */
static const struct point *before(const struct usage_history *history, size_t n)
{
	static const struct point beginning;

	if (n)
		return nth(history, n - 1);
	return history->n_older < USAGE_OLDER ? &beginning : NULL;
}

static void retire(struct usage_history *history, const struct point *point)
{
	const struct point *last = history->n_older ? nth(history, history->n_older - 1u) : NULL;

	if (last && (point->ticks - last->ticks) * TICK_NS < USAGE_OLDER_NS)
		return;
	history->older[history->next_older] = *point;
	history->next_older = (history->next_older + 1u) % USAGE_OLDER;
	if (history->n_older < USAGE_OLDER)
		history->n_older++;
}

void usage_history_add(struct usage_history *history, const struct usage_reading *reading)
{
	struct point *place = &history->recent[history->next_recent];

	if (history->n_recent == USAGE_RECENT)
		retire(history, place);
	else
		history->n_recent++;
	*place = make_point(history, reading);
	history->next_recent = (history->next_recent + 1u) % USAGE_RECENT;
	history->cpu_usec = cpu_until(history, reading->cpu_usec);
	history->counter = reading->cpu_usec;
}

size_t usage_history_read(const struct usage_history *history, uint64_t from_ns, uint64_t to_ns,
			  struct usage_sample ret[USAGE_SAMPLES_MAX])
{
	size_t n = 0;

	for (size_t i = 0; i < count(history); i++) {
		const struct point *previous = before(history, i);
		struct usage_sample sample;

		if (!previous) /* the oldest of many: only there to compare the next with */
			continue;
		sample = show(history, previous, nth(history, i));
		if (sample.at_ns >= from_ns && sample.at_ns <= to_ns)
			ret[n++] = sample;
	}
	return n;
}

bool usage_history_last(const struct usage_history *history, struct usage_sample *ret)
{
	size_t n = count(history);

	if (n)
		*ret = show(history, before(history, n - 1), nth(history, n - 1));
	return n > 0;
}

struct usage_sample usage_history_measure(const struct usage_history *history, const struct usage_reading *reading)
{
	static const struct point beginning;
	struct point point = make_point(history, reading);
	size_t n = count(history);

	return show(history, n ? nth(history, n - 1) : &beginning, &point);
}
