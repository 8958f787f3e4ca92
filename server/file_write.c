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
 * Write and UnpackArchive: the first message of the client is the header, which goes to init; init passes the
 * write end of a pipe, and every further message goes into it. The next message is read when the pipe has taken the
 * last one. When the client has sent everything the pipe is closed and init is told to commit; a call that
 * breaks before tells it to abort. init's second reply is the result.
 *
 * States: the header is awaited (stream 0) -> the pipe is awaited (fd -1) -> data flows -> committed.
 */

#define MAX_BYTES_DEFAULT (16ull << 30)
#define MAX_ENTRIES_DEFAULT 1000000ull
#define MAX_BYTES_MAX (1ull << 40)
#define MAX_ENTRIES_MAX 10000000ull
#define METADATA_MAX 100u
#define METADATA_NAME_MAX 246u /* "user.e2b." comes before it, and 255 is all that an attribute may have */
#define METADATA_BYTES_MAX 4096u
#define METADATA_NAME_CHARACTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~"

struct writing {
	struct rpc_call *call;
	struct guest *guest; /* valid while stream is not 0 */
	uint32_t stream;
	int fd;
	struct loop_watch *watch;
	uint8_t *left; /* what the pipe did not take of the last message */
	size_t left_length;
	size_t left_done;
	bool unpack;
	bool metadata;    /* the file is to have some */
	bool opened;      /* the pipe has come */
	bool half_closed; /* the client has sent everything */
	bool committed;
};

static int tell_init(struct writing *writing, bool commit)
{
	Paddock__Internal__GuestForget forget = PADDOCK__INTERNAL__GUEST_FORGET__INIT;
	Paddock__Internal__GuestRequest request = PADDOCK__INTERNAL__GUEST_REQUEST__INIT;

	forget.handle = commit;
	request.op_case = PADDOCK__INTERNAL__GUEST_REQUEST__OP_FORGET;
	request.forget = &forget;
	return guest_continue(writing->guest, writing->stream, &request);
}

static void close_pipe(struct writing *writing)
{
	loop_watch_remove(STEAL_PTR(writing->watch));
	if (writing->fd >= 0)
		close(STEAL_FD(writing->fd));
	free(STEAL_PTR(writing->left));
}

static void writing_free(struct writing *writing)
{
	/* The abort must be there before the end of the pipe: init may take that for the end of the data. */
	if (writing->stream && !writing->committed)
		tell_init(writing, false);
	close_pipe(writing);
	if (writing->stream)
		guest_cancel(writing->guest, writing->stream);
	free(writing);
}

static void writing_fail(struct writing *writing, const struct pdk_error *err)
{
	struct rpc_call *call = writing->call;

	writing_free(writing);
	question_fail(call, err);
}

static void fail_field(struct writing *writing, const char *text)
{
	struct pdk_error err;

	pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "%s", text);
	writing_fail(writing, &err);
}

/* Everything is in the pipe: go on with the next message, or commit. */
static void writing_next(struct writing *writing)
{
	struct pdk_error err;

	if (!writing->half_closed) {
		rpc_read(writing->call);
		return;
	}
	if (writing->committed)
		return;
	close_pipe(writing);
	if (tell_init(writing, true) < 0) {
		pdk_fail(&err, -ENOTCONN, PDK_UNAVAILABLE, "the sandbox does not answer");
		writing_fail(writing, &err);
		return;
	}
	writing->committed = true;
}

/* Bytes that the pipe took. init has closed its end: the reply says why, the rest of the data is dropped. */
static size_t put(struct writing *writing, const uint8_t *data, size_t length)
{
	size_t done = 0;

	while (done < length && writing->fd >= 0) {
		ssize_t n = pipe_write(writing->fd, data + done, length - done);

		if (n == -EAGAIN)
			return done;
		if (n < 0) {
			loop_watch_remove(STEAL_PTR(writing->watch));
			close(STEAL_FD(writing->fd));
			return length;
		}
		done += (size_t)n;
	}
	return length;
}

