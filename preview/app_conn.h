#ifndef PADDOCK_PREVIEW_APP_CONN_H
#define PADDOCK_PREVIEW_APP_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "sandbox/base/error.h"

/*
 * A connection into a sandbox: dialled by init inside, handed out as a descriptor. One request is on it at a time;
 * after a response whose framing was clean it waits for the next one of the same visit, for four seconds.
 */

struct visit;
struct app_conn;

struct app_events {
	/* There may be bytes to read, or the connection is at its end. */
	void (*on_readable)(void *arg);
	/* Little waits to be written again. */
	void (*on_drained)(void *arg);
	/* It is broken; -ETIMEDOUT: connecting took too long. It may be closed now. */
	void (*on_failed)(int rc, void *arg);
};

/* An idle one of the visit, or NULL. */
struct app_conn *app_conn_take(struct visit *visit);

/* Dial. done(): a connection (connecting perhaps), or NULL with the reason: FAILED_PRECONDITION when nothing listens on
 * the port. NULL with `err`: it cannot be asked for. */
struct app_dial;
struct app_dial *app_dial(const struct visit *visit,
			  void (*done)(struct app_conn *conn, enum pdk_code code, const char *text, void *arg),
			  void *arg, struct pdk_error *err);
void app_dial_cancel(struct app_dial *dial);

/* Whose it is from now on. */
void app_conn_own(struct app_conn *conn, const struct app_events *events, void *arg);
/* Queue bytes and write what goes. -ENOBUFS, -ENOMEM. An application that takes no more is no error: reading tells. */
int app_conn_write(struct app_conn *conn, const void *bytes, size_t length);
/* More than a quarter of a megabyte waits: bring no more until on_drained(). */
bool app_conn_is_full(const struct app_conn *conn);
/* Bytes; 0: none now; -ECONNRESET: the end; another negative errno. */
ssize_t app_conn_read(struct app_conn *conn, void *bytes, size_t size);
/* Look for bytes, or not. */
void app_conn_want(struct app_conn *conn, bool reading);
/* Nothing waits to be written, so it can be kept for the next request. Else, or when enough are kept, it is closed. */
void app_conn_keep(struct app_conn *conn, struct visit *visit);
/* NULL is fine. */
void app_conn_close(struct app_conn *conn);

/* Of a visit: close the idle ones; those that have waited for long. */
void app_conns_close(struct visit *visit);
void app_conns_expire(struct visit *visit, uint64_t now_ns);

#endif
