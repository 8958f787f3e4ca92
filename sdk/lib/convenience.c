#include "private.h"

#include "grpc/health/v1/health.pb-c.h"
#include "sandbox/base/cleanup.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int paddock_ping(struct paddock_client *client, int64_t timeout_ms, struct pdk_error *err)
{
	Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
	Grpc__Health__V1__HealthCheckResponse *reply = NULL;
	int rc = paddock_call(client, "/grpc.health.v1.Health/Check", &request,
			      &grpc__health__v1__health_check_response__descriptor, timeout_ms, &reply, err);

	if (rc < 0)
		return rc;
	if (reply->status != GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING)
		rc = pdk_fail(err, -EAGAIN, PDK_UNAVAILABLE, "the server is not serving");
	paddock_free(reply);
	return rc;
}

/* Bytes that grow up to a maximum; what is beyond is counted and dropped. */
struct sink {
	char *data;
	size_t length;
	size_t room;
	size_t max;
};

static int sink_add(struct sink *sink, const void *data, size_t length, uint64_t *dropped)
{
	size_t fits = sink->max - sink->length;
	size_t room = sink->room;
	char *grown;

	if (length > fits) {
		*dropped += length - fits;
		length = fits;
	}
	while (room < sink->length + length + 1)
		room = room ? room * 2 : 4096;
	if (room != sink->room) {
		grown = realloc(sink->data, room);
		if (!grown)
			return -ENOMEM;
		sink->data = grown;
		sink->room = room;
	}
	if (length)
		memcpy(sink->data + sink->length, data, length);
	sink->length += length;
	sink->data[sink->length] = '\0';
	return 0;
}

static int run_event(const Paddock__V1__ProcessEvent *event, struct sink sinks[2], struct paddock_result *result)
{
	switch (event->event_case) {
	case PADDOCK__V1__PROCESS_EVENT__EVENT_STARTED:
		result->process_id = event->started->process_id;
		return 0;
	case PADDOCK__V1__PROCESS_EVENT__EVENT_OUTPUT:
		return sink_add(&sinks[event->output->stream == PADDOCK__V1__STREAM__STREAM_STDERR],
				event->output->data.data, event->output->data.len, &result->dropped_bytes);
	case PADDOCK__V1__PROCESS_EVENT__EVENT_GAP:
		result->dropped_bytes += event->gap->dropped_bytes;
		return 0;
	case PADDOCK__V1__PROCESS_EVENT__EVENT_EXITED:
		result->exit_code = event->exited->exit_code;
		result->signal = event->exited->signal;
		result->timed_out = event->exited->timed_out;
		return 1;
	case PADDOCK__V1__PROCESS_EVENT__EVENT_KEEPALIVE:
	case PADDOCK__V1__PROCESS_EVENT__EVENT__NOT_SET:
	case _PADDOCK__V1__PROCESS_EVENT__EVENT__CASE_IS_INT_SIZE:
		return 0;
	}
	return 0;
}

int paddock_run(struct paddock_client *client, const Paddock__V1__StartProcessRequest *request, size_t max_output,
		struct paddock_result *ret_result, struct pdk_error *err)
{
	struct paddock_result result = {0};
	struct sink sinks[2] = {{.max = max_output}, {.max = max_output}};
	struct paddock_stream *stream = paddock_process_start(client, request, err);
	Paddock__V1__ProcessEvent *event = NULL;
	uint64_t none = 0;
	int rc, done = 0;

	if (!stream)
		return -EIO;
	while ((rc = paddock_stream_next(stream, PADDOCK_NO_TIMEOUT, &event, err)) > 0) {
		int step = run_event(event, sinks, &result);

		paddock_free(event);
		if (step < 0) {
			rc = pdk_fail_errno(err, step, "output");
			break;
		}
		done |= step;
	}
	paddock_stream_free(stream);
	if (rc == 0 && !done)
		rc = pdk_fail(err, -EBADMSG, PDK_DATA_LOSS, "the stream ended before the process did");
	if (rc == 0 && (sink_add(&sinks[0], NULL, 0, &none) < 0 || sink_add(&sinks[1], NULL, 0, &none) < 0))
		rc = pdk_fail_errno(err, -ENOMEM, "output");
	result.out = sinks[0].data;
	result.out_length = sinks[0].length;
	result.err = sinks[1].data;
	result.err_length = sinks[1].length;
	if (rc < 0)
		paddock_result_clear(&result);
	else
		*ret_result = result;
	return rc;
}

