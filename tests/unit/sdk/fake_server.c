#include "fake_server.h"

#include "paddock.h"
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static grpc_server *server;
static grpc_completion_queue *queue;
static pthread_t thread;

struct exchange {
	grpc_call *call;
	grpc_completion_queue *cq;
};

static int run_op(struct exchange *exchange, const grpc_op *ops, size_t n)
{
	grpc_event event;

	if (grpc_call_start_batch(exchange->call, ops, n, exchange, NULL) != GRPC_CALL_OK)
		return 0;
	event = grpc_completion_queue_pluck(exchange->cq, exchange, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
	return event.success;
}

static grpc_byte_buffer *receive(struct exchange *exchange)
{
	grpc_byte_buffer *message = NULL;
	grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};

	op.data.recv_message.recv_message = &message;
	return run_op(exchange, &op, 1) ? message : NULL;
}

static int send_bytes(struct exchange *exchange, const void *data, size_t length)
{
	grpc_slice slice = grpc_slice_from_copied_buffer(data, length);
	grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);
	grpc_op op = {.op = GRPC_OP_SEND_MESSAGE};
	int ok;

	op.data.send_message.send_message = buffer;
	ok = run_op(exchange, &op, 1);
	grpc_byte_buffer_destroy(buffer);
	grpc_slice_unref(slice);
	return ok;
}

static int send_message(struct exchange *exchange, const ProtobufCMessage *message)
{
	size_t length = protobuf_c_message_get_packed_size(message);
	uint8_t *data = malloc(length + 1);
	int ok;

	protobuf_c_message_pack(message, data);
	ok = send_bytes(exchange, data, length);
	free(data);
	return ok;
}

static void finish(struct exchange *exchange, grpc_status_code status, const char *text)
{
	grpc_slice details = grpc_slice_from_static_string(text);
	grpc_op op = {.op = GRPC_OP_SEND_STATUS_FROM_SERVER};

	op.data.send_status_from_server.status = status;
	op.data.send_status_from_server.status_details = &details;
	run_op(exchange, &op, 1);
}

static void answer_create(struct exchange *exchange, const grpc_metadata_array *headers)
{
	Paddock__V1__Sandbox sandbox = PADDOCK__V1__SANDBOX__INIT;
	char *key = NULL;
	size_t i;

	for (i = 0; i < headers->count; i++)
		if (grpc_slice_str_cmp(headers->metadata[i].key, "authorization") == 0)
			key = grpc_slice_to_c_string(headers->metadata[i].value);
	sandbox.id = key ? key : (char *)"none";
	send_message(exchange, &sandbox.base);
	finish(exchange, GRPC_STATUS_OK, "");
	free(key);
}

static void answer_events(struct exchange *exchange)
{
	Paddock__V1__SandboxEvent event = PADDOCK__V1__SANDBOX_EVENT__INIT;

	for (event.sequence = 1; event.sequence <= 100; event.sequence++)
		send_message(exchange, &event.base);
	finish(exchange, GRPC_STATUS_OK, "");
}

static void send_event(struct exchange *exchange)
{
	Paddock__V1__ProcessStarted started = PADDOCK__V1__PROCESS_STARTED__INIT;
	Paddock__V1__ProcessEvent event = PADDOCK__V1__PROCESS_EVENT__INIT;

	started.process_id = 1;
	event.event_case = PADDOCK__V1__PROCESS_EVENT__EVENT_STARTED;
	event.started = &started;
	send_message(exchange, &event.base);
}

static void answer_silence(struct exchange *exchange)
{
	grpc_op op = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};
	int cancelled;

	op.data.recv_close_on_server.cancelled = &cancelled;
	send_event(exchange);
	run_op(exchange, &op, 1);
}

