#include "connect.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "envd.h"
#include "envelope.h"
#include "json.h"
#include "sandbox/base/cleanup.h"
#include "server/loop.h"
#include "upstream.h"

/*
 * Theory of operation. A call is owned by its exchange: it ends when the exchange closes. The request's bytes wait in
 * `in` until a message is whole; it is brought to binary form and sent while paddockd takes messages, and the body is
 * paused while it does not. Replies go the other way: paddockd may have CREDIT messages under way, and gets new credit
 * only while the client reads, so a slow reader stops the producer and nothing piles up here.
 *
 * Errors: a unary call answers with the status that fits. A stream is always 200, and its error is in the last
 * envelope. When paddockd says that the sandbox is gone after messages have flowed, the connection is cut instead: the
 * SDKs take a cut, and only that, for the end of the sandbox.
 */

#define CREDIT 4u
#define CREDIT_AT_ONCE 3u /* one message is on its way meanwhile; a command without output needs none at all */
#define KEEPALIVE_DEFAULT_S 90u

struct connect_call {
	struct http_exchange *exchange;
	const struct method *method;
	struct call *call;
	struct caller caller;
	uint64_t timeout_ms;
	uint64_t keepalive_ns;
	struct loop_timer keepalive;
	struct buffer in;
	bool json;
	bool stream;         /* in either direction */
	bool gzip;           /* the body or its envelopes may be compressed */
	bool sent;           /* a message has gone to paddockd */
	bool replied;        /* and one has come */
	bool whole;          /* of the request's body */
	unsigned int owed;   /* credit that waits for more of it, or for the client */
	struct buffer reply; /* unary: waits for the status */
};

const char *connect_code_name(enum pdk_code code)
{
	static const char *const names[] = {
		"ok",        "canceled",        "unknown",           "invalid_argument",   "deadline_exceeded",
		"not_found", "already_exists",  "permission_denied", "resource_exhausted", "failed_precondition",
		"aborted",   "out_of_range",    "unimplemented",     "internal",           "unavailable",
		"data_loss", "unauthenticated",
	};

	return (size_t)code < ARRAY_SIZE(names) ? names[code] : "unknown";
}

int connect_http_status(enum pdk_code code)
{
	static const int statuses[] = {200, 499, 500, 400, 504, 404, 409, 403, 429,
				       400, 409, 400, 501, 500, 503, 500, 401};

	return (size_t)code < ARRAY_SIZE(statuses) ? statuses[code] : 500;
}

static void put_error(struct buffer *out, enum pdk_code code, const char *text)
{
	json_put_format(out, "{\"code\":\"%s\",\"message\":", connect_code_name(code));
	json_put_string(out, text, strlen(text));
	json_put(out, "}");
}

void connect_fail(struct http_exchange *exchange, enum pdk_code code, const char *text)
{
	struct buffer body = BUFFER(8192);

	put_error(&body, code, text);
	http_reply(exchange, connect_http_status(code), "application/json", buffer_data(&body), buffer_length(&body));
	buffer_free(&body);
}

static const char *content_type(const struct connect_call *call)
{
	if (call->stream)
		return call->json ? "application/connect+json" : "application/connect+proto";
	return call->json ? "application/json" : "application/proto";
}

/* Ends */

static void end_stream(struct connect_call *call, enum pdk_code code, const char *text)
{
	struct buffer last = BUFFER(8192);
	struct buffer out = BUFFER(8192);

	if (code == PDK_OK) {
		json_put(&last, "{}");
	} else {
		json_put(&last, "{\"error\":");
		put_error(&last, code, text);
		json_put(&last, "}");
	}
	http_add_field(call->exchange, "Content-Type", content_type(call));
	http_begin(call->exchange, 200, -1);
	envelope_put_header(&out, ENVELOPE_END, buffer_length(&last));
	buffer_append(&out, buffer_data(&last), buffer_length(&last));
	http_write(call->exchange, buffer_data(&out), buffer_length(&out));
	http_end(call->exchange);
	buffer_free(&last);
	buffer_free(&out);
}

