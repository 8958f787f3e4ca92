#include "sandbox/call/call.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "paddock/internal/call.pb-c.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/link.h"

/*
 * Theory of operation. A call is a link stream. It leaves the table when paddockd's END has come, which follows the
 * status; ours goes out then, if it has not before, so that the number is free again. A cancelled call stays in the
 * table without callbacks until then.
 *
 * A failure to write is kept in `broken` and told by the next call_link_io(): nothing calls back from inside a send.
 */

#define BUCKETS 1024u
#define CALLS_MAX 4096u
#define WINDOW 4u
#define FRAMES_PER_TURN 64u
#define REPLY_MAX (64u << 10)

struct call {
	struct call *next;
	struct call_link *link;
	uint32_t stream;
	uint32_t credit; /* messages that paddockd may still send */
	uint32_t window; /* messages that we may still send */
	bool half_closed;
	bool cancelled;
	bool ended; /* the status is here: code, text */
	enum pdk_code code;
	char *text;
	struct call_events events;
	void *arg;
};

struct call_link {
	struct link *link;
	int broken;
	struct call *buckets[BUCKETS];
	unsigned int n_calls;
	uint32_t next_stream;
};

static struct call **slot_of(struct call_link *link, uint32_t stream)
{
	struct call **slot = &link->buckets[(stream >> 1) % BUCKETS];

	while (*slot && (*slot)->stream != stream)
		slot = &(*slot)->next;
	return slot;
}

static void call_free(struct call *call)
{
	free(call->text);
	free(call);
}

static void call_remove(struct call *call)
{
	*slot_of(call->link, call->stream) = call->next;
	call->link->n_calls--;
}

/* Output */

static int write_frame(struct call *call, enum link_kind kind, const void *payload, size_t length)
{
	struct call_link *link = call->link;
	int rc = link->broken;

	if (rc == 0)
		rc = link_send(link->link, call->stream, kind, payload, length, NULL, 0);
	if (rc < 0 && rc != -EMSGSIZE && !link->broken)
		link->broken = rc;
	return rc;
}

static int write_request(struct call *call, const Paddock__Internal__CallRequest *request)
{
	size_t length = paddock__internal__call_request__get_packed_size(request);
	_cleanup_free_ uint8_t *packed = length <= REPLY_MAX ? malloc(length + 1) : NULL;

	if (!packed)
		return length <= REPLY_MAX ? -ENOMEM : -EMSGSIZE;
	return write_frame(call, LINK_REQUEST, packed, paddock__internal__call_request__pack(request, packed));
}

static char *text_of(const char *text)
{
	return (char *)(uintptr_t)(text ? text : "");
}

static int write_open(struct call *call, const struct call_open *open)
{
	Paddock__Internal__CallOpen message = PADDOCK__INTERNAL__CALL_OPEN__INIT;
	Paddock__Internal__CallRequest request = PADDOCK__INTERNAL__CALL_REQUEST__INIT;
	Paddock__Internal__CallFileSignature file = PADDOCK__INTERNAL__CALL_FILE_SIGNATURE__INIT;

	message.method = text_of(open->method);
	message.authorization = text_of(open->authorization);
	message.access_token = text_of(open->access_token);
	message.sandbox_id = text_of(open->sandbox_id);
	message.user = text_of(open->user);
	message.client_address = text_of(open->client_address);
	message.timeout_ms = open->timeout_ms;
	message.credit = open->credit;
	if (open->file) {
		file.path = text_of(open->file->path);
		file.user = text_of(open->file->user);
		file.signature = text_of(open->file->signature);
		file.expires = open->file->expires;
		file.expires_unix_s = open->file->expires_unix_s;
		message.file = &file;
	}
	request.what_case = PADDOCK__INTERNAL__CALL_REQUEST__WHAT_OPEN;
	request.open = &message;
	return write_request(call, &request);
}

