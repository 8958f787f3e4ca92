#include "h2_session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "guard_frames.h"
#include "h2_internal.h"
#include "sandbox/base/cleanup.h"

/*
 * Theory of operation. nghttp2 calls back while it takes or gives bytes; those callbacks only note things in streams,
 * and none calls the owner of an exchange. Owners are called by h2_session_step(), between the two, and what they want
 * is queued in nghttp2 until the next h2_session_give(). So nghttp2 is never entered twice.
 */

static struct h2_stream *stream_of(nghttp2_session *nghttp2, int32_t id)
{
	return nghttp2_session_get_stream_user_data(nghttp2, id);
}

/* What comes */

static int on_begin_headers(nghttp2_session *nghttp2, const nghttp2_frame *frame, void *arg)
{
	struct h2_session *session = arg;
	struct h2_stream *stream;

	if (frame->headers.cat != NGHTTP2_HCAT_REQUEST)
		return 0;
	stream = h2_stream_create(session, frame->hd.stream_id);
	if (!stream)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	return nghttp2_session_set_stream_user_data(nghttp2, stream->id, stream);
}

/* Of trailers nothing is kept. */
static int on_header(nghttp2_session *nghttp2, const nghttp2_frame *frame, const uint8_t *name, size_t name_length,
		     const uint8_t *value, size_t value_length, uint8_t flags, void *arg)
{
	struct h2_stream *stream = stream_of(nghttp2, frame->hd.stream_id);

	if (stream && !stream->head_whole)
		h2_head_add(&stream->head, name, name_length, value, value_length);
	return 0;
}

