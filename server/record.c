#include "record.h"

#include "sandbox/base/cleanup.h"
#include <errno.h>
#include <string.h>

int record_put(struct store_batch *batch, enum store_db db, const char *key, const ProtobufCMessage *message)
{
	size_t length = protobuf_c_message_get_packed_size(message);
	_cleanup_free_ uint8_t *packed = malloc(length + 1);

	/* A put that cannot be made must fail the batch, not be left out of it. */
	if (!packed)
		return store_put(batch, db, key, SIZE_MAX, NULL, 0);
	protobuf_c_message_pack(message, packed);
	return store_put(batch, db, key, strlen(key), packed, length);
}
