#ifndef PADDOCK_SERVER_RPC_PACKET_H
#define PADDOCK_SERVER_RPC_PACKET_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

/* A packed message on its way through rpc_link.c or rpc_local.c. free() ends it. */
struct rpc_packet {
	size_t length;
	uint8_t bytes[];
};

/* `length` bytes, not filled in. NULL: more than `max`, or out of memory. */
struct rpc_packet *rpc_packet_create(size_t length, size_t max);
/* NULL as above. */
struct rpc_packet *rpc_packet_of(const ProtobufCMessage *message, size_t max);
/* `head`, a message that is packed but for its last field, and that field with these bytes. NULL as above. */
struct rpc_packet *rpc_packet_of_bytes(const void *head, size_t head_length, uint32_t field, const void *data,
				       size_t length, size_t max);

#endif
