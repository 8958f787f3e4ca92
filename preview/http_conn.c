#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "http_internal.h"
#include "sandbox/base/cleanup.h"

/*
 * Theory of operation. http_conn_run() is the only place where a connection moves: it reads, parses, calls the owner,
 * writes and decides what to wait for, until nothing more is possible. Everything else sets a flag and schedules a run.
 * So no callback ever finds the connection in the middle of something, and it is freed in one place.
 */

#define READ_SIZE 65536u
#define LINGER_MS 2000u
#define LINGER_BYTES (1u << 20)

static void progressed(struct http_conn *conn)
{
	conn->progress_ns = loop_now_ns();
}

/* Closing */

static void end_exchange(struct http_conn *conn, bool completed)
{
	if (!conn->exchange_live)
		return;
	conn->exchange_live = false;
	http_exchange_close(&conn->exchange, completed);
}

static void gone(struct http_conn *conn)
{
	conn->state = HTTP_GONE;
}

static void destroy(struct http_conn *conn)
{
	end_exchange(conn, false);
	loop_watch_remove(conn->watch);
	loop_timer_cancel(&conn->timer);
	transport_close(&conn->transport);
	buffer_free(&conn->in);
	buffer_free(&conn->out);
	http_server_forget(conn->server, conn);
	free(conn);
}

/* Reading */

/* True if the input has grown. */
static bool read_more(struct http_conn *conn)
{
	size_t room = buffer_room(&conn->in);
	int rc = 0;
	uint8_t *to;
	ssize_t n;

	if (!conn->readable || conn->eof || !room)
		return false;
	to = buffer_reserve(&conn->in, room < READ_SIZE ? room : READ_SIZE, &rc);
	if (!to) {
		gone(conn);
		return false;
	}
	n = transport_read(&conn->transport, to, room < READ_SIZE ? room : READ_SIZE);
	if (n == 0)
		conn->readable = false;
	if (n < 0)
		conn->eof = true;
	if (n <= 0)
		return false;
	buffer_commit(&conn->in, (size_t)n);
	/* What is thrown away is no reason to wait longer. */
	if (!conn->finished)
		progressed(conn);
	return true;
}

/* Heads */

/* A head that cannot be understood is answered, and nothing after it is read. */
static void refuse(struct http_conn *conn, int status)
{
	char text[256];
	int n = snprintf(text, sizeof(text),
			 "HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
			 status, http_status_text(status));

	buffer_append(&conn->out, text, (size_t)n);
	buffer_free(&conn->in);
	conn->state = HTTP_LEAVING;
}

static int take_head(struct http_conn *conn, size_t length)
{
	struct http_exchange *exchange = &conn->exchange;
	char *text = malloc(length + 1);
	int status;

	if (!text)
		return 503;
	memcpy(text, buffer_data(&conn->in), length);
	text[length] = '\0';
	buffer_take(&conn->in, length);
	*exchange = (struct http_exchange){
		.wire = &http1_wire,
		.address = conn->address,
		.tls = conn->transport.ssl,
		.head_text = text,
		.fields = BUFFER(HTTP_FIELDS_BYTES),
	};
	conn->chunk = (struct http_chunk){};
	conn->chunked = false;
	status = http_head_parse(text, length, &exchange->head);
	if (status) {
		free(text);
		exchange->head_text = NULL;
		return status;
	}
	conn->body_left = exchange->head.content_length > 0 ? (uint64_t)exchange->head.content_length : 0;
	exchange->bodiless = strcmp(exchange->head.method, "HEAD") == 0;
	conn->keep_alive = exchange->head.keep_alive;
	conn->exchange_live = true;
	conn->state = HTTP_EXCHANGE;
	return 0;
}

/* True if an exchange has begun. */
static bool begin_exchange(struct http_conn *conn)
{
	static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
	size_t have = buffer_length(&conn->in);
	size_t length = have ? http_head_length((const char *)buffer_data(&conn->in), have) : 0;
	int status = 0;

	if (!length && have > HTTP_HEAD_MAX)
		status = 431;
	if (length)
		status = length > HTTP_HEAD_MAX ? 431 : take_head(conn, length);
	if (status)
		refuse(conn, status);
	if (status || !length)
		return false;
	if (conn->exchange.head.expects_continue && (conn->exchange.head.chunked || conn->body_left))
		buffer_append(&conn->out, go_on, sizeof(go_on) - 1);
	conn->server->settings.on_request(&conn->exchange, conn->server->settings.arg);
	return true;
}

