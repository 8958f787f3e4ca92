#ifndef PADDOCK_SERVER_RECORD_H
#define PADDOCK_SERVER_RECORD_H

#include "store.h"
#include <protobuf-c/protobuf-c.h>

/* Put a packed message (of proto/paddock/internal/store.proto) under a text key. -ENOMEM. */
int record_put(struct store_batch *batch, enum store_db db, const char *key, const ProtobufCMessage *message);

#endif
