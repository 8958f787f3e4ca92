#include "proxy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "app_conn.h"
#include "http_chunk.h"
#include "sandbox/base/cleanup.h"
#include "server/loop.h"

/*
 * Theory of operation. A proxy is one exchange in a visit. It gets a connection into the sandbox (an idle one, or it
 * dials), writes the request's head anew, and from then on moves bytes: the body of the request as it comes, the
 * response as far as http_room() lets it. The framing of both is read and written here, never copied.
 *
 *	DIALLING  the request's body is paused
 *	ANSWER    the request is on its way; reads until the head of the response is whole
 *	BODY      of the response
 *	TUNNEL    a websocket: bytes both ways
 *	DONE      the response was given; the connection was kept or closed
 *
 * An idle connection may be closed by the application at the moment that it is used. A request that can be repeated,
 * and of which nothing but the head was sent, is then dialled anew, once.
 */

#define READ_SIZE 65536u
#define READS_PER_EVENT 8
#define INFORMATIONAL_MAX 16u

enum state { DIALLING, ANSWER, BODY, TUNNEL, DONE };

struct proxy {
	struct visit_user user; /* first */
	struct http_exchange *exchange;
	struct visit_key key;
	proxy_fail fail;
	enum state state;
	struct app_dial *dial;
	struct app_conn *conn;
	uint64_t since_ns; /* it waits for an answer */
	bool reused;
	bool websocket;
	bool body_seen;    /* of the request: it cannot be repeated */
	bool request_done; /* all of it was sent */
	unsigned int informational;
	struct buffer in; /* the head of the response, until it is whole */

	enum http_body body;
	uint64_t left;
	struct http_chunk chunk;
	bool keep; /* the application keeps the connection open */
};

static uint8_t scratch[READ_SIZE];
static uint64_t answer_ns = PROXY_ANSWER_SECONDS * 1000000000ull;

void proxy_set_answer_timeout(unsigned int seconds)
{
	answer_ns = seconds * 1000000000ull;
}

static void connect_app(struct proxy *proxy);

bool proxy_is_websocket(const struct http_head *head)
{
	const char *to = http_head_get(head, "upgrade");

	return head->upgrade && to && strcasecmp(to, "websocket") == 0 && strcmp(head->method, "GET") == 0 &&
	       !head->chunked && head->content_length <= 0;
}

/* Ends */

static void drop_conn(struct proxy *proxy)
{
	app_dial_cancel(STEAL_PTR(proxy->dial));
	app_conn_close(STEAL_PTR(proxy->conn));
}

static void fail(struct proxy *proxy, enum proxy_failure failure, visit_refusal why)
{
	enum state was = proxy->state;

	drop_conn(proxy);
	proxy->state = DONE;
	if (was == BODY || was == TUNNEL)
		http_abort(proxy->exchange);
	else if (was != DONE)
		proxy->fail(proxy->exchange, &proxy->key, proxy->user.visit ? visit_port(proxy->user.visit) : 0,
			    failure, why);
}

static void finish(struct proxy *proxy, bool clean)
{
	struct app_conn *conn = STEAL_PTR(proxy->conn);

	proxy->state = DONE;
	if (clean && proxy->keep && proxy->request_done && proxy->user.visit)
		app_conn_keep(conn, proxy->user.visit);
	else
		app_conn_close(conn);
	http_end(proxy->exchange);
}

static void on_cut(struct visit_user *user, visit_refusal why)
{
	fail((struct proxy *)user, PROXY_CUT, why);
}

static void on_tick(struct visit_user *user, uint64_t now_ns)
{
	struct proxy *proxy = (struct proxy *)user;

	if (proxy->state == ANSWER && proxy->request_done && now_ns - proxy->since_ns > answer_ns)
		fail(proxy, PROXY_SLOW, VISIT(ALLOWED));
}

static void count(const struct proxy *proxy, uint64_t requests, uint64_t in, uint64_t out)
{
	if (proxy->user.visit)
		visit_count(proxy->user.visit, requests, in, out);
}

/* The response's body */

static void give(struct proxy *proxy, const uint8_t *bytes, size_t length)
{
	http_write(proxy->exchange, bytes, length);
	count(proxy, 0, 0, length);
}

