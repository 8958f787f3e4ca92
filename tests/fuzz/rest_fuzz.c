#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "paddock/v1/files.pb-c.h"
#include "paddock/v1/previews.pb-c.h"
#include "paddock/v1/processes.pb-c.h"
#include "paddock/v1/sandboxes.pb-c.h"
#include "paddock/v1/snapshots.pb-c.h"
#include "paddock/v1/templates.pb-c.h"
#include "preview/connect.h"
#include "preview/json.h"
#include "preview/rest.h"
#include "preview/upstream.h"

/*
 * Any request of the control plane, with any body in any pieces, and anything that paddockd could answer: templates,
 * builds and their files, and all the other routes. HTTP and the link are replaced. What must hold:
 *
 *	each request is answered once, with a status that there is, and with JSON if it says so
 *	what goes to paddockd is a message of the method's type, whole, and a body's bytes arrive in their order
 *	a body that is paused is not given more than its one piece
 *
 * Input: flags, size of a piece, status of the replies, then three texts with two bytes of length before each (method
 * and target; body; reply of the first call), and what is left is the reply of all further calls.
 */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition) ((condition) ? (void)0 : __builtin_trap())
#define CALLS_MAX 16

struct call {
	const ProtobufCMethodDescriptor *method;
	const struct call_events *events;
	void *arg;
	bool open, half_closed, full;
	unsigned int sent;
};

struct http_exchange {
	struct http_head head;
	const struct http_events *events;
	void *arg;
	bool answered, paused, tls;
};

static struct call calls[CALLS_MAX];
static unsigned int n_calls;
static bool refuse_calls, slow;
static struct buffer uploaded; /* by Templates.UploadBuildFiles */

/* --- HTTP --- */

void http_own(struct http_exchange *exchange, const struct http_events *events, void *arg)
{
	MUST(!exchange->events);
	exchange->events = events;
	exchange->arg = arg;
}

const struct http_head *http_request(const struct http_exchange *exchange)
{
	return &exchange->head;
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
	exchange->paused = false;
}

void http_add_field(struct http_exchange *exchange, const char *name, const char *value)
{
	MUST(!exchange->answered && name[0] && value);
}

static void must_be_json(const void *body, size_t length)
{
	struct pdk_error err;
	struct arena arena;
	json_t *json;

	arena_init(&arena, 64 << 20);
	MUST(json_read(body, length, &arena, &json, &err) == 0);
	arena_clear(&arena);
}

void http_reply(struct http_exchange *exchange, int status, const char *type, const void *body, size_t length)
{
	MUST(!exchange->answered && status >= 200 && status < 600);
	exchange->answered = true;
	MUST(type || !length);
	if (type && strcmp(type, "application/json") == 0)
		must_be_json(body, length);
}

int connect_http_status(enum pdk_code code)
{
	return code == PDK_OK ? 200 : 500;
}

/* --- the link --- */

/* "/paddock.v1.Sandboxes/Create" */
static const ProtobufCMethodDescriptor *find_method(const char *path)
{
	static const ProtobufCServiceDescriptor *const services[] = {
		&paddock__v1__sandboxes__descriptor, &paddock__v1__processes__descriptor,
		&paddock__v1__files__descriptor,     &paddock__v1__templates__descriptor,
		&paddock__v1__snapshots__descriptor, &paddock__v1__previews__descriptor};

	for (size_t i = 0; i < sizeof(services) / sizeof(services[0]); i++) {
		size_t length = strlen(services[i]->name);

		if (strncmp(path + 1, services[i]->name, length) == 0 && path[1 + length] == '/')
			return protobuf_c_service_descriptor_get_method_by_name(services[i], path + length + 2);
	}
	return NULL;
}

struct call *upstream_open(const struct caller *caller, const char *path, uint64_t timeout_ms, uint32_t credit,
			   const struct call_events *events, void *arg, struct pdk_error *err)
{
	struct call *call = &calls[n_calls % CALLS_MAX];

	if (refuse_calls || n_calls == CALLS_MAX) {
		pdk_fail(err, -EAGAIN, PDK_UNAVAILABLE, "too many calls; try again");
		return NULL;
	}
	n_calls++;
	*call = (struct call){.method = find_method(path), .events = events, .arg = arg, .open = true, .full = slow};
	MUST(call->method && credit);
	return call;
}

/* The data of an upload is what came in, and nothing else. */
static void take_upload(const struct call *call, const ProtobufCMessage *message)
{
	const Paddock__V1__UploadBuildFilesRequest *request = (const void *)message;

	if (call->sent == 0) {
		MUST(request->message_case == PADDOCK__V1__UPLOAD_BUILD_FILES_REQUEST__MESSAGE_HEADER);
		return;
	}
	MUST(request->message_case == PADDOCK__V1__UPLOAD_BUILD_FILES_REQUEST__MESSAGE_DATA);
	MUST(request->data.len && request->data.len <= buffer_length(&uploaded));
	MUST(memcmp(request->data.data, buffer_data(&uploaded), request->data.len) == 0);
	buffer_take(&uploaded, request->data.len);
}

