#ifndef PADDOCK_CALL_CALL_H
#define PADDOCK_CALL_CALL_H

#include "sandbox/base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The client side of calls over link (proto/paddock/internal/call.proto): what the ingress brings its clients' calls to
 * paddockd with. Messages are packed protobuf, as in proto/; this library does not look into them.
 *
 * Like `link`, it does no scheduling of its own: the owner polls call_link_fd() for call_link_events() and calls
 * call_link_io(). Single-threaded. Nothing calls back from inside call_open(), call_send() and their like: callbacks
 * run in call_link_io() alone (and in call_link_free(), which ends all calls).
 */

struct call_link;
struct call;

struct call_events {
	/* A reply message; valid until the callback returns. It has cost one credit: call_credit() gives new. `fds` are
	 * the library's; take one with STEAL_FD(), the rest is closed after the callback. */
	void (*on_message)(struct call *call, const uint8_t *bytes, size_t length, int *fds, unsigned int n_fds,
			   void *arg);
	/* call_can_send() has become true again. May be NULL. */
	void (*on_writable)(struct call *call, void *arg);
	/* The status, once and last: the call must not be touched any more. UNAVAILABLE when the link is gone. */
	void (*on_end)(struct call *call, enum pdk_code code, const char *text, void *arg);
};

/* What a signed file URL says (call.proto). */
struct call_file {
	const char *path;
	const char *user;
	const char *signature;
	bool expires;
	int64_t expires_unix_s;
};

struct call_open {
	const char *method;           /* "/paddock.v1.Sandboxes/Create" */
	const char *authorization;    /* as the client sent it, or NULL */
	const char *access_token;     /* of the sandbox `sandbox_id`, or NULL; with one, authorization does not count */
	const char *sandbox_id;       /* or NULL */
	const char *user;             /* whom to act as in the sandbox, or NULL */
	const struct call_file *file; /* a signed file URL, or NULL; with one, no other credential counts */
	const char *client_address;   /* or NULL */
	uint64_t timeout_ms;          /* 0: the method's default */
	uint32_t credit; /* reply messages that may come at once; at least 1, or nothing comes but the status */
};

/* Connect to FOLDER/ingress.sock of paddockd. NULL with `err`. */
struct call_link *call_link_connect(const char *path, struct pdk_error *err);
/* Take over a connected, non-blocking socket. NULL: out of memory; the fd stays the caller's then. */
struct call_link *call_link_create(int fd);
/* Ends all calls (on_end, UNAVAILABLE) and closes. NULL is fine. Not from inside a callback. */
void call_link_free(struct call_link *link);

int call_link_fd(const struct call_link *link);
/* EPOLLIN, and EPOLLOUT while output waits. May change with every call of this library. */
uint32_t call_link_events(const struct call_link *link);
/* Read and write what is possible. 1: there is more to read, call again soon (other work may go first). 0: go on
 * polling. Negative errno: the link is of no more use; free it (its calls hear of it then) and connect again. */
int call_link_io(struct call_link *link, uint32_t events);
/* What was sent since the last call_link_io() leaves now, in as few writes as it takes. Without it, call_link_events() asks for
 * EPOLLOUT. A failure is told by the next call_link_io(). */
void call_link_flush(struct call_link *link);
/* Calls under way, cancelled ones that paddockd has not ended yet included. */
unsigned int call_link_active(const struct call_link *link);

/* Open a call. NULL: -errno in *ret_rc; -EAGAIN: too many calls under way. */
struct call *call_open(struct call_link *link, const struct call_open *open, const struct call_events *events,
		       void *arg, int *ret_rc);
/* At most this many messages wait for their handler; then call_send() fails with -EAGAIN until on_writable. */
bool call_can_send(const struct call *call);
/* 0; -EAGAIN; -EMSGSIZE: more than LINK_PAYLOAD_MAX (2 MiB); -EPIPE: half-closed, or the link is gone. */
int call_send(struct call *call, const void *bytes, size_t length);
/* Nothing more is sent. Idempotent. */
void call_half_close(struct call *call);
/* Let `n` more reply messages come. */
void call_credit(struct call *call, uint32_t n);
/* Nobody wants it any more: no callback comes after this, and the call must not be touched. NULL is fine. */
void call_cancel(struct call *call);

/* open + send + half_close. */
struct call *call_unary(struct call_link *link, const struct call_open *open, const void *bytes, size_t length,
			const struct call_events *events, void *arg, int *ret_rc);

#endif