static void finish(struct connect_call *call, enum pdk_code code, const char *text)
{
	loop_timer_cancel(&call->keepalive);
	if (call->call)
		upstream_cancel(call->call);
	call->call = NULL;
	/* A token that is no longer good, or never was, means the same as a sandbox that is not there. */
	if (code == PDK_UNAUTHENTICATED && call->caller.access_token[0] && !call->replied)
		envd_not_found(call->exchange, call->caller.sandbox);
	else if (call->stream && code == PDK_UNAVAILABLE && call->replied)
		http_abort(call->exchange);
	else if (call->stream)
		end_stream(call, code, text);
	else if (code == PDK_OK && !call->replied)
		connect_fail(call->exchange, PDK_INTERNAL, "no reply came");
	else if (code == PDK_OK)
		http_reply(call->exchange, 200, content_type(call), buffer_data(&call->reply),
			   buffer_length(&call->reply));
	else
		connect_fail(call->exchange, code, text);
}

static void on_close(struct http_exchange *exchange, bool completed, void *arg)
{
	struct connect_call *call = arg;

	loop_timer_cancel(&call->keepalive);
	if (call->call)
		upstream_cancel(call->call);
	buffer_free(&call->in);
	buffer_free(&call->reply);
	explicit_bzero(&call->caller, sizeof(call->caller));
	free(call);
}

/* Keep-alives: what the stream's own message for it looks like. */

static const struct keepalive {
	const char *path;
	const char *json;
	uint8_t binary[4];
	size_t length;
} keepalives[] = {
	{"/process.Process/Start", "{\"event\":{\"keepalive\":{}}}", {0x0a, 0x02, 0x22, 0x00}, 4},
	{"/process.Process/Connect", "{\"event\":{\"keepalive\":{}}}", {0x0a, 0x02, 0x22, 0x00}, 4},
	{"/filesystem.Filesystem/WatchDir", "{\"keepalive\":{}}", {0x1a, 0x00}, 2},
};

static const struct keepalive *find_keepalive(const struct method *method)
{
	for (size_t i = 0; i < ARRAY_SIZE(keepalives); i++) {
		if (strcmp(keepalives[i].path, method->path) == 0)
			return &keepalives[i];
	}
	return NULL;
}

static void set_keepalive(struct connect_call *call)
{
	if (call->keepalive_ns && call->replied)
		loop_timer_set(&call->keepalive, loop_now_ns() + call->keepalive_ns);
}

static void write_message(struct connect_call *call, const void *bytes, size_t length)
{
	struct buffer out = BUFFER(ENVELOPE_HEADER);

	envelope_put_header(&out, 0, length);
	http_write(call->exchange, buffer_data(&out), buffer_length(&out));
	http_write(call->exchange, bytes, length);
	buffer_free(&out);
}

static void send_keepalive(void *arg)
{
	struct connect_call *call = arg;
	const struct keepalive *keepalive = find_keepalive(call->method);

	if (call->json)
		write_message(call, keepalive->json, strlen(keepalive->json));
	else
		write_message(call, keepalive->binary, keepalive->length);
	set_keepalive(call);
}

/* Replies */

/* In the client's codec. */
static int encode_reply(struct connect_call *call, const uint8_t *bytes, size_t length, struct buffer *out)
{
	struct arena arena;
	ProtobufCMessage *message;
	int rc;

	if (!call->json)
		return buffer_append(out, bytes, length);
	arena_init(&arena, arena_max_for_message(length));
	message = protobuf_c_message_unpack(call->method->reply, &arena.allocator, length, bytes);
	rc = message ? json_encode(message, out) : -EINVAL;
	arena_clear(&arena);
	return rc;
}

static void give_credit(struct connect_call *call)
{
	upstream_credit(call->call, call->owed);
	call->owed = 0;
}

static void on_message(struct call *unused, const uint8_t *bytes, size_t length, int *fds, unsigned int n_fds,
		       void *arg)
{
	struct connect_call *call = arg;
	struct buffer out = BUFFER(4 * MESSAGE_MAX);

	if (encode_reply(call, bytes, length, call->stream ? &out : &call->reply) < 0) {
		buffer_free(&out);
		finish(call, PDK_INTERNAL, "the reply cannot be written in this form");
		return;
	}
	if (!call->stream) {
		call->replied = true;
		return;
	}
	if (!call->replied) {
		http_add_field(call->exchange, "Content-Type", content_type(call));
		http_begin(call->exchange, 200, -1);
	}
	call->replied = true;
	write_message(call, buffer_data(&out), buffer_length(&out));
	buffer_free(&out);
	set_keepalive(call);
	call->owed++;
	if (call->owed >= CREDIT_AT_ONCE && http_room(call->exchange))
		give_credit(call);
}

