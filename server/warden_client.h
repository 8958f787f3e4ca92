#ifndef PADDOCK_SERVER_WARDEN_CLIENT_H
#define PADDOCK_SERVER_WARDEN_CLIENT_H

#include <stdint.h>
#include "sandbox/base/error.h"
#include "sandbox/warden/protocol.h"

/* The daemon's end of the warden socket: requests with a serial, replies by callback under the loop lock.
 * When the connection breaks, every waiting request gets -ECONNRESET, and it is retried every 100 ms; after a
 * reconnect `on_reconnect` runs so that the owner reconciles. */

/* `fd` is the reply's descriptor or -1; take it with STEAL_FD, else it is closed. Runs once per reply, so more than
 * once when reply->flags has WARDEN_MORE. */
typedef void (*warden_reply_handler)(const struct warden_reply *reply, int *fd, void *arg);

/* Send a request (serial is filled in). `fd` (or -1) travels with it and stays the caller's.
 * -ENOTCONN: the warden is away; the handler will not run then. */
int warden_call(struct warden_request *request, int fd, warden_reply_handler handler, void *arg);

struct warden_events {
	void (*on_exited)(const struct warden_reply *event);
	void (*on_reconnect)(void);
};
/* Connect and say hello, waiting at most 10 s. */
int warden_client_start(const char *runtime_dir, const struct warden_events *events, struct pdk_error *err);
void warden_client_stop(void);

#endif