static void take_chunks(struct proxy *proxy, const uint8_t *bytes, size_t length)
{
	while (length && proxy->state == BODY) {
		size_t used, data;

		switch (http_chunk_feed(&proxy->chunk, bytes, length, &used, &data)) {
		case HTTP_CHUNK_DATA:
			give(proxy, bytes + used - data, data);
			break;
		case HTTP_CHUNK_END:
			finish(proxy, used == length);
			break;
		case HTTP_CHUNK_BAD:
			/* Trailers: nobody needs them, and the body is whole. */
			if (http_chunk_is_last(&proxy->chunk))
				finish(proxy, false);
			else
				fail(proxy, PROXY_BROKEN, VISIT(ALLOWED));
			return;
		case HTTP_CHUNK_MORE:
			return;
		}
		bytes += used;
		length -= used;
	}
}

static void take_body(struct proxy *proxy, const uint8_t *bytes, size_t length)
{
	size_t n = length;

	switch (proxy->body) {
	case HTTP_BODY_NONE:
		finish(proxy, !length);
		return;
	case HTTP_BODY_LENGTH:
		if (n > proxy->left)
			n = (size_t)proxy->left;
		proxy->left -= n;
		give(proxy, bytes, n);
		if (!proxy->left)
			finish(proxy, n == length);
		return;
	case HTTP_BODY_CHUNKED:
		take_chunks(proxy, bytes, length);
		return;
	case HTTP_BODY_UNTIL_END:
		give(proxy, bytes, length);
		return;
	}
}

/* The response's head */

static void copy_fields(struct proxy *proxy, const struct http_response *response)
{
	static char cookie[HTTP_RESPONSE_MAX];

	for (unsigned int i = 0; i < response->n_fields; i++) {
		const struct http_field *field = &response->fields[i];

		if (strcasecmp(field->name, "set-cookie") == 0) {
			if (forward_set_cookie(field->value, cookie, sizeof(cookie)))
				http_add_field(proxy->exchange, "Set-Cookie", cookie);
		} else if (forward_response_field(response, field->name))
			http_add_field(proxy->exchange, field->name, field->value);
	}
}

static void begin_tunnel(struct proxy *proxy, const struct http_response *response, const uint8_t *rest, size_t length)
{
	const char *to = http_response_get(response, "upgrade");

	if (!proxy->websocket || !to || strcasecmp(to, "websocket") != 0) {
		fail(proxy, PROXY_BROKEN, VISIT(ALLOWED));
		return;
	}
	copy_fields(proxy, response);
	http_upgrade(proxy->exchange, "websocket");
	http_resume_body(proxy->exchange);
	proxy->state = TUNNEL;
	if (length)
		give(proxy, rest, length);
}

static void begin_body(struct proxy *proxy, const struct http_response *response, const uint8_t *rest, size_t length)
{
	int64_t total = response->content_length;

	copy_fields(proxy, response);
	if (proxy->websocket) {
		proxy->websocket = false;
		http_resume_body(proxy->exchange);
	}
	proxy->state = BODY;
	proxy->body = response->body;
	proxy->left = total > 0 ? (uint64_t)total : 0;
	proxy->keep = response->keep_alive && response->body != HTTP_BODY_UNTIL_END;
	/* The length of a body that is not sent (HEAD) is told all the same. */
	http_begin(proxy->exchange, response->status,
		   response->body == HTTP_BODY_CHUNKED || response->body == HTTP_BODY_UNTIL_END ? -1
		   : response->body == HTTP_BODY_NONE && total < 0                              ? -1
												: total);
	if (length || response->body == HTTP_BODY_NONE || (response->body == HTTP_BODY_LENGTH && !total))
		take_body(proxy, rest, length);
}

/* `bytes` is ours to write into. The number of bytes of the head that was taken; 0: it is not whole. */
static size_t take_head(struct proxy *proxy, uint8_t *bytes, size_t length)
{
	const char *method = http_request(proxy->exchange)->method;
	size_t head = http_head_length((const char *)bytes, length);
	struct http_response response;

	if (!head && length <= HTTP_RESPONSE_MAX)
		return 0;
	if (!head || head > HTTP_RESPONSE_MAX || http_response_parse((char *)bytes, head, method, &response) < 0)
		fail(proxy, PROXY_BROKEN, VISIT(ALLOWED));
	else if (response.status == 101)
		begin_tunnel(proxy, &response, bytes + head, length - head);
	else if (response.status >= 200)
		begin_body(proxy, &response, bytes + head, length - head);
	else if (++proxy->informational > INFORMATIONAL_MAX)
		fail(proxy, PROXY_BROKEN, VISIT(ALLOWED));
	return head ? head : length;
}