static void answer_write(struct exchange *exchange)
{
	Paddock__V1__FileInfo info = PADDOCK__V1__FILE_INFO__INIT;
	grpc_byte_buffer *message;

	while ((message = receive(exchange))) {
		info.size += grpc_byte_buffer_length(message);
		info.links++;
		grpc_byte_buffer_destroy(message);
	}
	send_message(exchange, &info.base);
	finish(exchange, GRPC_STATUS_OK, "");
}

static void answer(struct exchange *exchange, const char *method, const grpc_metadata_array *headers)
{
	grpc_op op = {.op = GRPC_OP_SEND_INITIAL_METADATA};

	run_op(exchange, &op, 1);
	if (strcmp(method, "Write") != 0)
		grpc_byte_buffer_destroy(receive(exchange));
	if (!strcmp(method, "Create")) {
		answer_create(exchange, headers);
	} else if (!strcmp(method, "Get")) {
		finish(exchange, GRPC_STATUS_NOT_FOUND, "sandbox not found");
	} else if (!strcmp(method, "List")) {
		send_bytes(exchange, "\xff\xff\xff\xff\xff", 5);
		finish(exchange, GRPC_STATUS_OK, "");
	} else if (!strcmp(method, "WatchEvents")) {
		answer_events(exchange);
	} else if (!strcmp(method, "Attach")) {
		answer_silence(exchange);
	} else if (!strcmp(method, "Start")) {
		send_event(exchange);
		finish(exchange, GRPC_STATUS_UNAVAILABLE, "going down");
	} else if (!strcmp(method, "Write")) {
		answer_write(exchange);
	} else if (!strcmp(method, "UnpackArchive")) {
		finish(exchange, GRPC_STATUS_RESOURCE_EXHAUSTED, "disk quota");
	} else {
		finish(exchange, GRPC_STATUS_UNIMPLEMENTED, "");
	}
}

/* One call after the other. */
static void *serve(void *arg)
{
	for (;;) {
		struct exchange exchange = {0};
		grpc_metadata_array headers;
		grpc_call_details details;
		grpc_event event;
		char *method;

		grpc_metadata_array_init(&headers);
		grpc_call_details_init(&details);
		exchange.cq = grpc_completion_queue_create_for_pluck(NULL);
		grpc_server_request_call(server, &exchange.call, &details, &headers, exchange.cq, queue, &exchange);
		event = grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
		if (event.type == GRPC_OP_COMPLETE && event.success) {
			method = grpc_slice_to_c_string(details.method);
			answer(&exchange, strrchr(method, '/') + 1, &headers);
			free(method);
			grpc_call_unref(exchange.call);
		}
		grpc_metadata_array_destroy(&headers);
		grpc_call_details_destroy(&details);
		grpc_completion_queue_shutdown(exchange.cq);
		grpc_completion_queue_destroy(exchange.cq);
		if (event.type != GRPC_OP_COMPLETE || !event.success)
			return NULL;
	}
}

void fake_server_start(const char *path)
{
	grpc_server_credentials *credentials;
	char address[128];

	grpc_init();
	snprintf(address, sizeof(address), "unix:%s", path);
	queue = grpc_completion_queue_create_for_next(NULL);
	server = grpc_server_create(NULL, NULL);
	grpc_server_register_completion_queue(server, queue, NULL);
	credentials = grpc_insecure_server_credentials_create();
	if (!grpc_server_add_http2_port(server, address, credentials))
		abort();
	grpc_server_credentials_release(credentials);
	grpc_server_start(server);
	if (pthread_create(&thread, NULL, serve, NULL) != 0)
		abort();
}

void fake_server_stop(void)
{
	static char tag;

	grpc_server_shutdown_and_notify(server, queue, &tag);
	grpc_server_cancel_all_calls(server);
	pthread_join(thread, NULL);
	grpc_completion_queue_shutdown(queue);
	while (grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL).type != GRPC_QUEUE_SHUTDOWN)
		;
	grpc_server_destroy(server);
	grpc_completion_queue_destroy(queue);
	grpc_shutdown();
}
