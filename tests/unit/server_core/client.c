#include "client.h"

#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc_security.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sandbox/base/cleanup.h"

void client_open_with(struct client *client, const char *address, const char *key,
		      grpc_channel_credentials *credentials)
{
	grpc_init();
	client->channel = grpc_channel_create(address, credentials, NULL);
	client->queue = grpc_completion_queue_create_for_pluck(NULL);
	client->key = key;
	grpc_channel_credentials_release(credentials);
}

void client_open(struct client *client, const char *address, const char *key)
{
	client_open_with(client, address, key, grpc_insecure_credentials_create());
}

void client_close(struct client *client)
{
	grpc_channel_destroy(client->channel);
	grpc_completion_queue_shutdown(client->queue);
	grpc_completion_queue_destroy(client->queue);
	grpc_shutdown();
}

static gpr_timespec after(int ms)
{
	if (!ms)
		return gpr_inf_future(GPR_CLOCK_REALTIME);
	return gpr_time_add(gpr_now(GPR_CLOCK_REALTIME), gpr_time_from_millis(ms, GPR_TIMESPAN));
}

static bool batch(struct client_call *call, grpc_op *ops, size_t n_ops)
{
	grpc_event event;

	if (grpc_call_start_batch(call->grpc, ops, n_ops, ops, NULL) != GRPC_CALL_OK)
		abort();
	event = grpc_completion_queue_pluck(call->client->queue, ops, after(60000), NULL);
	if (event.type != GRPC_OP_COMPLETE) {
		fprintf(stderr, "client: nothing came for a minute\n");
		abort();
	}
	return event.success;
}

static void make_call(struct client_call *call, struct client *client, const char *path, int timeout_ms)
{
	*call = (struct client_call){.client = client};
	call->grpc = grpc_channel_create_call(client->channel, NULL, GRPC_PROPAGATE_DEFAULTS, client->queue,
					      grpc_slice_from_static_string(path), NULL, after(timeout_ms), NULL);
	grpc_metadata_array_init(&call->initial);
	grpc_metadata_array_init(&call->trailing);
}

static size_t key_metadata(const struct client *client, grpc_metadata *metadata)
{
	if (!client->key)
		return 0;
	*metadata = (grpc_metadata){.key = grpc_slice_from_static_string("authorization"),
				    .value = grpc_slice_from_static_string(client->key)};
	return 1;
}

void client_begin(struct client_call *call, struct client *client, const char *path, int timeout_ms)
{
	grpc_op op = {.op = GRPC_OP_SEND_INITIAL_METADATA};
	grpc_metadata metadata;

	make_call(call, client, path, timeout_ms);
	op.data.send_initial_metadata.count = key_metadata(client, &metadata);
	op.data.send_initial_metadata.metadata = &metadata;
	batch(call, &op, 1);
}

static grpc_byte_buffer *buffer_of(const void *bytes, size_t length)
{
	grpc_slice slice = grpc_slice_from_copied_buffer(bytes, length);
	grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);

	grpc_slice_unref(slice);
	return buffer;
}

bool client_send(struct client_call *call, const void *bytes, size_t length)
{
	grpc_op op = {.op = GRPC_OP_SEND_MESSAGE};
	bool ok;

	op.data.send_message.send_message = buffer_of(bytes, length);
	ok = batch(call, &op, 1);
	grpc_byte_buffer_destroy(op.data.send_message.send_message);
	return ok;
}

bool client_send_message(struct client_call *call, const ProtobufCMessage *message)
{
	size_t length = protobuf_c_message_get_packed_size(message);
	_cleanup_free_ uint8_t *bytes = malloc(length + 1);

	protobuf_c_message_pack(message, bytes);
	return client_send(call, bytes, length);
}

void client_half_close(struct client_call *call)
{
	grpc_op op = {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};

	batch(call, &op, 1);
}