void paddock_result_clear(struct paddock_result *result)
{
	free(result->out);
	free(result->err);
	*result = (struct paddock_result){0};
}

static ProtobufCBinaryData path_bytes(const char *path)
{
	return (ProtobufCBinaryData){.len = strlen(path), .data = (uint8_t *)path};
}

int paddock_file_get(struct paddock_client *client, const char *sandbox_id, const char *path, const char *user,
		     size_t max_length, void **ret_data, size_t *ret_length, struct pdk_error *err)
{
	Paddock__V1__ReadFileRequest request = PADDOCK__V1__READ_FILE_REQUEST__INIT;
	struct sink sink = {.max = max_length};
	Paddock__V1__FileChunk *chunk = NULL;
	struct paddock_stream *stream;
	uint64_t dropped = 0;
	int rc;

	request.sandbox_id = (char *)sandbox_id;
	request.path = path_bytes(path);
	request.user = (char *)(user ? user : "");
	stream = paddock_file_read(client, &request, err);
	if (!stream)
		return -EIO;
	while ((rc = paddock_stream_next(stream, PADDOCK_NO_TIMEOUT, &chunk, err)) > 0) {
		rc = sink_add(&sink, chunk->data.data, chunk->data.len, &dropped);
		paddock_free(chunk);
		if (rc < 0 || dropped)
			break;
	}
	paddock_stream_free(stream);
	if (dropped)
		rc = pdk_fail(err, -EFBIG, PDK_RESOURCE_EXHAUSTED, "the file is larger than %zu bytes", max_length);
	if (rc == 0 && sink_add(&sink, NULL, 0, &dropped) < 0)
		rc = pdk_fail_errno(err, -ENOMEM, "file");
	if (rc < 0) {
		free(sink.data);
		return rc;
	}
	*ret_data = sink.data;
	*ret_length = sink.length;
	return 0;
}

static int send_data(struct paddock_stream *stream, const uint8_t *data, size_t length, struct pdk_error *err)
{
	Paddock__V1__WriteFileRequest message = PADDOCK__V1__WRITE_FILE_REQUEST__INIT;
	int rc = 0;

	message.message_case = PADDOCK__V1__WRITE_FILE_REQUEST__MESSAGE_DATA;
	while (length > 0 && rc == 0) {
		size_t part = length < PADDOCK_CHUNK_MAX ? length : PADDOCK_CHUNK_MAX;

		message.data = (ProtobufCBinaryData){.len = part, .data = (uint8_t *)data};
		rc = paddock_stream_send(stream, &message, err);
		data += part;
		length -= part;
	}
	return rc;
}

int paddock_file_put(struct paddock_client *client, const char *sandbox_id, const char *path, const char *user,
		     const void *data, size_t length, uint32_t mode, struct pdk_error *err)
{
	Paddock__V1__WriteFileHeader header = PADDOCK__V1__WRITE_FILE_HEADER__INIT;
	Paddock__V1__WriteFileRequest first = PADDOCK__V1__WRITE_FILE_REQUEST__INIT;
	struct paddock_stream *stream = paddock_file_write(client, err);
	Paddock__V1__FileInfo *info = NULL;
	int rc;

	if (!stream)
		return -EIO;
	header.sandbox_id = (char *)sandbox_id;
	header.path = path_bytes(path);
	header.user = (char *)(user ? user : "");
	header.mode = mode;
	first.message_case = PADDOCK__V1__WRITE_FILE_REQUEST__MESSAGE_HEADER;
	first.header = &header;
	/* -EPIPE: the server has refused already; the reason comes with the end of the call. */
	rc = paddock_stream_send(stream, &first, err);
	if (rc == 0)
		rc = send_data(stream, data, length, err);
	if (rc == 0 || rc == -EPIPE)
		rc = paddock_stream_finish(stream, &info, err);
	paddock_stream_free(stream);
	paddock_free(info);
	return rc;
}
