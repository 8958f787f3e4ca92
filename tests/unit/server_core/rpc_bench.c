#include <grpc/grpc_security.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client.h"
#include "core_test.pb-c.h"
#include "sandbox/base/cleanup.h"
#include "service.h"

/* What a call costs: unary latency, and the rate of a byte stream, over the unix socket from the same process. */

#define BYTES_TOTAL ((int64_t)1 << 30)

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

static void bench_bytes(struct client *client, const char *method, int64_t total)
{
	Paddock__Test__Number number = PADDOCK__TEST__NUMBER__INIT;
	struct client_call call;
	double start = now_us();
	int64_t length;
	double got = 0;

	number.value = total;
	client_begin(&call, client, method, 0);
	client_send_message(&call, &number.base);
	client_half_close(&call);
	while ((length = client_skip(&call)) >= 0)
		got += (double)length;
	client_finish(&call);
	printf("%-28s %.2f GB/s\n", method, got / (now_us() - start) / 1e3);
}

/* The floor: a server on the bare core with one call at a time. It echoes unary calls; on "/floor.Bytes" it sends
 * blocks of 256 KiB as long as they are wanted. */

struct floor {
	grpc_server *server;
	grpc_completion_queue *queue;
	pthread_t thread;
};

static bool floor_wait(struct floor *floor)
{
	return grpc_completion_queue_next(floor->queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL).success;
}

static void floor_batch(struct floor *floor, grpc_call *call, grpc_op *ops, size_t n_ops)
{
	if (grpc_call_start_batch(call, ops, n_ops, floor, NULL) != GRPC_CALL_OK)
		abort();
	floor_wait(floor);
}

static void floor_bytes(struct floor *floor, grpc_call *call, int64_t total)
{
	static uint8_t block[256 << 10];
	grpc_slice slice = grpc_slice_from_static_buffer(block, sizeof(block));

	for (int64_t sent = 0; sent < total; sent += (int64_t)sizeof(block)) {
		grpc_op op = {.op = GRPC_OP_SEND_MESSAGE};

		op.data.send_message.send_message = grpc_raw_byte_buffer_create(&slice, 1);
		floor_batch(floor, call, &op, 1);
		grpc_byte_buffer_destroy(op.data.send_message.send_message);
	}
}

static void floor_call(struct floor *floor, grpc_call *call, bool bytes)
{
	grpc_op start[2] = {{.op = GRPC_OP_RECV_MESSAGE}, {.op = GRPC_OP_SEND_INITIAL_METADATA}};
	grpc_op end[3] = {{.op = GRPC_OP_RECV_CLOSE_ON_SERVER},
			  {.op = GRPC_OP_SEND_STATUS_FROM_SERVER},
			  {.op = GRPC_OP_SEND_MESSAGE}};
	grpc_byte_buffer *message = NULL;
	int cancelled;

	start[0].data.recv_message.recv_message = &message;
	floor_batch(floor, call, start, bytes ? 2 : 1);
	end[0].data.recv_close_on_server.cancelled = &cancelled;
	if (bytes) {
		floor_bytes(floor, call, BYTES_TOTAL);
		floor_batch(floor, call, end, 2);
	} else {
		grpc_op echo[4] = {start[1], end[2], end[1], end[0]};

		echo[1].data.send_message.send_message = message;
		floor_batch(floor, call, echo, 4);
	}
	grpc_byte_buffer_destroy(message);
}

static void *floor_serve(void *arg)
{
	struct floor *floor = arg;

	for (;;) {
		grpc_call_details details;
		grpc_metadata_array metadata;
		grpc_call *call;

		grpc_call_details_init(&details);
		grpc_metadata_array_init(&metadata);
		grpc_server_request_call(floor->server, &call, &details, &metadata, floor->queue, floor->queue, floor);
		if (!floor_wait(floor))
			return NULL;
		floor_call(floor, call, grpc_slice_str_cmp(details.method, "/floor.Bytes") == 0);
		grpc_call_unref(call);
		grpc_call_details_destroy(&details);
		grpc_metadata_array_destroy(&metadata);
	}
}

static void floor_start(struct floor *floor, const char *address)
{
	grpc_server_credentials *credentials = grpc_insecure_server_credentials_create();

	floor->queue = grpc_completion_queue_create_for_next(NULL);
	floor->server = grpc_server_create(NULL, NULL);
	grpc_server_register_completion_queue(floor->server, floor->queue, NULL);
	grpc_server_add_http2_port(floor->server, address, credentials);
	grpc_server_credentials_release(credentials);
	grpc_server_start(floor->server);
	pthread_create(&floor->thread, NULL, floor_serve, floor);
}

int main(void)
{
	struct client client;
	struct floor floor;

	service_start(NULL);
	floor_start(&floor, service_address("floor.sock"));
	client_open(&client, service_address("floor.sock"), GOOD_KEY);
	bench_unary(&client, "/floor.Echo", 5000);
	bench_bytes(&client, "/floor.Bytes", BYTES_TOTAL);
	client_close(&client);
	client_open(&client, service_address("paddock.sock"), GOOD_KEY);
	bench_unary(&client, "/paddock.test.Test/Echo", 5000);
	bench_unary(&client, "/paddock.test.Test/Change", 5000);
	bench_bytes(&client, "/paddock.test.Test/Bytes", BYTES_TOTAL);
	client_close(&client);
	/* The floor's server ends with the process. */
	fflush(stdout);
	_exit(0);
}
