#include "private.h"
#include "sandbox/base/varint.h"

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
#define TAIL_DEPTH_MAX 3

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

/* The large field that a message ends with: content of a file, or output in the event that it comes in. */
struct tail {
	unsigned int depth;                  /* messages that are open where it stands */
	size_t field_offset[TAIL_DEPTH_MAX]; /* in each of these, once unpacked: the next one; in the last: the field */
	size_t start[TAIL_DEPTH_MAX];        /* where the tag of that is */
	size_t length_at[TAIL_DEPTH_MAX];    /* where its length is */
	size_t content[TAIL_DEPTH_MAX];      /* and its first byte */
};

/* What the tail can lead through: a field that comes once, and is a message or bytes. */
static bool leads_on(const ProtobufCFieldDescriptor *field)
{
	bool once = field && field->label != PROTOBUF_C_LABEL_REPEATED;

	if (!once || (field->type == PROTOBUF_C_TYPE_BYTES && field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF))
		return false;
	return field->type == PROTOBUF_C_TYPE_MESSAGE ||
	       (field->type == PROTOBUF_C_TYPE_BYTES && field->label == PROTOBUF_C_LABEL_NONE);
}

/* The number of bytes of the field at the front: small ones, or what reaches to the end. 0: it is not whole, or odd. */
static size_t measure_field(const uint8_t *at, size_t length, size_t total, uint64_t *ret_tag, size_t *ret_length_at,
			    size_t *ret_content)
{
	uint64_t size;
	size_t n_tag = get_varint(at, length, ret_tag);
	size_t n_size = n_tag ? get_varint(at + n_tag, length - n_tag, &size) : 0;

	if (!n_size || *ret_tag >> 3 > UINT32_MAX)
		return 0;
	*ret_length_at = n_tag;
	*ret_content = n_tag + n_size;
	if ((*ret_tag & 7) == 0)
		return n_tag + n_size;
	return (*ret_tag & 7) == 2 && size <= total - n_tag - n_size ? n_tag + n_size + (size_t)size : 0;
}

/* Find it by the first bytes of a message, in which only numbers and fields with a length precede it. */
static bool find_tail(const uint8_t *head, size_t length, size_t total, const ProtobufCMessageDescriptor *type,
		      struct tail *ret)
{
	size_t at = 0;

	ret->depth = 0;
	while (at < length && ret->depth < TAIL_DEPTH_MAX) {
		const ProtobufCFieldDescriptor *field;
		size_t length_at, content;
		uint64_t tag;
		size_t size = measure_field(head + at, length - at, total - at, &tag, &length_at, &content);

		if (!size)
			return false;
		if (size < total - at || (tag & 7) == 0) {
			at += size;
			continue;
		}
		field = protobuf_c_message_descriptor_get_field(type, (unsigned int)(tag >> 3));
		if (!leads_on(field))
			return false;
		ret->field_offset[ret->depth] = field->offset;
		ret->start[ret->depth] = at;
		ret->length_at[ret->depth] = at + length_at;
		ret->content[ret->depth++] = at + content;
		if (field->type == PROTOBUF_C_TYPE_BYTES)
			return true;
		type = field->descriptor;
		at += content;
	}
	return false;
}

/* The message without its tail: what is left of each message that was open in it has a new length. */
static size_t cut_tail(const uint8_t *head, const struct tail *tail, uint8_t out[TAIL_HEAD_MAX])
{
	size_t from = tail->depth > 1 ? tail->content[tail->depth - 2] : 0;
	size_t length = tail->start[tail->depth - 1] - from;
	uint8_t varint[VARINT_MAX];

	memcpy(out, head + from, length);
	for (unsigned int i = tail->depth - 1; i > 0; i--) {
		size_t begin = i > 1 ? tail->content[i - 2] : 0;
		size_t before = tail->length_at[i - 1] - begin;
		size_t n = varint_put(varint, length);

		memmove(out + before + n, out, length);
		memcpy(out, head + begin, before);
		memcpy(out + before, varint, n);
		length += before + n;
	}
	return length;
}

/* Where the field is in the unpacked message. */
static ProtobufCBinaryData *tail_field(ProtobufCMessage *message, const struct tail *tail)
{
	for (unsigned int i = 0; message && i + 1 < tail->depth; i++)
		message = *(ProtobufCMessage **)(void *)((uint8_t *)message + tail->field_offset[i]);
	if (!message)
		return NULL;
	return (ProtobufCBinaryData *)(void *)((uint8_t *)message + tail->field_offset[tail->depth - 1]);
}

/* The content is copied once, from gRPC's pieces to where the caller finds it. NULL: not such a message, or no memory.
 */
static ProtobufCMessage *unpack_with_tail(grpc_byte_buffer *buffer, size_t total,
					  const ProtobufCMessageDescriptor *type, ProtobufCAllocator *allocator)
{
	uint8_t head[TAIL_HEAD_MAX], rest[TAIL_HEAD_MAX];
	size_t length = copy_out(buffer, 0, head, sizeof(head)), at, size;
	ProtobufCBinaryData *content;
	ProtobufCMessage *message;
	struct tail tail;
	uint8_t *data;

	if (!find_tail(head, length, total, type, &tail))
		return NULL;
	at = tail.content[tail.depth - 1];
	size = total - at;
	data = allocator->alloc(allocator->allocator_data, size);
	message = data ? protobuf_c_message_unpack(type, allocator, cut_tail(head, &tail, rest), rest) : NULL;
	content = message ? tail_field(message, &tail) : NULL;
	if (!content || copy_out(buffer, at, data, size) != size) {
		paddock_free(message);
		free(data);
		return NULL;
	}
	free(content->data); /* a field that came twice: the last counts */
	*content = (ProtobufCBinaryData){.len = size, .data = data};
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
