#include "file_internal.h"
#include "files.h"
#include "loop.h"
#include "pipe_io.h"
#include "sandbox/base/cleanup.h"
#include "validate.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

/*
 * Read and PackArchive: init opens the file, or starts the packer, and passes a pipe. The pipe is read only when the
 * client's stream takes a message, so a slow client holds init back and nothing piles up here. The call ends when the
 * pipe has ended and init has said how.
 */

#define READ_SIZE (256u << 10)
#define DATA_FIELD 1
#define EXCLUDE_MAX 64u
#define PATTERN_MAX 255u

struct reading {
	struct rpc_call *call;
	struct guest *guest; /* valid while stream is not 0 */
	uint32_t stream;
	int fd;
	struct loop_watch *watch;
	uint8_t *head; /* FileChunk.info, packed, until the first message has left */
	size_t head_length;
	bool at_end;   /* of the pipe */
	bool answered; /* init said that all went well */
};

static void reading_free(struct reading *reading)
{
	loop_watch_remove(reading->watch);
	if (reading->fd >= 0)
		close(reading->fd);
	if (reading->stream)
		guest_cancel(reading->guest, reading->stream);
	free(reading->head);
	free(reading);
}

static void reading_fail(struct reading *reading, const struct pdk_error *err)
{
	struct rpc_call *call = reading->call;

	reading_free(reading);
	question_fail(call, err);
}

static void reading_finish(struct reading *reading)
{
	struct rpc_call *call = reading->call;

	reading_free(reading);
	rpc_finish(call, NULL);
}

static void send_data(struct reading *reading, uint8_t *data, size_t length)
{
	rpc_send_bytes(reading->call, reading->head, reading->head_length, DATA_FIELD, data, length, free, data);
	free(STEAL_PTR(reading->head));
	reading->head_length = 0;
}

static void reading_pump(struct reading *reading);

static void reading_on_ready(uint32_t events, void *arg)
{
	struct reading *reading = arg;

	loop_watch_remove(STEAL_PTR(reading->watch));
	reading_pump(reading);
}

/* Read one piece and send it. False: nothing was sent. */
static bool send_piece(struct reading *reading)
{
	_cleanup_free_ uint8_t *data = malloc(READ_SIZE);
	ssize_t n = data ? pipe_read(reading->fd, data, READ_SIZE) : -EAGAIN;

	if (n > 0) {
		send_data(reading, STEAL_PTR(data), (size_t)n);
		return true;
	}
	if (n == -EAGAIN)
		reading->watch = loop_watch_add(reading->fd, EPOLLIN, reading_on_ready, reading);
	else
		reading->at_end = true;
	return false;
}

/* Do what can be done now. May end the call and free `reading`. */
static void reading_pump(struct reading *reading)
{
	if (reading->fd < 0 || reading->watch || !rpc_can_send(reading->call))
		return;
	if (!reading->at_end && send_piece(reading))
		return;
	if (!reading->at_end || !reading->answered)
		return;
	/* An empty file: the information about it still has to be told. */
	if (reading->head)
		send_data(reading, NULL, 0);
	reading_finish(reading);
}

static void reading_on_sent(struct rpc_call *call)
{
	reading_pump(rpc_user(call));
}

static void reading_on_cancel(struct rpc_call *call, const struct pdk_error *why)
{
	struct reading *reading = rpc_user(call);

	reading_fail(reading, why);
}

/* Keep FileChunk.info for the first message. */
static int keep_info(struct reading *reading, const Paddock__Internal__GuestFile *file)
{
	Paddock__V1__FileChunk chunk = PADDOCK__V1__FILE_CHUNK__INIT;
	Paddock__V1__FileInfo info;

	if (file_fill_info(reading->call, file, &info) < 0)
		return -ENOMEM;
	chunk.info = &info;
	reading->head_length = paddock__v1__file_chunk__get_packed_size(&chunk);
	reading->head = malloc(reading->head_length);
	if (!reading->head)
		return -ENOMEM;
	paddock__v1__file_chunk__pack(&chunk, reading->head);
	return 0;
}

static void on_opened(struct reading *reading, const Paddock__Internal__GuestReply *reply, int *fds)
{
	struct pdk_error err;

	reading->fd = STEAL_FD(fds[0]);
	pipe_grow(reading->fd);
	if (reply->result_case == PADDOCK__INTERNAL__GUEST_REPLY__RESULT_FILE && keep_info(reading, reply->file) < 0) {
		pdk_fail(&err, -ENOMEM, PDK_UNAVAILABLE, "the server is out of memory");
		reading_fail(reading, &err);
		return;
	}
	reading_pump(reading);
}

