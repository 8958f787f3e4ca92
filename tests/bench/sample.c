#include "sample.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

uint64_t bench_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void sample_add(struct sample *sample, uint64_t ns)
{
	if (sample->count == sample->room) {
		size_t room = sample->room ? 2 * sample->room : 256;
		uint64_t *grown = realloc(sample->ns, room * sizeof(*grown));

		if (!grown) {
			perror("bench");
			exit(1);
		}
		sample->ns = grown;
		sample->room = room;
	}
	sample->ns[sample->count++] = ns;
}

static int compare(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left;
	uint64_t b = *(const uint64_t *)right;

	return (a > b) - (a < b);
}

double sample_quantile_ms(struct sample *sample, double q)
{
	if (!sample->count)
		return 0;
	qsort(sample->ns, sample->count, sizeof(*sample->ns), compare);
	return (double)sample->ns[(size_t)(q * (double)(sample->count - 1))] / 1e6;
}

void sample_free(struct sample *sample)
{
	free(sample->ns);
	*sample = (struct sample){0};
}
