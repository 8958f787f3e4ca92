#ifndef PADDOCK_SERVER_GUEST_CHECK_H
#define PADDOCK_SERVER_GUEST_CHECK_H

#include "paddock/internal/guest.pb-c.h"
#include "sandbox/base/error.h"

/* Whether what init says fits what it was asked. Free of I/O, for tests and fuzzing. */

typedef Paddock__Internal__GuestRequest__OpCase guest_op;

#define GUEST_FILES_MAX 10000u
#define GUEST_PROCESSES_MAX 4096u
#define GUEST_PORTS_MAX 2048u

/* How many replies (not events) an operation has at most. */
unsigned int guest_replies_max(guest_op op);

/* Check reply number `index` (from 0) to `op`, which named `handle` (0: none) and came with `n_fds` descriptors.
 * -EPROTO and a text for the audit log when it breaks the contract. */
int guest_check_reply(const Paddock__Internal__GuestReply *reply, guest_op op, unsigned int index, uint64_t handle,
		      unsigned int n_fds, struct pdk_error *err);
/* The same for an event of a watch. */
int guest_check_event(const Paddock__Internal__GuestReply *reply, guest_op op, unsigned int n_fds,
		      struct pdk_error *err);
/* The same for an event of stream 0. */
int guest_check_notice(const Paddock__Internal__GuestReply *reply, unsigned int n_fds, struct pdk_error *err);

/* Copy a text of init's so that it can be shown: control characters become '?', and what is no UTF-8 does too. */
void guest_clean_text(char *ret, size_t size, const char *text);

#endif
