#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "json.h"
#include "json_time.h"

/* Messages to proto3 JSON, written straight into the buffer: no tree is built. */

static int put_message(const ProtobufCMessage *message, struct buffer *out, unsigned int depth);

/* proto_name as protoName. */
static int put_name(struct buffer *out, const char *name)
{
	char text[128];
	size_t n = 0;
	bool upper = false;

	for (; *name; name++) {
		if (*name == '_') {
			upper = true;
			continue;
		}
		if (n + 1 >= sizeof(text))
			return -ENOBUFS;
		text[n++] = upper && *name >= 'a' && *name <= 'z' ? (char)(*name - 32) : *name;
		upper = false;
	}
	text[n] = '\0';
	return json_put_format(out, "\"%s\":", text);
}

static int put_enum(const ProtobufCEnumDescriptor *type, int number, struct buffer *out)
{
	const ProtobufCEnumValue *value = protobuf_c_enum_descriptor_get_value(type, number);

	return value ? json_put_format(out, "\"%s\"", value->name) : json_put_format(out, "%d", number);
}

/* The shortest decimal form that reads back as the same number. */
static int put_real(double value, bool single, struct buffer *out)
{
	char text[40];

	if (isnan(value))
		return json_put(out, "\"NaN\"");
	if (isinf(value))
		return json_put(out, value < 0 ? "\"-Infinity\"" : "\"Infinity\"");
	for (int digits = single ? 6 : 15; digits <= 17; digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, value);
		if (single ? strtof(text, NULL) == (float)value : strtod(text, NULL) == value)
			break;
	}
	return json_put(out, text);
}

static int put_value(const ProtobufCFieldDescriptor *field, const void *value, struct buffer *out, unsigned int depth)
{
	switch (field->type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
		return json_put_format(out, "%" PRId32, *(const int32_t *)value);
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
		return json_put_format(out, "%" PRIu32, *(const uint32_t *)value);
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
		return json_put_format(out, "\"%" PRId64 "\"", *(const int64_t *)value);
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
		return json_put_format(out, "\"%" PRIu64 "\"", *(const uint64_t *)value);
	case PROTOBUF_C_TYPE_FLOAT:
		return put_real((double)*(const float *)value, true, out);
	case PROTOBUF_C_TYPE_DOUBLE:
		return put_real(*(const double *)value, false, out);
	case PROTOBUF_C_TYPE_BOOL:
		return json_put(out, *(const protobuf_c_boolean *)value ? "true" : "false");
	case PROTOBUF_C_TYPE_ENUM:
		return put_enum(field->descriptor, *(const int32_t *)value, out);
	case PROTOBUF_C_TYPE_STRING: {
		const char *text = *(const char *const *)value;

		return json_put_string(out, text ? text : "", text ? strlen(text) : 0);
	}
	case PROTOBUF_C_TYPE_BYTES: {
		const ProtobufCBinaryData *bytes = value;

		return json_put_base64(out, bytes->data, bytes->len);
	}
	case PROTOBUF_C_TYPE_MESSAGE:
		return put_message(*(const ProtobufCMessage *const *)value, out, depth + 1);
	}
	return -EINVAL;
}

static bool is_given(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
	static const uint8_t zeros[sizeof(uint64_t)];
	const uint8_t *base = (const uint8_t *)message;
	const void *value = base + field->offset;
	const void *quantifier = base + field->quantifier_offset;
	const void *pointer = field->type == PROTOBUF_C_TYPE_STRING || field->type == PROTOBUF_C_TYPE_MESSAGE
				      ? *(const void *const *)value
				      : NULL;

	if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
		return *(const uint32_t *)quantifier == field->id &&
		       (field->type != PROTOBUF_C_TYPE_MESSAGE || pointer);
	if (field->label == PROTOBUF_C_LABEL_REPEATED)
		return *(const size_t *)quantifier > 0;
	if (field->type == PROTOBUF_C_TYPE_MESSAGE)
		return pointer;
	if (field->type == PROTOBUF_C_TYPE_STRING)
		return pointer && (field->label != PROTOBUF_C_LABEL_NONE ? pointer != field->default_value
									 : *(const char *)pointer != '\0');
	if (field->label == PROTOBUF_C_LABEL_OPTIONAL)
		return *(const protobuf_c_boolean *)quantifier;
	if (field->type == PROTOBUF_C_TYPE_BYTES)
		return ((const ProtobufCBinaryData *)value)->len > 0;
	return field->label == PROTOBUF_C_LABEL_REQUIRED || memcmp(value, zeros, json_value_size(field->type)) != 0;
}

