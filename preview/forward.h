#ifndef PADDOCK_PREVIEW_FORWARD_H
#define PADDOCK_PREVIEW_FORWARD_H

#include "http_head.h"
#include "http_response.h"
#include "sandbox/base/buffer.h"

/*
 * What passes between a visitor and an application in a sandbox, and what does not. Heads are written anew from their
 * parsed parts, never handed on as bytes. Free of I/O, for tests and fuzzing.
 */

/* The visitor's cookie. "__Host-" is kept by browsers for https alone, so plain http on loopback has another name. */
#define FORWARD_COOKIE_TLS "__Host-paddock-preview"
#define FORWARD_COOKIE_PLAIN "paddock-preview"
#define FORWARD_COOKIE_LEN 96
#define FORWARD_TOKEN_LEN 64
#define FORWARD_TOKEN_PARAMETER "paddock_token"

/* Lower-case hexadecimal digits, exactly so many. */
bool forward_is_hex(const char *text, size_t length);

/* The visitor's cookie of a request; false: there is none, there are two, or it is not in its form. */
bool forward_cookie(const struct http_head *head, bool tls, char ret[FORWARD_COOKIE_LEN + 1]);

/* The token in a query, and the query without it (as long as the query at most). 1; 0: there is none; -EINVAL: it is
 * not in its form, or there are two. */
int forward_token(const char *query, char ret_token[FORWARD_TOKEN_LEN + 1], char *ret_rest, size_t size);

/* Does "https://host[:port]" name the origin that this request came to? */
bool forward_same_origin(const char *origin, const char *host, bool tls);

/* May a page that the visitor did not mean to open have made this request with the visitor's cookie? Unsafe methods,
 * websockets, frames and everything but navigation from other origins are refused. */
bool forward_is_foreign(const struct http_head *head, bool tls);

struct forward_request {
	const struct http_head *head;
	const char *host;    /* the Host for the application */
	const char *address; /* "203.0.113.9:4711": of the visitor */
	bool tls;
	bool upgrade; /* to a websocket */
};
/* Append the head of the request for the application. -ENOBUFS, -ENOMEM. */
int forward_request(const struct forward_request *request, struct buffer *out);

/* "${PORT}" becomes the port. */
void forward_host(const char *pattern, unsigned int port, char *ret, size_t size);

/* Is this field of a response for the visitor? */
bool forward_response_field(const struct http_response *response, const char *name);
/* A Set-Cookie for the visitor: without Domain, so that it stays with the host that it came from. False: it is left
 * out, because it is one of ours or does not fit. */
bool forward_set_cookie(const char *value, char *ret, size_t size);

#endif