static void reading_on_reply(const Paddock__Internal__GuestReply *reply, int *fds, unsigned int n_fds,
			     const struct pdk_error *err, void *arg)
{
	struct reading *reading = arg;

	if (!reply) {
		reading->stream = 0;
		/* When all is said, what is left in the pipe still has to leave. */
		if (!reading->answered || err->code)
			reading_fail(reading, err);
	} else if (err->code) {
		reading_fail(reading, err);
	} else if (reading->fd < 0) {
		on_opened(reading, reply, fds);
	} else {
		reading->answered = true;
		reading_pump(reading);
	}
}

static const struct rpc_events reading_events = {.on_sent = reading_on_sent, .on_cancel = reading_on_cancel};

static void start_reading(struct rpc_call *call, struct sandbox *sandbox,
			  const Paddock__Internal__GuestRequest *request)
{
	struct reading *reading = calloc(1, sizeof(*reading));
	int64_t stream = -ENOMEM;
	struct pdk_error err;

	if (reading) {
		*reading = (struct reading){.call = call, .guest = sandbox->guest, .fd = -1};
		stream = guest_call(sandbox->guest, request, 0, reading_on_reply, reading);
	}
	if (stream < 0) {
		free(reading);
		file_fail_ask(stream, &err);
		rpc_fail(call, &err);
		return;
	}
	reading->stream = (uint32_t)stream;
	rpc_set_events(call, &reading_events, reading);
}

void files_read(struct rpc_call *call, const ProtobufCMessage *message)
{
	const Paddock__V1__ReadFileRequest *request = (const Paddock__V1__ReadFileRequest *)message;
	Paddock__Internal__GuestRead read_request = PADDOCK__INTERNAL__GUEST_READ__INIT;
	Paddock__Internal__GuestRequest question = PADDOCK__INTERNAL__GUEST_REQUEST__INIT;
	struct sandbox *sandbox;
	struct pdk_error err;

	if (file_begin(call, request->sandbox_id, &request->path, request->user, &sandbox, &err) < 0 ||
	    validate_range("offset", request->offset, 0, INT64_MAX, &err) < 0 ||
	    validate_range("length", request->length, 0, INT64_MAX, &err) < 0) {
		rpc_fail(call, &err);
		return;
	}
	read_request.path = request->path;
	read_request.user = file_user(sandbox, request->user);
	read_request.offset = request->offset;
	read_request.length = request->length;
	question.op_case = PADDOCK__INTERNAL__GUEST_REQUEST__OP_READ;
	question.read = &read_request;
	start_reading(call, sandbox, &question);
}

static int check_pack(const Paddock__V1__PackArchiveRequest *request, struct pdk_error *err)
{
	int rc = validate_count("exclude", request->n_exclude, EXCLUDE_MAX, err);

	for (size_t i = 0; i < request->n_exclude && rc == 0; i++) {
		const ProtobufCBinaryData *pattern = &request->exclude[i];

		if (pattern->len == 0 || pattern->len > PATTERN_MAX || memchr(pattern->data, 0, pattern->len))
			rc = pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT,
				      "exclude: a pattern must have 1 to 255 bytes, no NUL");
	}
	if (rc == 0 && request->compression[0] && strcmp(request->compression, "gzip") != 0 &&
	    strcmp(request->compression, "zstd") != 0)
		rc = pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "compression: must be empty, gzip or zstd");
	return rc;
}

void files_pack_archive(struct rpc_call *call, const ProtobufCMessage *message)
{
	const Paddock__V1__PackArchiveRequest *request = (const Paddock__V1__PackArchiveRequest *)message;
	Paddock__Internal__GuestPack pack = PADDOCK__INTERNAL__GUEST_PACK__INIT;
	Paddock__Internal__GuestRequest question = PADDOCK__INTERNAL__GUEST_REQUEST__INIT;
	struct sandbox *sandbox;
	struct pdk_error err;

	if (file_begin(call, request->sandbox_id, &request->path, request->user, &sandbox, &err) < 0 ||
	    check_pack(request, &err) < 0) {
		rpc_fail(call, &err);
		return;
	}
	pack.path = request->path;
	pack.user = file_user(sandbox, request->user);
	pack.exclude = request->exclude;
	pack.n_exclude = request->n_exclude;
	pack.compression = request->compression;
	question.op_case = PADDOCK__INTERNAL__GUEST_REQUEST__OP_PACK;
	question.pack = &pack;
	start_reading(call, sandbox, &question);
}
