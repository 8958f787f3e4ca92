#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>

#include "files.h"
#include "json.h"
#include "multipart.h"
#include "paddock/v1/files.pb-c.h"
#include "rest.h"
#include "sandbox/base/hash.h"

/*
 * POST /files. One call of Files.Write for each file, one after the other. pump() does what is possible with the bytes
 * that are here, and pauses the body while paddockd takes no more or answers for a file that is complete.
 */

#define FILES_MAX 1000u
#define PIECE (128u << 10)

struct upload {
	struct http_exchange *exchange;
	struct caller caller;
	char path[FILES_PATH_MAX]; /* of the query, or "" */
	char user[64];
	struct call_file file; /* caller.file, with `path`, `user` and `signature` */
	char signature[FILES_SIGNATURE_SIZE];
	bool is_multipart;
	struct multipart multipart;
	struct buffer plain; /* octet-stream */
	bool gzip;
	bool inflated; /* the gzip stream has ended */
	z_stream inflater;

	struct call *call;
	bool closing;  /* half-closed: the answer for this file is awaited */
	bool ignoring; /* a part that is no file */
	bool whole;    /* of the body */
	bool answered;
	bool answer_due; /* the file of an octet-stream is the only one */
	struct buffer result;
	unsigned int count;
	uint64_t seen[FILES_MAX]; /* hashes of the paths */
};

static void fail(struct upload *upload, int status, const char *text)
{
	if (upload->call)
		upstream_cancel(upload->call);
	upload->call = NULL;
	if (!upload->answered)
		rest_fail(upload->exchange, status, text);
	upload->answered = true;
}

static void answer(struct upload *upload)
{
	json_put(&upload->result, "]");
	upload->answered = true;
	http_reply(upload->exchange, 200, "application/json", buffer_data(&upload->result),
		   buffer_length(&upload->result));
}

static void pump(struct upload *upload);

/* Answers of paddockd */

static void on_message(struct call *call, const uint8_t *bytes, size_t length, int *fds, unsigned int n_fds, void *arg)
{
	struct upload *upload = arg;
	Paddock__V1__FileInfo *info = paddock__v1__file_info__unpack(NULL, length, bytes);
	const char *path, *slash;

	if (!info)
		return;
	path = (const char *)info->path.data;
	slash = info->path.len ? memrchr(path, '/', info->path.len) : NULL;
	json_put(&upload->result, upload->count ? ",{\"path\":" : "[{\"path\":");
	json_put_string(&upload->result, path, info->path.len);
	json_put(&upload->result, ",\"name\":");
	json_put_string(&upload->result, slash ? slash + 1 : path,
			slash ? info->path.len - (size_t)(slash + 1 - path) : info->path.len);
	json_put(&upload->result, ",\"type\":\"file\"}");
	upload->count++;
	paddock__v1__file_info__free_unpacked(info, NULL);
}

static void on_end(struct call *call, enum pdk_code code, const char *text, void *arg)
{
	struct upload *upload = arg;

	upload->call = NULL;
	upload->closing = false;
	if (code != PDK_OK) {
		if (!upload->answered)
			files_fail(upload->exchange, &upload->caller,
				   code == PDK_FAILED_PRECONDITION ? PDK_INVALID_ARGUMENT : code, text ? text : "");
		upload->answered = true;
		return;
	}
	if (upload->answer_due) {
		answer(upload);
		return;
	}
	http_resume_body(upload->exchange);
	pump(upload);
}

static void on_call_writable(struct call *call, void *arg)
{
	struct upload *upload = arg;

	http_resume_body(upload->exchange);
	pump(upload);
}

/* Calls */

static int send_request(struct upload *upload, Paddock__V1__WriteFileRequest *request)
{
	size_t size = paddock__v1__write_file_request__get_packed_size(request);
	uint8_t *packed = malloc(size);
	int rc = packed ? 0 : -ENOMEM;

	if (rc == 0) {
		paddock__v1__write_file_request__pack(request, packed);
		rc = upstream_send(upload->call, packed, size);
	}
	free(packed);
	return rc;
}

static bool seen_before(struct upload *upload, const char *path)
{
	uint64_t hash = hash64_bytes(HASH64_BEGIN, path, strlen(path));

	for (unsigned int i = 0; i < upload->count; i++) {
		if (upload->seen[i] == hash)
			return true;
	}
	upload->seen[upload->count] = hash;
	return false;
}