/* `bytes` is ours to write into. */
static void take_answer(struct proxy *proxy, uint8_t *bytes, size_t length)
{
	if (buffer_length(&proxy->in)) {
		if (buffer_append(&proxy->in, bytes, length) < 0) {
			fail(proxy, PROXY_BROKEN, VISIT(ALLOWED));
			return;
		}
		bytes = (uint8_t *)(uintptr_t)buffer_data(&proxy->in);
		length = buffer_length(&proxy->in);
	}
	while (length && proxy->state == ANSWER) {
		size_t used = take_head(proxy, bytes, length);

		if (!used)
			break;
		bytes += used;
		length -= used;
	}
	if (proxy->state != ANSWER) {
		buffer_free(&proxy->in);
	} else if (buffer_length(&proxy->in)) {
		buffer_take(&proxy->in, buffer_length(&proxy->in) - length);
	} else if (length && buffer_append(&proxy->in, bytes, length) < 0) {
		fail(proxy, PROXY_BROKEN, VISIT(ALLOWED));
	}
}

/* The connection */

static bool can_repeat(const struct proxy *proxy)
{
	const char *method = http_request(proxy->exchange)->method;

	return proxy->state == ANSWER && proxy->reused && !proxy->body_seen &&
	       !http_request(proxy->exchange)->chunked && !buffer_length(&proxy->in) && !proxy->informational &&
	       (strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0 || strcmp(method, "OPTIONS") == 0);
}

/* The application has closed, or broken, the connection. */
static void conn_ended(struct proxy *proxy, int rc)
{
	if (can_repeat(proxy)) {
		drop_conn(proxy);
		proxy->reused = false;
		app_conns_close(proxy->user.visit);
		connect_app(proxy);
		return;
	}
	if (proxy->state == BODY && proxy->body == HTTP_BODY_UNTIL_END && rc == -ECONNRESET)
		finish(proxy, false);
	else if (proxy->state == TUNNEL) {
		drop_conn(proxy);
		proxy->state = DONE;
		http_end(proxy->exchange);
	} else
		fail(proxy, rc == -ETIMEDOUT ? PROXY_SLOW : PROXY_BROKEN, VISIT(ALLOWED));
}

static void pump(struct proxy *proxy)
{
	for (int i = 0; i < READS_PER_EVENT && proxy->conn; i++) {
		size_t room = proxy->state == ANSWER ? READ_SIZE : http_room(proxy->exchange);
		ssize_t n;

		app_conn_want(proxy->conn, room > 0);
		if (!room)
			return;
		n = app_conn_read(proxy->conn, scratch, room < READ_SIZE ? room : READ_SIZE);
		if (n == 0)
			return;
		if (n < 0) {
			conn_ended(proxy, (int)n);
			return;
		}
		if (proxy->state == ANSWER)
			take_answer(proxy, scratch, (size_t)n);
		else if (proxy->state == BODY)
			take_body(proxy, scratch, (size_t)n);
		else
			give(proxy, scratch, (size_t)n);
		if ((size_t)n < READ_SIZE && (size_t)n < room)
			return;
	}
}

static void on_readable(void *arg)
{
	pump(arg);
}

static void on_drained(void *arg)
{
	struct proxy *proxy = arg;

	http_resume_body(proxy->exchange);
}

static void on_failed(int rc, void *arg)
{
	conn_ended(arg, rc);
}

static void send_bytes(struct proxy *proxy, const void *bytes, size_t length)
{
	if (proxy->conn && app_conn_write(proxy->conn, bytes, length) < 0) {
		fail(proxy, PROXY_BUSY, VISIT(ALLOWED));
		return;
	}
	if (proxy->conn && app_conn_is_full(proxy->conn))
		http_pause_body(proxy->exchange);
}