static void on_writable(struct http_exchange *exchange, void *arg)
{
	struct connect_call *call = arg;

	if (call->owed >= CREDIT_AT_ONCE && call->call)
		give_credit(call);
}

static void on_end(struct call *unused, enum pdk_code code, const char *text, void *arg)
{
	struct connect_call *call = arg;

	call->call = NULL;
	finish(call, code, text ? text : "");
}

/* Requests */

static void feed(struct connect_call *call);

static void on_call_writable(struct call *unused, void *arg)
{
	struct connect_call *call = arg;

	http_resume_body(call->exchange);
	feed(call);
}

static const struct call_events call_events = {
	.on_message = on_message, .on_writable = on_call_writable, .on_end = on_end};

static int open_call(struct connect_call *call, struct pdk_error *err)
{
	if (!call->call)
		call->call = upstream_open(&call->caller, call->method->path, call->timeout_ms,
					   call->stream ? CREDIT : 1, &call_events, call, err);
	return call->call ? 0 : -EAGAIN;
}

/* One message, brought to binary form and sent. */
static int send_plain(struct connect_call *call, const uint8_t *bytes, size_t length, struct pdk_error *err)
{
	struct arena arena;
	ProtobufCMessage *message;
	uint8_t *packed = NULL;
	size_t size;
	int rc;

	if (!call->json)
		return upstream_send(call->call, bytes, length);
	arena_init(&arena, arena_max_for_message(length));
	rc = json_decode(call->method->request, bytes, length, &arena, &message, err);
	if (rc == 0) {
		size = protobuf_c_message_get_packed_size(message);
		packed = malloc(size + 1);
		rc = packed ? 0 : pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "out of memory");
	}
	if (rc == 0) {
		protobuf_c_message_pack(message, packed);
		rc = upstream_send(call->call, packed, size);
		if (rc < 0)
			pdk_fail(err, rc, rc == -EMSGSIZE ? PDK_RESOURCE_EXHAUSTED : PDK_UNAVAILABLE,
				 "the message cannot be sent");
	}
	free(packed);
	arena_clear(&arena);
	return rc;
}

static int send_message(struct connect_call *call, const uint8_t *bytes, size_t length, bool compressed,
			struct pdk_error *err)
{
	struct buffer plain = BUFFER(MESSAGE_MAX);
	int rc = open_call(call, err);

	if (rc == 0 && compressed && !call->gzip)
		rc = pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "compressed, but no encoding was named");
	if (rc == 0 && compressed)
		rc = envelope_gunzip(bytes, length, &plain, err);
	if (rc == 0)
		rc = compressed ? send_plain(call, buffer_data(&plain), buffer_length(&plain), err)
				: send_plain(call, bytes, length, err);
	buffer_free(&plain);
	call->sent = true;
	return rc;
}

/* Envelopes as far as they are whole and paddockd takes them. 1: it takes no more now. */
static int feed_envelopes(struct connect_call *call, struct pdk_error *err)
{
	struct envelope envelope;
	int rc;

	while ((rc = envelope_next(&call->in, &envelope, err)) > 0) {
		if (call->sent && !call->method->client_streams)
			return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "more than one message");
		if (call->call && !call_can_send(call->call))
			return 1;
		rc = send_message(call, envelope.bytes, envelope.length, envelope.flags & ENVELOPE_COMPRESSED, err);
		if (rc < 0)
			return rc;
		buffer_take(&call->in, ENVELOPE_HEADER + envelope.length);
	}
	return rc;
}

static void feed(struct connect_call *call)
{
	struct pdk_error err = {};
	int rc;

	if (call->stream)
		rc = feed_envelopes(call, &err);
	else
		rc = call->whole
			     ? send_message(call, buffer_data(&call->in), buffer_length(&call->in), call->gzip, &err)
			     : 0;
	if (rc == 1)
		http_pause_body(call->exchange);
	if (rc == 0 && call->whole && call->stream && buffer_length(&call->in))
		rc = pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "the last message is incomplete");
	if (rc == 0 && call->whole && !call->sent && !call->method->client_streams)
		rc = pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "no message");
	if (rc == 0 && call->whole)
		rc = open_call(call, &err);
	if (rc < 0)
		finish(call, err.code, err.text);
	else if (rc == 0 && call->whole)
		upstream_half_close(call->call);
}

