#ifndef PADDOCK_SERVER_SANDBOX_ACCESS_H
#define PADDOCK_SERVER_SANDBOX_ACCESS_H

#include "auth.h"

/* Access tokens: what opens one sandbox to somebody who has no API key. Lock held. */

/* Load or make the key that tokens are made with. Before any sandbox is used. */
int sandbox_access_start(void);
/* Fill `ret` for whoever brings the token of this living sandbox; anything else is the same UNAUTHENTICATED. Both may
 * be NULL. */
int sandbox_access_check(const char *sandbox_id, const char *token, struct principal *ret, struct pdk_error *err);

/* file_signature.c: fill `ret` for whoever brings a signed file URL of a living sandbox, for reading or for writing.
 * `sandbox_id` NULL: of whichever it is. UNAUTHENTICATED "invalid signature" or "signature is already expired". */
struct rpc_file_signature;
int sandbox_signature_check(const char *sandbox_id, const struct rpc_file_signature *file, bool write,
			    struct principal *ret, struct pdk_error *err);

#endif
