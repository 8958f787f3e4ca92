#ifndef PADDOCK_WARDEN_SERVE_H
#define PADDOCK_WARDEN_SERVE_H

#include "protocol.h"
#include "sandbox/base/error.h"
#include <stdbool.h>
#include <stdint.h>

/* Whom a later reply belongs to: one request on one connection. A reply to a connection that is gone is dropped:
 * the next paddockd asks WARDEN_LIST. */
struct ticket {
	uint32_t op;
	uint32_t serial;
	uint32_t connection; /* 0: nobody waits */
};

int serve_setup(struct pdk_error *err);
/* Is the connection that asked still there? */
bool serve_waits(struct ticket ticket);
/* Fill op, serial, status and text in, and send. `fd` (or -1) travels with it and stays the caller's. */
void serve_reply(struct ticket ticket, struct warden_reply *reply, int fd);
/* A reply that is only a status. `err` may be NULL when rc is 0. */
void serve_status(struct ticket ticket, const char *id, int rc, const struct pdk_error *err);
/* An event to whoever is connected. */
void serve_event(struct warden_reply *event);

#endif
