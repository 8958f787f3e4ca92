#ifndef PADDOCK_SERVER_QUESTION_H
#define PADDOCK_SERVER_QUESTION_H

#include "guest.h"
#include "rpc.h"

/* A call that is one question to a sandbox's init, which answers with one reply. */

typedef void (*question_answer)(struct rpc_call *call, const Paddock__Internal__GuestReply *reply, uint64_t note);

/* Asks; `answer` finishes the call from a reply that is no error. An error, and an init that is gone, finish it here; a call
 * that goes away takes the question back. `note` comes back in `answer`. On failure (-ENOMEM, or what guest_call() says) the
 * call is still the caller's to finish. */
int question_ask(struct rpc_call *call, struct guest *guest, const Paddock__Internal__GuestRequest *request,
		 question_answer answer, uint64_t note);
/* Finish a call with `err` of a reply handler, or a general one when it says OK where it should not. */
void question_fail(struct rpc_call *call, const struct pdk_error *err);

#endif
