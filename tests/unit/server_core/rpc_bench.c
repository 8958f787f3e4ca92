#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client.h"
#include "core_test.pb-c.h"
#include "sandbox/base/cleanup.h"
#include "service.h"

/* What a call costs: unary latency, and the rate of a byte stream, over the unix socket from the same process. */

static double now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;

	return left < right ? -1 : left > right;
}

static void bench_unary(struct client *client, const char *method, int n)
{
	double *took = calloc((size_t)n, sizeof(*took));
	static const uint8_t request[] = {0x0a, 5, 'h', 'e', 'l', 'l', 'o'};

	for (int i = -200; i < n; i++) {
		double start = now_us();

		if (client_unary(client, method, 10000, request, sizeof(request), NULL, NULL, NULL) != 0)
			abort();
		if (i >= 0)
			took[i] = now_us() - start;
	}
	qsort(took, (size_t)n, sizeof(*took), compare);
	printf("%-28s p50 %6.1f us  p90 %6.1f us  p99 %6.1f us\n", method, took[n / 2], took[n * 9 / 10],
	       took[n * 99 / 100]);
	free(took);
}

static void bench_bytes(struct client *client, int64_t total)
{
	Paddock__Test__Number number = PADDOCK__TEST__NUMBER__INIT;
	struct client_call call;
	double start = now_us();
	uint8_t *bytes;
	size_t length;
	double got = 0;

	number.value = total;
	client_begin(&call, client, "/paddock.test.Test/Bytes", 0);
	client_send_message(&call, &number.base);
	client_half_close(&call);
	while ((bytes = client_receive(&call, &length))) {
		got += (double)length;
		free(bytes);
	}
	client_finish(&call);
	printf("%-28s %.2f GB/s\n", "/paddock.test.Test/Bytes", got / (now_us() - start) / 1e3);
}

int main(void)
{
	struct client client;

	service_start(NULL);
	client_open(&client, service_address("paddock.sock"), GOOD_KEY);
	bench_unary(&client, "/paddock.test.Test/Echo", 5000);
	bench_unary(&client, "/paddock.test.Test/Change", 5000);
	bench_bytes(&client, (int64_t)2 << 30);
	client_close(&client);
	service_stop(1000);
	return 0;
}