static void open_file(struct upload *upload, const char *path)
{
	static const struct call_events call_events = {
		.on_message = on_message, .on_writable = on_call_writable, .on_end = on_end};
	Paddock__V1__WriteFileHeader header = PADDOCK__V1__WRITE_FILE_HEADER__INIT;
	Paddock__V1__WriteFileRequest request = PADDOCK__V1__WRITE_FILE_REQUEST__INIT;
	struct pdk_error err = {};

	if (!path[0] || upload->count == FILES_MAX) {
		fail(upload, 400, path[0] ? "more than 1,000 files" : "path: missing");
		return;
	}
	if (seen_before(upload, path)) {
		fail(upload, 400, "you cannot upload multiple files to the same path");
		return;
	}
	upload->call = upstream_open(&upload->caller, "/paddock.v1.Files/Write", 0, 1, &call_events, upload, &err);
	if (!upload->call) {
		fail(upload, 503, err.text);
		return;
	}
	header.sandbox_id = upload->caller.sandbox;
	header.path = (ProtobufCBinaryData){.data = (uint8_t *)(uintptr_t)path, .len = strlen(path)};
	header.user = upload->user;
	header.make_parents = true;
	request.message_case = PADDOCK__V1__WRITE_FILE_REQUEST__MESSAGE_HEADER;
	request.header = &header;
	if (send_request(upload, &request) < 0)
		fail(upload, 400, "path: too long");
}

static void send_data(struct upload *upload, const uint8_t *bytes, size_t length)
{
	Paddock__V1__WriteFileRequest request = PADDOCK__V1__WRITE_FILE_REQUEST__INIT;

	request.message_case = PADDOCK__V1__WRITE_FILE_REQUEST__MESSAGE_DATA;
	request.data = (ProtobufCBinaryData){.data = (uint8_t *)(uintptr_t)bytes, .len = length};
	if (length && send_request(upload, &request) < 0)
		fail(upload, 503, "the server does not take the file");
}

static void close_file(struct upload *upload)
{
	upload->closing = true;
	upstream_half_close(upload->call);
}

static bool can_send(struct upload *upload)
{
	return upload->call && call_can_send(upload->call);
}

/* application/octet-stream */

static void send_inflated(struct upload *upload)
{
	static uint8_t out[PIECE];
	int rc;

	upload->inflater.next_in = (Bytef *)(uintptr_t)buffer_data(&upload->plain);
	upload->inflater.avail_in = (unsigned int)buffer_length(&upload->plain);
	upload->inflater.next_out = out;
	upload->inflater.avail_out = sizeof(out);
	rc = inflate(&upload->inflater, Z_NO_FLUSH);
	buffer_take(&upload->plain, buffer_length(&upload->plain) - upload->inflater.avail_in);
	upload->inflated = rc == Z_STREAM_END;
	if ((rc != Z_OK && rc != Z_STREAM_END && rc != Z_BUF_ERROR) ||
	    (upload->inflated && buffer_length(&upload->plain)))
		fail(upload, 400, "gzip: damaged");
	else
		send_data(upload, out, sizeof(out) - upload->inflater.avail_out);
}

static void send_plain(struct upload *upload)
{
	size_t n = buffer_length(&upload->plain);

	send_data(upload, buffer_data(&upload->plain), n);
	buffer_take(&upload->plain, n);
}

static void pump_plain(struct upload *upload)
{
	if (!upload->call)
		open_file(upload, upload->path);
	while (!upload->answered && buffer_length(&upload->plain)) {
		if (!can_send(upload)) {
			http_pause_body(upload->exchange);
			return;
		}
		if (upload->gzip)
			send_inflated(upload);
		else
			send_plain(upload);
	}
	if (upload->answered || !upload->whole)
		return;
	if (upload->gzip && !upload->inflated) {
		fail(upload, 400, "gzip: incomplete");
		return;
	}
	upload->answer_due = true;
	close_file(upload);
}

/* multipart/form-data */

