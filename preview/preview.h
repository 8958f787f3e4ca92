#ifndef PADDOCK_PREVIEW_PREVIEW_H
#define PADDOCK_PREVIEW_PREVIEW_H

#include "http.h"
#include "url.h"

/* A request to "<id>.<domain>": a grant. The token of a link becomes a cookie and leaves the address; with the cookie
 * the request goes to the application, if no other page has made it. */
void preview_serve(struct http_exchange *exchange, const char *label);

/* The first label of a host has the form of a grant's name. */
bool preview_is_name(const char *host);
/* A request to such a host below another domain than `domain`, ours: links are made with what paddockd takes for it.
 * Says so, to the visitor and in the log. */
void preview_misplaced(struct http_exchange *exchange, const char *domain);

/* Take the exchange to the visit of this key, which is opened if it is not; or tell the visitor why not. */
struct visit_key;
void preview_visit(struct http_exchange *exchange, const struct visit_key *key);

#endif
