#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "paddock/v1/files.pb-c.h"
#include "rest.h"

/* GET /files: the first message of Files.Read brings the size, so that the length is known before the first byte. */

#define CREDIT 4u

struct download {
	struct http_exchange *exchange;
	struct caller caller;
	struct call *call;
	bool begun;
	bool ranged;
	uint64_t first, wanted; /* of a range; wanted 0: to the end */
	unsigned int owed;
};

/* "bytes=A-B" and "bytes=A-". Any other form is ignored, as RFC 9110 allows: the whole file is sent. */
static void read_range(struct download *download)
{
	const char *text = http_head_get(http_request(download->exchange), "range");
	unsigned long long first, last;
	int used = 0;

	if (!text || strncmp(text, "bytes=", 6) != 0 || !isdigit((unsigned char)text[6]) || strlen(text) > 40)
		return;
	if (sscanf(text + 6, "%llu-%n", &first, &used) != 1 || !used || first > INT64_MAX)
		return;
	text += 6 + used;
	if (*text && (sscanf(text, "%llu%n", &last, &used) != 1 || text[used] || last < first || last > INT64_MAX))
		return;
	download->ranged = true;
	download->first = first;
	download->wanted = *text ? last - first + 1 : 0;
}

static void begin(struct download *download, const Paddock__V1__FileInfo *info)
{
	uint64_t size = info ? info->size : 0;
	uint64_t length = download->first < size ? size - download->first : 0;
	char text[128];

	download->begun = true;
	if (download->wanted && download->wanted < length)
		length = download->wanted;
	http_add_field(download->exchange, "Content-Type", "application/octet-stream");
	http_add_field(download->exchange, "Content-Disposition", "attachment");
	http_add_field(download->exchange, "Accept-Ranges", "bytes");
	if (download->ranged && !length) {
		snprintf(text, sizeof(text), "bytes */%llu", (unsigned long long)size);
		http_add_field(download->exchange, "Content-Range", text);
		http_begin(download->exchange, 416, 0);
		return;
	}
	if (download->ranged) {
		snprintf(text, sizeof(text), "bytes %llu-%llu/%llu", (unsigned long long)download->first,
			 (unsigned long long)(download->first + length - 1), (unsigned long long)size);
		http_add_field(download->exchange, "Content-Range", text);
	}
	http_begin(download->exchange, download->ranged ? 206 : 200, (int64_t)length);
}

static void on_message(struct call *call, const uint8_t *bytes, size_t length, int *fds, unsigned int n_fds, void *arg)
{
	struct download *download = arg;
	Paddock__V1__FileChunk *chunk = paddock__v1__file_chunk__unpack(NULL, length, bytes);

	if (!chunk) {
		http_abort(download->exchange);
		return;
	}
	if (!download->begun)
		begin(download, chunk->info);
	http_write(download->exchange, chunk->data.data, chunk->data.len);
	paddock__v1__file_chunk__free_unpacked(chunk, NULL);
	if (http_room(download->exchange))
		upstream_credit(call, 1);
	else
		download->owed++;
}

static void on_writable(struct http_exchange *exchange, void *arg)
{
	struct download *download = arg;

	if (download->owed && download->call)
		upstream_credit(download->call, download->owed);
	download->owed = 0;
}

static void on_end(struct call *call, enum pdk_code code, const char *text, void *arg)
{
	struct download *download = arg;

	download->call = NULL;
	if (code == PDK_OK && !download->begun)
		begin(download, NULL);
	if (code == PDK_OK)
		http_end(download->exchange);
	else if (download->begun)
		http_abort(download->exchange);
	else
		files_fail(download->exchange, &download->caller,
			   code == PDK_FAILED_PRECONDITION ? PDK_INVALID_ARGUMENT : code, text ? text : "");
}

static void on_close(struct http_exchange *exchange, bool completed, void *arg)
{
	struct download *download = arg;

	if (download->call)
		upstream_cancel(download->call);
	explicit_bzero(&download->caller, sizeof(download->caller));
	free(download);
}

static int send_request(struct download *download, const char *path, const char *user)
{
	Paddock__V1__ReadFileRequest request = PADDOCK__V1__READ_FILE_REQUEST__INIT;
	uint8_t packed[FILES_PATH_MAX + 256];

	request.sandbox_id = download->caller.sandbox;
	request.path = (ProtobufCBinaryData){.data = (uint8_t *)(uintptr_t)path, .len = strlen(path)};
	request.user = (char *)(uintptr_t)user;
	request.offset = download->first;
	request.length = download->wanted;
	return upstream_send(download->call, packed, paddock__v1__read_file_request__pack(&request, packed));
}

void files_download(struct http_exchange *exchange, const struct caller *caller, const char *path, const char *user)
{
	static const struct call_events call_events = {.on_message = on_message, .on_end = on_end};
	static const struct http_events events = {.on_writable = on_writable, .on_close = on_close};
	struct download *download = calloc(1, sizeof(*download));
	struct pdk_error err = {};

	if (!download) {
		rest_fail(exchange, 503, "out of memory");
		return;
	}
	download->exchange = exchange;
	download->caller = *caller;
	download->caller.file = NULL; /* the caller's; for this call alone */
	http_own(exchange, &events, download);
	read_range(download);
	download->call = upstream_open(caller, "/paddock.v1.Files/Read", 0, CREDIT, &call_events, download, &err);
	if (!download->call)
		rest_fail(exchange, 503, err.text);
	else if (send_request(download, path, user) < 0)
		rest_fail(exchange, 400, "path: too long");
	else
		upstream_half_close(download->call);
}