/* Bodies */

static void give_body(struct http_conn *conn, size_t skip, size_t length)
{
	struct http_exchange *exchange = &conn->exchange;

	if (length && exchange->events.on_body && !exchange->ended)
		exchange->events.on_body(exchange, buffer_data(&conn->in) + skip, length, exchange->arg);
	buffer_take(&conn->in, skip + length);
}

static void body_is_whole(struct http_exchange *exchange)
{
	exchange->body_done = true;
	if (exchange->events.on_body_end && !exchange->ended)
		exchange->events.on_body_end(exchange, exchange->arg);
}

/* True if something was used. */
static bool feed_chunked(struct http_conn *conn)
{
	struct http_exchange *exchange = &conn->exchange;
	size_t used = 0, data = 0;

	if (!buffer_length(&conn->in))
		return false;
	switch (http_chunk_feed(&conn->chunk, buffer_data(&conn->in), buffer_length(&conn->in), &used, &data)) {
	case HTTP_CHUNK_DATA:
		give_body(conn, used - data, data);
		return true;
	case HTTP_CHUNK_END:
		buffer_take(&conn->in, used);
		body_is_whole(exchange);
		return true;
	case HTTP_CHUNK_BAD:
		/* What follows cannot be trusted to be anything. */
		conn->keep_alive = false;
		conn->state = exchange->begun ? HTTP_GONE : HTTP_LEAVING;
		if (!exchange->begun)
			http_reply(exchange, 400, NULL, NULL, 0);
		end_exchange(conn, false);
		buffer_free(&conn->in);
		return false;
	case HTTP_CHUNK_MORE:
		buffer_take(&conn->in, used);
		return false;
	}
	return false;
}

static bool feed_body(struct http_conn *conn)
{
	struct http_exchange *exchange = &conn->exchange;
	size_t n = buffer_length(&conn->in);

	if (exchange->body_done || exchange->paused)
		return false;
	if (exchange->raw) {
		give_body(conn, 0, n);
		return n > 0;
	}
	if (exchange->head.chunked)
		return feed_chunked(conn);
	if (n > conn->body_left)
		n = (size_t)conn->body_left;
	conn->body_left -= n;
	if (n)
		give_body(conn, 0, n);
	if (!conn->body_left) {
		body_is_whole(exchange);
		return true;
	}
	return n > 0;
}

/* Writing */

static void write_out(struct http_conn *conn)
{
	while (buffer_length(&conn->out)) {
		ssize_t n = transport_write(&conn->transport, buffer_data(&conn->out), buffer_length(&conn->out));

		if (n < 0)
			gone(conn);
		if (n <= 0)
			return;
		buffer_take(&conn->out, (size_t)n);
		progressed(conn);
	}
}

static bool wants_writing(struct http_conn *conn)
{
	struct http_exchange *exchange = &conn->exchange;

	if (!exchange->starved || exchange->ended || buffer_length(&conn->out) > HTTP_OUT_LOW)
		return false;
	exchange->starved = false;
	if (exchange->events.on_writable)
		exchange->events.on_writable(exchange, exchange->arg);
	return true;
}

/* States */

/* The client speaks HTTP/2: that is the guard's. */
static void hand_over(struct http_conn *conn)
{
	struct http_handover handover = {
		.fd = conn->transport.fd,
		.ssl = conn->transport.ssl,
		.bytes = buffer_data(&conn->in),
		.length = buffer_length(&conn->in),
		.address = conn->address,
		.server = conn->server,
		.peer = conn->peer,
	};

	gone(conn);
	if (!conn->server->settings.on_h2)
		return;
	loop_watch_remove(conn->watch);
	conn->watch = NULL;
	conn->handed_over = true;
	conn->transport = (struct transport){.fd = -1};
	conn->server->settings.on_h2(&handover, conn->server->settings.arg);
}

