#ifndef PADDOCK_PREVIEW_H2_SESSION_H
#define PADDOCK_PREVIEW_H2_SESSION_H

#include "http.h"
#include "sandbox/base/buffer.h"

/*
 * HTTP/2 towards clients: the requests of a connection become exchanges, as those of HTTP/1.1 do (http.h). nghttp2 does
 * frames, HPACK and flow control; the guard, which owns the connection, has looked at everything before. No I/O here.
 */

struct http_work;
struct h2_session;

struct h2_owner {
	struct http_server *server;
	struct http_work *work; /* scheduled when an exchange wants something */
	const char *address;    /* of the client; must stay valid */
	bool tls;
	const char *name; /* that the client asked for in its handshake, or NULL; copied */
};

/* NULL: out of memory. */
struct h2_session *h2_session_create(const struct h2_owner *owner);
/* Everybody who owns an exchange is told. NULL is fine. */
void h2_session_free(struct h2_session *session);

/* What the client says, all of it. Negative: the connection cannot go on. */
int h2_session_take(struct h2_session *session, const uint8_t *bytes, size_t length);
/* Call those who own exchanges. True if something was possible. */
bool h2_session_step(struct h2_session *session);
/* Put what the client is to be told behind what `to` has, until that has `mark` bytes or a few more. Negative: nothing
 * follows, and the connection is over once `to` was sent. */
int h2_session_give(struct h2_session *session, struct buffer *to, size_t mark);

unsigned int h2_session_streams(const struct h2_session *session);
/* When the connection has been idle for too long, or UINT64_MAX while it has streams. */
uint64_t h2_session_deadline(const struct h2_session *session);
/* Reset the streams whose client has neither sent nor taken anything for too long. */
void h2_session_tick(struct h2_session *session, uint64_t now_ns);

#endif
