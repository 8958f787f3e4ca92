#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "paddock/v1/templates.pb-c.h"
#include "rest.h"
#include "sandbox/base/buffer.h"
#include "url.h"

/* PUT /templates/files/HASH?upload=TOKEN: the body as it is into Templates.UploadBuildFiles, which looks at the token.
 * What paddockd does not take yet pauses the body. */

#define PREFIX "/templates/files/"
#define PENDING_MAX (256u << 10)

struct upload {
	struct http_exchange *exchange;
	struct call *call;
	struct buffer pending;
	bool whole, closed, answered;
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

static int send_request(struct upload *upload, const Paddock__V1__UploadBuildFilesRequest *request)
{
	size_t size = paddock__v1__upload_build_files_request__get_packed_size(request);
	uint8_t *packed = malloc(size + 1);
	int rc = packed ? 0 : -ENOMEM;

	if (rc == 0) {
		paddock__v1__upload_build_files_request__pack(request, packed);
		rc = upstream_send(upload->call, packed, size);
	}
	free(packed);
	return rc;
}

static void pump(struct upload *upload)
{
	while (!upload->answered && buffer_length(&upload->pending)) {
		Paddock__V1__UploadBuildFilesRequest request = PADDOCK__V1__UPLOAD_BUILD_FILES_REQUEST__INIT;

		if (!call_can_send(upload->call)) {
			http_pause_body(upload->exchange);
			return;
		}
		request.message_case = PADDOCK__V1__UPLOAD_BUILD_FILES_REQUEST__MESSAGE_DATA;
		request.data.data = (uint8_t *)(uintptr_t)buffer_data(&upload->pending);
		request.data.len = buffer_length(&upload->pending);
		if (send_request(upload, &request) < 0) {
			fail(upload, 503, "the server does not take the files");
			return;
		}
		buffer_take(&upload->pending, buffer_length(&upload->pending));
	}
	if (upload->answered || !upload->whole || upload->closed)
		return;
	upload->closed = true;
	upstream_half_close(upload->call);
}

static void on_call_writable(struct call *call, void *arg)
{
	struct upload *upload = arg;

	http_resume_body(upload->exchange);
	pump(upload);
}

static void on_message(struct call *call, const uint8_t *bytes, size_t length, int *fds, unsigned int n_fds, void *arg)
{
}

static int status_of(enum pdk_code code)
{
	if (code == PDK_UNAUTHENTICATED)
		return 403;
	if (code == PDK_RESOURCE_EXHAUSTED)
		return 429;
	return code == PDK_INVALID_ARGUMENT ? 400 : 503;
}

static void on_end(struct call *call, enum pdk_code code, const char *text, void *arg)
{
	struct upload *upload = arg;

	upload->call = NULL;
	if (upload->answered)
		return;
	upload->answered = true;
	if (code == PDK_OK && upload->closed)
		http_reply(upload->exchange, 200, NULL, NULL, 0);
	else
		rest_fail(upload->exchange, status_of(code), text ? text : "");
}

static void on_body(struct http_exchange *exchange, const uint8_t *bytes, size_t length, void *arg)
{
	struct upload *upload = arg;

	if (upload->answered)
		return;
	if (buffer_append(&upload->pending, bytes, length) < 0)
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
	buffer_free(&upload->pending);
	free(upload);
}

static void begin(struct upload *upload, const struct caller *caller, char *hash, char *token)
{
	static const struct call_events events = {
		.on_message = on_message, .on_writable = on_call_writable, .on_end = on_end};
	Paddock__V1__UploadBuildFilesRequest request = PADDOCK__V1__UPLOAD_BUILD_FILES_REQUEST__INIT;
	Paddock__V1__UploadBuildFilesHeader header = PADDOCK__V1__UPLOAD_BUILD_FILES_HEADER__INIT;
	struct pdk_error err = {};

	upload->call = upstream_open(caller, "/paddock.v1.Templates/UploadBuildFiles", 0, 1, &events, upload, &err);
	if (!upload->call) {
		fail(upload, 503, err.text);
		return;
	}
	header.hash = hash;
	header.upload_token = token;
	request.message_case = PADDOCK__V1__UPLOAD_BUILD_FILES_REQUEST__MESSAGE_HEADER;
	request.header = &header;
	if (send_request(upload, &request) < 0)
		fail(upload, 503, "the server does not take the files");
}

bool rest_upload_serve(struct http_exchange *exchange, const struct caller *caller)
{
	static const struct http_events events = {.on_body = on_body, .on_body_end = on_body_end, .on_close = on_close};
	const struct http_head *head = http_request(exchange);
	char hash[128], token[256];
	struct upload *upload;

	if (strcmp(head->method, "PUT") != 0 || strncmp(head->path, PREFIX, strlen(PREFIX)) != 0)
		return false;
	snprintf(hash, sizeof(hash), "%s", head->path + strlen(PREFIX));
	if (url_query(head->query, "upload", token, sizeof(token)) < 0) {
		rest_fail(exchange, 403, "upload: this address needs its token");
		return true;
	}
	upload = calloc(1, sizeof(*upload));
	if (!upload) {
		rest_fail(exchange, 503, "out of memory");
		return true;
	}
	upload->exchange = exchange;
	upload->pending = BUFFER(PENDING_MAX);
	http_own(exchange, &events, upload);
	begin(upload, caller, hash, token);
	return true;
}
