#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "measure.h"
#include "sandbox/base/cleanup.h"

#define MEMORY_LOOKS 15
#define MEMORY_STILL (1u << 20)

/* What is in use and cannot be given back: processes, the kernel's objects for them, and tmpfs. */
static double memory_now(void)
{
	char line[128];
	double value, used = 0;
	_cleanup_file_ FILE *file = fopen("/proc/meminfo", "re");

	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "MemTotal: %lf", &value) == 1)
			used += value;
		else if (sscanf(line, "MemFree: %lf", &value) == 1 || sscanf(line, "Buffers: %lf", &value) == 1 ||
			 sscanf(line, "Active(file): %lf", &value) == 1 ||
			 sscanf(line, "Inactive(file): %lf", &value) == 1)
			used -= value;
	}
	return used * 1024;
}

/*
 * The same when it stands still. Caches are dropped first, and again: what they hold is let go in steps, and the kernel
 * gives back what ended processes had long after they ended.
 */
static double memory_used(void)
{
	_cleanup_fd_ int drop = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
	double used = 0, last;
	int still = 0;

	for (int i = 0; i < MEMORY_LOOKS && still < 2; i++) {
		sync();
		if (drop < 0 || write(drop, "3", 1) != 1)
			fprintf(stderr, "bench: caches cannot be dropped here: memory is not exact\n");
		sleep(1);
		last = used;
		used = memory_now();
		still = fabs(used - last) < MEMORY_STILL ? still + 1 : 0;
	}
	return used;
}

struct point {
	double create, create_p99, exec;
};

/* Latency of create and exec with `live` others: quantiles over a few. */
static struct point measure_point(struct paddock_client *client, int live, FILE *curve)
{
	struct sample create = {0}, exec = {0};
	struct point point;

	for (int i = 0; i < 60; i++) {
		uint64_t start = bench_now_ns();
		_cleanup_free_ char *id = bench_create(client);

		bench_true(client, id);
		sample_add(&create, bench_now_ns() - start);
		start = bench_now_ns();
		bench_true(client, id);
		sample_add(&exec, bench_now_ns() - start);
		bench_kill(client, id);
		usleep(5000);
	}
	point.create = sample_quantile_ms(&create, 0.5);
	point.create_p99 = sample_quantile_ms(&create, 0.99);
	point.exec = sample_quantile_ms(&exec, 0.5);
	if (curve)
		fprintf(curve, "%d %.3f %.3f %.3f\n", live, point.create, point.create_p99, point.exec);
	sample_free(&create);
	sample_free(&exec);
	return point;
}

void bench_many(struct paddock_client *client, const struct bench_options *options)
{
	char **ids = calloc((size_t)options->live, sizeof(*ids));
	_cleanup_file_ FILE *curve = options->curve ? fopen(options->curve, "we") : NULL;
	const int quarter = options->live / 4;
	struct point few = {0}, many;
	double memory = 0;

	if (!ids)
		exit(1);
	for (int i = 0; i < options->live; i++) {
		if (i == 10)
			few = measure_point(client, i, curve);
		else if (i > 10 && i % (options->live / 8) == 0)
			measure_point(client, i, curve);
		/* What was killed before this is given back by now, and what the first ones need alone is there. */
		if (i == quarter)
			memory = memory_used();
		ids[i] = bench_create(client);
	}
	memory = (memory_used() - memory) / (options->live - quarter) / 1e6;
	many = measure_point(client, options->live, curve);
	printf("| idle sandboxes alive at once | %d | | | |\n", options->live);
	bench_row("memory of one of them, all told, vs 0.9 MB", memory, 0.9, "MB", "<= 1");
	bench_row("create + first command with all of them vs with 10", many.create, few.create, "ms", "<= 2.5");
	bench_row("exec with all of them vs with 10", many.exec, few.exec, "ms", "flat");
	for (int i = 0; i < options->live; i++) {
		bench_kill(client, ids[i]);
		free(ids[i]);
	}
	free(ids);
}