int upstream_send(struct call *call, const void *bytes, size_t length)
{
	ProtobufCMessage *message = protobuf_c_message_unpack(call->method->input, NULL, length, bytes);

	MUST(message && call->open && !call->half_closed);
	if (call->method->input == &paddock__v1__upload_build_files_request__descriptor)
		take_upload(call, message);
	else
		MUST(call->sent == 0);
	protobuf_c_message_free_unpacked(message, NULL);
	call->sent++;
	call->full = slow;
	return 0;
}

void upstream_half_close(struct call *call)
{
	MUST(call->open && call->sent && !call->half_closed);
	call->half_closed = true;
}

void upstream_credit(struct call *call, uint32_t n)
{
	MUST(call->open && n);
}

void upstream_cancel(struct call *call)
{
	MUST(call->open);
	call->open = false;
}

bool call_can_send(const struct call *call)
{
	return !call->full;
}

/* --- one request --- */

struct input {
	const uint8_t *at;
	size_t left;
};

static uint8_t take_byte(struct input *input)
{
	if (!input->left)
		return 0;
	input->left--;
	return *input->at++;
}

static struct input take_text(struct input *input)
{
	size_t length = take_byte(input) | (size_t)take_byte(input) << 8;
	struct input text = {.at = input->at, .left = length < input->left ? length : input->left};

	input->at += text.left;
	input->left -= text.left;
	return text;
}

/* Let a full call take more; until it is full again. */
static void open_up(struct call *call)
{
	call->full = false;
	if (call->events->on_writable)
		call->events->on_writable(call, call->arg);
}

static void unblock(struct http_exchange *exchange)
{
	for (unsigned int turns = 0; exchange->paused && !exchange->answered; turns++) {
		MUST(turns < 4 && n_calls && calls[n_calls - 1].open);
		open_up(&calls[n_calls - 1]);
	}
}

static void give_body(struct http_exchange *exchange, struct input body, size_t piece)
{
	while (body.left && !exchange->answered) {
		size_t n = piece && piece < body.left ? piece : body.left;

		MUST(buffer_append(&uploaded, body.at, n) == 0);
		exchange->events->on_body(exchange, body.at, n, exchange->arg);
		body.at += n;
		body.left -= n;
		unblock(exchange);
	}
	if (!exchange->answered)
		exchange->events->on_body_end(exchange, exchange->arg);
	unblock(exchange);
}

/* Every call that was made is answered, in order. */
static void answer_calls(const struct http_exchange *exchange, uint8_t code, struct input first, struct input rest)
{
	for (unsigned int i = 0; i < n_calls && !exchange->answered; i++) {
		struct call *call = &calls[i];
		const struct input *reply = i ? &rest : &first;

		if (!call->open)
			continue;
		if (code == PDK_OK && reply->left)
			call->events->on_message(call, reply->at, reply->left, NULL, 0, call->arg);
		if (!call->open)
			continue;
		call->open = false;
		call->events->on_end(call, (enum pdk_code)(code % (PDK_UNAUTHENTICATED + 1)),
				     code == PDK_OK ? NULL : "paddockd says \"no\"\n", call->arg);
	}
}

/* False: it is no request. */
static bool make_head(struct http_exchange *exchange, struct input line, char *text)
{
	int length = snprintf(text, HTTP_HEAD_MAX, "%.*s HTTP/1.1\r\nHost: api.test:8080\r\n\r\n", (int)line.left,
			      (const char *)line.at);

	return length > 0 && length < (int)HTTP_HEAD_MAX && http_head_length(text, (size_t)length) == (size_t)length &&
	       http_head_parse(text, (size_t)length, &exchange->head) == 0;
}

static void serve(struct input input)
{
	static char text[HTTP_HEAD_MAX];
	uint8_t flags = take_byte(&input), piece = take_byte(&input), code = take_byte(&input);
	struct input line = take_text(&input), body = take_text(&input), reply = take_text(&input);
	struct caller caller = {.authorization = "Bearer e2b_00", .address = "192.0.2.1:1"};
	struct http_exchange exchange = {.tls = flags & 1};

	if (memchr(line.at, '\0', line.left) || !make_head(&exchange, line, text))
		return;
	n_calls = 0;
	slow = flags & 2;
	refuse_calls = flags & 4;
	if (flags & 8)
		caller.authorization[0] = '\0';
	if (!rest_upload_serve(&exchange, &caller))
		rest_serve(&exchange, &caller, "sandboxes.test");
	if (exchange.events && !exchange.answered) {
		give_body(&exchange, body, piece);
		answer_calls(&exchange, code, reply, input);
	}
	MUST(exchange.answered);
	if (exchange.events)
		exchange.events->on_close(&exchange, exchange.answered, exchange.arg);
	for (unsigned int i = 0; i < n_calls; i++)
		MUST(!calls[i].open);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool ready;

	if (!ready) {
		json_start();
		uploaded = BUFFER(1 << 20);
		ready = true;
	}
	serve((struct input){.at = data, .left = size});
	buffer_free(&uploaded);
	uploaded = BUFFER(1 << 20);
	return 0;
}
