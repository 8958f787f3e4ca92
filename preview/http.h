#ifndef PADDOCK_PREVIEW_HTTP_H
#define PADDOCK_PREVIEW_HTTP_H

#include <netinet/in.h>
#include <openssl/ssl.h>
#include <stdint.h>

#include "http_head.h"
#include "sandbox/base/error.h"

/*
 * HTTP/1.1 towards clients. A connection has one exchange at a time: a request, whose body comes in pieces, and its
 * response, which is given whole or in pieces. Both directions have back-pressure: a handler pauses the body that it
 * cannot take, and writes only while http_room() says so.
 *
 * All work of a connection is done in one place, which the event loop calls; the functions below only note what is
 * wanted and may be called from anywhere, callbacks included. No callback runs inside of them.
 */

struct http_exchange;

/* How the owner of an exchange hears of it. on_close is always the last; each may be NULL. */
struct http_events {
	void (*on_body)(struct http_exchange *exchange, const uint8_t *bytes, size_t length, void *arg);
	void (*on_body_end)(struct http_exchange *exchange, void *arg);
	/* http_room() has become large again. */
	void (*on_writable)(struct http_exchange *exchange, void *arg);
	/* The response is out, or the client is gone: `completed` tells which. The exchange must not be touched any
	 * more. */
	void (*on_close)(struct http_exchange *exchange, bool completed, void *arg);
};

struct http_server;

/* A connection that changes its owner, with its socket and TLS object. It still counts as one of the server's, and of
 * its address's, until http_release(). */
struct http_handover {
	int fd;
	SSL *ssl;             /* NULL: plain */
	const uint8_t *bytes; /* that were read already */
	size_t length;
	const char *address;
	struct http_server *server;
	struct http_address *peer;
};
void http_release(struct http_server *server, struct http_address *peer);

struct http_settings {
	/* A head is whole: look at it, own the exchange (http_own()), and answer now or later. */
	void (*on_request)(struct http_exchange *exchange, void *arg);
	/* A client that speaks HTTP/2: take the connection over. NULL: it is closed. */
	void (*on_h2)(struct http_handover *handover, void *arg);
	void *arg;
	unsigned int max_connections;
	unsigned int max_per_address;
	uint32_t head_timeout_ms;  /* for a handshake, and for a head from its first byte */
	uint32_t idle_timeout_ms;  /* between requests */
	uint32_t stall_timeout_ms; /* a body or a response that makes no progress */
};

struct http_server *http_server_create(const struct http_settings *settings);
/* Listen on an address; `context` NULL: plain HTTP. The context may be exchanged later, for connections to come. */
int http_server_listen(struct http_server *server, const char *address, bool tls, struct pdk_error *err);
void http_server_set_tls(struct http_server *server, SSL_CTX *context);
/* Stop listening, and close every connection. */
void http_server_free(struct http_server *server);
unsigned int http_server_connections(const struct http_server *server);

void http_own(struct http_exchange *exchange, const struct http_events *events, void *arg);
/* Valid until on_close. */
const struct http_head *http_request(const struct http_exchange *exchange);
/* "203.0.113.9:4711", "[2001:db8::1]:4711" */
const char *http_client_address(const struct http_exchange *exchange);
bool http_is_tls(const struct http_exchange *exchange);

void http_pause_body(struct http_exchange *exchange);
void http_resume_body(struct http_exchange *exchange);

/* A field of the response to come. Bytes that would break the head are left out. */
void http_add_field(struct http_exchange *exchange, const char *name, const char *value);
/* Begin the response. `length` -1: chunked (or until the end, for HTTP/1.0). */
void http_begin(struct http_exchange *exchange, int status, int64_t length);
/* How many bytes may be written now without piling up; 0 while the client is behind. */
size_t http_room(const struct http_exchange *exchange);
/* Answer an upgrade with 101: from here on the body, both ways, is bytes without a frame, until http_end() or until the
 * client is gone. The fields must not name Connection and Upgrade, which are ours. */
void http_upgrade(struct http_exchange *exchange, const char *protocol);
/* A piece of the body; more than http_room() is taken too, up to a hard bound of 8 MiB, where the connection is given
 * up. */
void http_write(struct http_exchange *exchange, const void *bytes, size_t length);
void http_end(struct http_exchange *exchange);
/* A whole response. `type` NULL: none. */
void http_reply(struct http_exchange *exchange, int status, const char *type, const void *body, size_t length);
/* Cut the connection, in mid-response: the client sees that something is missing. */
void http_abort(struct http_exchange *exchange);

const char *http_status_text(int status);

#endif
