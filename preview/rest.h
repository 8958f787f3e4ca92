#ifndef PADDOCK_PREVIEW_REST_H
#define PADDOCK_PREVIEW_REST_H

#include "http.h"
#include "upstream.h"

/* The control plane of the hosted-sandbox SDKs (E2B, Novita): a table of routes, each a call or two of paddock.v1.
 * `domain` is what sandboxes are told to build their host names from. */
void rest_serve(struct http_exchange *exchange, const struct caller *caller, const char *domain);

/* PUT of the files of a build, to the address that rest_serve() gave out: it needs no key. False: it is none. */
bool rest_upload_serve(struct http_exchange *exchange, const struct caller *caller);

/* {"code": STATUS, "message": TEXT}: how everything but Connect says that something is wrong. */
void rest_fail(struct http_exchange *exchange, int status, const char *text);

#endif
