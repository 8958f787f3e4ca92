#include "json.h"

#include "sandbox/base/cleanup.h"
#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *json_of_enum(const ProtobufCEnumDescriptor *type, int number)
{
	const ProtobufCEnumValue *value = protobuf_c_enum_descriptor_get_value(type, number);
	const char *first = type->n_values ? type->values[0].name : "";
	size_t prefix = strlen(first) > 11 ? strlen(first) - 11 : 0; /* in front of "UNSPECIFIED" */
	char text[128];
	size_t i;

	if (!value)
		return json_integer(number);
	if (strcmp(first + prefix, "UNSPECIFIED") != 0 || strncmp(value->name, first, prefix) != 0)
		prefix = 0;
	snprintf(text, sizeof(text), "%s", value->name + prefix);
	for (i = 0; text[i]; i++)
		text[i] = (char)tolower((unsigned char)text[i]);
	return json_string(text);
}

static json_t *json_of_hex(const ProtobufCBinaryData *bytes)
{
	_cleanup_free_ char *text = malloc(bytes->len * 2 + 1);
	size_t i;

	if (!text)
		abort();
	for (i = 0; i < bytes->len; i++)
		sprintf(text + 2 * i, "%02x", bytes->data[i]);
	text[2 * i] = '\0';
	return json_string(text);
}

static json_t *json_of_base64(const ProtobufCBinaryData *bytes)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	_cleanup_free_ char *text = malloc((bytes->len + 2) / 3 * 4 + 1);
	char *out = text;
	size_t i;

	if (!text)
		abort();
	for (i = 0; i < bytes->len; i += 3) {
		size_t left = bytes->len - i;
		unsigned int group = (unsigned int)bytes->data[i] << 16;

		group |= left > 1 ? (unsigned int)bytes->data[i + 1] << 8 : 0;
		group |= left > 2 ? bytes->data[i + 2] : 0;
		*out++ = digits[group >> 18];
		*out++ = digits[group >> 12 & 63];
		*out++ = left > 1 ? digits[group >> 6 & 63] : '=';
		*out++ = left > 2 ? digits[group & 63] : '=';
	}
	*out = '\0';
	return json_pack("{s:s}", "base64", text);
}

static json_t *json_of_bytes(const char *name, const ProtobufCBinaryData *bytes)
{
	size_t length = strlen(name);
	json_t *text = NULL;

	if (length >= 4 && !strcmp(name + length - 4, "hash"))
		return json_of_hex(bytes);
	if (strcmp(name, "stored") != 0 && (!bytes->len || !memchr(bytes->data, 0, bytes->len)))
		text = json_stringn(bytes->len ? (const char *)bytes->data : "", bytes->len);
	return text ? text : json_of_base64(bytes);
}

static json_t *json_of_value(const ProtobufCFieldDescriptor *field, const void *at)
{
	switch (field->type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
		return json_integer(*(const int32_t *)at);
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
		return json_integer(*(const uint32_t *)at);
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
		return json_integer((json_int_t) * (const int64_t *)at);
	case PROTOBUF_C_TYPE_FLOAT:
		return json_real((double)*(const float *)at);
	case PROTOBUF_C_TYPE_DOUBLE:
		return json_real(*(const double *)at);
	case PROTOBUF_C_TYPE_BOOL:
		return json_boolean(*(const protobuf_c_boolean *)at);
	case PROTOBUF_C_TYPE_ENUM:
		return json_of_enum(field->descriptor, *(const int *)at);
	case PROTOBUF_C_TYPE_STRING:
		return json_string(*(char *const *)at ? *(char *const *)at : "");
	case PROTOBUF_C_TYPE_BYTES:
		return json_of_bytes(field->name, at);
	case PROTOBUF_C_TYPE_MESSAGE:
		return *(ProtobufCMessage *const *)at ? json_of_message(*(ProtobufCMessage *const *)at) : json_null();
	}
	return json_null();
}

static size_t element_size(ProtobufCType type)
{
	if (type == PROTOBUF_C_TYPE_STRING || type == PROTOBUF_C_TYPE_MESSAGE)
		return sizeof(void *);
	if (type == PROTOBUF_C_TYPE_BYTES)
		return sizeof(ProtobufCBinaryData);
	if (type == PROTOBUF_C_TYPE_BOOL)
		return sizeof(protobuf_c_boolean);
	if (type == PROTOBUF_C_TYPE_ENUM || type == PROTOBUF_C_TYPE_FLOAT || type == PROTOBUF_C_TYPE_INT32 ||
	    type == PROTOBUF_C_TYPE_UINT32 || type == PROTOBUF_C_TYPE_SINT32 || type == PROTOBUF_C_TYPE_FIXED32 ||
	    type == PROTOBUF_C_TYPE_SFIXED32)
		return 4;
	return 8;
}

static bool is_map(const ProtobufCFieldDescriptor *field)
{
	const ProtobufCMessageDescriptor *entry = field->descriptor;
	size_t length;

	if (field->type != PROTOBUF_C_TYPE_MESSAGE || entry->n_fields != 2)
		return false;
	length = strlen(entry->short_name);
	return length > 5 && !strcmp(entry->short_name + length - 5, "Entry") &&
	       !strcmp(entry->fields[0].name, "key") && !strcmp(entry->fields[1].name, "value");
}

static json_t *json_of_repeated(const ProtobufCFieldDescriptor *field, const char *elements, size_t count)
{
	bool map = is_map(field);
	json_t *all = map ? json_object() : json_array();
	size_t size = element_size(field->type);
	size_t i;

	for (i = 0; i < count; i++) {
		if (map) {
			const ProtobufCMessage *entry = ((ProtobufCMessage *const *)elements)[i];
			const ProtobufCFieldDescriptor *fields = entry->descriptor->fields;
			const char *key = *(char *const *)((const char *)entry + fields[0].offset);

			json_object_set_new(all, key,
					    json_of_value(&fields[1], (const char *)entry + fields[1].offset));
		} else {
			json_array_append_new(all, json_of_value(field, elements + i * size));
		}
	}
	return all;
}

json_t *json_of_message(const ProtobufCMessage *message)
{
	const ProtobufCMessageDescriptor *type = message->descriptor;
	const char *base = (const char *)message;
	json_t *object = json_object();
	unsigned int i;

	for (i = 0; i < type->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &type->fields[i];
		const void *at = base + field->offset;
		json_t *value;

		if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
			if (*(const uint32_t *)(base + field->quantifier_offset) != field->id)
				continue;
			value = json_of_value(field, at);
		} else if (field->label == PROTOBUF_C_LABEL_REPEATED) {
			value = json_of_repeated(field, *(char *const *)at,
						 *(const size_t *)(base + field->quantifier_offset));
		} else {
			value = json_of_value(field, at);
		}
		json_object_set_new(object, field->name, value);
	}
	return object;
}

void json_print(json_t *value, bool lines)
{
	json_dumpf(value, stdout, JSON_ENCODE_ANY | (lines ? JSON_COMPACT : JSON_INDENT(2)));
	putchar('\n');
	if (lines)
		fflush(stdout);
	json_decref(value);
}

void json_print_message(const void *message, bool lines)
{
	json_print(json_of_message(message), lines);
}
