#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "paddock/v1/templates.pb-c.h"
#include "rest.h"
#include "upload.h"
#include "url.h"

/* PUT /templates/files/HASH?upload=TOKEN: the body as it is into Templates.UploadBuildFiles, which looks at the token.
 * What paddockd does not take yet pauses the body. */

#define PREFIX "/templates/files/"
#define PENDING_MAX (256u << 10)

struct build_upload {
	struct upload upload;
	struct buffer pending;
	bool closed; /* all of it is sent: the answer is awaited */
};

static void send_pending(struct build_upload *of)
{
	Paddock__V1__UploadBuildFilesRequest request = PADDOCK__V1__UPLOAD_BUILD_FILES_REQUEST__INIT;
	size_t length = buffer_length(&of->pending);

	request.message_case = PADDOCK__V1__UPLOAD_BUILD_FILES_REQUEST__MESSAGE_DATA;
	request.data.data = (uint8_t *)(uintptr_t)buffer_data(&of->pending);
	request.data.len = length;
	if (upload_send(&of->upload, &request.base) < 0)
		upload_fail(&of->upload, 503, "the server does not take the files");
	else
		buffer_take(&of->pending, length);
}

static void pump(struct upload *upload)
{
	struct build_upload *of = (struct build_upload *)upload;

	while (!upload->answered && buffer_length(&of->pending)) {
		if (!upload_can_send(upload)) {
			http_pause_body(upload->exchange);
			return;
		}
		send_pending(of);
	}
	if (upload->answered || !upload->whole || of->closed)
		return;
	of->closed = true;
	upstream_half_close(upload->call);
}

static int status_of(enum pdk_code code)
{
	if (code == PDK_UNAUTHENTICATED)
		return 403;
	if (code == PDK_RESOURCE_EXHAUSTED)
		return 429;
	return code == PDK_INVALID_ARGUMENT ? 400 : 503;
}

static void on_end(struct upload *upload, enum pdk_code code, const char *text)
{
	if (code != PDK_OK || !((struct build_upload *)upload)->closed) {
		upload_fail(upload, status_of(code), text);
		return;
	}
	upload->answered = true;
	http_reply(upload->exchange, 200, NULL, NULL, 0);
}

static void release(struct upload *upload)
{
	struct build_upload *of = (struct build_upload *)upload;

	buffer_free(&of->pending);
	free(of);
}

static void begin(struct upload *upload, const struct caller *caller, char *hash, char *token)
{
	Paddock__V1__UploadBuildFilesRequest request = PADDOCK__V1__UPLOAD_BUILD_FILES_REQUEST__INIT;
	Paddock__V1__UploadBuildFilesHeader header = PADDOCK__V1__UPLOAD_BUILD_FILES_HEADER__INIT;

	if (!upload_open(upload, caller, "/paddock.v1.Templates/UploadBuildFiles"))
		return;
	header.hash = hash;
	header.upload_token = token;
	request.message_case = PADDOCK__V1__UPLOAD_BUILD_FILES_REQUEST__MESSAGE_HEADER;
	request.header = &header;
	if (upload_send(upload, &request.base) < 0)
		upload_fail(upload, 503, "the server does not take the files");
}

bool rest_upload_serve(struct http_exchange *exchange, const struct caller *caller)
{
	static const struct upload_kind kind = {.pump = pump, .on_end = on_end, .free = release};
	const struct http_head *head = http_request(exchange);
	char hash[128], token[256];
	struct build_upload *of;

	if (strcmp(head->method, "PUT") != 0 || strncmp(head->path, PREFIX, strlen(PREFIX)) != 0)
		return false;
	snprintf(hash, sizeof(hash), "%s", head->path + strlen(PREFIX));
	if (url_query(head->query, "upload", token, sizeof(token)) < 0) {
		rest_fail(exchange, 403, "upload: this address needs its token");
		return true;
	}
	of = calloc(1, sizeof(*of));
	if (!of) {
		rest_fail(exchange, 503, "out of memory");
		return true;
	}
	of->pending = BUFFER(PENDING_MAX);
	upload_start(&of->upload, exchange, &kind, &of->pending);
	begin(&of->upload, caller, hash, token);
	return true;
}