static uint8_t *bytes_of(grpc_byte_buffer *buffer, size_t *ret_length)
{
	grpc_byte_buffer_reader reader;
	grpc_slice all;
	uint8_t *copy;

	if (!buffer)
		return NULL;
	grpc_byte_buffer_reader_init(&reader, buffer);
	all = grpc_byte_buffer_reader_readall(&reader);
	grpc_byte_buffer_reader_destroy(&reader);
	grpc_byte_buffer_destroy(buffer);
	*ret_length = GRPC_SLICE_LENGTH(all);
	copy = malloc(*ret_length + 1);
	memcpy(copy, GRPC_SLICE_START_PTR(all), *ret_length);
	copy[*ret_length] = 0;
	grpc_slice_unref(all);
	return copy;
}

static grpc_byte_buffer *receive(struct client_call *call)
{
	grpc_byte_buffer *buffer = NULL;
	grpc_op ops[2] = {{.op = GRPC_OP_RECV_MESSAGE}, {.op = GRPC_OP_RECV_INITIAL_METADATA}};

	ops[0].data.recv_message.recv_message = &buffer;
	ops[1].data.recv_initial_metadata.recv_initial_metadata = &call->initial;
	batch(call, ops, call->headers_asked ? 1 : 2);
	call->headers_asked = true;
	return buffer;
}

uint8_t *client_receive(struct client_call *call, size_t *ret_length)
{
	return bytes_of(receive(call), ret_length);
}

int64_t client_skip(struct client_call *call)
{
	grpc_byte_buffer *buffer = receive(call);
	int64_t length = buffer ? (int64_t)grpc_byte_buffer_length(buffer) : -1;

	if (buffer)
		grpc_byte_buffer_destroy(buffer);
	return length;
}

static void status_op(struct client_call *call, grpc_op *op)
{
	*op = (grpc_op){.op = GRPC_OP_RECV_STATUS_ON_CLIENT};
	op->data.recv_status_on_client.trailing_metadata = &call->trailing;
	op->data.recv_status_on_client.status = &call->status;
	op->data.recv_status_on_client.status_details = &call->details;
}

static int settle(struct client_call *call)
{
	snprintf(call->text, sizeof(call->text), "%.*s", (int)GRPC_SLICE_LENGTH(call->details),
		 (const char *)GRPC_SLICE_START_PTR(call->details));
	grpc_slice_unref(call->details);
	grpc_metadata_array_destroy(&call->initial);
	grpc_metadata_array_destroy(&call->trailing);
	grpc_call_unref(call->grpc);
	return (int)call->status;
}

int client_finish(struct client_call *call)
{
	grpc_op ops[2] = {{.op = GRPC_OP_RECV_STATUS_ON_CLIENT}, {.op = GRPC_OP_RECV_INITIAL_METADATA}};

	status_op(call, &ops[0]);
	ops[1].data.recv_initial_metadata.recv_initial_metadata = &call->initial;
	batch(call, ops, call->headers_asked ? 1 : 2);
	return settle(call);
}

int client_unary(struct client *client, const char *path, int timeout_ms, const void *request, size_t length,
		 uint8_t **ret_reply, size_t *ret_length, char ret_text[512])
{
	grpc_op ops[6] = {{.op = GRPC_OP_SEND_INITIAL_METADATA},
			  {.op = GRPC_OP_SEND_MESSAGE},
			  {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
			  {.op = GRPC_OP_RECV_INITIAL_METADATA},
			  {.op = GRPC_OP_RECV_MESSAGE}};
	grpc_byte_buffer *message = buffer_of(request, length), *reply = NULL;
	struct client_call call;
	grpc_metadata metadata;
	int status;

	make_call(&call, client, path, timeout_ms);
	ops[0].data.send_initial_metadata.count = key_metadata(client, &metadata);
	ops[0].data.send_initial_metadata.metadata = &metadata;
	ops[1].data.send_message.send_message = message;
	ops[3].data.recv_initial_metadata.recv_initial_metadata = &call.initial;
	ops[4].data.recv_message.recv_message = &reply;
	status_op(&call, &ops[5]);
	batch(&call, ops, 6);
	grpc_byte_buffer_destroy(message);
	status = settle(&call);
	if (ret_text)
		memcpy(ret_text, call.text, sizeof(call.text));
	if (ret_reply)
		*ret_reply = bytes_of(reply, ret_length);
	else if (reply)
		grpc_byte_buffer_destroy(reply);
	return status;
}