static void writing_on_writable(uint32_t events, void *arg)
{
	struct writing *writing = arg;

	writing->left_done +=
		put(writing, writing->left + writing->left_done, writing->left_length - writing->left_done);
	if (writing->left_done < writing->left_length)
		return;
	loop_watch_remove(STEAL_PTR(writing->watch));
	free(STEAL_PTR(writing->left));
	writing_next(writing);
}

static void take_data(struct writing *writing, const ProtobufCBinaryData *data)
{
	size_t done;
	struct pdk_error err;

	if (data->len > FILE_CHUNK_MAX) {
		fail_field(writing, "data: at most 1 MiB");
		return;
	}
	done = put(writing, data->data, data->len);
	if (done == data->len) {
		writing_next(writing);
		return;
	}
	writing->left_length = data->len - done;
	writing->left_done = 0;
	writing->left = malloc(writing->left_length);
	if (writing->left)
		writing->watch = loop_watch_add(writing->fd, EPOLLOUT, writing_on_writable, writing);
	if (!writing->watch) {
		pdk_fail(&err, -ENOMEM, PDK_UNAVAILABLE, "the server is out of memory");
		writing_fail(writing, &err);
		return;
	}
	memcpy(writing->left, data->data + done, writing->left_length);
}

static void answer(struct writing *writing, const Paddock__Internal__GuestReply *reply)
{
	Paddock__V1__UnpackArchiveResponse unpacked = PADDOCK__V1__UNPACK_ARCHIVE_RESPONSE__INIT;
	struct rpc_call *call = writing->call;
	struct pdk_error err;

	if (writing->unpack) {
		unpacked.entries = reply->count->entries;
		unpacked.bytes = reply->count->bytes;
		writing_free(writing);
		rpc_finish(call, &unpacked.base);
		return;
	}
	if (writing->metadata && !reply->file->n_metadata) {
		pdk_fail(&err, -ENOSYS, PDK_UNIMPLEMENTED,
			 "metadata: the sandbox was made by an older server and keeps none; the file is written");
		writing_fail(writing, &err);
		return;
	}
	writing_free(writing);
	file_finish(call, reply->file);
}

static void writing_on_reply(const Paddock__Internal__GuestReply *reply, int *fds, unsigned int n_fds,
			     const struct pdk_error *err, void *arg)
{
	struct writing *writing = arg;
	struct pdk_error early;

	if (!reply) {
		writing->stream = 0;
		writing_fail(writing, err);
	} else if (err->code) {
		writing->committed = true; /* init has given up already */
		writing_fail(writing, err);
	} else if (!writing->opened) {
		writing->opened = true;
		writing->fd = STEAL_FD(fds[0]);
		pipe_grow(writing->fd);
		writing_next(writing);
	} else if (!writing->committed) {
		pdk_fail(&early, -EPROTO, PDK_UNAVAILABLE, "the sandbox answered before it had all data");
		writing_fail(writing, &early);
	} else {
		answer(writing, reply);
	}
}

/* The header */

static int ask(struct writing *writing, struct sandbox *sandbox, const Paddock__Internal__GuestRequest *request,
	       struct pdk_error *err)
{
	int64_t stream = guest_call(sandbox->guest, request, 0, writing_on_reply, writing);

	if (stream < 0)
		return file_fail_ask(stream, err);
	writing->guest = sandbox->guest;
	writing->stream = (uint32_t)stream;
	return 0;
}

static int check_write(const Paddock__V1__WriteFileHeader *header, struct pdk_error *err)
{
	int rc = validate_range("mode", header->mode, 0, 0777, err);

	if (rc == 0)
		rc = validate_range("offset", header->offset, 0, INT64_MAX, err);
	if (rc == 0 && header->offset && !header->in_place)
		rc = pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "offset: only with in_place");
	if (rc == 0 && header->append && !header->in_place)
		rc = pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "append: only with in_place");
	if (rc == 0 && header->append && header->offset)
		rc = pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "offset: must be 0 with append");
	return rc;
}

