#include "server/arena.h"
#include "server/rpc.h"

/* Request bytes of every method: the first byte chooses the row, the rest is the message, as the engine unpacks it. What was
 * unpacked must pack again to a message that unpacks to the same size. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct rpc_method *method;
	struct arena arena;
	ProtobufCMessage *message;

	if (size < 1)
		return 0;
	method = &rpc_table[data[0] % rpc_table_size];
	if (size - 1 > method->max_request_bytes)
		return 0;
	arena_init(&arena, arena_max_for_message(size - 1));
	message = protobuf_c_message_unpack(method->request, &arena.allocator, size - 1, data + 1);
	if (message && protobuf_c_message_check(message)) {
		size_t length = protobuf_c_message_get_packed_size(message);
		uint8_t *packed = arena_alloc(&arena, length ? length : 1);

		if (packed && protobuf_c_message_pack(message, packed) != length)
			__builtin_trap();
	}
	arena_clear(&arena);
	return 0;
}