static bool run_handshake(struct http_conn *conn)
{
	int rc = transport_handshake(&conn->transport);

	if (rc < 0)
		gone(conn);
	if (rc <= 0)
		return false;
	progressed(conn);
	if (!transport_is_h2(&conn->transport)) {
		conn->state = HTTP_HEAD;
		return true;
	}
	hand_over(conn);
	return false;
}

/* What every HTTP/2 client says first, and no HTTP/1.1 client can mean. */
static bool is_h2(const struct http_conn *conn)
{
	static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

	return buffer_length(&conn->in) >= sizeof(preface) - 1 &&
	       memcmp(buffer_data(&conn->in), preface, sizeof(preface) - 1) == 0;
}

static bool run_head(struct http_conn *conn)
{
	if (is_h2(conn)) {
		hand_over(conn);
		return false;
	}
	if (begin_exchange(conn))
		return true;
	if (conn->state != HTTP_HEAD)
		return conn->state == HTTP_LEAVING;
	if (conn->eof)
		gone(conn);
	return false;
}

/* The response is complete: the next request, or the end. */
static void turn_over(struct http_conn *conn)
{
	bool whole = conn->exchange.body_done;

	end_exchange(conn, true);
	if (conn->keep_alive && whole && !conn->eof && !conn->server->closing) {
		conn->state = HTTP_HEAD;
		return;
	}
	if (whole)
		buffer_free(&conn->in);
	conn->state = HTTP_LEAVING;
}

static bool run_exchange(struct http_conn *conn)
{
	struct http_exchange *exchange = &conn->exchange;
	bool moved = feed_body(conn);

	if (conn->state != HTTP_EXCHANGE)
		return true;
	if (conn->aborted) {
		gone(conn);
		return false;
	}
	if (exchange->ended) {
		turn_over(conn);
		return true;
	}
	/* Nobody is there to read the answer. */
	if (conn->eof && !moved) {
		gone(conn);
		return false;
	}
	return wants_writing(conn) || moved;
}

static bool run_leaving(struct http_conn *conn)
{
	conn->discarded += buffer_length(&conn->in);
	buffer_free(&conn->in);
	if (buffer_length(&conn->out))
		return false;
	if (!conn->finished) {
		conn->finished = true;
		transport_finish(&conn->transport);
		progressed(conn);
	}
	if (conn->eof || conn->discarded > LINGER_BYTES)
		gone(conn);
	return false;
}

static bool step(struct http_conn *conn)
{
	switch (conn->state) {
	case HTTP_HANDSHAKE:
		return run_handshake(conn);
	case HTTP_HEAD:
		return run_head(conn);
	case HTTP_EXCHANGE:
		return run_exchange(conn);
	case HTTP_LEAVING:
		return run_leaving(conn);
	case HTTP_GONE:
		return false;
	}
	return false;
}

/* Time */

/* How long the connection may stay as it is; 0: for ever. */
static uint32_t patience(const struct http_conn *conn)
{
	const struct http_settings *settings = &conn->server->settings;

	switch (conn->state) {
	case HTTP_HANDSHAKE:
		return settings->head_timeout_ms;
	case HTTP_HEAD:
		return buffer_length(&conn->in) ? settings->head_timeout_ms : settings->idle_timeout_ms;
	case HTTP_EXCHANGE:
		/* The owner may think as long as it likes; the client has to send and to read. */
		if (buffer_length(&conn->out) ||
		    (!conn->exchange.body_done && !conn->exchange.paused && !conn->exchange.raw))
			return settings->stall_timeout_ms;
		return 0;
	case HTTP_LEAVING:
		return conn->finished ? LINGER_MS : settings->stall_timeout_ms;
	case HTTP_GONE:
		return 0;
	}
	return 0;
}

static void timed_out(void *arg)
{
	struct http_conn *conn = arg;
	uint32_t limit = patience(conn);

	if (limit && loop_now_ns() - conn->progress_ns >= (uint64_t)limit * 1000000u) {
		if (conn->state == HTTP_HEAD && buffer_length(&conn->in))
			refuse(conn, 408);
		else
			gone(conn);
	}
	http_conn_schedule(conn);
}

/* A slow head may not live on one byte a second: its time counts from its first byte, so progress is not renewed there.
 */
