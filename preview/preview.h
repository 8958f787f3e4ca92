#ifndef PADDOCK_PREVIEW_PREVIEW_H
#define PADDOCK_PREVIEW_PREVIEW_H

#include "http.h"
#include "url.h"

/* A request to "<id>.<domain>": a grant. The token of a link becomes a cookie and leaves the address; with the cookie
 * the request goes to the application, if no other page has made it. */
void preview_serve(struct http_exchange *exchange, const char *label);

/* Take the exchange to the visit of this key, which is opened if it is not; or tell the visitor why not. */
struct visit_key;
void preview_visit(struct http_exchange *exchange, const struct visit_key *key);

#endif