/* False: nothing more can be done now. */
static bool pump_part(struct upload *upload)
{
	struct multipart_part part;
	const uint8_t *bytes = NULL;
	size_t length = 0;

	switch (multipart_next(&upload->multipart, &part, &bytes, &length)) {
	case MULTIPART_PART:
		upload->ignoring = strcmp(part.name, "file") != 0;
		if (!upload->ignoring)
			open_file(upload, upload->path[0] ? upload->path : part.filename);
		return true;
	case MULTIPART_DATA:
		if (!upload->ignoring && !can_send(upload)) {
			http_pause_body(upload->exchange);
			return false;
		}
		if (!upload->ignoring)
			send_data(upload, bytes, length);
		multipart_take(&upload->multipart, length);
		return true;
	case MULTIPART_PART_END:
		if (!upload->ignoring)
			close_file(upload);
		return true;
	case MULTIPART_END:
		if (upload->count)
			answer(upload);
		else
			fail(upload, 400, "there is no part named \"file\"");
		return false;
	case MULTIPART_MORE:
		if (upload->whole)
			fail(upload, 400, "multipart: incomplete");
		return false;
	case MULTIPART_BAD:
		fail(upload, 400, "multipart: malformed");
		return false;
	}
	return false;
}

static void pump(struct upload *upload)
{
	if (upload->answered)
		return;
	if (upload->closing) {
		http_pause_body(upload->exchange);
		return;
	}
	if (!upload->is_multipart) {
		pump_plain(upload);
		return;
	}
	while (!upload->answered && !upload->closing && pump_part(upload))
		;
	if (upload->closing)
		http_pause_body(upload->exchange);
}

/* The exchange */

static void on_body(struct http_exchange *exchange, const uint8_t *bytes, size_t length, void *arg)
{
	struct upload *upload = arg;

	if (upload->answered)
		return;
	if (buffer_append(upload->is_multipart ? &upload->multipart.in : &upload->plain, bytes, length) < 0)
		fail(upload, 503, "out of memory");
	else
		pump(upload);
}

static void on_body_end(struct http_exchange *exchange, void *arg)
{
	struct upload *upload = arg;

	upload->whole = true;
	pump(upload);
}

static void on_close(struct http_exchange *exchange, bool completed, void *arg)
{
	struct upload *upload = arg;

	if (upload->call)
		upstream_cancel(upload->call);
	if (upload->gzip)
		inflateEnd(&upload->inflater);
	multipart_free(&upload->multipart);
	buffer_free(&upload->plain);
	buffer_free(&upload->result);
	explicit_bzero(&upload->caller, sizeof(upload->caller));
	free(upload);
}

/* NULL, or why the body cannot be understood. */
static const char *read_form(struct upload *upload, const struct http_head *head)
{
	const char *type = http_head_get(head, "content-type");
	const char *encoding = http_head_get(head, "content-encoding");
	bool gzip = encoding && strcasecmp(encoding, "gzip") == 0;

	if (encoding && !gzip && strcasecmp(encoding, "identity") != 0)
		return "Content-Encoding: only gzip";
	if (type && multipart_start(&upload->multipart, type) == 0) {
		upload->is_multipart = true;
		return gzip ? "Content-Encoding: gzip is for application/octet-stream" : NULL;
	}
	if (!type || strncasecmp(type, "application/octet-stream", 24) != 0)
		return "unsupported content type: multipart/form-data and application/octet-stream";
	upload->gzip = gzip && inflateInit2(&upload->inflater, 16 + MAX_WBITS) == Z_OK;
	return gzip && !upload->gzip ? "gzip: out of memory" : NULL;
}

void files_upload(struct http_exchange *exchange, const struct caller *caller, const char *path, const char *user)
{
	static const struct http_events events = {.on_body = on_body, .on_body_end = on_body_end, .on_close = on_close};
	struct upload *upload = calloc(1, sizeof(*upload));
	const char *why;

	if (!upload) {
		rest_fail(exchange, 503, "out of memory");
		return;
	}
	upload->exchange = exchange;
	upload->caller = *caller;
	upload->plain = BUFFER(MULTIPART_IN_MAX);
	upload->result = BUFFER(4u << 20);
	snprintf(upload->path, sizeof(upload->path), "%s", path);
	snprintf(upload->user, sizeof(upload->user), "%s", user);
	if (caller->file) {
		snprintf(upload->signature, sizeof(upload->signature), "%s", caller->file->signature);
		upload->file = *caller->file;
		upload->file.path = upload->path;
		upload->file.user = upload->user;
		upload->file.signature = upload->signature;
		upload->caller.file = &upload->file;
	}
	http_own(exchange, &events, upload);
	why = read_form(upload, http_request(exchange));
	if (why)
		fail(upload, 400, why);
}