static int check_metadata(const Paddock__V1__WriteFileHeader *header, struct pdk_error *err)
{
	const struct validate_entry *const *entries = (const struct validate_entry *const *)header->metadata;
	int rc = validate_map("metadata", entries, header->n_metadata, METADATA_MAX, METADATA_NAME_MAX,
			      METADATA_BYTES_MAX, err);
	size_t bytes = 0;

	if (rc == 0 && header->n_metadata && header->in_place)
		rc = pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "metadata: not with in_place");
	for (size_t i = 0; rc == 0 && i < header->n_metadata; i++) {
		const char *name = header->metadata[i]->key, *value = header->metadata[i]->value;

		bytes += strlen(name) + strlen(value);
		if (strspn(name, METADATA_NAME_CHARACTERS) != strlen(name))
			rc = pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT,
				      "metadata: a name has characters that it may not");
		for (const char *c = value; rc == 0 && *c; c++) {
			if (*c < ' ' || *c > '~')
				rc = pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT,
					      "metadata: values are printable ASCII");
		}
	}
	if (rc == 0 && bytes > METADATA_BYTES_MAX)
		rc = pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "metadata: more than %u bytes", METADATA_BYTES_MAX);
	return rc;
}

static int fill_metadata(struct writing *writing, const Paddock__V1__WriteFileHeader *header,
			 Paddock__Internal__GuestWrite *ret, struct pdk_error *err)
{
	size_t n = header->n_metadata;
	Paddock__Internal__GuestMetadata *entries = rpc_alloc(writing->call, (n + 1) * sizeof(*entries));

	ret->metadata = rpc_alloc(writing->call, (n + 1) * sizeof(*ret->metadata));
	if (!entries || !ret->metadata)
		return pdk_fail(err, -ENOMEM, PDK_UNAVAILABLE, "the server is out of memory");
	for (size_t i = 0; i < n; i++) {
		const Paddock__V1__WriteFileHeader__MetadataEntry *from = header->metadata[i];

		paddock__internal__guest_metadata__init(&entries[i]);
		entries[i].name = (ProtobufCBinaryData){.data = (uint8_t *)from->key, .len = strlen(from->key)};
		entries[i].value = (ProtobufCBinaryData){.data = (uint8_t *)from->value, .len = strlen(from->value)};
		ret->metadata[i] = &entries[i];
	}
	ret->n_metadata = n;
	writing->metadata = n > 0;
	return 0;
}

static int begin_write(struct writing *writing, const Paddock__V1__WriteFileHeader *header, struct pdk_error *err)
{
	Paddock__Internal__GuestWrite write_request = PADDOCK__INTERNAL__GUEST_WRITE__INIT;
	Paddock__Internal__GuestRequest request = PADDOCK__INTERNAL__GUEST_REQUEST__INIT;
	struct sandbox *sandbox;
	int rc = file_begin(writing->call, header->sandbox_id, &header->path, header->user, &sandbox, err);

	if (rc == 0)
		rc = check_write(header, err);
	if (rc == 0)
		rc = check_metadata(header, err);
	if (rc == 0)
		rc = fill_metadata(writing, header, &write_request, err);
	if (rc < 0)
		return rc;
	write_request.path = header->path;
	write_request.user = file_user(sandbox, header->user);
	write_request.mode = header->mode ? header->mode : 0644;
	write_request.in_place = header->in_place;
	write_request.offset = header->offset;
	write_request.append = header->append;
	write_request.make_parents = header->make_parents;
	write_request.exclusive = header->exclusive;
	request.op_case = PADDOCK__INTERNAL__GUEST_REQUEST__OP_WRITE;
	request.write = &write_request;
	return ask(writing, sandbox, &request, err);
}

