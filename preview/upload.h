#ifndef PADDOCK_PREVIEW_UPLOAD_H
#define PADDOCK_PREVIEW_UPLOAD_H

#include <protobuf-c/protobuf-c.h>

#include "http.h"
#include "sandbox/base/buffer.h"
#include "upstream.h"

/*
 * A body that goes on into calls of paddockd, one after another or one for all of it, with back-pressure: what
 * files_upload.c and rest_upload.c share. `struct upload` is the first member of their own.
 */

struct upload;

struct upload_kind {
	/* Do what is possible with what is in `in`; more of it has come, or the call takes more. Not once answered. */
	void (*pump)(struct upload *upload);
	/* A reply of the call. NULL: there is nothing in it. */
	void (*on_reply)(struct upload *upload, const uint8_t *bytes, size_t length);
	/* The call has ended, `call` is NULL again. Not once answered. */
	void (*on_end)(struct upload *upload, enum pdk_code code, const char *text);
	void (*free)(struct upload *upload);
};

struct upload {
	const struct upload_kind *kind;
	struct http_exchange *exchange;
	struct call *call; /* NULL: there is none */
	struct buffer *in; /* what came and has not been sent on: the owner's, with its bound */
	bool whole;        /* the body has ended */
	bool answered;
};

/* Own the exchange. From here on `kind->free` comes, once and last. */
void upload_start(struct upload *upload, struct http_exchange *exchange, const struct upload_kind *kind,
		  struct buffer *in);
/* Open the call. False: the upload has failed. */
bool upload_open(struct upload *upload, const struct caller *caller, const char *method);
bool upload_can_send(const struct upload *upload);
/* -EMSGSIZE, -ENOMEM, or as call_send(). */
int upload_send(struct upload *upload, const ProtobufCMessage *message);
/* Give the call up and answer with this; nothing if it is answered. */
void upload_fail(struct upload *upload, int status, const char *text);

#endif
