#include "private.h"

#include <grpc/byte_buffer_reader.h>
#include <stdlib.h>
#include <string.h>

/*
 * protobuf-c can need fifty times a message's size to unpack it. What it may take for one message is bounded
 * here; the memory comes from malloc(), so that a message can be freed without knowing where it came from.
 */
#define UNPACK_MAX (64u << 20)

static void *bounded_alloc(void *arg, size_t size)
{
	size_t *left = arg;

	if (size > *left)
		return NULL;
	*left -= size;
	return malloc(size);
}

static void bounded_free(void *arg, void *pointer)
{
	free(pointer);
}

grpc_byte_buffer *message_pack(const ProtobufCMessage *message)
{
	size_t size = protobuf_c_message_get_packed_size(message);
	grpc_byte_buffer *buffer;
	grpc_slice slice;

	if (size > PADDOCK_MESSAGE_MAX)
		return NULL;
	slice = grpc_slice_malloc(size);
	protobuf_c_message_pack(message, GRPC_SLICE_START_PTR(slice));
	buffer = grpc_raw_byte_buffer_create(&slice, 1);
	grpc_slice_unref(slice);
	return buffer;
}

static bool scratch_reserve(struct scratch *scratch, size_t size)
{
	uint8_t *grown;

	if (size <= scratch->size)
		return true;
	grown = realloc(scratch->data, size);
	if (!grown)
		return false;
	scratch->data = grown;
	scratch->size = size;
	return true;
}

ProtobufCMessage *message_unpack(grpc_byte_buffer *buffer, const ProtobufCMessageDescriptor *type,
				 struct scratch *scratch)
{
	size_t left = UNPACK_MAX, total = grpc_byte_buffer_length(buffer), length = 0;
	ProtobufCAllocator allocator = {.alloc = bounded_alloc, .free = bounded_free, .allocator_data = &left};
	grpc_byte_buffer_reader reader;
	grpc_slice *piece;

	if (!scratch_reserve(scratch, total + 1) || !grpc_byte_buffer_reader_init(&reader, buffer))
		return NULL;
	while (grpc_byte_buffer_reader_peek(&reader, &piece) && GRPC_SLICE_LENGTH(*piece) <= total - length) {
		memcpy(scratch->data + length, GRPC_SLICE_START_PTR(*piece), GRPC_SLICE_LENGTH(*piece));
		length += GRPC_SLICE_LENGTH(*piece);
	}
	grpc_byte_buffer_reader_destroy(&reader);
	return protobuf_c_message_unpack(type, &allocator, length, scratch->data);
}

void paddock_free(void *message)
{
	if (message)
		protobuf_c_message_free_unpacked(message, NULL);
}
