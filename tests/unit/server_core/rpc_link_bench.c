#include <poll.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "sandbox/call/call.h"
#include "service.h"

/* Not a test: what a call over link costs, to be read beside server_rpc_bench: the same methods, the same process. */

#define CALLS 5000
#define BYTES_TOTAL ((uint64_t)1 << 30)
#define TEST "/paddock.test.Test/"

static struct call_link *wire;
static uint64_t got;
static bool ended;

static double now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void on_message(struct call *call, const uint8_t *bytes, size_t length, int *fds, unsigned int n_fds, void *arg)
{
	got += length;
	call_credit(call, 1);
}

static void on_end(struct call *call, enum pdk_code code, const char *text, void *arg)
{
	if (code != PDK_OK)
		abort();
	ended = true;
}

static double run(const char *method, const uint8_t *request, size_t length)
{
	static const struct call_events events = {.on_message = on_message, .on_end = on_end};
	struct call_open open = {.method = method, .authorization = GOOD_KEY, .credit = 8};
	double start = now_us();
	int rc;

	ended = false;
	if (!call_unary(wire, &open, request, length, &events, NULL, &rc))
		abort();
	while (!ended) {
		struct pollfd poll_fd = {.fd = call_link_fd(wire), .events = POLLIN};

		if (call_link_events(wire) & EPOLLOUT)
			poll_fd.events |= POLLOUT;
		if (poll(&poll_fd, 1, 10000) <= 0 || call_link_io(wire, (uint32_t)poll_fd.revents) < 0)
			abort();
	}
	return now_us() - start;
}

static int compare(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;

	return left < right ? -1 : left > right;
}

static void bench_unary(const char *method)
{
	static const uint8_t request[] = {0x0a, 5, 'h', 'e', 'l', 'l', 'o'};
	static double took[CALLS];

	for (int i = -200; i < CALLS; i++) {
		double us = run(method, request, sizeof(request));

		if (i >= 0)
			took[i] = us;
	}
	qsort(took, CALLS, sizeof(*took), compare);
	printf("%-28s p50 %6.1f us  p90 %6.1f us  p99 %6.1f us\n", method, took[CALLS / 2], took[CALLS * 9 / 10],
	       took[CALLS * 99 / 100]);
}

static void adjust(struct config *config)
{
	strcpy(config->ingress_user, getpwuid(geteuid())->pw_name);
}

int main(void)
{
	static const uint8_t total[] = {0x08, 0x80, 0x80, 0x80, 0x80, 0x04}; /* BYTES_TOTAL */
	char path[128];
	double us;

	service_start(adjust);
	snprintf(path, sizeof(path), "%s/ingress.sock", service_folder());
	wire = call_link_connect(path, NULL);
	if (!wire)
		abort();
	bench_unary(TEST "Echo");
	bench_unary(TEST "Change");
	got = 0;
	us = run(TEST "Bytes", total, sizeof(total));
	printf("%-28s %.2f GB/s\n", TEST "Bytes", (double)got / us / 1e3);
	call_link_free(wire);
	service_stop(1000);
	return got < BYTES_TOTAL;
}
