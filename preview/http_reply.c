#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "http_internal.h"

/* Exchanges, whatever version of HTTP carries them: what may be said when, and how much. */

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
	return exchange->address;
}

bool http_is_tls(const struct http_exchange *exchange)
{
	return exchange->tls;
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
	exchange->wire->resume(exchange);
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

const char *http_date(void)
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

bool http_never_has_body(int status)
{
	return status < 200 || status == 204 || status == 304;
}

void http_begin(struct http_exchange *exchange, int status, int64_t length)
{
	if (exchange->begun)
		return;
	exchange->begun = true;
	if (http_never_has_body(status))
		exchange->bodiless = true;
	exchange->length_left = length < 0 ? UINT64_MAX : (uint64_t)length;
	exchange->wire->begin(exchange, status, length);
	buffer_free(&exchange->fields);
}

void http_upgrade(struct http_exchange *exchange, const char *protocol)
{
	if (exchange->begun)
		return;
	if (!exchange->wire->upgrade) {
		http_abort(exchange);
		return;
	}
	exchange->begun = true;
	exchange->raw = true;
	exchange->body_done = false;
	exchange->length_left = UINT64_MAX;
	exchange->wire->upgrade(exchange, protocol);
	buffer_free(&exchange->fields);
}

size_t http_room(const struct http_exchange *exchange)
{
	size_t room = exchange->wire->room(exchange);

	if (!room)
		((struct http_exchange *)(uintptr_t)exchange)->starved = true;
	return room;
}

void http_write(struct http_exchange *exchange, const void *bytes, size_t length)
{
	if (!length || !exchange->begun || exchange->ended || exchange->bodiless)
		return;
	if (length > exchange->length_left) {
		http_abort(exchange);
		return;
	}
	if (exchange->length_left != UINT64_MAX)
		exchange->length_left -= length;
	exchange->wire->write(exchange, bytes, length);
}

void http_end(struct http_exchange *exchange)
{
	if (!exchange->begun || exchange->ended)
		return;
	if (!exchange->bodiless && exchange->length_left != UINT64_MAX && exchange->length_left) {
		http_abort(exchange);
		return;
	}
	exchange->ended = true;
	exchange->wire->end(exchange);
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
	exchange->wire->abort(exchange);
}

void http_exchange_close(struct http_exchange *exchange, bool completed)
{
	if (exchange->events.on_close)
		exchange->events.on_close(exchange, completed, exchange->arg);
	buffer_free(&exchange->fields);
	free(exchange->head_text);
	*exchange = (struct http_exchange){};
}
