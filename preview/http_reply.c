#include <stdio.h>
#include <string.h>
#include <time.h>

#include "http_internal.h"

/* Responses. Nothing here touches the socket: bytes are queued, and a run of the connection is asked for. */

const char *http_status_text(int status)
{
	static const struct {
		int status;
		const char *text;
	} texts[] = {
		{101, "Switching Protocols"},
		{200, "OK"},
		{201, "Created"},
		{202, "Accepted"},
		{204, "No Content"},
		{206, "Partial Content"},
		{302, "Found"},
		{303, "See Other"},
		{304, "Not Modified"},
		{400, "Bad Request"},
		{401, "Unauthorized"},
		{403, "Forbidden"},
		{404, "Not Found"},
		{405, "Method Not Allowed"},
		{406, "Not Acceptable"},
		{408, "Request Timeout"},
		{409, "Conflict"},
		{410, "Gone"},
		{413, "Content Too Large"},
		{414, "URI Too Long"},
		{415, "Unsupported Media Type"},
		{416, "Range Not Satisfiable"},
		{417, "Expectation Failed"},
		{421, "Misdirected Request"},
		{429, "Too Many Requests"},
		{431, "Request Header Fields Too Large"},
		{499, "Client Closed Request"},
		{500, "Internal Server Error"},
		{501, "Not Implemented"},
		{502, "Bad Gateway"},
		{503, "Service Unavailable"},
		{504, "Gateway Timeout"},
		{505, "HTTP Version Not Supported"},
		{507, "Insufficient Storage"},
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		if (texts[i].status == status)
			return texts[i].text;
	}
	return "Status";
}

static void queue(struct http_conn *conn, const void *bytes, size_t length)
{
	/* The client's time to take it begins now. */
	if (!buffer_length(&conn->out))
		conn->progress_ns = loop_now_ns();
	if (!conn->aborted && buffer_append(&conn->out, bytes, length) < 0)
		conn->aborted = true;
	http_conn_schedule(conn);
}

void http_own(struct http_exchange *exchange, const struct http_events *events, void *arg)
{
	exchange->events = *events;
	exchange->arg = arg;
}

const struct http_head *http_request(const struct http_exchange *exchange)
{
	return &exchange->head;
}

const char *http_client_address(const struct http_exchange *exchange)
{
	return http_conn_of(exchange)->address;
}

bool http_is_tls(const struct http_exchange *exchange)
{
	return http_conn_of(exchange)->transport.ssl;
}

void http_pause_body(struct http_exchange *exchange)
{
	exchange->paused = true;
}

void http_resume_body(struct http_exchange *exchange)
{
	if (!exchange->paused)
		return;
	exchange->paused = false;
	http_conn_of(exchange)->progress_ns = loop_now_ns();
	http_conn_schedule(http_conn_of(exchange));
}

void http_add_field(struct http_exchange *exchange, const char *name, const char *value)
{
	static const char *const pieces[] = {": ", "\r\n"};
	int rc = 0;

	for (const char *c = name; *c; c++)
		rc |= !http_token_char(*c);
	for (const char *c = value; *c; c++)
		rc |= ((unsigned char)*c < 0x20 && *c != '\t') || *c == 0x7f;
	if (rc || strlen(name) + strlen(value) + 4 > buffer_room(&exchange->fields))
		return;
	buffer_append(&exchange->fields, name, strlen(name));
	buffer_append(&exchange->fields, pieces[0], 2);
	buffer_append(&exchange->fields, value, strlen(value));
	buffer_append(&exchange->fields, pieces[1], 2);
}

static const char *date(void)
{
	static char text[64];
	static time_t when;
	time_t now = time(NULL);
	struct tm tm;

	if (now != when) {
		when = now;
		gmtime_r(&now, &tm);
		strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &tm);
	}
	return text;
}

/* 1xx, 204 and 304 have no body, whatever the request was. */
static bool never_has_body(int status)
{
	return status < 200 || status == 204 || status == 304;
}

