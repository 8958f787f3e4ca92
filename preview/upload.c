#include "upload.h"

#include <errno.h>
#include <stdlib.h>

#include "rest.h"

void upload_fail(struct upload *upload, int status, const char *text)
{
	if (upload->call)
		upstream_cancel(upload->call);
	upload->call = NULL;
	if (!upload->answered)
		rest_fail(upload->exchange, status, text);
	upload->answered = true;
}

static void pump(struct upload *upload)
{
	if (!upload->answered)
		upload->kind->pump(upload);
}

/* --- the call --- */

static void on_message(struct call *call, const uint8_t *bytes, size_t length, int *fds, unsigned int n_fds, void *arg)
{
	struct upload *upload = arg;

	if (upload->kind->on_reply)
		upload->kind->on_reply(upload, bytes, length);
}

static void on_call_writable(struct call *call, void *arg)
{
	struct upload *upload = arg;

	http_resume_body(upload->exchange);
	pump(upload);
}

static void on_end(struct call *call, enum pdk_code code, const char *text, void *arg)
{
	struct upload *upload = arg;

	upload->call = NULL;
	if (!upload->answered)
		upload->kind->on_end(upload, code, text ? text : "");
}

bool upload_open(struct upload *upload, const struct caller *caller, const char *method)
{
	static const struct call_events events = {
		.on_message = on_message, .on_writable = on_call_writable, .on_end = on_end};
	struct pdk_error err = {};

	upload->call = upstream_open(caller, method, 0, 1, &events, upload, &err);
	if (!upload->call)
		upload_fail(upload, 503, err.text);
	return upload->call;
}

bool upload_can_send(const struct upload *upload)
{
	return upload->call && call_can_send(upload->call);
}

int upload_send(struct upload *upload, const ProtobufCMessage *message)
{
	size_t size = protobuf_c_message_get_packed_size(message);
	uint8_t *packed = malloc(size + 1);
	int rc = packed ? 0 : -ENOMEM;

	if (rc == 0) {
		protobuf_c_message_pack(message, packed);
		rc = upstream_send(upload->call, packed, size);
	}
	free(packed);
	return rc;
}

/* --- the exchange --- */

static void on_body(struct http_exchange *exchange, const uint8_t *bytes, size_t length, void *arg)
{
	struct upload *upload = arg;

	if (upload->answered)
		return;
	if (buffer_append(upload->in, bytes, length) < 0)
		upload_fail(upload, 503, "out of memory");
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
	upload->kind->free(upload);
}

void upload_start(struct upload *upload, struct http_exchange *exchange, const struct upload_kind *kind,
		  struct buffer *in)
{
	static const struct http_events events = {.on_body = on_body, .on_body_end = on_body_end, .on_close = on_close};

	upload->exchange = exchange;
	upload->kind = kind;
	upload->in = in;
	http_own(exchange, &events, upload);
}