/* One that nghttp2 would leave out: then the request would mean something else than was sent. */
static int on_invalid_header(nghttp2_session *nghttp2, const nghttp2_frame *frame, const uint8_t *name,
			     size_t name_length, const uint8_t *value, size_t value_length, uint8_t flags, void *arg)
{
	return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static int on_frame_recv(nghttp2_session *nghttp2, const nghttp2_frame *frame, void *arg)
{
	struct h2_stream *stream = frame->hd.stream_id ? stream_of(nghttp2, frame->hd.stream_id) : NULL;

	if (!stream || (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA))
		return 0;
	if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
		stream->client_done = true;
	if (frame->hd.type == NGHTTP2_HEADERS)
		stream->head_whole = true;
	return 0;
}

static int on_data(nghttp2_session *nghttp2, uint8_t flags, int32_t id, const uint8_t *bytes, size_t length, void *arg)
{
	struct h2_stream *stream = stream_of(nghttp2, id);

	nghttp2_session_consume_connection(nghttp2, length);
	if (!stream)
		return 0;
	if (stream->requested && !stream->live) {
		/* It was answered already. The rest is not wanted, but a client may look at an answer only behind its
		 * own last byte. */
		nghttp2_session_consume_stream(nghttp2, id, length);
		stream->discarded += length;
		return 0;
	}
	stream->progress_ns = loop_now_ns();
	return buffer_append(&stream->in, bytes, length) < 0 ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_stream_close(nghttp2_session *nghttp2, int32_t id, uint32_t error, void *arg)
{
	struct h2_stream *stream = stream_of(nghttp2, id);

	if (stream) {
		stream->closed = true;
		h2_stream_sent(stream, buffer_length(&stream->out));
	}
	return 0;
}

/* What goes */

static int on_send_data(nghttp2_session *nghttp2, nghttp2_frame *frame, const uint8_t *head, size_t length,
			nghttp2_data_source *source, void *arg)
{
	struct h2_session *session = arg;
	struct h2_stream *stream = source->ptr;

	if (buffer_length(session->to) >= session->mark)
		return NGHTTP2_ERR_WOULDBLOCK;
	if (buffer_append(session->to, head, 9) < 0 ||
	    buffer_append(session->to, buffer_data(&stream->out), length) < 0)
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	h2_stream_sent(stream, length);
	return 0;
}

/* The session */

static int submit_settings(nghttp2_session *nghttp2)
{
	static const nghttp2_settings_entry entries[] = {
		{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, GUARD_STREAMS_MAX},
		{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, H2_WINDOW},
		{NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HTTP_HEAD_MAX},
		{NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
	};
	int rc = nghttp2_submit_settings(nghttp2, NGHTTP2_FLAG_NONE, entries, ARRAY_SIZE(entries));

	return rc < 0 ? rc : nghttp2_session_set_local_window_size(nghttp2, NGHTTP2_FLAG_NONE, 0, H2_WINDOW_CONNECTION);
}

static int create_nghttp2(struct h2_session *session, nghttp2_session_callbacks *callbacks, nghttp2_option *option)
{
	nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
	nghttp2_session_callbacks_set_on_invalid_header_callback(callbacks, on_invalid_header);
	nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
	nghttp2_session_callbacks_set_send_data_callback(callbacks, on_send_data);
	nghttp2_option_set_no_auto_window_update(option, 1);
	nghttp2_option_set_no_closed_streams(option, 1);
	nghttp2_option_set_max_send_header_block_length(option, 4 * HTTP_FIELDS_BYTES);
	return nghttp2_session_server_new2(&session->nghttp2, callbacks, session, option);
}

struct h2_session *h2_session_create(const struct h2_owner *owner)
{
	struct h2_session *session = calloc(1, sizeof(*session));
	nghttp2_session_callbacks *callbacks = NULL;
	nghttp2_option *option = NULL;
	int rc = session ? 0 : -ENOMEM;

	if (rc == 0)
		rc = nghttp2_session_callbacks_new(&callbacks);
	if (rc == 0)
		rc = nghttp2_option_new(&option);
	if (rc == 0)
		rc = create_nghttp2(session, callbacks, option);
	if (rc == 0)
		rc = submit_settings(session->nghttp2);
	nghttp2_session_callbacks_del(callbacks);
	nghttp2_option_del(option);
	if (rc < 0) {
		h2_session_free(session);
		return NULL;
	}
	session->server = owner->server;
	session->work = owner->work;
	session->address = owner->address;
	session->tls = owner->tls;
	snprintf(session->name, sizeof(session->name), "%s", owner->name ? owner->name : "");
	session->idle_ns = loop_now_ns();
	return session;
}

void h2_session_free(struct h2_session *session)
{
	if (!session)
		return;
	/* First: it calls nobody, and streams that are freed below may still want something of it otherwise. */
	nghttp2_session_del(session->nghttp2);
	session->nghttp2 = NULL;
	while (session->streams)
		h2_stream_free(session->streams);
	free(session);
}

int h2_session_take(struct h2_session *session, const uint8_t *bytes, size_t length)
{
	ssize_t n = nghttp2_session_mem_recv(session->nghttp2, bytes, length);

	return n < 0 || (size_t)n != length ? -EPROTO : 0;
}

bool h2_session_step(struct h2_session *session)
{
	struct h2_stream *next;
	bool moved = false;

	for (struct h2_stream *stream = session->streams; stream; stream = next) {
		next = stream->next;
		moved |= h2_stream_step(stream);
		if (stream->closed && !stream->live)
			h2_stream_free(stream);
	}
	return moved;
}

static int give(struct h2_session *session)
{
	while (buffer_length(session->to) < session->mark) {
		const uint8_t *bytes;
		ssize_t n = nghttp2_session_mem_send(session->nghttp2, &bytes);

		if (n < 0)
			return -EPROTO;
		if (n == 0)
			return 0;
		if (buffer_append(session->to, bytes, (size_t)n) < 0)
			return -ENOBUFS;
	}
	return 0;
}

int h2_session_give(struct h2_session *session, struct buffer *to, size_t mark)
{
	int rc;

	session->to = to;
	session->mark = mark;
	rc = give(session);
	session->to = NULL;
	if (rc == 0 && !nghttp2_session_want_read(session->nghttp2) && !nghttp2_session_want_write(session->nghttp2))
		return -ESHUTDOWN;
	return rc;
}

unsigned int h2_session_streams(const struct h2_session *session)
{
	return session->n_streams;
}

uint64_t h2_session_deadline(const struct h2_session *session)
{
	if (session->n_streams)
		return UINT64_MAX;
	return session->idle_ns + (uint64_t)session->server->settings.idle_timeout_ms * 1000000u;
}

/* The same as http_conn.c asks of a connection: the client has to send, and to read. */
static bool is_stalled(const struct h2_stream *stream, uint64_t now_ns)
{
	const struct http_exchange *exchange = &stream->exchange;
	bool waits_for_body = stream->live && !exchange->body_done && !exchange->paused;

	return (buffer_length(&stream->out) || waits_for_body) &&
	       now_ns - stream->progress_ns >= (uint64_t)stream->session->server->settings.stall_timeout_ms * 1000000u;
}

/* Its answer is out, and the rest of the request has had its time. */
static bool has_lingered(const struct h2_stream *stream, uint64_t now_ns)
{
	return stream->said_all && !stream->live && !buffer_length(&stream->out) &&
	       (stream->discarded > H2_LINGER_BYTES || now_ns - stream->progress_ns >= H2_LINGER_NS);
}

void h2_session_tick(struct h2_session *session, uint64_t now_ns)
{
	for (struct h2_stream *stream = session->streams; stream; stream = stream->next) {
		if (stream->closed || stream->aborted)
			continue; /* its end is on its way */
		if (has_lingered(stream, now_ns))
			nghttp2_submit_rst_stream(session->nghttp2, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_NO_ERROR);
		else if (is_stalled(stream, now_ns))
			nghttp2_submit_rst_stream(session->nghttp2, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_CANCEL);
	}
}
