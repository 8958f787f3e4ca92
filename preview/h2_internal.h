#ifndef PADDOCK_PREVIEW_H2_INTERNAL_H
#define PADDOCK_PREVIEW_H2_INTERNAL_H

#include <nghttp2/nghttp2.h>

#include "h2_head.h"
#include "h2_session.h"
#include "http_internal.h"

/* Windows of streams: what a client may have sent of a body that nobody takes. A few have a wide one. */
#define H2_WINDOW 65535u
#define H2_WINDOW_WIDE 262144
#define H2_WIDE_MAX 8u
#define H2_PIECE 65536u /* of a body, at once: what takes it may want a pause after that */
/* What is sent on a connection is taken off its streams' hands at once, so this one bounds no memory. */
#define H2_WINDOW_CONNECTION (4 << 20)

/* Bodies of responses that wait: of a stream, and what all of them may have before each is left with little. */
#define H2_OUT_HIGH (256u << 10)
#define H2_OUT_SCARCE (16u << 10)
#define H2_OUT_ALL (2u << 20)
#define H2_OUT_HARD (16u << 20) /* of all; a stream that would pass it is reset */

/* How long, and how far, a request that was answered early may go on. */
#define H2_LINGER_NS 2000000000u
#define H2_LINGER_BYTES (1u << 20)

/*
 * A stream lives from its HEADERS until nghttp2 has closed it and its exchange is over. The exchange begins when the
 * head is whole, and is over with the end of the response, though that may still wait in `out`.
 */
struct h2_stream {
	struct http_exchange exchange; /* first */
	struct h2_session *session;
	struct h2_stream *next, *previous; /* of the session */
	int32_t id;
	struct h2_head head; /* while it comes */
	bool head_whole;
	bool requested;   /* the server was told */
	bool live;        /* somebody owns the exchange, or may still */
	bool client_done; /* all of the request has come */
	bool said_all;    /* all of the response is in `out` */
	bool closed;      /* by nghttp2: it does not know the stream any more */
	bool aborted;
	bool wide;
	size_t discarded;  /* of a body that nobody wants */
	struct buffer in;  /* of the body that came */
	struct buffer out; /* of the body to be sent */
	uint64_t progress_ns;
};

struct h2_session {
	nghttp2_session *nghttp2;
	struct http_server *server;
	struct http_work *work;
	const char *address;
	bool tls;
	char name[256];
	struct h2_stream *streams;
	unsigned int n_streams;
	unsigned int n_wide;
	size_t out_all;
	uint64_t idle_ns;  /* since when there is no stream */
	struct buffer *to; /* during h2_session_give() */
	size_t mark;
};

extern const struct http_wire h2_wire;

/* NULL: out of memory. */
struct h2_stream *h2_stream_create(struct h2_session *session, int32_t id);
void h2_stream_free(struct h2_stream *stream);
/* All that the stream can do for its owner now. True if something was possible. */
bool h2_stream_step(struct h2_stream *stream);
/* The first bytes of `out` are on their way, or are not wanted any more. */
void h2_stream_sent(struct h2_stream *stream, size_t length);
/* nghttp2's data source of the response. */
ssize_t h2_stream_read(nghttp2_session *nghttp2, int32_t id, uint8_t *to, size_t size, uint32_t *flags,
		       nghttp2_data_source *source, void *user_data);

#endif
