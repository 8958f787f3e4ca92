#include "private.h"

#include <errno.h>
#include <grpc/support/time.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/*
 * A streaming call. Three kinds of batches are in flight at most, one of each, told apart by their tags:
 * `recv` (the next message), `send` (the last message sent) and `status` (the end of the call). Each is
 * plucked by the thread that waits for it, so one thread may read while another one writes.
 *
 * A read that timed out stays in flight and is taken up by the next paddock_stream_next().
 */

struct paddock_stream {
	struct paddock_client *client;
	const ProtobufCMessageDescriptor *response;
	grpc_call *call;
	grpc_completion_queue *cq;
	grpc_metadata_array headers;
	grpc_metadata_array trailers;
	grpc_byte_buffer *incoming;
	struct scratch scratch;
	grpc_status_code status;
	grpc_slice details;
	atomic_bool cancelled;
	bool first_read; /* initial metadata has not been asked for */
	bool reading;    /* a recv batch is in flight */
	bool finished;   /* the status has been taken */
	char recv_tag, send_tag, status_tag;
};

static bool pluck(struct paddock_stream *stream, void *tag)
{
	grpc_event event = grpc_completion_queue_pluck(stream->cq, tag, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);

	return event.type == GRPC_OP_COMPLETE && event.success;
}

/* Send what opens the call and ask for its end. The send batch is waited for by the first send, or here. */
static bool stream_begin(struct paddock_stream *stream, grpc_byte_buffer *request)
{
	grpc_metadata metadata[1];
	grpc_op ops[3];
	size_t n = 1;

	memset(ops, 0, sizeof(ops));
	ops[0].op = GRPC_OP_RECV_STATUS_ON_CLIENT;
	ops[0].data.recv_status_on_client.trailing_metadata = &stream->trailers;
	ops[0].data.recv_status_on_client.status = &stream->status;
	ops[0].data.recv_status_on_client.status_details = &stream->details;
	if (grpc_call_start_batch(stream->call, ops, 1, &stream->status_tag, NULL) != GRPC_CALL_OK)
		return false;
	memset(ops, 0, sizeof(ops));
	ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
	ops[0].data.send_initial_metadata.count = client_metadata(stream->client, metadata);
	ops[0].data.send_initial_metadata.metadata = metadata;
	if (request) {
		ops[n].op = GRPC_OP_SEND_MESSAGE;
		ops[n++].data.send_message.send_message = request;
		ops[n++].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
	}
	if (grpc_call_start_batch(stream->call, ops, n, &stream->send_tag, NULL) != GRPC_CALL_OK)
		return false;
	/* A failure here is told by the status, which the first read brings. */
	pluck(stream, &stream->send_tag);
	return true;
}

struct paddock_stream *paddock_stream_open(struct paddock_client *client, const char *path, const void *request,
					   const ProtobufCMessageDescriptor *response, struct pdk_error *err)
{
	struct paddock_stream *stream = calloc(1, sizeof(*stream));
	grpc_byte_buffer *buffer = request ? message_pack(request) : NULL;
	bool begun;

	if (!stream || (request && !buffer)) {
		pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "the request is larger than %u bytes",
			 PADDOCK_MESSAGE_MAX);
		free(stream);
		return NULL;
	}
	stream->client = client;
	stream->response = response;
	stream->first_read = true;
	stream->details = grpc_empty_slice();
	stream->cq = grpc_completion_queue_create_for_pluck(NULL);
	stream->call = client_new_call(client, stream->cq, path, PADDOCK_NO_TIMEOUT);
	begun = stream_begin(stream, buffer);
	if (buffer)
		grpc_byte_buffer_destroy(buffer);
	if (!begun) {
		pdk_fail(err, -EIO, PDK_INTERNAL, "the call could not be started");
		paddock_stream_free(stream);
		return NULL;
	}
	return stream;
}

static int stream_send_op(struct paddock_stream *stream, const grpc_op *op, struct pdk_error *err)
{
	if (atomic_load(&stream->cancelled))
		return pdk_fail(err, -ECANCELED, PDK_CANCELLED, "cancelled");
	if (grpc_call_start_batch(stream->call, op, 1, &stream->send_tag, NULL) != GRPC_CALL_OK)
		return pdk_fail(err, -EPIPE, PDK_CANCELLED, "the call has ended");
	if (!pluck(stream, &stream->send_tag))
		return pdk_fail(err, -EPIPE, PDK_CANCELLED, "the call has ended");
	return 0;
}

