#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "h2_internal.h"

/* Exchanges on the streams of HTTP/2. Nothing here sends: responses wait in nghttp2 and in `out`, and a run of the
 * connection is asked for. */

static struct h2_stream *stream_of(const struct http_exchange *exchange)
{
	return (struct h2_stream *)(uintptr_t)exchange;
}

static void wake(struct h2_stream *stream)
{
	http_work_schedule(stream->session->server, stream->session->work);
}

static bool is_known(const struct h2_stream *stream)
{
	return stream->session->nghttp2 && !stream->closed;
}

/* Life */

struct h2_stream *h2_stream_create(struct h2_session *session, int32_t id)
{
	struct h2_stream *stream = calloc(1, sizeof(*stream));

	if (!stream)
		return NULL;
	h2_head_init(&stream->head);
	stream->session = session;
	stream->id = id;
	stream->in = BUFFER(H2_WINDOW_WIDE + H2_WINDOW);
	stream->out = BUFFER(HTTP_OUT_MAX);
	stream->progress_ns = loop_now_ns();
	stream->exchange.wire = &h2_wire;
	stream->next = session->streams;
	if (stream->next)
		stream->next->previous = stream;
	session->streams = stream;
	session->n_streams++;
	return stream;
}

static void close_exchange(struct h2_stream *stream, bool completed)
{
	if (stream->live) {
		stream->live = false;
		http_exchange_close(&stream->exchange, completed);
	}
	buffer_free(&stream->in);
}

void h2_stream_free(struct h2_stream *stream)
{
	struct h2_session *session = stream->session;

	close_exchange(stream, false);
	h2_stream_sent(stream, buffer_length(&stream->out));
	buffer_free(&stream->out);
	h2_head_free(&stream->head);
	if (stream->previous)
		stream->previous->next = stream->next;
	else
		session->streams = stream->next;
	if (stream->next)
		stream->next->previous = stream->previous;
	session->n_wide -= stream->wide;
	if (--session->n_streams == 0)
		session->idle_ns = loop_now_ns();
	free(stream);
}

/* Responses */

void h2_stream_sent(struct h2_stream *stream, size_t length)
{
	stream->session->out_all -= length;
	if (length)
		stream->progress_ns = loop_now_ns();
	buffer_take(&stream->out, length);
}

ssize_t h2_stream_read(nghttp2_session *nghttp2, int32_t id, uint8_t *to, size_t size, uint32_t *flags,
		       nghttp2_data_source *source, void *user_data)
{
	struct h2_stream *stream = source->ptr;
	size_t waiting = buffer_length(&stream->out);
	size_t n = waiting < size ? waiting : size;

	if (!n && !stream->said_all)
		return NGHTTP2_ERR_DEFERRED;
	*flags |= NGHTTP2_DATA_FLAG_NO_COPY;
	if (n == waiting && stream->said_all)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	return (ssize_t)n;
}

static bool is_of_connection(const char *name)
{
	return strcmp(name, "connection") == 0 || strcmp(name, "keep-alive") == 0 || strcmp(name, "upgrade") == 0 ||
	       strcmp(name, "proxy-connection") == 0 || strcmp(name, "transfer-encoding") == 0;
}

static nghttp2_nv field(const char *name, const char *value)
{
	return (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name,
			    .value = (uint8_t *)(uintptr_t)value,
			    .namelen = strlen(name),
			    .valuelen = strlen(value)};
}

/* The lines of exchange->fields, in place: names become lower case. `text` ends with NUL. */
static size_t take_fields(char *text, nghttp2_nv *ret, size_t max)
{
	size_t n = 0;

	while (*text && n < max) {
		struct http_field line;
		char *at = http_next_line(&text);

		if (http_field_parse(at, &line))
			continue;
		for (; *at; at++) {
			if (*at >= 'A' && *at <= 'Z')
				*at = (char)(*at + 32);
		}
		if (!is_of_connection(line.name))
			ret[n++] = field(line.name, line.value);
	}
	return n;
}