static void on_body(struct http_exchange *exchange, const uint8_t *bytes, size_t length, void *arg)
{
	struct connect_call *call = arg;

	if (buffer_append(&call->in, bytes, length) < 0)
		finish(call, PDK_RESOURCE_EXHAUSTED, "the message is larger than 4 MiB");
	else if (call->stream)
		feed(call);
}

static void on_body_end(struct http_exchange *exchange, void *arg)
{
	struct connect_call *call = arg;

	call->whole = true;
	feed(call);
}

static const struct http_events http_events = {
	.on_body = on_body, .on_body_end = on_body_end, .on_writable = on_writable, .on_close = on_close};

/* What the head says */

static bool type_is(const char *given, const char *wanted)
{
	size_t length = strlen(wanted);

	return given && strncasecmp(given, wanted, length) == 0 && (!given[length] || strchr("; \t", given[length]));
}

static bool read_type(struct connect_call *call, const char *type)
{
	static const char *const types[] = {"application/json", "application/proto", "application/connect+json",
					    "application/connect+proto"};

	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		if (!type_is(type, types[i]))
			continue;
		call->json = i % 2 == 0;
		return call->stream == (i >= 2);
	}
	return false;
}

/* A number of at most 10 digits; `otherwise` when the field is absent. */
static int read_number(const struct http_head *head, const char *name, uint64_t otherwise, uint64_t *ret)
{
	const char *text = http_head_get(head, name);
	size_t digits = text ? strspn(text, "0123456789") : 0;

	*ret = otherwise;
	if (!text)
		return 0;
	if (!digits || digits > 10 || text[digits])
		return -EINVAL;
	*ret = strtoull(text, NULL, 10);
	return 0;
}

static int read_encoding(struct connect_call *call, const struct http_head *head)
{
	const char *encoding = http_head_get(head, call->stream ? "connect-content-encoding" : "content-encoding");

	call->gzip = encoding && strcasecmp(encoding, "gzip") == 0;
	return !encoding || call->gzip || strcasecmp(encoding, "identity") == 0 ? 0 : -EINVAL;
}

static int read_head(struct connect_call *call, const struct http_head *head, struct pdk_error *err)
{
	const char *version = http_head_get(head, "connect-protocol-version");
	uint64_t seconds;

	if (version && strcmp(version, "1") != 0)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "Connect-Protocol-Version: not 1");
	if (read_encoding(call, head) < 0)
		return pdk_fail(err, -EINVAL, PDK_UNIMPLEMENTED,
				"unknown compression; gzip and identity are supported");
	if (read_number(head, "connect-timeout-ms", 0, &call->timeout_ms) < 0)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT,
				"Connect-Timeout-Ms: not a number of at most 10 digits");
	if (read_number(head, "keepalive-ping-interval", KEEPALIVE_DEFAULT_S, &seconds) < 0)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "Keepalive-Ping-Interval: not a number");
	if (find_keepalive(call->method))
		call->keepalive_ns = (seconds ? seconds : 1) * 1000000000u;
	return 0;
}

void connect_serve(struct http_exchange *exchange, const struct method *method, const struct caller *caller)
{
	const struct http_head *head = http_request(exchange);
	struct connect_call *call;
	struct pdk_error err = {};

	if (strcmp(head->method, "POST") != 0) {
		http_add_field(exchange, "Allow", "POST");
		http_reply(exchange, 405, NULL, NULL, 0);
		return;
	}
	call = calloc(1, sizeof(*call));
	if (!call) {
		connect_fail(exchange, PDK_RESOURCE_EXHAUSTED, "out of memory");
		return;
	}
	call->exchange = exchange;
	call->method = method;
	call->stream = method->client_streams || method->server_streams;
	call->keepalive = (struct loop_timer){.handler = send_keepalive, .arg = call};
	call->in = BUFFER(MESSAGE_MAX + ENVELOPE_HEADER + 65536);
	call->reply = BUFFER(4 * MESSAGE_MAX);
	call->caller = *caller;
	http_own(exchange, &http_events, call);
	if (!read_type(call, http_head_get(head, "content-type"))) {
		http_add_field(exchange, "Accept-Post",
			       call->stream ? "application/connect+json, application/connect+proto"
					    : "application/json, application/proto");
		http_reply(exchange, 415, NULL, NULL, 0);
		return;
	}
	if (read_head(call, head, &err) < 0)
		finish(call, err.code, err.text);
}
