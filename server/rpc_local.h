#ifndef PADDOCK_SERVER_RPC_LOCAL_H
#define PADDOCK_SERVER_RPC_LOCAL_H

#include "rpc.h"

/*
 * Calls from inside: a handler that translates another contract makes the calls that it translates to, with the
 * principal, deadline and client of the call that it serves. They pass the same admission, ownership, policy and audit
 * as any other; so a translation can open nothing that its caller could not.
 *
 * Lock held. Callbacks come from a task of their own, never from inside these functions.
 */

struct rpc_local;

struct rpc_local_events {
	/* One message of the method's response type; valid until it returns. The next comes after rpc_local_next(). */
	void (*on_message)(void *arg, const ProtobufCMessage *message);
	/* A method with a client stream: it wants the next message; answer with rpc_local_send() or _half_close(), now
	 * or later. NULL: the first message is the only one. */
	void (*on_want)(void *arg);
	/* The status, once and last: the call must not be touched any more. */
	void (*on_end)(void *arg, const struct pdk_error *end);
};

/* NULL: out of memory. */
struct rpc_local *rpc_local_open(struct rpc_call *outer, const char *path, const ProtobufCMessage *request,
				 const struct rpc_local_events *events, void *arg);
/* The same for work that goes on when the call that began it has ended: as this principal, without a deadline of its
 * own. */
struct rpc_local *rpc_local_open_as(const struct principal *principal, const char *path,
				    const ProtobufCMessage *request, const struct rpc_local_events *events, void *arg);
/* -ENOMEM: nothing was sent. */
int rpc_local_send(struct rpc_local *local, const ProtobufCMessage *message);
void rpc_local_half_close(struct rpc_local *local);
void rpc_local_next(struct rpc_local *local);
/* It goes on when the outer call has ended, without its deadline. */
void rpc_local_detach(struct rpc_local *local);
/* No callback comes after this, and it must not be touched any more. NULL is fine. */
void rpc_local_cancel(struct rpc_local *local);

#endif
