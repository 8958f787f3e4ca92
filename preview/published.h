#ifndef PADDOCK_PREVIEW_PUBLISHED_H
#define PADDOCK_PREVIEW_PUBLISHED_H

#include "proxy.h"

/* Ports that a sandbox publishes, under the names of the hosted-sandbox SDKs: "<port>-<id>.<domain>", or the header
 * that names a sandbox and a port. There is no cookie and so nothing that another page could use; whoever may come
 * shows nothing, or the traffic token. */

void published_serve(struct http_exchange *exchange, const char *sandbox, uint16_t port);

/* In the words that the SDKs look for; to browsers as a page. */
void published_refuse(struct http_exchange *exchange, const struct visit_key *key, visit_refusal why);
void published_closed(struct http_exchange *exchange, const struct visit_key *key);

#endif
