#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client.h"
#include "floor.h"
#include "sandbox/base/cleanup.h"

/*
 * Paddock against what the same machine does without it, measured in turns in one run, so that the ratio holds
 * where absolute numbers drift. Each line of the table: what, Paddock's number, the other's number, the ratio, the aim.
 *
 *	bench [--rounds N] [--live N] [--crun-bundle DIR] [--curve FILE]
 */

static int rounds = 200;
static int live_target;
static const char *crun_bundle;
static const char *curve_file;

static char *const true_argv[] = { (char *)"/bin/true", NULL };

static void row(const char *what, double ours, double theirs, const char *unit, const char *aim)
{
	printf("| %s | %.2f %s | %.2f %s | %.2f | %s |\n", what, ours, unit, theirs, unit, theirs ? ours / theirs : 0, aim);
	fflush(stdout);
}

static uint64_t since(uint64_t start)
{
	return bench_now_ns() - start;
}

/* create + first command's result, and the whole life, each next to a host spawn of the same program. */
static void measure_create(struct paddock_client *client, bool cold)
{
	struct sample first = { 0 }, whole = { 0 }, host = { 0 };

	for (int i = 0; i < rounds; i++) {
		uint64_t start = bench_now_ns();
		_cleanup_free_ char *id = cold ? bench_create_cold(client) : bench_create(client);

		bench_true(client, id);
		sample_add(&first, since(start));
		bench_kill(client, id);
		sample_add(&whole, since(start));
		usleep(3000);
		floor_spawn(&host, true_argv);
	}
	row(cold ? "create + first command, cold, p50 vs host spawn" : "create + first command, pool, p50 vs host spawn",
	    sample_quantile_ms(&first, 0.5), sample_quantile_ms(&host, 0.5), "ms", cold ? "<= 4.5" : "<= 2");
	row(cold ? "the same, p99 vs its p50 (cold)" : "the same, p99 vs its p50 (pool)", sample_quantile_ms(&first, 0.99),
	    sample_quantile_ms(&first, 0.5), "ms", "<= 3");
	row(cold ? "create + run + destroy, cold, p50 vs host spawn" : "create + run + destroy, pool, p50 vs host spawn",
	    sample_quantile_ms(&whole, 0.5), sample_quantile_ms(&host, 0.5), "ms", "");
	sample_free(&first);
	sample_free(&whole);
	sample_free(&host);
}

/* create + run + destroy next to another tool that does the same with one command. */
static void measure_against(struct paddock_client *client, const char *what, char *const *argv, const char *aim)
{
	struct sample ours = { 0 }, theirs = { 0 };

	for (int i = 0; i < rounds / 2; i++) {
		uint64_t start = bench_now_ns();
		_cleanup_free_ char *id = bench_create(client);

		bench_true(client, id);
		bench_kill(client, id);
		sample_add(&ours, since(start));
		usleep(3000);
		if (floor_spawn(&theirs, argv) != 0) {
			printf("| %s | | not measured: it failed here | | %s |\n", what, aim);
			return;
		}
	}
	row(what, sample_quantile_ms(&theirs, 0.5), sample_quantile_ms(&ours, 0.5), "ms", aim);
	sample_free(&ours);
	sample_free(&theirs);
}

static void measure_peers(struct paddock_client *client)
{
	char *const bwrap[] = { (char *)"bwrap", (char *)"--unshare-all", (char *)"--ro-bind", (char *)"/", (char *)"/",
				(char *)"--proc", (char *)"/proc", (char *)"--dev", (char *)"/dev", (char *)"--tmpfs",
				(char *)"/tmp", (char *)"/bin/true", NULL };

	measure_against(client, "bwrap vs create + run + destroy", bwrap, ">= 1.3");
	if (crun_bundle) {
		char *const crun[] = { (char *)"crun", (char *)"--cgroup-manager=cgroupfs", (char *)"run", (char *)"--bundle",
				       (char *)crun_bundle, (char *)"paddock-bench", NULL };

		measure_against(client, "crun with cgroups vs create + run + destroy", crun, ">= 5");
	}
}

