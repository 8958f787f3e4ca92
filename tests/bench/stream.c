#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "floor.h"
#include "measure.h"
#include "sandbox/base/cleanup.h"

#define ROUNDS 5
#define OUTPUT_BYTES "536870912"
#define FILE_BYTES (256u << 20)

static int by_rate(const void *left, const void *right)
{
	double a = *(const double *)left, b = *(const double *)right;

	return (a > b) - (a < b);
}

static double median(double *rates)
{
	qsort(rates, ROUNDS, sizeof(*rates), by_rate);
	return rates[ROUNDS / 2];
}

/* Both sides run the same program into a pipe of the same size. */
static void measure_stdout(struct paddock_client *client, const char *id)
{
	static char *const argv[] = {(char *)"head", (char *)"-c", (char *)OUTPUT_BYTES, (char *)"/dev/zero", NULL};
	double ours[ROUNDS], floor[ROUNDS];

	for (int i = 0; i < ROUNDS; i++) {
		uint64_t start = bench_now_ns();
		uint64_t bytes = bench_exec(client, id, argv, ARRAY_SIZE(argv) - 1);

		ours[i] = (double)bytes / 1e6 / ((double)(bench_now_ns() - start) / 1e9);
		floor[i] = floor_pipe_relay_socket(argv);
	}
	bench_row("stdout to one client vs pipe -> relay -> unix socket", median(ours), median(floor), "MB/s",
		  ">= 0.6");
}

/* The same kind of file system on both sides: tmpfs and tmpfs, or disk and disk. */
static void measure_files(struct paddock_client *client, const char *id, const char *inside, const char *outside,
			  const char *upload, const char *download, const char *aim)
{
	double up[ROUNDS], up_floor[ROUNDS], down[ROUNDS], down_floor[ROUNDS];

	for (int i = 0; i < ROUNDS; i++) {
		up[i] = bench_file_write(client, id, inside, FILE_BYTES);
		up_floor[i] = floor_socket_file(outside, FILE_BYTES);
		down[i] = bench_file_read(client, id, inside);
		down_floor[i] = floor_file_socket(outside);
	}
	unlink(outside);
	bench_row(upload, median(up), median(up_floor), "MB/s", aim);
	bench_row(download, median(down), median(down_floor), "MB/s", aim);
}

double bench_resident_mb(pid_t pid)
{
	char path[64], line[128];
	double kb = 0;
	_cleanup_file_ FILE *file = NULL;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "VmRSS: %lf", &kb) == 1)
			break;
	return kb * 1024 / 1e6;
}

/* A client that reads nothing for a while, of a process that writes as fast as it can. */
static void measure_slow_reader(struct paddock_client *client, const char *id, pid_t paddockd)
{
	static char *const argv[] = {(char *)"head", (char *)"-c", (char *)"8589934592", (char *)"/dev/zero"};
	struct paddock_stream *stream = bench_start(client, id, argv, ARRAY_SIZE(argv));
	double before = bench_resident_mb(paddockd), most = before;

	for (int i = 0; i < 30; i++) {
		double now;

		usleep(100000);
		now = bench_resident_mb(paddockd);
		most = now > most ? now : most;
	}
	paddock_stream_free(stream);
	bench_row("memory that paddockd gains for a client that does not read, 3 s, vs 16 MB", most - before, 16, "MB",
		  "<= 1");
}

void bench_streams(struct paddock_client *client, const struct bench_options *options)
{
	_cleanup_free_ char *id = bench_create_sized(client, 2ull << 30);

	measure_stdout(client, id);
	measure_files(client, id, "/tmp/big", "/dev/shm/paddock-bench.copy",
		      "file upload vs copy through a unix socket (tmpfs)",
		      "file download vs copy through a unix socket (tmpfs)", ">= 0.5");
	measure_files(client, id, "/home/user/big", "/var/tmp/paddock-bench.copy",
		      "file upload vs copy through a unix socket (disk)",
		      "file download vs copy through a unix socket (disk)", ">= 0.5");
	if (options->paddockd)
		measure_slow_reader(client, id, options->paddockd);
	bench_kill(client, id);
}
