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
#include "upload.h"

/*
 * POST /files. One call of Files.Write for each file, one after the other. pump() does what is possible with the bytes
 * that are here, and pauses the body while paddockd takes no more or answers for a file that is complete.
 */

#define FILES_MAX 1000u
#define PIECE (128u << 10)
#define METADATA_MAX 100u
#define METADATA_PREFIX "x-metadata-"

struct file_upload {
	struct upload upload; /* its call is of the file that is being written */
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

	bool closing;    /* half-closed: the answer for this file is awaited */
	bool ignoring;   /* a part that is no file */
	bool answer_due; /* the file of an octet-stream is the only one */
	struct buffer result;
	unsigned int count;
	uint64_t seen[FILES_MAX]; /* hashes of the paths */

	/* Of every file of the upload; the texts are in one block. */
	Paddock__V1__WriteFileHeader__MetadataEntry metadata[METADATA_MAX], *metadata_entries[METADATA_MAX];
	size_t n_metadata;
	char *metadata_text;
};

static struct file_upload *files_of(struct upload *upload)
{
	return (struct file_upload *)upload;
}

static void fail(struct file_upload *of, int status, const char *text)
{
	upload_fail(&of->upload, status, text);
}

static void answer(struct file_upload *of)
{
	json_put(&of->result, "]");
	of->upload.answered = true;
	http_reply(of->upload.exchange, 200, "application/json", buffer_data(&of->result), buffer_length(&of->result));
}

/* Answers of paddockd */

static void put_metadata(struct buffer *out, const Paddock__V1__FileInfo *info)
{
	for (size_t i = 0; i < info->n_metadata; i++) {
		const Paddock__V1__FileInfo__MetadataEntry *entry = info->metadata[i];

		json_put(out, i ? "," : ",\"metadata\":{");
		json_put_string(out, entry->key, strlen(entry->key));
		json_put(out, ":");
		json_put_string(out, entry->value, strlen(entry->value));
	}
	if (info->n_metadata)
		json_put(out, "}");
}

static void on_reply(struct upload *upload, const uint8_t *bytes, size_t length)
{
	struct file_upload *of = files_of(upload);
	Paddock__V1__FileInfo *info = paddock__v1__file_info__unpack(NULL, length, bytes);
	const char *path, *slash;

	if (!info)
		return;
	path = (const char *)info->path.data;
	slash = info->path.len ? memrchr(path, '/', info->path.len) : NULL;
	json_put(&of->result, of->count ? ",{\"path\":" : "[{\"path\":");
	json_put_string(&of->result, path, info->path.len);
	json_put(&of->result, ",\"name\":");
	json_put_string(&of->result, slash ? slash + 1 : path,
			slash ? info->path.len - (size_t)(slash + 1 - path) : info->path.len);
	json_put(&of->result, ",\"type\":\"file\"");
	put_metadata(&of->result, info);
	json_put(&of->result, "}");
	of->count++;
	paddock__v1__file_info__free_unpacked(info, NULL);
}

static void pump(struct upload *upload);

static void on_end(struct upload *upload, enum pdk_code code, const char *text)
{
	struct file_upload *of = files_of(upload);

	of->closing = false;
	if (code != PDK_OK) {
		upload->answered = true;
		files_fail(upload->exchange, &of->caller, code == PDK_FAILED_PRECONDITION ? PDK_INVALID_ARGUMENT : code,
			   text);
	} else if (of->answer_due) {
		answer(of);
	} else {
		http_resume_body(upload->exchange);
		pump(upload);
	}
}

/* Calls */

static bool seen_before(struct file_upload *of, const char *path)
{
	uint64_t hash = hash64_bytes(HASH64_BEGIN, path, strlen(path));

	for (unsigned int i = 0; i < of->count; i++) {
		if (of->seen[i] == hash)
			return true;
	}
	of->seen[of->count] = hash;
	return false;
}

