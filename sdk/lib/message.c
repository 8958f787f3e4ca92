#include "private.h"

#include <grpc/byte_buffer_reader.h>
#include <stdlib.h>
#include <string.h>

/*
 * protobuf-c can need fifty times a message's size to unpack it. What it may take for one message is bounded
 * here; the memory comes from malloc(), so that a message can be freed without knowing where it came from.
 */
#define UNPACK_MAX (64u << 20)
#define TAIL_MIN (32u << 10)
#define TAIL_HEAD_MAX 4096u

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

/* Copy the bytes from `offset` on, at most `max` of them; how many there were. */
static size_t copy_out(grpc_byte_buffer *buffer, size_t offset, uint8_t *to, size_t max)
{
	grpc_byte_buffer_reader reader;
	grpc_slice *piece;
	size_t copied = 0;

	if (!grpc_byte_buffer_reader_init(&reader, buffer))
		return 0;
	while (copied < max && grpc_byte_buffer_reader_peek(&reader, &piece)) {
		size_t length = GRPC_SLICE_LENGTH(*piece), skip = offset < length ? offset : length;
		size_t n = length - skip < max - copied ? length - skip : max - copied;

		if (n)
			memcpy(to + copied, GRPC_SLICE_START_PTR(*piece) + skip, n);
		copied += n;
		offset -= skip;
	}
	grpc_byte_buffer_reader_destroy(&reader);
	return copied;
}

/* 0: it does not end in the bytes that are there. */
static size_t get_varint(const uint8_t *bytes, size_t length, uint64_t *ret_value)
{
	uint64_t value = 0;

	for (size_t i = 0; i < length && i < 10; i++) {
		value |= (uint64_t)(bytes[i] & 0x7f) << (7 * i);
		if (!(bytes[i] & 0x80)) {
			*ret_value = value;
			return i + 1;
		}
	}
	return 0;
}

/* The large field that a message ends with: content of a file. */
struct tail {
	size_t field_offset; /* in the unpacked message */
	size_t start;        /* where its tag is */
	size_t data;         /* and its first byte */
};

/* Find it by the first bytes of a message, in which only fields with a length precede it. */
static bool find_tail(const uint8_t *head, size_t length, size_t total, const ProtobufCMessageDescriptor *type,
		      struct tail *ret)
{
	size_t at = 0;

	while (at < length) {
		const ProtobufCFieldDescriptor *field;
		uint64_t tag, size;
		size_t n_tag = get_varint(head + at, length - at, &tag);
		size_t n_size = n_tag ? get_varint(head + at + n_tag, length - at - n_tag, &size) : 0;
		size_t data = at + n_tag + n_size;

		if (!n_size || (tag & 7) != 2 || tag >> 3 > UINT32_MAX || size > total - data)
			return false;
		if (size < total - data) {
			at = data + (size_t)size;
			continue;
		}
		field = protobuf_c_message_descriptor_get_field(type, (unsigned int)(tag >> 3));
		if (!field || field->type != PROTOBUF_C_TYPE_BYTES || field->label != PROTOBUF_C_LABEL_NONE ||
		    (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF))
			return false;
		*ret = (struct tail){.field_offset = field->offset, .start = at, .data = data};
		return true;
	}
	return false;
}

/* The content is copied once, from gRPC's pieces to where the caller finds it. NULL: not such a message, or no memory.
 */
static ProtobufCMessage *unpack_with_tail(grpc_byte_buffer *buffer, size_t total,
					  const ProtobufCMessageDescriptor *type, ProtobufCAllocator *allocator)
{
	uint8_t head[TAIL_HEAD_MAX];
	size_t length = copy_out(buffer, 0, head, sizeof(head));
	ProtobufCMessage *message;
	ProtobufCBinaryData *content;
	struct tail tail;
	uint8_t *data;

	if (!find_tail(head, length, total, type, &tail))
		return NULL;
	data = allocator->alloc(allocator->allocator_data, total - tail.data);
	message = data ? protobuf_c_message_unpack(type, allocator, tail.start, head) : NULL;
	if (!message || copy_out(buffer, tail.data, data, total - tail.data) != total - tail.data) {
		paddock_free(message);
		free(data);
		return NULL;
	}
	content = (ProtobufCBinaryData *)(void *)((uint8_t *)message + tail.field_offset);
	free(content->data); /* a field that came twice: the last counts */
	*content = (ProtobufCBinaryData){.len = total - tail.data, .data = data};
	return message;
}

ProtobufCMessage *message_unpack(grpc_byte_buffer *buffer, const ProtobufCMessageDescriptor *type,
				 struct scratch *scratch)
{
	size_t left = UNPACK_MAX, total = grpc_byte_buffer_length(buffer);
	ProtobufCAllocator allocator = {.alloc = bounded_alloc, .free = bounded_free, .allocator_data = &left};
	ProtobufCMessage *message = NULL;

	if (total >= TAIL_MIN)
		message = unpack_with_tail(buffer, total, type, &allocator);
	if (message)
		return message;
	if (!scratch_reserve(scratch, total + 1) || copy_out(buffer, 0, scratch->data, total) != total)
		return NULL;
	return protobuf_c_message_unpack(type, &allocator, total, scratch->data);
}

void paddock_free(void *message)
{
	if (message)
		protobuf_c_message_free_unpacked(message, NULL);
}
