#include <stdio.h>
#include <string.h>

#include "http_internal.h"

/* Responses of HTTP/1.1. Nothing here touches the socket: bytes are queued, and a run of the connection is asked for.
 */

static void queue(struct http_conn *conn, const void *bytes, size_t length)
{
	/* The client's time to take it begins now. */
	if (!buffer_length(&conn->out))
		conn->progress_ns = loop_now_ns();
	if (!conn->aborted && buffer_append(&conn->out, bytes, length) < 0)
		conn->aborted = true;
	http_conn_schedule(conn);
}

static void resume(struct http_exchange *exchange)
{
	http_conn_of(exchange)->progress_ns = loop_now_ns();
	http_conn_schedule(http_conn_of(exchange));
}

static void begin(struct http_exchange *exchange, int status, int64_t length)
{
	struct http_conn *conn = http_conn_of(exchange);
	char text[256];
	int n;

	conn->chunked = length < 0 && exchange->head.minor == 1 && !exchange->bodiless;
	/* An answer before the whole request is there: the rest of it is not worth reading. */
	if (!exchange->body_done && (exchange->head.chunked || conn->body_left) && length >= 0)
		conn->keep_alive = false;
	if (length < 0 && !conn->chunked && !exchange->bodiless)
		conn->keep_alive = false;
	n = snprintf(text, sizeof(text), "HTTP/1.1 %d %s\r\nDate: %s\r\n", status, http_status_text(status),
		     http_date());
	queue(conn, text, (size_t)n);
	queue(conn, buffer_data(&exchange->fields), buffer_length(&exchange->fields));
	if (length >= 0 && !http_never_has_body(status)) {
		n = snprintf(text, sizeof(text), "Content-Length: %lld\r\n", (long long)length);
		queue(conn, text, (size_t)n);
	}
	if (conn->chunked)
		queue(conn, "Transfer-Encoding: chunked\r\n", 28);
	if (!conn->keep_alive)
		queue(conn, "Connection: close\r\n", 19);
	queue(conn, "\r\n", 2);
}

static void upgrade(struct http_exchange *exchange, const char *protocol)
{
	struct http_conn *conn = http_conn_of(exchange);
	char text[256];
	int n;

	conn->keep_alive = false;
	n = snprintf(text, sizeof(text),
		     "HTTP/1.1 101 Switching Protocols\r\nDate: %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\n",
		     http_date(), protocol);
	queue(conn, text, (size_t)n);
	queue(conn, buffer_data(&exchange->fields), buffer_length(&exchange->fields));
	queue(conn, "\r\n", 2);
}

static size_t room(const struct http_exchange *exchange)
{
	size_t waiting = buffer_length(&http_conn_of(exchange)->out);

	return waiting < HTTP_OUT_HIGH ? HTTP_OUT_HIGH - waiting : 0;
}

static void cut(struct http_exchange *exchange)
{
	http_conn_of(exchange)->aborted = true;
	http_conn_schedule(http_conn_of(exchange));
}

static void write_body(struct http_exchange *exchange, const void *bytes, size_t length)
{
	struct http_conn *conn = http_conn_of(exchange);
	char size[24];

	if (buffer_length(&conn->out) + length > HTTP_OUT_MAX) {
		cut(exchange);
		return;
	}
	if (conn->chunked)
		queue(conn, size, (size_t)snprintf(size, sizeof(size), "%zx\r\n", length));
	queue(conn, bytes, length);
	if (conn->chunked)
		queue(conn, "\r\n", 2);
}

static void end(struct http_exchange *exchange)
{
	struct http_conn *conn = http_conn_of(exchange);

	if (conn->chunked)
		queue(conn, "0\r\n\r\n", 5);
	http_conn_schedule(conn);
}

const struct http_wire http1_wire = {
	.begin = begin,
	.upgrade = upgrade,
	.write = write_body,
	.end = end,
	.abort = cut,
	.resume = resume,
	.room = room,
};