static void open_file(struct file_upload *of, const char *path)
{
	Paddock__V1__WriteFileHeader header = PADDOCK__V1__WRITE_FILE_HEADER__INIT;
	Paddock__V1__WriteFileRequest request = PADDOCK__V1__WRITE_FILE_REQUEST__INIT;

	if (!path[0] || of->count == FILES_MAX) {
		fail(of, 400, path[0] ? "more than 1,000 files" : "path: missing");
		return;
	}
	if (seen_before(of, path)) {
		fail(of, 400, "you cannot upload multiple files to the same path");
		return;
	}
	if (!upload_open(&of->upload, &of->caller, "/paddock.v1.Files/Write"))
		return;
	header.sandbox_id = of->caller.sandbox;
	header.path = (ProtobufCBinaryData){.data = (uint8_t *)(uintptr_t)path, .len = strlen(path)};
	header.user = of->user;
	header.make_parents = true;
	header.n_metadata = of->n_metadata;
	header.metadata = of->metadata_entries;
	request.message_case = PADDOCK__V1__WRITE_FILE_REQUEST__MESSAGE_HEADER;
	request.header = &header;
	if (upload_send(&of->upload, &request.base) < 0)
		fail(of, 400, "path: too long");
}

static void send_data(struct file_upload *of, const uint8_t *bytes, size_t length)
{
	Paddock__V1__WriteFileRequest request = PADDOCK__V1__WRITE_FILE_REQUEST__INIT;

	request.message_case = PADDOCK__V1__WRITE_FILE_REQUEST__MESSAGE_DATA;
	request.data = (ProtobufCBinaryData){.data = (uint8_t *)(uintptr_t)bytes, .len = length};
	if (length && upload_send(&of->upload, &request.base) < 0)
		fail(of, 503, "the server does not take the file");
}

static void close_file(struct file_upload *of)
{
	of->closing = true;
	upstream_half_close(of->upload.call);
}

/* application/octet-stream */

static void send_inflated(struct file_upload *of)
{
	static uint8_t out[PIECE];
	int rc;

	of->inflater.next_in = (Bytef *)(uintptr_t)buffer_data(&of->plain);
	of->inflater.avail_in = (unsigned int)buffer_length(&of->plain);
	of->inflater.next_out = out;
	of->inflater.avail_out = sizeof(out);
	rc = inflate(&of->inflater, Z_NO_FLUSH);
	buffer_take(&of->plain, buffer_length(&of->plain) - of->inflater.avail_in);
	of->inflated = rc == Z_STREAM_END;
	if ((rc != Z_OK && rc != Z_STREAM_END && rc != Z_BUF_ERROR) || (of->inflated && buffer_length(&of->plain)))
		fail(of, 400, "gzip: damaged");
	else
		send_data(of, out, sizeof(out) - of->inflater.avail_out);
}

static void send_plain(struct file_upload *of)
{
	size_t n = buffer_length(&of->plain);

	send_data(of, buffer_data(&of->plain), n);
	buffer_take(&of->plain, n);
}

static void pump_plain(struct file_upload *of)
{
	if (!of->upload.call)
		open_file(of, of->path);
	while (!of->upload.answered && buffer_length(&of->plain)) {
		if (!upload_can_send(&of->upload)) {
			http_pause_body(of->upload.exchange);
			return;
		}
		if (of->gzip)
			send_inflated(of);
		else
			send_plain(of);
	}
	if (of->upload.answered || !of->upload.whole)
		return;
	if (of->gzip && !of->inflated) {
		fail(of, 400, "gzip: incomplete");
		return;
	}
	of->answer_due = true;
	close_file(of);
}

/* multipart/form-data */

/* False: nothing more can be done now. */
static bool pump_part(struct file_upload *of)
{
	struct multipart_part part;
	const uint8_t *bytes = NULL;
	size_t length = 0;

	switch (multipart_next(&of->multipart, &part, &bytes, &length)) {
	case MULTIPART_PART:
		of->ignoring = strcmp(part.name, "file") != 0;
		if (!of->ignoring)
			open_file(of, of->path[0] ? of->path : part.filename);
		return true;
	case MULTIPART_DATA:
		if (!of->ignoring && !upload_can_send(&of->upload)) {
			http_pause_body(of->upload.exchange);
			return false;
		}
		if (!of->ignoring)
			send_data(of, bytes, length);
		multipart_take(&of->multipart, length);
		return true;
	case MULTIPART_PART_END:
		if (!of->ignoring)
			close_file(of);
		return true;
	case MULTIPART_END:
		if (of->count)
			answer(of);
		else
			fail(of, 400, "there is no part named \"file\"");
		return false;
	case MULTIPART_MORE:
		if (of->upload.whole)
			fail(of, 400, "multipart: incomplete");
		return false;
	case MULTIPART_BAD:
		fail(of, 400, "multipart: malformed");
		return false;
	}
	return false;
}