/* A number that no call has. There are far more numbers than calls. */
static uint32_t take_stream(struct call_link *link)
{
	do
		link->next_stream += 2;
	while (*slot_of(link, link->next_stream));
	return link->next_stream;
}

struct call *call_open(struct call_link *link, const struct call_open *open, const struct call_events *events,
		       void *arg, int *ret_rc)
{
	struct call *call;

	*ret_rc = link->broken ? -EPIPE : link->n_calls >= CALLS_MAX ? -EAGAIN : 0;
	if (*ret_rc < 0)
		return NULL;
	call = calloc(1, sizeof(*call));
	if (!call) {
		*ret_rc = -ENOMEM;
		return NULL;
	}
	*call = (struct call){.link = link, .credit = open->credit, .window = WINDOW, .events = *events, .arg = arg};
	call->stream = take_stream(link);
	*ret_rc = write_open(call, open);
	if (*ret_rc < 0) {
		free(call);
		return NULL;
	}
	*slot_of(link, call->stream) = call;
	link->n_calls++;
	return call;
}

bool call_can_send(const struct call *call)
{
	return call->window && !call->half_closed && !call->ended && !call->link->broken;
}

int call_send(struct call *call, const void *bytes, size_t length)
{
	int rc;

	if (call->half_closed || call->link->broken)
		return -EPIPE;
	if (call->ended)
		return 0; /* on_end comes at once */
	if (!call->window)
		return -EAGAIN;
	rc = write_frame(call, LINK_EVENT, bytes, length);
	if (rc == 0)
		call->window--;
	return rc;
}

void call_half_close(struct call *call)
{
	if (call->half_closed)
		return;
	call->half_closed = true;
	write_frame(call, LINK_END, NULL, 0);
}

void call_credit(struct call *call, uint32_t n)
{
	struct call_link *link = call->link;
	int rc;

	if (!n || link->broken || call->ended)
		return;
	rc = link_send_credit(link->link, call->stream, n);
	if (rc < 0)
		link->broken = rc;
	else
		call->credit += n;
}

void call_cancel(struct call *call)
{
	Paddock__Internal__CallCancel cancel = PADDOCK__INTERNAL__CALL_CANCEL__INIT;
	Paddock__Internal__CallRequest request = PADDOCK__INTERNAL__CALL_REQUEST__INIT;

	if (!call || call->cancelled)
		return;
	call->cancelled = true;
	if (call->ended)
		return;
	request.what_case = PADDOCK__INTERNAL__CALL_REQUEST__WHAT_CANCEL;
	request.cancel = &cancel;
	write_request(call, &request);
	call_half_close(call);
}

struct call *call_unary(struct call_link *link, const struct call_open *open, const void *bytes, size_t length,
			const struct call_events *events, void *arg, int *ret_rc)
{
	struct call *call = call_open(link, open, events, arg, ret_rc);

	if (!call)
		return NULL;
	*ret_rc = call_send(call, bytes, length);
	if (*ret_rc < 0) {
		call_cancel(call);
		return NULL;
	}
	call_half_close(call);
	return call;
}

/* Input */

static int on_reply(struct call *call, const struct link_frame *frame)
{
	Paddock__Internal__CallReply *reply;
	int rc = -EPROTO;

	if (call->ended || frame->length > REPLY_MAX)
		return -EPROTO;
	reply = paddock__internal__call_reply__unpack(NULL, frame->length, frame->payload);
	if (reply && reply->what_case == PADDOCK__INTERNAL__CALL_REPLY__WHAT_END) {
		call->ended = true;
		call->code = (enum pdk_code)reply->end->code;
		call->text = strdup(reply->end->message);
		rc = call->text ? 0 : -ENOMEM;
	}
	paddock__internal__call_reply__free_unpacked(reply, NULL);
	return rc;
}

