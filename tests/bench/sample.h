#ifndef PADDOCK_BENCH_SAMPLE_H
#define PADDOCK_BENCH_SAMPLE_H

#include <stddef.h>
#include <stdint.h>

/* Timings of one thing, and what is said of them. */

struct sample {
	uint64_t *ns;
	size_t count;
	size_t room;
};

uint64_t bench_now_ns(void);
void sample_add(struct sample *sample, uint64_t ns);
/* The q-quantile (0..1) in milliseconds; 0 of an empty sample. Sorts in place. */
double sample_quantile_ms(struct sample *sample, double q);
void sample_free(struct sample *sample);

#endif
