#include "guest_client.h"

#include <setjmp.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* How long /bin/true takes from the request to `exited` through init, next to posix_spawn() and waitpid() here. It
 * fails only if something does not work: what is fast enough depends on the machine. */

#define RUNS 300

extern char **environ;

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ll + now.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static void report(const char *what, int64_t *times)
{
	qsort(times, RUNS, sizeof(*times), compare);
	print_message("%-14s p50 %5.0f us   p90 %5.0f us   p99 %5.0f us\n", what, (double)times[RUNS / 2] / 1e3,
		      (double)times[RUNS * 9 / 10] / 1e3, (double)times[RUNS * 99 / 100] / 1e3);
}

static void run_through_init(struct client *client, uint64_t handle, int64_t *started, int64_t *exited)
{
	guest_message(Start) start = PADDOCK__INTERNAL__GUEST_START__INIT;
	guest_message(Forget) forget = PADDOCK__INTERNAL__GUEST_FORGET__INIT;
	char *argv[] = {TEXT("/bin/true")};
	int64_t begin = now_ns();
	struct client_frame frame;
	uint32_t stream;

	start.handle = forget.handle = handle;
	start.argv = argv;
	start.n_argv = 1;
	stream = client_call(client, REQUEST(START, start, &start));
	frame = client_next(client, stream);
	assert_int_equal(frame.reply->result_case, GUEST_RESULT(STARTED));
	*started = now_ns() - begin;
	client_frame_free(&frame);
	frame = client_next(client, stream);
	assert_int_equal(frame.reply->result_case, GUEST_RESULT(EXITED));
	*exited = now_ns() - begin;
	client_frame_free(&frame);
	client_expect_end(client, stream);
	frame = client_ask(client, REQUEST(FORGET, forget, &forget));
	client_frame_free(&frame);
}

static void run_directly(int64_t *exited)
{
	char *argv[] = {TEXT("/bin/true"), NULL};
	int64_t begin = now_ns();
	pid_t pid;

	assert_int_equal(posix_spawn(&pid, "/bin/true", NULL, NULL, argv, environ), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	*exited = now_ns() - begin;
}

static void test_latency(void **state)
{
	static int64_t started[RUNS], exited[RUNS], direct[RUNS];
	static struct client client;

	client_start(&client);
	for (int i = 0; i < RUNS; i++) {
		run_through_init(&client, (uint64_t)i + 1, &started[i], &exited[i]);
		run_directly(&direct[i]);
	}
	client_stop(&client);
	report("posix_spawn", direct);
	report("init: started", started);
	report("init: exited", exited);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_latency)};

	if (geteuid() != 0) {
		print_message("skipped: needs root for namespaces\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
