#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "measure.h"
#include "memory.h"
#include "sandbox/base/cleanup.h"

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

static void memory_row(const char *what, double bytes, int sandboxes, const char *aim)
{
	bench_row(what, bytes / sandboxes / 1e6, 0.9, "MB", aim);
}

void bench_many(struct paddock_client *client, const struct bench_options *options)
{
	char **ids = calloc((size_t)options->live, sizeof(*ids));
	_cleanup_file_ FILE *curve = options->curve ? fopen(options->curve, "we") : NULL;
	const int quarter = options->live / 4;
	struct point few = {0}, many;
	struct memory before = {0}, after;

	if (!ids)
		exit(1);
	for (int i = 0; i < options->live; i++) {
		if (i == 10)
			few = measure_point(client, i, curve);
		else if (i > 10 && i % (options->live / 8) == 0)
			measure_point(client, i, curve);
		/* What was killed before this is given back by now, and what the first ones need alone is there. */
		if (i == quarter)
			memory_look(options, &before);
		ids[i] = bench_create(client);
	}
	memory_look(options, &after);
	many = measure_point(client, options->live, curve);
	printf("| idle sandboxes alive at once | %d | | | |\n", options->live);
	memory_row("memory of one of them, all told, vs 0.9 MB",
		   after.kernel + after.processes - before.kernel - before.processes, options->live - quarter, "<= 1");
	memory_row("of which: kernel's objects and tmpfs", after.kernel - before.kernel, options->live - quarter, "");
	memory_row("the same as above, by what the whole host has not free", after.not_free - before.not_free,
		   options->live - quarter, "");
	bench_row("create + first command with all of them vs with 10", many.create, few.create, "ms", "<= 2.5");
	bench_row("exec with all of them vs with 10", many.exec, few.exec, "ms", "flat");
	for (int i = 0; i < options->live; i++) {
		bench_kill(client, ids[i]);
		free(ids[i]);
	}
	free(ids);
}
