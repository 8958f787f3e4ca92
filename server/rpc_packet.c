#include "rpc_packet.h"

#include <stdlib.h>
#include <string.h>

#include "rpc_internal.h"

/* See rpc_packet.h. */

struct rpc_packet *rpc_packet_create(size_t length, size_t max)
{
	struct rpc_packet *packet = length <= max ? malloc(sizeof(*packet) + length) : NULL;

	if (packet)
		packet->length = length;
	return packet;
}

struct rpc_packet *rpc_packet_of(const ProtobufCMessage *message, size_t max)
{
	struct rpc_packet *packet = rpc_packet_create(protobuf_c_message_get_packed_size(message), max);

	if (packet)
		protobuf_c_message_pack(message, packet->bytes);
	return packet;
}

struct rpc_packet *rpc_packet_of_bytes(const void *head, size_t head_length, uint32_t field, const void *data,
				       size_t length, size_t max)
{
	uint8_t prefix[RPC_FIELD_PREFIX_MAX];
	size_t prefix_length = rpc_field_prefix(prefix, field, length);
	struct rpc_packet *packet = rpc_packet_create(head_length + prefix_length + length, max);

	if (!packet)
		return NULL;
	if (head_length)
		memcpy(packet->bytes, head, head_length);
	memcpy(packet->bytes + head_length, prefix, prefix_length);
	if (length)
		memcpy(packet->bytes + head_length + prefix_length, data, length);
	return packet;
}
