#include "wire_text.h"

#include <errno.h>
#include <string.h>

/*
 * A walk over the wire format, guided by the descriptor: only fields of type string and message are looked into.
 * What cannot be walked ends the walk without an error, because unpacking has judged it already; depth is that of the
 * descriptors, which is bounded because no message of the contract contains itself.
 */

#define DEPTH_MAX 8

enum wire { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

static size_t varint(const uint8_t *data, size_t length, uint64_t *ret)
{
	uint64_t value = 0;

	for (size_t i = 0; i < length && i < 10; i++) {
		value |= (uint64_t)(data[i] & 0x7f) << (7 * i);
		if (!(data[i] & 0x80)) {
			*ret = value;
			return i + 1;
		}
	}
	return 0;
}

/* Length of the value of a field, its own length prefix included; 0 if it does not fit. */
static size_t value_length(enum wire wire, const uint8_t *data, size_t length, const uint8_t **ret_bytes, size_t *ret_n)
{
	uint64_t n;
	size_t head;

	switch (wire) {
	case WIRE_VARINT:
		return varint(data, length, &n);
	case WIRE_64:
		return length >= 8 ? 8 : 0;
	case WIRE_32:
		return length >= 4 ? 4 : 0;
	case WIRE_BYTES:
		head = varint(data, length, &n);
		if (!head || n > length - head)
			return 0;
		*ret_bytes = data + head;
		*ret_n = (size_t)n;
		return head + (size_t)n;
	}
	return 0;
}

static int walk(const ProtobufCMessageDescriptor *descriptor, const uint8_t *data, size_t length, const char *outer,
		unsigned int depth, struct pdk_error *err)
{
	while (length > 0 && depth < DEPTH_MAX) {
		const ProtobufCFieldDescriptor *field;
		const uint8_t *bytes = NULL;
		uint64_t tag;
		size_t n = 0, used = varint(data, length, &tag);
		size_t step = used ? value_length((enum wire)(tag & 7), data + used, length - used, &bytes, &n) : 0;
		int rc = 0;

		if (!step)
			return 0;
		data += used + step;
		length -= used + step;
		field = bytes ? protobuf_c_message_descriptor_get_field(descriptor, (unsigned int)(tag >> 3)) : NULL;
		if (!field)
			continue;
		/* The innermost name says most, but "key" and "value" of a map say nothing. */
		if (field->type == PROTOBUF_C_TYPE_MESSAGE)
			rc = walk(field->descriptor, bytes, n, field->name, depth + 1, err);
		else if (field->type == PROTOBUF_C_TYPE_STRING && n && memchr(bytes, '\0', n))
			return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "%s: must not contain a NUL byte",
					outer && strstr(descriptor->short_name, "Entry") ? outer : field->name);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int wire_check_text(const ProtobufCMessageDescriptor *descriptor, const uint8_t *data, size_t length,
		    struct pdk_error *err)
{
	return walk(descriptor, data, length, NULL, 0, err);
}
