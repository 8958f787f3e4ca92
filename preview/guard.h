#ifndef PADDOCK_PREVIEW_GUARD_H
#define PADDOCK_PREVIEW_GUARD_H

#include "http.h"

/*
 * The guard in front of everything that speaks HTTP/2. It owns the client's socket (and its TLS) and looks at frames
 * and header blocks (guard_frames.c) before anybody else sees them: a client that breaks a rule gets GOAWAY and is
 * closed.
 *
 * The first request of a connection says whom it is for. gRPC (by its content-type, at a host that is no sandbox's)
 * gets the bytes as they are, on paddockd's unix socket: Debian's gRPC core is not made for strangers, a flood of
 * stream resets costs it a gigabyte and header blocks pass its limit. Everything else becomes exchanges (h2_session.c),
 * the same as those of HTTP/1.1.
 */

/* `path` of paddockd's socket for holders of keys; must stay valid. */
void guard_start(const char *path);
/* As http_settings.on_h2. */
void guard_take(struct http_handover *handover, void *arg);
void guard_stop(void);
unsigned int guard_connections(void);

#endif
