#ifndef PADDOCK_SERVER_WARDEN_CLIENT_H
#define PADDOCK_SERVER_WARDEN_CLIENT_H

#include "sandbox/base/error.h"
#include "sandbox/warden/protocol.h"
#include <stdbool.h>
#include <stdint.h>

/* The daemon's end of the warden socket: requests with a serial, replies by callback under the loop lock.
 * When the connection breaks, every waiting request gets -ECONNRESET, and it is retried every 100 ms; after a
 * reconnect `on_reconnect` runs so that the owner reconciles. */

/* `fd` is the reply's descriptor or -1; take it with STEAL_FD, else it is closed. Runs once per reply, so more than
 * once when reply->flags has WARDEN_MORE. */
typedef void (*warden_reply_handler)(const struct warden_reply *reply, int *fd, void *arg);

/* Send a request (serial is filled in). `fd` (or -1) travels with it and stays the caller's.
 * -ENOTCONN: the warden is away; the handler will not run then. */
int warden_call(struct warden_request *request, int fd, warden_reply_handler handler, void *arg);

#define WARDEN_TIMEOUT_MS 30000 /* of warden_call_wait() */

/* For start-up, before loop_run(): as warden_call(), and read the socket here until the last reply to this request has
 * been handled. -ETIMEDOUT after `timeout_ms`. Other replies that come meanwhile are handled as well. */
int warden_call_wait(struct warden_request *request, warden_reply_handler handler, void *arg, int timeout_ms,
		     struct pdk_error *err);

/* True between the answered hello and the end of the connection. */
bool warden_connected(void);

struct warden_events {
	void (*on_exited)(const struct warden_reply *event);
	void (*on_reconnect)(void);
};
/* Connect and say hello, waiting at most 10 s. */
int warden_client_start(const char *runtime_dir, const struct warden_events *events, struct pdk_error *err);
void warden_client_stop(void);

#endif