/* Ours go in front. */
#define OWN_FIELDS 3u

static int submit(struct h2_stream *stream, char *text, int status, int64_t length, nghttp2_nv *fields, size_t max)
{
	nghttp2_data_provider body = {.source.ptr = stream, .read_callback = h2_stream_read};
	char status_text[12], length_text[24];
	size_t n = 0;

	snprintf(status_text, sizeof(status_text), "%d", status);
	snprintf(length_text, sizeof(length_text), "%lld", (long long)length);
	fields[n++] = field(":status", status_text);
	fields[n++] = field("date", http_date());
	if (length >= 0 && !http_never_has_body(status))
		fields[n++] = field("content-length", length_text);
	n += take_fields(text, fields + n, max - n);
	return nghttp2_submit_response(stream->session->nghttp2, stream->id, fields, n,
				       stream->exchange.bodiless ? NULL : &body);
}

static void cut(struct http_exchange *exchange)
{
	stream_of(exchange)->aborted = true;
	wake(stream_of(exchange));
}

static void begin(struct http_exchange *exchange, int status, int64_t length)
{
	struct h2_stream *stream = stream_of(exchange);
	size_t max = OWN_FIELDS;
	nghttp2_nv *fields;
	char *text;

	if (!is_known(stream))
		return;
	for (size_t i = 0; i < buffer_length(&exchange->fields); i++)
		max += buffer_data(&exchange->fields)[i] == '\n';
	fields = calloc(max, sizeof(*fields));
	text = calloc(1, buffer_length(&exchange->fields) + 1);
	if (text && buffer_length(&exchange->fields))
		memcpy(text, buffer_data(&exchange->fields), buffer_length(&exchange->fields));
	if (!fields || !text || submit(stream, text, status, length, fields, max) < 0)
		cut(exchange);
	free(fields);
	free(text);
	stream->progress_ns = loop_now_ns();
	wake(stream);
}

static void go_on(struct h2_stream *stream)
{
	if (is_known(stream) && !stream->exchange.bodiless)
		nghttp2_session_resume_data(stream->session->nghttp2, stream->id);
	wake(stream);
}

static void write_body(struct http_exchange *exchange, const void *bytes, size_t length)
{
	struct h2_stream *stream = stream_of(exchange);

	if (!is_known(stream))
		return;
	/* The client's time to take it begins now. */
	if (!buffer_length(&stream->out))
		stream->progress_ns = loop_now_ns();
	if (stream->session->out_all + length > H2_OUT_HARD || buffer_append(&stream->out, bytes, length) < 0) {
		cut(exchange);
		return;
	}
	stream->session->out_all += length;
	go_on(stream);
}

static void end(struct http_exchange *exchange)
{
	stream_of(exchange)->said_all = true;
	go_on(stream_of(exchange));
}

static void resume(struct http_exchange *exchange)
{
	stream_of(exchange)->progress_ns = loop_now_ns();
	wake(stream_of(exchange));
}

/* Streams that are not read must not take the room of those that are. */
static size_t high_of(const struct h2_stream *stream)
{
	return stream->session->out_all < H2_OUT_ALL ? H2_OUT_HIGH : H2_OUT_SCARCE;
}

static size_t room(const struct http_exchange *exchange)
{
	size_t waiting = buffer_length(&stream_of(exchange)->out), high = high_of(stream_of(exchange));

	return waiting < high ? high - waiting : 0;
}

const struct http_wire h2_wire = {
	.begin = begin, .write = write_body, .end = end, .abort = cut, .resume = resume, .room = room};

/* Requests */

static void widen(struct h2_stream *stream)
{
	struct h2_session *session = stream->session;

	if (session->n_wide == H2_WIDE_MAX ||
	    nghttp2_session_set_local_window_size(session->nghttp2, NGHTTP2_FLAG_NONE, stream->id, H2_WINDOW_WIDE) < 0)
		return;
	stream->wide = true;
	session->n_wide++;
}

