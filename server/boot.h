#ifndef PADDOCK_SERVER_BOOT_H
#define PADDOCK_SERVER_BOOT_H

#include <stdbool.h>
#include <stddef.h>

/* Whether the machine was started anew since the store was last used here: what ran is gone then. Lock held. */

#define BOOT_ID_MAX 64
/* What the kernel calls this boot; without the lock. 0: it does not say. */
size_t boot_read_id(char id[BOOT_ID_MAX]);

/* At start. False when that is not known: a new store, or one of an older server. */
bool boot_is_new(void);
/* Remember this one; after what boot_is_new() said has been acted on, since commits keep their order. */
void boot_remember(void);

#endif