static void pump(struct upload *upload)
{
	struct file_upload *of = files_of(upload);

	if (!of->closing && !of->is_multipart) {
		pump_plain(of);
		return;
	}
	while (!upload->answered && !of->closing && pump_part(of))
		;
	if (of->closing)
		http_pause_body(upload->exchange);
}

/* The exchange */

static void release(struct upload *upload)
{
	struct file_upload *of = files_of(upload);

	if (of->gzip)
		inflateEnd(&of->inflater);
	multipart_free(&of->multipart);
	buffer_free(&of->plain);
	buffer_free(&of->result);
	free(of->metadata_text);
	explicit_bzero(&of->caller, sizeof(of->caller));
	free(of);
}

/* NULL, or why the body cannot be understood. */
static const char *read_form(struct file_upload *of, const struct http_head *head)
{
	const char *type = http_head_get(head, "content-type");
	const char *encoding = http_head_get(head, "content-encoding");
	bool gzip = encoding && strcasecmp(encoding, "gzip") == 0;

	if (encoding && !gzip && strcasecmp(encoding, "identity") != 0)
		return "Content-Encoding: only gzip";
	if (type && multipart_start(&of->multipart, type) == 0) {
		of->is_multipart = true;
		return gzip ? "Content-Encoding: gzip is for application/octet-stream" : NULL;
	}
	if (!type || strncasecmp(type, "application/octet-stream", 24) != 0)
		return "unsupported content type: multipart/form-data and application/octet-stream";
	of->gzip = gzip && inflateInit2(&of->inflater, 16 + MAX_WBITS) == Z_OK;
	return gzip && !of->gzip ? "gzip: out of memory" : NULL;
}

/* X-Metadata-NAME: VALUE; names of fields have no case, so these are kept in small letters. NULL, or why it cannot be. */
static const char *read_metadata(struct file_upload *of, const struct http_head *head)
{
	size_t room = 0;
	char *to;

	for (unsigned int i = 0; i < head->n_fields; i++)
		room += strlen(head->fields[i].name) + strlen(head->fields[i].value) + 2;
	to = of->metadata_text = malloc(room + 1);
	for (unsigned int i = 0; to && i < head->n_fields; i++) {
		const char *name = head->fields[i].name;
		Paddock__V1__WriteFileHeader__MetadataEntry *entry = &of->metadata[of->n_metadata];

		if (strncasecmp(name, METADATA_PREFIX, strlen(METADATA_PREFIX)) != 0)
			continue;
		if (of->n_metadata == METADATA_MAX)
			return "X-Metadata: at most 100";
		paddock__v1__write_file_header__metadata_entry__init(entry);
		entry->key = strcpy(to, name + strlen(METADATA_PREFIX));
		for (; *to; to++)
			*to = *to >= 'A' && *to <= 'Z' ? (char)(*to - 'A' + 'a') : *to;
		entry->value = strcpy(to + 1, head->fields[i].value);
		to = entry->value + strlen(entry->value) + 1;
		of->metadata_entries[of->n_metadata++] = entry;
	}
	return to ? NULL : "out of memory";
}

void files_upload(struct http_exchange *exchange, const struct caller *caller, const char *path, const char *user)
{
	static const struct upload_kind kind = {.pump = pump, .on_reply = on_reply, .on_end = on_end, .free = release};
	struct file_upload *of = calloc(1, sizeof(*of));
	const char *why;

	if (!of) {
		rest_fail(exchange, 503, "out of memory");
		return;
	}
	of->caller = *caller;
	of->plain = BUFFER(MULTIPART_IN_MAX);
	of->result = BUFFER(4u << 20);
	snprintf(of->path, sizeof(of->path), "%s", path);
	snprintf(of->user, sizeof(of->user), "%s", user);
	if (caller->file) {
		snprintf(of->signature, sizeof(of->signature), "%s", caller->file->signature);
		of->file = *caller->file;
		of->file.path = of->path;
		of->file.user = of->user;
		of->file.signature = of->signature;
		of->caller.file = &of->file;
	}
	why = read_form(of, http_request(exchange));
	if (!why)
		why = read_metadata(of, http_request(exchange));
	upload_start(&of->upload, exchange, &kind, of->is_multipart ? &of->multipart.in : &of->plain);
	if (why)
		fail(of, 400, why);
}