static void begin_request(struct proxy *proxy, struct app_conn *conn)
{
	static const struct app_events events = {
		.on_readable = on_readable, .on_drained = on_drained, .on_failed = on_failed};
	const char *host = visit_host_header(proxy->user.visit);
	struct forward_request request = {
		.head = http_request(proxy->exchange),
		.host = host[0] ? host : http_request(proxy->exchange)->host,
		.address = http_client_address(proxy->exchange),
		.tls = http_is_tls(proxy->exchange),
		.upgrade = proxy->websocket,
	};
	struct buffer head = BUFFER(HTTP_HEAD_MAX + 2048);

	proxy->conn = conn;
	proxy->state = ANSWER;
	proxy->since_ns = loop_now_ns();
	app_conn_own(conn, &events, proxy);
	if (forward_request(&request, &head) < 0)
		fail(proxy, PROXY_BUSY, VISIT(ALLOWED));
	else
		send_bytes(proxy, buffer_data(&head), buffer_length(&head));
	count(proxy, 1, buffer_length(&head), 0);
	buffer_free(&head);
	/* Of a websocket the rest waits until the application has agreed. */
	if (proxy->state == ANSWER && !proxy->websocket && !app_conn_is_full(conn))
		http_resume_body(proxy->exchange);
	if (proxy->websocket)
		proxy->request_done = true;
}

static void on_dialled(struct app_conn *conn, enum pdk_code code, const char *text, void *arg)
{
	struct proxy *proxy = arg;

	proxy->dial = NULL;
	if (conn)
		begin_request(proxy, conn);
	else if (code == PDK_FAILED_PRECONDITION)
		fail(proxy, PROXY_REFUSED, VISIT(ALLOWED));
	else
		fail(proxy, code == PDK_DEADLINE_EXCEEDED ? PROXY_SLOW : PROXY_BUSY, VISIT(ALLOWED));
}

static void connect_app(struct proxy *proxy)
{
	struct app_conn *conn = proxy->state == ANSWER ? NULL : app_conn_take(proxy->user.visit);
	struct pdk_error err;

	proxy->reused = conn;
	if (conn) {
		begin_request(proxy, conn);
		return;
	}
	proxy->state = DIALLING;
	proxy->dial = app_dial(proxy->user.visit, on_dialled, proxy, &err);
	if (!proxy->dial)
		fail(proxy, PROXY_BUSY, VISIT(ALLOWED));
}

/* The exchange */

static void on_body(struct http_exchange *exchange, const uint8_t *bytes, size_t length, void *arg)
{
	struct proxy *proxy = arg;
	bool chunked = http_request(exchange)->chunked && proxy->state != TUNNEL;
	char size[24];

	if (!proxy->conn)
		return;
	proxy->body_seen = true;
	count(proxy, 0, length, 0);
	if (chunked)
		send_bytes(proxy, size, (size_t)snprintf(size, sizeof(size), "%zx\r\n", length));
	send_bytes(proxy, bytes, length);
	if (chunked)
		send_bytes(proxy, "\r\n", 2);
}

static void on_body_end(struct http_exchange *exchange, void *arg)
{
	struct proxy *proxy = arg;

	if (!proxy->conn || proxy->websocket)
		return;
	proxy->request_done = true;
	proxy->since_ns = loop_now_ns();
	if (http_request(exchange)->chunked)
		send_bytes(proxy, "0\r\n\r\n", 5);
}

static void on_writable(struct http_exchange *exchange, void *arg)
{
	pump(arg);
}

static void on_close(struct http_exchange *exchange, bool completed, void *arg)
{
	struct proxy *proxy = arg;

	drop_conn(proxy);
	visit_leave(&proxy->user);
	buffer_free(&proxy->in);
	explicit_bzero(&proxy->key, sizeof(proxy->key));
	free(proxy);
}

void proxy_serve(struct http_exchange *exchange, struct visit *visit, const struct visit_key *key, proxy_fail fail_with)
{
	static const struct http_events events = {
		.on_body = on_body, .on_body_end = on_body_end, .on_writable = on_writable, .on_close = on_close};
	struct proxy *proxy = calloc(1, sizeof(*proxy));

	if (!proxy || !visit_enter(visit, &proxy->user)) {
		free(proxy);
		fail_with(exchange, key, visit_port(visit), PROXY_BUSY, VISIT(ALLOWED));
		return;
	}
	proxy->user.cut = on_cut;
	proxy->user.tick = on_tick;
	proxy->exchange = exchange;
	proxy->key = *key;
	proxy->fail = fail_with;
	proxy->in = BUFFER(HTTP_RESPONSE_MAX + READ_SIZE);
	proxy->websocket = proxy_is_websocket(http_request(exchange));
	http_own(exchange, &events, proxy);
	http_pause_body(exchange);
	connect_app(proxy);
}
