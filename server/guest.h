#ifndef PADDOCK_SERVER_GUEST_H
#define PADDOCK_SERVER_GUEST_H

#include "paddock/internal/guest.pb-c.h"
#include "sandbox/base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The daemon's end of the link to one paddock-init. Everything that comes from it is hostile: replies are
 * unpacked in a bounded allocator, checked against what was asked, and a violation ends the sandbox as FAILED.
 */

struct guest;
struct sandbox;

/* What paddockd speaks; an init of another version is refused. */
#define GUEST_VERSION 1u

/* One reply or event of a stream; valid until the handler returns. `err` is never NULL: with a reply it holds the
 * reply's code and text (cleaned; `reply` has no result then), PDK_OK when all went well. `reply` is NULL when the
 * stream ended (err says why; PDK_OK = a clean END); the handler is not called again then. A handler that needs
 * no more calls guest_cancel(). `fds` are the frame's descriptors: take with STEAL_FD, the rest is closed. */
typedef void (*guest_reply_handler)(const Paddock__Internal__GuestReply *reply, int *fds, unsigned int n_fds,
				    const struct pdk_error *err, void *arg);

/* Take over the connected link descriptor (closed on failure too) and say hello + setup. `env` are NAME=value. `ready` runs once: rc 0 when
 * init answered. */
struct guest *guest_create(struct sandbox *sandbox, int fd, char *const *env, size_t n_env, const char *hostname,
			   void (*ready)(struct guest *guest, int rc, void *arg), void *arg);
/* After `ready`: whether its image has a start command, and one that waits until that is ready (sandbox_start.c). */
bool guest_has_start(const struct guest *guest);
bool guest_has_ready(const struct guest *guest);
/* Close the link; every open stream's handler gets its last call with UNAVAILABLE. NULL is fine. */
void guest_free(struct guest *guest);
/* The same, and the streams hear another reason. */
void guest_drop(struct guest *guest, const char *why);

/* Replace what setup said (claiming a pre-made sandbox, or a copy): fire and forget, ordered before later requests.
 * `machine_id`: 32 hexadecimal digits, or NULL. */
int guest_setup(struct guest *guest, char *const *env, size_t n_env, const char *hostname, const char *machine_id);

/* Open a stream with a request. Returns the stream number (> 0) or a negative errno. `credit` > 0 grants events. */
int64_t guest_call(struct guest *guest, const Paddock__Internal__GuestRequest *request, uint32_t credit,
		   guest_reply_handler handler, void *arg);
/* Close the link in good order: every stream's handler gets its last call with UNAVAILABLE, and `done` runs when init has
 * closed its end too (or does not within two seconds); the guest is freed then. guest_free() takes it back. */
void guest_hang_up(struct guest *guest, void (*done)(void *arg), void *arg);
/* Say how long nothing ran inside, right before it goes on. */
int guest_resumed(struct guest *guest, uint64_t paused_ms);
/* A further request on an open stream. */
int guest_continue(struct guest *guest, uint32_t stream, const Paddock__Internal__GuestRequest *request);
int guest_credit(struct guest *guest, uint32_t stream, uint32_t credit);
/* Give a stream up: END is sent, the handler is not called again. */
void guest_cancel(struct guest *guest, uint32_t stream);

#endif