static void say_continue(struct h2_stream *stream)
{
	nghttp2_nv status = field(":status", "100");

	nghttp2_submit_headers(stream->session->nghttp2, NGHTTP2_FLAG_NONE, stream->id, NULL, &status, 1, NULL);
}

/* The head is whole: what http_conn.c does with one. */
static void begin_exchange(struct h2_stream *stream)
{
	static const char elsewhere[] = "This connection was made for another host.\n";
	struct http_exchange *exchange = &stream->exchange;
	const struct http_settings *settings = &stream->session->server->settings;
	bool body = !stream->client_done || buffer_length(&stream->in);
	const char *method = stream->head.pseudo[H2_METHOD];
	int status;

	*exchange = (struct http_exchange){
		.wire = &h2_wire,
		.address = stream->session->address,
		.tls = stream->session->tls,
		.fields = BUFFER(HTTP_FIELDS_BYTES),
		.bodiless = method && strcmp(method, "HEAD") == 0,
	};
	stream->requested = true;
	stream->live = true;
	status = h2_head_finish(&stream->head, stream->session->tls, body, &exchange->head_text, &exchange->head);
	h2_head_free(&stream->head);
	if (status) {
		http_reply(exchange, status, NULL, NULL, 0);
		return;
	}
	/* Browsers share a connection between hosts that have one certificate and one address: but its allowances are
	 * for one host. They try again on a connection of its own. */
	if (!h2_host_is(exchange->head.host, stream->session->name)) {
		http_reply(exchange, 421, "text/plain", elsewhere, sizeof(elsewhere) - 1);
		return;
	}
	if (!stream->client_done)
		widen(stream);
	if (body && exchange->head.expects_continue)
		say_continue(stream);
	settings->on_request(exchange, settings->arg);
}

/* True if something was given. */
static bool feed_body(struct h2_stream *stream)
{
	struct http_exchange *exchange = &stream->exchange;
	bool given = false;
	size_t n;

	if (exchange->body_done)
		return false;
	while (!exchange->paused && (n = buffer_length(&stream->in))) {
		n = n < H2_PIECE ? n : H2_PIECE;
		if (exchange->events.on_body && !exchange->ended)
			exchange->events.on_body(exchange, buffer_data(&stream->in), n, exchange->arg);
		buffer_take(&stream->in, n);
		if (is_known(stream))
			nghttp2_session_consume_stream(stream->session->nghttp2, stream->id, n);
		given = true;
	}
	if (!stream->client_done || exchange->paused)
		return given;
	exchange->body_done = true;
	if (exchange->events.on_body_end && !exchange->ended)
		exchange->events.on_body_end(exchange, exchange->arg);
	return true;
}

static bool wants_writing(struct h2_stream *stream)
{
	struct http_exchange *exchange = &stream->exchange;

	if (!exchange->starved || exchange->ended || buffer_length(&stream->out) > high_of(stream) / 2)
		return false;
	exchange->starved = false;
	if (exchange->events.on_writable)
		exchange->events.on_writable(exchange, exchange->arg);
	return true;
}

/* What waits in `out` stays until nghttp2 has closed the stream: a frame of it may be on its way already
 * (on_send_data() said that it has to wait), and the reset comes behind that one. */
static bool give_up(struct h2_stream *stream)
{
	if (is_known(stream))
		nghttp2_submit_rst_stream(stream->session->nghttp2, NGHTTP2_FLAG_NONE, stream->id,
					  NGHTTP2_INTERNAL_ERROR);
	close_exchange(stream, false);
	return true;
}

bool h2_stream_step(struct h2_stream *stream)
{
	struct http_exchange *exchange = &stream->exchange;
	bool moved = false;

	if (stream->head_whole && !stream->requested && !stream->closed) {
		begin_exchange(stream);
		moved = true;
	}
	if (!stream->live)
		return moved;
	moved |= feed_body(stream);
	if (stream->aborted)
		return give_up(stream);
	if (exchange->ended || stream->closed) {
		close_exchange(stream, exchange->ended || (exchange->begun && exchange->bodiless));
		return true;
	}
	return wants_writing(stream) || moved;
}
