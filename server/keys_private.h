#ifndef PADDOCK_SERVER_KEYS_PRIVATE_H
#define PADDOCK_SERVER_KEYS_PRIVATE_H

#include "keys.h"

/* Private to keys.c and key_service.c. */

extern unsigned int keys_count;

/* Take a malloc'ed key in. */
void key_insert(struct key *key);
/* The first key (NULL), or the next one; in no order. */
struct key *key_after(const struct key *key);
int key_write(const struct key *key, struct store_batch *batch);

#endif