static int on_event(struct call *call, struct link_frame *frame)
{
	if (call->ended || !call->credit)
		return -EPROTO;
	call->credit--;
	if (!call->cancelled)
		call->events.on_message(call, frame->payload, frame->length, frame->fds, frame->n_fds, call->arg);
	return 0;
}

static int on_credit(struct call *call, uint32_t credit)
{
	bool could = call_can_send(call);

	if (credit > WINDOW - call->window)
		return -EPROTO;
	call->window += credit;
	if (!could && call_can_send(call) && !call->cancelled && call->events.on_writable)
		call->events.on_writable(call, call->arg);
	return 0;
}

static int on_end(struct call *call)
{
	if (!call->ended)
		return -EPROTO;
	call_half_close(call);
	call_remove(call);
	if (!call->cancelled)
		call->events.on_end(call, call->code, call->text, call->arg);
	call_free(call);
	return 0;
}

static int on_frame(struct link *wire, struct link_frame *frame, void *arg)
{
	struct call_link *link = arg;
	struct call *call = *slot_of(link, frame->stream);

	if (!call || (frame->n_fds && frame->kind != LINK_EVENT))
		return -EPROTO;
	switch (frame->kind) {
	case LINK_REPLY:
		return on_reply(call, frame);
	case LINK_EVENT:
		return on_event(call, frame);
	case LINK_CREDIT:
		return on_credit(call, frame->credit);
	case LINK_END:
		return on_end(call);
	case LINK_REQUEST:
		return -EPROTO;
	}
	return -EPROTO;
}

int call_link_io(struct call_link *link, uint32_t events)
{
	int rc = link->broken;

	if (rc == 0 && events & EPOLLOUT)
		rc = link_flush(link->link);
	if (rc == 0)
		rc = link_input(link->link, FRAMES_PER_TURN);
	if (rc >= 0 && link->broken)
		rc = link->broken;
	if (rc < 0)
		link->broken = rc;
	return rc;
}

void call_link_flush(struct call_link *link)
{
	int rc = link->broken ? 0 : link_flush(link->link);

	if (rc < 0)
		link->broken = rc;
}

/* Life */

struct call_link *call_link_create(int fd)
{
	struct call_link *link = calloc(1, sizeof(*link));

	if (!link)
		return NULL;
	link->next_stream = UINT32_MAX; /* the first is 1 */
	link->link = link_create(fd, LINK_PAYLOAD_MAX, on_frame, link);
	if (!link->link) {
		free(link);
		return NULL;
	}
	link_gather(link->link);
	return link;
}

struct call_link *call_link_connect(const char *path, struct pdk_error *err)
{
	_cleanup_fd_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct call_link *link;

	if (fd < 0)
		return pdk_fail_errno(err, -errno, "socket"), NULL;
	if (strlen(path) >= sizeof(address.sun_path))
		return pdk_fail(err, -ENAMETOOLONG, PDK_INVALID_ARGUMENT, "%s: too long for a socket", path), NULL;
	strcpy(address.sun_path, path);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return pdk_fail_errno(err, -errno, "%s", path), NULL;
	link = call_link_create(fd);
	if (!link)
		return pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "out of memory"), NULL;
	STEAL_FD(fd);
	return link;
}

void call_link_free(struct call_link *link)
{
	if (!link)
		return;
	link->broken = link->broken ? link->broken : -ECONNRESET;
	for (unsigned int i = 0; i < BUCKETS; i++) {
		while (link->buckets[i]) {
			struct call *call = link->buckets[i];

			call_remove(call);
			if (!call->cancelled)
				call->events.on_end(call, PDK_UNAVAILABLE, "the server does not answer", call->arg);
			call_free(call);
		}
	}
	link_free(link->link);
	free(link);
}

int call_link_fd(const struct call_link *link)
{
	return link_fd(link->link);
}

uint32_t call_link_events(const struct call_link *link)
{
	return link_events(link->link);
}

unsigned int call_link_active(const struct call_link *link)
{
	return link->n_calls;
}