static int begin_unpack(struct writing *writing, const Paddock__V1__UnpackArchiveHeader *header, struct pdk_error *err)
{
	Paddock__Internal__GuestUnpack unpack = PADDOCK__INTERNAL__GUEST_UNPACK__INIT;
	Paddock__Internal__GuestRequest request = PADDOCK__INTERNAL__GUEST_REQUEST__INIT;
	struct sandbox *sandbox;
	int rc = file_begin(writing->call, header->sandbox_id, &header->path, header->user, &sandbox, err);

	if (rc == 0)
		rc = validate_range("max_bytes", header->max_bytes, 0, MAX_BYTES_MAX, err);
	if (rc == 0)
		rc = validate_range("max_entries", header->max_entries, 0, MAX_ENTRIES_MAX, err);
	if (rc < 0)
		return rc;
	unpack.path = header->path;
	unpack.user = file_user(sandbox, header->user);
	unpack.max_bytes = header->max_bytes ? header->max_bytes : MAX_BYTES_DEFAULT;
	unpack.max_entries = header->max_entries ? header->max_entries : MAX_ENTRIES_DEFAULT;
	request.op_case = PADDOCK__INTERNAL__GUEST_REQUEST__OP_UNPACK;
	request.unpack = &unpack;
	return ask(writing, sandbox, &request, err);
}

static void on_write_message(struct rpc_call *call, const ProtobufCMessage *message)
{
	const Paddock__V1__WriteFileRequest *request = (const Paddock__V1__WriteFileRequest *)message;
	struct writing *writing = rpc_user(call);
	bool first = writing->stream == 0 && !writing->opened;
	struct pdk_error err;

	if (first && request->message_case == PADDOCK__V1__WRITE_FILE_REQUEST__MESSAGE_HEADER) {
		if (begin_write(writing, request->header, &err) < 0)
			writing_fail(writing, &err);
	} else if (!first && request->message_case == PADDOCK__V1__WRITE_FILE_REQUEST__MESSAGE_DATA) {
		take_data(writing, &request->data);
	} else {
		fail_field(writing, first ? "header: must come first" : "data: must follow the header");
	}
}

static void on_unpack_message(struct rpc_call *call, const ProtobufCMessage *message)
{
	const Paddock__V1__UnpackArchiveRequest *request = (const Paddock__V1__UnpackArchiveRequest *)message;
	struct writing *writing = rpc_user(call);
	bool first = writing->stream == 0 && !writing->opened;
	struct pdk_error err;

	if (first && request->message_case == PADDOCK__V1__UNPACK_ARCHIVE_REQUEST__MESSAGE_HEADER) {
		if (begin_unpack(writing, request->header, &err) < 0)
			writing_fail(writing, &err);
	} else if (!first && request->message_case == PADDOCK__V1__UNPACK_ARCHIVE_REQUEST__MESSAGE_DATA) {
		take_data(writing, &request->data);
	} else {
		fail_field(writing, first ? "header: must come first" : "data: must follow the header");
	}
}

static void on_half_close(struct rpc_call *call)
{
	struct writing *writing = rpc_user(call);

	if (writing->stream == 0) {
		fail_field(writing, "header: must come first");
		return;
	}
	writing->half_closed = true;
	if (writing->opened && !writing->left)
		writing_next(writing);
}

static void on_cancel(struct rpc_call *call, const struct pdk_error *why)
{
	writing_fail(rpc_user(call), why);
}

static void start(struct rpc_call *call, const struct rpc_events *events, bool unpack)
{
	struct writing *writing = calloc(1, sizeof(*writing));
	struct pdk_error err;

	if (!writing) {
		pdk_fail(&err, -ENOMEM, PDK_UNAVAILABLE, "the server is out of memory");
		rpc_fail(call, &err);
		return;
	}
	*writing = (struct writing){.call = call, .fd = -1, .unpack = unpack};
	rpc_set_events(call, events, writing);
}

void files_write(struct rpc_call *call, const ProtobufCMessage *request)
{
	static const struct rpc_events events = {
		.on_message = on_write_message, .on_half_close = on_half_close, .on_cancel = on_cancel};

	start(call, &events, false);
}

void files_unpack_archive(struct rpc_call *call, const ProtobufCMessage *request)
{
	static const struct rpc_events events = {
		.on_message = on_unpack_message, .on_half_close = on_half_close, .on_cancel = on_cancel};

	start(call, &events, true);
}