static void measure_exec(struct paddock_client *client)
{
	_cleanup_free_ char *id = bench_create(client);
	struct sample ours = { 0 }, host = { 0 }, rpc = { 0 };

	for (int i = 0; i < rounds * 2; i++) {
		Paddock__V1__GetSandboxRequest get = PADDOCK__V1__GET_SANDBOX_REQUEST__INIT;
		Paddock__V1__Sandbox *sandbox = NULL;
		uint64_t start = bench_now_ns();

		bench_true(client, id);
		sample_add(&ours, since(start));
		usleep(1000);
		floor_spawn(&host, true_argv);
		get.sandbox_id = id;
		start = bench_now_ns();
		if (paddock_sandbox_get(client, &get, &sandbox, NULL) == 0)
			sample_add(&rpc, since(start));
		paddock_free(sandbox);
	}
	row("exec in a running sandbox, p50 vs host spawn", sample_quantile_ms(&ours, 0.5), sample_quantile_ms(&host, 0.5),
	    "ms", "<= 1.5");
	row("unary call, p50 vs 0.150 ms", sample_quantile_ms(&rpc, 0.5), 0.150, "ms", "<= 1");
	sample_free(&ours);
	sample_free(&host);
	sample_free(&rpc);
	bench_kill(client, id);
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

	if (!file || fscanf(file, "cpu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle, &wait, &irq, &soft) != 7)
		return 0;
	return (double)(user + nice + system + irq + soft) * 1000.0 / (double)sysconf(_SC_CLK_TCK);
}

static void measure_sustained(void)
{
	int total = rounds * 5;
	double before = cpu_ms_busy();
	double seconds = lives(4, total);
	double cpu = (cpu_ms_busy() - before) / total;
	double hundred;

	row("sustained create + exec + destroy per second vs 350", total / seconds, 350, "/s", ">= 1");
	row("CPU of both cores per life vs 4.5 ms", cpu, 4.5, "ms", "<= 1");
	hundred = lives(100, 100);
	row("100 at once vs 100 x the sustained cost", hundred * 1e3, 100e3 * seconds / total, "ms", "<= 1.5");
}

static void measure_streams(struct paddock_client *client)
{
	static char *const cat[] = { (char *)"head", (char *)"-c", (char *)"1073741824", (char *)"/dev/zero" };
	_cleanup_free_ char *id = bench_create(client);
	double ours = 0, floor = 0;
	char scratch[] = "/var/tmp/paddock-bench.XXXXXX";
	int fd = mkstemp(scratch);

	for (int i = 0; i < 3; i++) {
		uint64_t start = bench_now_ns();
		uint64_t bytes = bench_exec(client, id, cat, ARRAY_SIZE(cat));
		double rate = (double)bytes / 1e6 / ((double)since(start) / 1e9);
		double other = floor_pipe_relay_socket(1u << 30);

		ours = rate > ours ? rate : ours;
		floor = other > floor ? other : floor;
	}
	row("stdout to one client vs pipe -> relay -> unix socket", ours, floor, "MB/s", ">= 0.6");
	ours = bench_file_write(client, id, "/home/user/big", 256u << 20);
	if (fd < 0 || ftruncate(fd, 256 << 20) < 0)
		exit(1);
	floor = floor_file_socket(scratch, "/var/tmp/paddock-bench.copy");
	row("file upload vs copy through a unix socket", ours, floor, "MB/s", ">= 0.5");
	ours = bench_file_read(client, id, "/home/user/big");
	floor = floor_file_socket("/var/tmp/paddock-bench.copy", NULL);
	row("file download vs copy through a unix socket", ours, floor, "MB/s", ">= 0.5");
	unlink("/var/tmp/paddock-bench.copy");
	unlink(scratch);
	close(fd);
	bench_kill(client, id);
}

/* Memory that is not available to others, in bytes. */
static double memory_used(void)
{
	char line[128];
	double total = 0, available = 0;
	_cleanup_file_ FILE *file = fopen("/proc/meminfo", "re");

	while (file && fgets(line, sizeof(line), file)) {
		sscanf(line, "MemTotal: %lf", &total);
		sscanf(line, "MemAvailable: %lf", &available);
	}
	return (total - available) * 1024;
}

/* Latency of create, exec and kill with `live` others: medians over a few. */
static void measure_point(struct paddock_client *client, int live, FILE *curve, double *ret_create, double *ret_exec)
{
	struct sample create = { 0 }, exec = { 0 };

	for (int i = 0; i < 40; i++) {
		uint64_t start = bench_now_ns();
		_cleanup_free_ char *id = bench_create(client);

		bench_true(client, id);
		sample_add(&create, since(start));
		start = bench_now_ns();
		bench_true(client, id);
		sample_add(&exec, since(start));
		bench_kill(client, id);
		usleep(3000);
	}
	*ret_create = sample_quantile_ms(&create, 0.5);
	*ret_exec = sample_quantile_ms(&exec, 0.5);
	if (curve)
		fprintf(curve, "%d %.3f %.3f %.3f\n", live, *ret_create, sample_quantile_ms(&create, 0.99), *ret_exec);
	sample_free(&create);
	sample_free(&exec);
}

static void measure_live(struct paddock_client *client)
{
	char **ids = calloc((size_t)live_target, sizeof(*ids));
	_cleanup_file_ FILE *curve = curve_file ? fopen(curve_file, "we") : NULL;
	double create_few = 0, exec_few = 0, create_many = 0, exec_many = 0;
	double memory = memory_used();

	if (!ids)
		exit(1);
	for (int i = 0; i < live_target; i++) {
		if (i == 10)
			measure_point(client, i, curve, &create_few, &exec_few);
		else if (i > 0 && i % (live_target / 8) == 0)
			measure_point(client, i, curve, &create_many, &exec_many);
		ids[i] = bench_create(client);
	}
	memory = (memory_used() - memory) / live_target / 1e6;
	measure_point(client, live_target, curve, &create_many, &exec_many);
	printf("| idle sandboxes alive at once | %d | | | |\n", live_target);
	row("memory of one of them, all told, vs 0.9 MB", memory, 0.9, "MB", "<= 1");
	row("create + first command with all of them vs with 10", create_many, create_few, "ms", "<= 2.5");
	row("exec with all of them vs with 10", exec_many, exec_few, "ms", "flat");
	for (int i = 0; i < live_target; i++) {
		bench_kill(client, ids[i]);
		free(ids[i]);
	}
	free(ids);
}

static void parse(int argc, char **argv)
{
	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--rounds"))
			rounds = atoi(argv[i + 1]);
		else if (!strcmp(argv[i], "--live"))
			live_target = atoi(argv[i + 1]);
		else if (!strcmp(argv[i], "--crun-bundle"))
			crun_bundle = argv[i + 1];
		else if (!strcmp(argv[i], "--curve"))
			curve_file = argv[i + 1];
		else {
			fprintf(stderr, "bench: unknown option %s\n", argv[i]);
			exit(2);
		}
	}
}

int main(int argc, char **argv)
{
	struct paddock_client *client;

	parse(argc, argv);
	client = bench_connect();
	printf("| what | Paddock | the other | ratio | aim |\n|---|--:|--:|--:|---|\n");
	measure_create(client, false);
	measure_create(client, true);
	measure_peers(client);
	measure_exec(client);
	measure_sustained();
	measure_streams(client);
	if (live_target >= 8)
		measure_live(client);
	paddock_close(client);
	return 0;
}
