#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "floor.h"
#include "measure.h"
#include "sandbox/base/cleanup.h"

/* Between two measurements: what the last one left to do (the pool's refill, the trash) is not charged to the next. */
#define PAUSE_US 5000

static uint64_t since(uint64_t start)
{
	return bench_now_ns() - start;
}

/* create + first command's result, and the whole life, each next to a host spawn of the same program. */
static void measure_create(struct paddock_client *client, int rounds, bool cold)
{
	struct sample first = {0}, whole = {0}, host = {0};
	double p50;

	for (int i = 0; i < rounds; i++) {
		uint64_t start = bench_now_ns();
		_cleanup_free_ char *id = cold ? bench_create_cold(client) : bench_create(client);

		bench_true(client, id);
		sample_add(&first, since(start));
		bench_kill(client, id);
		sample_add(&whole, since(start));
		usleep(PAUSE_US);
		floor_spawn(&host, bench_true_argv);
	}
	p50 = sample_quantile_ms(&first, 0.5);
	bench_row(cold ? "create + first command, cold, p50 vs host spawn"
		       : "create + first command, from the pool, p50 vs host spawn",
		  p50, sample_quantile_ms(&host, 0.5), "ms", cold ? "<= 4.5" : "<= 2");
	bench_row(cold ? "the same, cold, p99 vs its p50" : "the same, from the pool, p99 vs its p50",
		  sample_quantile_ms(&first, 0.99), p50, "ms", "<= 3");
	bench_row(cold ? "create + run + destroy, cold, p50 vs host spawn"
		       : "create + run + destroy, from the pool, p50 vs host spawn",
		  sample_quantile_ms(&whole, 0.5), sample_quantile_ms(&host, 0.5), "ms", "");
	sample_free(&first);
	sample_free(&whole);
	sample_free(&host);
}

/* create + run + destroy next to another tool that does the same with one command. */
static void measure_against(struct paddock_client *client, int rounds, const char *what, char *const *argv,
			    const char *aim)
{
	struct sample ours = {0}, theirs = {0};

	for (int i = 0; i < rounds; i++) {
		uint64_t start = bench_now_ns();
		_cleanup_free_ char *id = bench_create(client);

		bench_true(client, id);
		bench_kill(client, id);
		sample_add(&ours, since(start));
		usleep(PAUSE_US);
		if (floor_spawn(&theirs, argv) != 0) {
			printf("| %s | | not measured: it failed here | | %s |\n", what, aim);
			return;
		}
	}
	bench_row(what, sample_quantile_ms(&theirs, 0.5), sample_quantile_ms(&ours, 0.5), "ms", aim);
	sample_free(&ours);
	sample_free(&theirs);
}

static void measure_peers(struct paddock_client *client, const struct bench_options *options)
{
	char *const bwrap[] = {(char *)"bwrap",
			       (char *)"--unshare-all",
			       (char *)"--ro-bind",
			       (char *)"/",
			       (char *)"/",
			       (char *)"--proc",
			       (char *)"/proc",
			       (char *)"--dev",
			       (char *)"/dev",
			       (char *)"--tmpfs",
			       (char *)"/tmp",
			       (char *)"/bin/true",
			       NULL};
	char *const crun[] = {
		(char *)"crun",
		(char *)"--cgroup-manager=cgroupfs",
		(char *)"run",
		(char *)"--bundle",
		(char *)options->bundle,
		(char *)"paddock-bench",
		NULL,
	};

	measure_against(client, options->rounds / 2, "bwrap vs create + run + destroy", bwrap, ">= 1.3");
	if (options->bundle)
		measure_against(client, options->rounds / 2, "crun with cgroups vs create + run + destroy", crun,
				">= 5");
}

struct worker {
	pthread_t thread;
	int count;
};

static void *work(void *arg)
{
	struct worker *worker = arg;
	struct paddock_client *client = bench_connect();

	for (int i = 0; i < worker->count; i++) {
		_cleanup_free_ char *id = bench_create(client);

		bench_true(client, id);
		bench_kill(client, id);
	}
	paddock_close(client);
	return NULL;
}

/* Seconds for `total` lives spread over `n` clients. */
static double lives(int n, int total)
{
	struct worker *workers = calloc((size_t)n, sizeof(*workers));
	uint64_t start = bench_now_ns();

	if (!workers)
		exit(1);
	for (int i = 0; i < n; i++) {
		workers[i].count = total / n;
		pthread_create(&workers[i].thread, NULL, work, &workers[i]);
	}
	for (int i = 0; i < n; i++)
		pthread_join(workers[i].thread, NULL);
	free(workers);
	return (double)since(start) / 1e9;
}

static double cpu_ms_busy(void)
{
	unsigned long long user, nice, system, idle, wait, irq, soft;
	_cleanup_file_ FILE *file = fopen("/proc/stat", "re");

	if (!file || fscanf(file, "cpu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle, &wait, &irq,
			    &soft) != 7)
		return 0;
	return (double)(user + nice + system + irq + soft) * 1000.0 / (double)sysconf(_SC_CLK_TCK);
}

static void measure_sustained(int total)
{
	double before = cpu_ms_busy();
	double seconds = lives(4, total);
	double cpu = (cpu_ms_busy() - before) / total;
	double hundred;

	bench_row("sustained create + exec + destroy per second vs 350", total / seconds, 350, "/s", ">= 1");
	bench_row("CPU of both cores per life vs 4.5 ms", cpu, 4.5, "ms", "<= 1");
	sleep(2);
	hundred = lives(100, 100);
	bench_row("100 at once, until all are done, vs 100 x the sustained cost", hundred * 1e3,
		  100e3 * seconds / total, "ms", "<= 1.5");
	sleep(2);
}

void bench_lives(struct paddock_client *client, const struct bench_options *options)
{
	measure_create(client, options->rounds, false);
	measure_create(client, options->rounds, true);
	measure_peers(client, options);
	measure_sustained(options->rounds * 4);
}
