#ifndef PADDOCK_PREVIEW_HTTP_INTERNAL_H
#define PADDOCK_PREVIEW_HTTP_INTERNAL_H

#include "http.h"
#include "http_chunk.h"
#include "sandbox/base/buffer.h"
#include "server/loop.h"
#include "transport.h"

#define HTTP_IN_MAX (128u << 10)
#define HTTP_OUT_MAX (8u << 20)   /* hard */
#define HTTP_OUT_HIGH (1u << 20)  /* http_room() counts down from here */
#define HTTP_OUT_LOW (256u << 10) /* on_writable comes back here */
#define HTTP_FIELDS_BYTES (72u << 10) /* of a response: what an application may send, and ours */
#define HTTP_ADDRESS_SIZE 64

struct http_exchange {
	struct http_head head;
	char *head_text; /* what `head` points into */
	struct http_events events;
	void *arg;

	struct http_chunk chunk;
	uint64_t body_left; /* of a body with a length */
	bool body_done;     /* and on_body_end was called */
	bool paused;

	struct buffer fields; /* of the response */
	bool begun;
	bool chunked;
	bool ended;
	bool starved; /* http_room() was 0: on_writable is due */
	bool bodiless;
	bool raw; /* upgraded */
	uint64_t length_left; /* of a response with a length */
};

/*
 * What a connection is doing:
 *
 *	HANDSHAKE  TLS. Leaves to HEAD, GONE, or it is handed over (h2)
 *	HEAD       waits for a whole head. Leaves to EXCHANGE, LEAVING (a bad head was answered), GONE
 *	EXCHANGE   the owner has a request. Leaves to HEAD (keep-alive), LEAVING, GONE
 *	LEAVING    the last bytes go out, then the writing side is shut, and what still comes is thrown away for a
 *moment, so that the client reads our answer and not a reset. Leaves to GONE GONE       closed; freed at the end of its
 *run
 */
enum http_state { HTTP_HANDSHAKE, HTTP_HEAD, HTTP_EXCHANGE, HTTP_LEAVING, HTTP_GONE };

struct http_conn {
	struct http_server *server;
	struct http_conn *next, *previous; /* of the server's */
	struct http_conn *next_due;        /* of those that have work */
	bool due;
	bool running;

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
	struct http_conn *due;
	bool task_queued;
	bool closing;
	struct loop_task task;
	struct loop_timer retry; /* accept() ran out of descriptors */
	struct http_address *addresses[HTTP_ADDRESS_BUCKETS];
};

/* Let the connection do what it can, soon. */
void http_conn_schedule(struct http_conn *conn);
void http_conn_run(struct http_conn *conn);
int http_conn_create(struct http_server *server, int fd, bool tls, const char *address, struct http_address *peer);
void http_server_forget(struct http_server *server, struct http_conn *conn);

#endif
