#ifndef PADDOCK_PREVIEW_ENVD_H
#define PADDOCK_PREVIEW_ENVD_H

#include <stdint.h>

#include "http.h"
#include "upstream.h"

#define ENVD_PORT 49983

/* Port 49983 of a sandbox: where hosted sandboxes have their agent, as the SDKs address it. Its paths are answered
 * here, by calls to paddockd. */
void envd_serve(struct http_exchange *exchange, const struct caller *caller);

/* GET /metrics there. */
void envd_metrics(struct http_exchange *exchange, const struct caller *caller);

/* 502, in the words that the SDKs look for. */
void envd_not_found(struct http_exchange *exchange, const char *sandbox);

#endif
