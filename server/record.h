#ifndef PADDOCK_SERVER_RECORD_H
#define PADDOCK_SERVER_RECORD_H

#include "store.h"
#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <string.h>

/* Put a packed message (of proto/paddock/internal/store.proto) under a text key. -ENOMEM. */
int record_put(struct store_batch *batch, enum store_db db, const char *key, const ProtobufCMessage *message);

/* Copy a text of a record to where there is room for `size` bytes. False: it does not fit. */
static inline bool record_text(char *to, size_t size, const char *from)
{
	size_t length = strlen(from);

	if (length >= size)
		return false;
	memcpy(to, from, length + 1);
	return true;
}

#endif
