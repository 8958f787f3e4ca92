#ifndef PADDOCK_PREVIEW_HTTP_INTERNAL_H
#define PADDOCK_PREVIEW_HTTP_INTERNAL_H

#include "http.h"
#include "http_chunk.h"
#include "sandbox/base/buffer.h"
#include "server/loop.h"
#include "transport.h"

#define HTTP_IN_MAX (128u << 10)
#define HTTP_OUT_MAX (8u << 20)       /* hard */
#define HTTP_OUT_HIGH (1u << 20)      /* http_room() counts down from here */
#define HTTP_OUT_LOW (256u << 10)     /* on_writable comes back here */
#define HTTP_FIELDS_BYTES (72u << 10) /* of a response: what an application may send, and ours */
#define HTTP_ADDRESS_SIZE 64

/* How a version of HTTP carries an exchange. What is common to all of them is checked and counted in http_reply.c. */
struct http_wire {
	/* Send the head: exchange->fields are whole. A response without a length has -1. */
	void (*begin)(struct http_exchange *exchange, int status, int64_t length);
	/* Answer an upgrade; NULL: this version has none. */
	void (*upgrade)(struct http_exchange *exchange, const char *protocol);
	void (*write)(struct http_exchange *exchange, const void *bytes, size_t length);
	void (*end)(struct http_exchange *exchange);
	void (*abort)(struct http_exchange *exchange);
	/* The body of the request is wanted again. */
	void (*resume)(struct http_exchange *exchange);
	size_t (*room)(const struct http_exchange *exchange);
};

struct http_exchange {
	const struct http_wire *wire;
	const char *address; /* of the client */
	bool tls;

	struct http_head head;
	char *head_text; /* what `head` points into */
	struct http_events events;
	void *arg;

	bool body_done; /* and on_body_end was called */
	bool paused;

	struct buffer fields; /* of the response */
	bool begun;
	bool ended;
	bool starved; /* http_room() was 0: on_writable is due */
	bool bodiless;
	bool raw;             /* upgraded */
	uint64_t length_left; /* of a response with a length */
};

/* What the owner has of the exchange is over: on_close, and nothing more. */
void http_exchange_close(struct http_exchange *exchange, bool completed);
/* 1xx, 204 and 304 have no body, whatever the request was. */
bool http_never_has_body(int status);
/* Of now, as the field Date has it. */
const char *http_date(void);

/* Something that the server runs soon, outside of every callback. Embedded in its owner. */
struct http_work {
	struct http_work *next;
	bool due;
	/* May free its owner. */
	void (*run)(struct http_work *work);
};

/*
 * What a connection is doing:
 *
 *	HANDSHAKE  TLS. Leaves to HEAD, GONE, or it is handed over (h2)
 *	HEAD       waits for a whole head. Leaves to EXCHANGE, LEAVING (a bad head was answered), GONE
 *	EXCHANGE   the owner has a request. Leaves to HEAD (keep-alive), LEAVING, GONE
 *	LEAVING    the last bytes go out, then the writing side is shut, and what still comes is thrown away for
 *	           a moment, so that the client reads our answer and not a reset. Leaves to GONE
 *	GONE       closed; freed at the end of its run
 */
enum http_state { HTTP_HANDSHAKE, HTTP_HEAD, HTTP_EXCHANGE, HTTP_LEAVING, HTTP_GONE };

struct http_conn {
	struct http_work work; /* first */
	struct http_server *server;
	struct http_conn *next, *previous; /* of the server's */

	struct transport transport;
	struct loop_watch *watch;
	struct loop_timer timer;
	uint64_t progress_ns; /* when something last moved */
	enum http_state state;
	bool readable; /* the socket may have bytes */
	bool eof;      /* the client has said its last */
	bool keep_alive;
	bool aborted;
	bool handed_over;
	bool finished; /* LEAVING: our side is shut */
	size_t discarded;

	struct buffer in;
	struct buffer out;
	char address[HTTP_ADDRESS_SIZE];
	struct http_address *peer;
	bool exchange_live;
	struct http_exchange exchange;
	struct http_chunk chunk; /* of the request's body */
	uint64_t body_left;      /* of a request's body with a length */
	bool chunked;            /* the response */
};

static inline struct http_conn *http_conn_of(const struct http_exchange *exchange)
{
	return (struct http_conn *)((uintptr_t)exchange - offsetof(struct http_conn, exchange));
}

/* One address that has connections. */
struct http_address {
	struct http_address *next;
	uint8_t bytes[16];
	unsigned int connections;
};

#define HTTP_ADDRESS_BUCKETS 1024u
#define HTTP_LISTENERS_MAX 8

struct http_listener {
	struct http_server *server;
	int fd;
	bool tls;
	struct loop_watch *watch;
};

struct http_server {
	struct http_settings settings;
	SSL_CTX *tls;
	struct http_listener listeners[HTTP_LISTENERS_MAX];
	unsigned int n_listeners;
	struct http_conn *connections;
	unsigned int n_connections;
	struct http_work *due;
	bool task_queued;
	bool closing;
	struct loop_task task;
	struct loop_timer retry; /* accept() ran out of descriptors */
	struct http_address *addresses[HTTP_ADDRESS_BUCKETS];
};

void http_work_schedule(struct http_server *server, struct http_work *work);
void http_work_cancel(struct http_server *server, struct http_work *work);

extern const struct http_wire http1_wire;
/* Let the connection do what it can, soon. */
void http_conn_schedule(struct http_conn *conn);
void http_conn_run(struct http_conn *conn);
int http_conn_create(struct http_server *server, int fd, bool tls, const char *address, struct http_address *peer);
void http_server_forget(struct http_server *server, struct http_conn *conn);

#endif
