#ifndef PADDOCK_PREVIEW_CONNECT_H
#define PADDOCK_PREVIEW_CONNECT_H

#include "http.h"
#include "methods.h"
#include "upstream.h"

/*
 * The Connect protocol (connectrpc.com) on one exchange: unary calls as application/json and application/proto, streams
 * as application/connect+json and application/connect+proto, timeouts, gzip in requests, the end-of-stream message. The
 * call goes on to paddockd in the name of the caller; nothing is decided here about who may do what.
 */
void connect_serve(struct http_exchange *exchange, const struct method *method, const struct caller *caller);

/* "not_found" and the like, and the HTTP status that goes with a unary error. */
const char *connect_code_name(enum pdk_code code);
int connect_http_status(enum pdk_code code);

/* A unary error on an exchange whose call never began. */
void connect_fail(struct http_exchange *exchange, enum pdk_code code, const char *text);

#endif