int paddock_stream_send(struct paddock_stream *stream, const void *message, struct pdk_error *err)
{
	grpc_byte_buffer *buffer = message_pack(message);
	grpc_op op = {.op = GRPC_OP_SEND_MESSAGE};
	int rc;

	if (!buffer)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "the message is larger than %u bytes",
				PADDOCK_MESSAGE_MAX);
	op.data.send_message.send_message = buffer;
	rc = stream_send_op(stream, &op, err);
	grpc_byte_buffer_destroy(buffer);
	return rc;
}

int paddock_stream_close_send(struct paddock_stream *stream, struct pdk_error *err)
{
	grpc_op op = {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};

	return stream_send_op(stream, &op, err);
}

static int stream_end(struct paddock_stream *stream, struct pdk_error *err)
{
	if (!stream->finished) {
		pluck(stream, &stream->status_tag);
		stream->finished = true;
	}
	if (stream->status == GRPC_STATUS_OK)
		return 0;
	return client_fail(stream->client, stream->status, stream->details, err);
}

static bool stream_ask(struct paddock_stream *stream)
{
	grpc_op ops[2];
	size_t n = 0;

	memset(ops, 0, sizeof(ops));
	if (stream->first_read) {
		ops[n].op = GRPC_OP_RECV_INITIAL_METADATA;
		ops[n++].data.recv_initial_metadata.recv_initial_metadata = &stream->headers;
		stream->first_read = false;
	}
	ops[n].op = GRPC_OP_RECV_MESSAGE;
	ops[n++].data.recv_message.recv_message = &stream->incoming;
	stream->reading = grpc_call_start_batch(stream->call, ops, n, &stream->recv_tag, NULL) == GRPC_CALL_OK;
	return stream->reading;
}

int paddock_stream_next(struct paddock_stream *stream, int64_t timeout_ms, void *ret_message, struct pdk_error *err)
{
	ProtobufCMessage *message;
	grpc_event event;

	if (stream->finished)
		return stream_end(stream, err);
	if (!stream->reading && !stream_ask(stream))
		return stream_end(stream, err);
	event = grpc_completion_queue_pluck(stream->cq, &stream->recv_tag, client_deadline(timeout_ms), NULL);
	if (event.type == GRPC_QUEUE_TIMEOUT)
		return pdk_fail(err, -EAGAIN, PDK_DEADLINE_EXCEEDED, "nothing came in time");
	stream->reading = false;
	if (!event.success || !stream->incoming)
		return stream_end(stream, err);
	message = message_unpack(stream->incoming, stream->response, &stream->scratch);
	grpc_byte_buffer_destroy(stream->incoming);
	stream->incoming = NULL;
	if (!message)
		return pdk_fail(err, -EBADMSG, PDK_DATA_LOSS, "a message of the server cannot be read");
	*(ProtobufCMessage **)ret_message = message;
	return 1;
}

int paddock_stream_finish(struct paddock_stream *stream, void *ret_message, struct pdk_error *err)
{
	ProtobufCMessage *message = NULL, *extra = NULL;
	int rc;

	/* When the server has ended the call already, the status below says why. */
	paddock_stream_close_send(stream, NULL);
	rc = paddock_stream_next(stream, PADDOCK_NO_TIMEOUT, &message, err);
	if (rc < 0)
		return rc;
	if (rc == 0)
		return pdk_fail(err, -EBADMSG, PDK_DATA_LOSS, "the server ended the call without an answer");
	rc = paddock_stream_next(stream, PADDOCK_NO_TIMEOUT, &extra, err);
	if (rc != 0) {
		paddock_free(message);
		paddock_free(extra);
		return rc < 0 ? rc : pdk_fail(err, -EBADMSG, PDK_DATA_LOSS, "the server answered twice");
	}
	*(ProtobufCMessage **)ret_message = message;
	return 0;
}

void paddock_stream_cancel(struct paddock_stream *stream)
{
	atomic_store(&stream->cancelled, true);
	grpc_call_cancel(stream->call, NULL);
}

void paddock_stream_free(struct paddock_stream *stream)
{
	if (!stream)
		return;
	if (!stream->finished) {
		grpc_call_cancel(stream->call, NULL);
		if (stream->reading)
			pluck(stream, &stream->recv_tag);
		pluck(stream, &stream->status_tag);
	}
	if (stream->incoming)
		grpc_byte_buffer_destroy(stream->incoming);
	grpc_metadata_array_destroy(&stream->headers);
	grpc_metadata_array_destroy(&stream->trailers);
	grpc_slice_unref(stream->details);
	grpc_call_unref(stream->call);
	grpc_completion_queue_shutdown(stream->cq);
	while (grpc_completion_queue_pluck(stream->cq, NULL, gpr_inf_past(GPR_CLOCK_MONOTONIC), NULL).type ==
	       GRPC_OP_COMPLETE)
		;
	grpc_completion_queue_destroy(stream->cq);
	free(stream->scratch.data);
	free(stream);
}