void http_begin(struct http_exchange *exchange, int status, int64_t length)
{
	struct http_conn *conn = http_conn_of(exchange);
	char text[256];
	int n;

	if (exchange->begun)
		return;
	exchange->begun = true;
	if (never_has_body(status))
		exchange->bodiless = true;
	exchange->chunked = length < 0 && exchange->head.minor == 1 && !exchange->bodiless;
	exchange->length_left = length < 0 ? UINT64_MAX : (uint64_t)length;
	/* An answer before the whole request is there: the rest of it is not worth reading. */
	if (!exchange->body_done && (exchange->head.chunked || exchange->body_left) && length >= 0)
		conn->keep_alive = false;
	if (length < 0 && !exchange->chunked && !exchange->bodiless)
		conn->keep_alive = false;
	n = snprintf(text, sizeof(text), "HTTP/1.1 %d %s\r\nDate: %s\r\n", status, http_status_text(status), date());
	queue(conn, text, (size_t)n);
	queue(conn, buffer_data(&exchange->fields), buffer_length(&exchange->fields));
	if (length >= 0 && !never_has_body(status)) {
		n = snprintf(text, sizeof(text), "Content-Length: %lld\r\n", (long long)length);
		queue(conn, text, (size_t)n);
	}
	if (exchange->chunked)
		queue(conn, "Transfer-Encoding: chunked\r\n", 28);
	if (!conn->keep_alive)
		queue(conn, "Connection: close\r\n", 19);
	queue(conn, "\r\n", 2);
	buffer_free(&exchange->fields);
}

void http_upgrade(struct http_exchange *exchange, const char *protocol)
{
	struct http_conn *conn = http_conn_of(exchange);
	char text[256];
	int n;

	if (exchange->begun)
		return;
	exchange->begun = true;
	exchange->raw = true;
	exchange->body_done = false;
	exchange->length_left = UINT64_MAX;
	conn->keep_alive = false;
	n = snprintf(text, sizeof(text),
		     "HTTP/1.1 101 Switching Protocols\r\nDate: %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\n", date(),
		     protocol);
	queue(conn, text, (size_t)n);
	queue(conn, buffer_data(&exchange->fields), buffer_length(&exchange->fields));
	queue(conn, "\r\n", 2);
	buffer_free(&exchange->fields);
}

size_t http_room(const struct http_exchange *exchange)
{
	size_t waiting = buffer_length(&http_conn_of(exchange)->out);

	if (waiting >= HTTP_OUT_HIGH)
		((struct http_exchange *)(uintptr_t)exchange)->starved = true;
	return waiting < HTTP_OUT_HIGH ? HTTP_OUT_HIGH - waiting : 0;
}

void http_write(struct http_exchange *exchange, const void *bytes, size_t length)
{
	struct http_conn *conn = http_conn_of(exchange);
	char size[24];

	if (!length || !exchange->begun || exchange->ended || exchange->bodiless)
		return;
	if (buffer_length(&conn->out) + length > HTTP_OUT_MAX || length > exchange->length_left) {
		http_abort(exchange);
		return;
	}
	if (exchange->chunked)
		queue(conn, size, (size_t)snprintf(size, sizeof(size), "%zx\r\n", length));
	else if (exchange->length_left != UINT64_MAX)
		exchange->length_left -= length;
	queue(conn, bytes, length);
	if (exchange->chunked)
		queue(conn, "\r\n", 2);
}

void http_end(struct http_exchange *exchange)
{
	struct http_conn *conn = http_conn_of(exchange);

	if (!exchange->begun || exchange->ended)
		return;
	if (!exchange->bodiless && !exchange->chunked && exchange->length_left != UINT64_MAX && exchange->length_left) {
		http_abort(exchange);
		return;
	}
	exchange->ended = true;
	if (exchange->chunked)
		queue(conn, "0\r\n\r\n", 5);
	http_conn_schedule(conn);
}

void http_reply(struct http_exchange *exchange, int status, const char *type, const void *body, size_t length)
{
	if (exchange->begun)
		return;
	if (type)
		http_add_field(exchange, "Content-Type", type);
	http_begin(exchange, status, (int64_t)length);
	http_write(exchange, body, length);
	http_end(exchange);
}

void http_abort(struct http_exchange *exchange)
{
	struct http_conn *conn = http_conn_of(exchange);

	conn->aborted = true;
	http_conn_schedule(conn);
}
