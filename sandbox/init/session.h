#ifndef PADDOCK_INIT_SESSION_H
#define PADDOCK_INIT_SESSION_H

#include "sandbox/base/link.h"
#include "sandbox/init/init.h"
#include "sandbox/init/message.h"

/*
 * The link to paddockd. There is at most one; a newer connection replaces it. All functions are harmless
 * without a connection: processes go on, and their replies are asked for again with GuestAdopt.
 */

/* The listening socket is ready. */
void session_accept(struct init *init, struct source *source, uint32_t events);
/* Once per turn of the loop: drop a connection that broke, wait for the right events. True: more frames are
 * waiting already, so do not sleep. */
bool session_check(struct init *init);

/* Accept and read what is waiting already, before something that it may change. */
void session_catch_up(struct init *init);

/* Is there a link, and nothing waits to be written? */
bool session_is_idle(const struct init *init);

/* One reply on a stream. Descriptors are duplicated. */
void session_reply(struct init *init, uint32_t stream, const guest_reply *reply, const int *fds, unsigned int n_fds);
/* The last reply on a stream, and its END. */
void session_reply_last(struct init *init, uint32_t stream, const guest_reply *reply);
/* A packed reply, as a reply or (costing credit) as an event. */
void session_send(struct init *init, uint32_t stream, enum link_kind kind, const void *payload, size_t length,
		  const int *fds, unsigned int n_fds);
/* An event on stream 0. */
void session_event(struct init *init, const guest_reply *reply);
void session_end(struct init *init, uint32_t stream);
/* Reply with an error, then END. */
void session_fail(struct init *init, uint32_t stream, const struct pdk_error *err);
/* An empty OK reply, then END. */
void session_done(struct init *init, uint32_t stream);

#endif
