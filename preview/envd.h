#ifndef PADDOCK_PREVIEW_ENVD_H
#define PADDOCK_PREVIEW_ENVD_H

#include <stdint.h>

#include "http.h"
#include "upstream.h"

#define ENVD_PORT 49983

/* A port of a sandbox, as the SDKs address it. Port 49983 is the one where hosted sandboxes have their agent: its paths
 * are answered here, by calls to paddockd. */
void envd_serve(struct http_exchange *exchange, const struct caller *caller, uint16_t port);

/* 502, in the words that the SDKs look for. */
void envd_not_found(struct http_exchange *exchange, const char *sandbox);

#endif
