#ifndef PADDOCK_SERVER_SANDBOX_ACCESS_H
#define PADDOCK_SERVER_SANDBOX_ACCESS_H

#include "auth.h"

/* Access tokens: what opens one sandbox to somebody who has no API key. Lock held. */

/* Load or make the key that tokens are made with. Before any sandbox is used. */
int sandbox_access_start(void);
/* Fill `ret` for whoever brings the token of this living sandbox; anything else is the same UNAUTHENTICATED. Both may
 * be NULL. */
int sandbox_access_check(const char *sandbox_id, const char *token, struct principal *ret, struct pdk_error *err);

#endif