static void set_timer(struct http_conn *conn)
{
	uint32_t limit = patience(conn);

	if (!limit)
		loop_timer_cancel(&conn->timer);
	else if (loop_timer_set(&conn->timer, conn->progress_ns + (uint64_t)limit * 1000000u) < 0)
		gone(conn);
}

static void set_watch(struct http_conn *conn)
{
	uint32_t events = EPOLLRDHUP;

	if (conn->state == HTTP_HANDSHAKE)
		events |= conn->transport.events;
	else if (!conn->eof && !conn->readable)
		events |= EPOLLIN;
	if (buffer_length(&conn->out))
		events |= EPOLLOUT;
	/* The client has closed its side and we know it: hang-ups would come again and again. */
	if (conn->eof)
		events &= ~(uint32_t)(EPOLLRDHUP | EPOLLIN);
	if (loop_watch_set(conn->watch, events) < 0)
		gone(conn);
}

/* Writing has made something possible. */
static bool more_to_do(const struct http_conn *conn)
{
	if (conn->state == HTTP_LEAVING)
		return !buffer_length(&conn->out) && !conn->finished;
	return conn->state == HTTP_EXCHANGE && conn->exchange.starved && !conn->exchange.ended &&
	       buffer_length(&conn->out) <= HTTP_OUT_LOW;
}

void http_conn_schedule(struct http_conn *conn)
{
	http_work_schedule(conn->server, &conn->work);
}

static void run_work(struct http_work *work)
{
	http_conn_run((struct http_conn *)work);
}

void http_conn_run(struct http_conn *conn)
{
	uint64_t head_began = conn->state == HTTP_HEAD && buffer_length(&conn->in) ? conn->progress_ns : 0;

	while (conn->state != HTTP_GONE) {
		bool moved = conn->state != HTTP_HANDSHAKE && read_more(conn);

		if (conn->state != HTTP_GONE && step(conn))
			moved = true;
		if (conn->state != HTTP_GONE && conn->state != HTTP_HANDSHAKE)
			write_out(conn);
		if (!moved && !more_to_do(conn))
			break;
	}
	if (head_began && conn->state == HTTP_HEAD && buffer_length(&conn->in))
		conn->progress_ns = head_began;
	if (conn->state != HTTP_GONE)
		set_timer(conn);
	if (conn->state != HTTP_GONE)
		set_watch(conn);
	if (conn->state == HTTP_GONE)
		destroy(conn);
}

static void on_event(uint32_t events, void *arg)
{
	struct http_conn *conn = arg;

	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		conn->readable = true;
	/* With the peer gone both ways nothing can be answered; and a full input buffer would hide the end of the
	 * stream. */
	if (events & (EPOLLERR | EPOLLHUP) || (events & EPOLLRDHUP && !buffer_room(&conn->in)))
		conn->eof = true;
	http_conn_schedule(conn);
}

int http_conn_create(struct http_server *server, int fd, bool tls, const char *address, struct http_address *peer)
{
	struct http_conn *conn = calloc(1, sizeof(*conn));

	if (!conn)
		return -ENOMEM;
	conn->server = server;
	conn->work.run = run_work;
	conn->in = BUFFER(HTTP_IN_MAX);
	conn->out = BUFFER(HTTP_OUT_MAX + 65536);
	conn->state = tls ? HTTP_HANDSHAKE : HTTP_HEAD;
	conn->peer = peer;
	conn->timer.handler = timed_out;
	conn->timer.arg = conn;
	conn->readable = true;
	snprintf(conn->address, sizeof(conn->address), "%s", address);
	progressed(conn);
	if (transport_open(&conn->transport, fd, tls ? server->tls : NULL) < 0) {
		free(conn);
		return -ENOMEM;
	}
	conn->watch = loop_watch_add(fd, EPOLLIN, on_event, conn);
	if (!conn->watch) {
		conn->transport.fd = -1;
		transport_close(&conn->transport);
		free(conn);
		return -ENOMEM;
	}
	conn->next = server->connections;
	if (conn->next)
		conn->next->previous = conn;
	server->connections = conn;
	server->n_connections++;
	http_conn_schedule(conn);
	return 0;
}