static int put_array(const ProtobufCFieldDescriptor *field, const uint8_t *values, size_t count, struct buffer *out,
		     unsigned int depth)
{
	size_t size = json_value_size(field->type);
	int rc = json_put(out, "[");

	for (size_t i = 0; rc == 0 && i < count; i++) {
		if (i)
			rc = json_put(out, ",");
		if (rc == 0)
			rc = put_value(field, values + i * size, out, depth);
	}
	return rc < 0 ? rc : json_put(out, "]");
}

/* A key is always a string; numbers and booleans are quoted. */
static int put_key(const ProtobufCFieldDescriptor *field, const void *value, struct buffer *out)
{
	bool quoted = field->type == PROTOBUF_C_TYPE_STRING || json_value_size(field->type) == sizeof(uint64_t);
	int rc = quoted ? 0 : json_put(out, "\"");

	if (rc == 0)
		rc = put_value(field, value, out, 0);
	if (rc == 0)
		rc = json_put(out, quoted ? ":" : "\":");
	return rc;
}

static int put_map(const ProtobufCFieldDescriptor *field, ProtobufCMessage *const *entries, size_t count,
		   struct buffer *out, unsigned int depth)
{
	const ProtobufCMessageDescriptor *type = field->descriptor;
	int rc = json_put(out, "{");

	for (size_t i = 0; rc == 0 && i < count; i++) {
		const uint8_t *entry = (const uint8_t *)entries[i];

		if (i)
			rc = json_put(out, ",");
		if (rc == 0)
			rc = put_key(&type->fields[0], entry + type->fields[0].offset, out);
		if (rc < 0)
			return rc;
		/* An entry without its message means the empty message. */
		if (type->fields[1].type == PROTOBUF_C_TYPE_MESSAGE &&
		    !*(void *const *)(entry + type->fields[1].offset))
			rc = json_put(out, "{}");
		else
			rc = put_value(&type->fields[1], entry + type->fields[1].offset, out, depth + 1);
	}
	return rc < 0 ? rc : json_put(out, "}");
}

static int put_field(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field, struct buffer *out,
		     unsigned int depth)
{
	const uint8_t *base = (const uint8_t *)message;
	const void *value = base + field->offset;
	int rc = put_name(out, field->name);

	if (rc < 0)
		return rc;
	if (field->label != PROTOBUF_C_LABEL_REPEATED)
		return put_value(field, value, out, depth);
	if (json_field_is_map(message->descriptor, field))
		return put_map(field, *(ProtobufCMessage *const *const *)value,
			       *(const size_t *)(base + field->quantifier_offset), out, depth);
	return put_array(field, *(const uint8_t *const *)value, *(const size_t *)(base + field->quantifier_offset), out,
			 depth);
}

static int put_message(const ProtobufCMessage *message, struct buffer *out, unsigned int depth)
{
	const ProtobufCMessageDescriptor *type = message->descriptor;
	bool first = true;
	int rc;

	if (depth > JSON_DEPTH_MAX)
		return -EINVAL;
	if (json_time_kind(type) != JSON_TIME_NONE)
		return json_time_put(message, out);
	rc = json_put(out, "{");
	for (unsigned int i = 0; rc == 0 && i < type->n_fields; i++) {
		if (!is_given(message, &type->fields[i]))
			continue;
		if (!first)
			rc = json_put(out, ",");
		first = false;
		if (rc == 0)
			rc = put_field(message, &type->fields[i], out, depth);
	}
	return rc < 0 ? rc : json_put(out, "}");
}

int json_encode(const ProtobufCMessage *message, struct buffer *out)
{
	return put_message(message, out, 0);
}
