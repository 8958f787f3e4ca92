#ifndef PADDOCK_PREVIEW_GUARD_H
#define PADDOCK_PREVIEW_GUARD_H

#include "http.h"

/*
 * The guard in front of gRPC. Debian's gRPC core is not made for strangers: a flood of stream resets costs it a
 * gigabyte, and header blocks pass its limit. The guard owns the client's socket (and its TLS), looks at HTTP/2's
 * frames and header blocks (guard_frames.c), and hands the bytes on to paddockd's unix socket, both ways, with
 * back-pressure. It decodes no message. A client that breaks a rule gets GOAWAY and is closed, before paddockd has seen
 * the frame.
 */

/* `path` of paddockd's socket for holders of keys; must stay valid. */
void guard_start(const char *path);
/* As http_settings.on_h2. */
void guard_take(struct http_handover *handover, void *arg);
void guard_stop(void);
unsigned int guard_connections(void);

#endif
