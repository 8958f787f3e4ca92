#include "private.h"

#include <grpc/byte_buffer_reader.h>
#include <stdlib.h>

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

ProtobufCMessage *message_unpack(grpc_byte_buffer *buffer, const ProtobufCMessageDescriptor *type)
{
	size_t left = UNPACK_MAX;
	ProtobufCAllocator allocator = {.alloc = bounded_alloc, .free = bounded_free, .allocator_data = &left};
	grpc_byte_buffer_reader reader;
	ProtobufCMessage *message;
	grpc_slice slice;

	if (!grpc_byte_buffer_reader_init(&reader, buffer))
		return NULL;
	slice = grpc_byte_buffer_reader_readall(&reader);
	grpc_byte_buffer_reader_destroy(&reader);
	message = protobuf_c_message_unpack(type, &allocator, GRPC_SLICE_LENGTH(slice), GRPC_SLICE_START_PTR(slice));
	grpc_slice_unref(slice);
	return message;
}

void paddock_free(void *message)
{
	if (message)
		protobuf_c_message_free_unpacked(message, NULL);
}
