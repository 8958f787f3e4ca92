#include "json.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/*
 * jansson has one pair of allocation functions for the process. While json_read() runs, they take from its arena, where
 * nothing is freed before the whole; so a hostile text ("[{},{},...", a hundred times its size in memory) ends at the
 * arena's bound. Outside of a parse nobody in this process allocates through jansson.
 */
static _Thread_local struct arena *parsing;

static void *json_alloc(size_t size)
{
	return parsing ? arena_alloc(parsing, size) : NULL;
}

static void json_free(void *memory)
{
}

void json_start(void)
{
	json_set_alloc_funcs(json_alloc, json_free);
	json_object_seed(0);
}

/* jansson's own bound on the depth is 2048 and not ours to choose; count before its recursion does. */
static bool too_deep(const char *text, size_t length)
{
	unsigned int depth = 0;
	bool quoted = false;

	for (size_t i = 0; i < length; i++) {
		char c = text[i];

		if (quoted && c == '\\')
			i++;
		else if (c == '"')
			quoted = !quoted;
		else if (!quoted && (c == '{' || c == '[') && ++depth > JSON_DEPTH_MAX)
			return true;
		else if (!quoted && (c == '}' || c == ']') && depth)
			depth--;
	}
	return false;
}

int json_read(const void *text, size_t length, struct arena *arena, json_t **ret, struct pdk_error *err)
{
	json_error_t error;
	json_t *tree;

	if (too_deep(text, length))
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "JSON: nested deeper than %d", JSON_DEPTH_MAX);
	parsing = arena;
	tree = json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
	parsing = NULL;
	if (tree) {
		*ret = tree;
		return 0;
	}
	if (arena->refused)
		return pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "JSON: too many values for its size");
	return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "JSON: line %d, column %d: %.100s", error.line,
			error.column, error.text);
}

/* Text */

int json_put(struct buffer *out, const char *text)
{
	return buffer_append(out, text, strlen(text));
}

int json_put_format(struct buffer *out, const char *format, ...)
{
	char text[512];
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return n < 0 || (size_t)n >= sizeof(text) ? -ENOBUFS : buffer_append(out, text, (size_t)n);
}

/* The length of the UTF-8 character at the front, 0 if it is none (RFC 3629). */
static size_t utf8_length(const uint8_t *bytes, size_t length)
{
	size_t n = bytes[0] < 0x80   ? 1
		   : bytes[0] < 0xc2 ? 0
		   : bytes[0] < 0xe0 ? 2
		   : bytes[0] < 0xf0 ? 3
		   : bytes[0] < 0xf5 ? 4
				     : 0;

	if (!n || n > length)
		return 0;
	for (size_t i = 1; i < n; i++) {
		if ((bytes[i] & 0xc0) != 0x80)
			return 0;
	}
	if ((bytes[0] == 0xe0 && bytes[1] < 0xa0) || (bytes[0] == 0xed && bytes[1] > 0x9f) ||
	    (bytes[0] == 0xf0 && bytes[1] < 0x90) || (bytes[0] == 0xf4 && bytes[1] > 0x8f))
		return 0;
	return n;
}

static int put_escape(struct buffer *out, uint8_t c)
{
	switch (c) {
	case '"':
		return json_put(out, "\\\"");
	case '\\':
		return json_put(out, "\\\\");
	case '\n':
		return json_put(out, "\\n");
	case '\r':
		return json_put(out, "\\r");
	case '\t':
		return json_put(out, "\\t");
	default:
		return json_put_format(out, "\\u%04x", c);
	}
}

int json_put_string(struct buffer *out, const char *text, size_t length)
{
	const uint8_t *bytes = (const uint8_t *)text;
	size_t plain = 0; /* how many bytes go as they are */
	int rc = json_put(out, "\"");

	for (size_t i = 0; rc == 0 && i < length;) {
		size_t n = utf8_length(bytes + i, length - i);

		/* '<' and its kin, too: nothing that we write can end a script element. */
		if (n > 1 || (n && bytes[i] >= 0x20 && !strchr("\"\\<>&", bytes[i]))) {
			i += n;
			continue;
		}
		rc = buffer_append(out, bytes + plain, i - plain);
		if (rc == 0)
			rc = n ? put_escape(out, bytes[i]) : json_put(out, "\xef\xbf\xbd");
		plain = ++i;
	}
	if (rc == 0)
		rc = buffer_append(out, bytes + plain, length - plain);
	return rc < 0 ? rc : json_put(out, "\"");
}

int json_put_base64(struct buffer *out, const uint8_t *bytes, size_t length)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t size = 2 + (length + 2) / 3 * 4;
	int rc = 0;
	uint8_t *to = buffer_reserve(out, size, &rc);

	if (!to)
		return rc;
	*to++ = '"';
	for (size_t i = 0; i < length; i += 3) {
		size_t n = length - i < 3 ? length - i : 3;
		uint32_t group = (uint32_t)bytes[i] << 16 | (n > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) |
				 (n > 2 ? bytes[i + 2] : 0u);

		*to++ = (uint8_t)digits[group >> 18];
		*to++ = (uint8_t)digits[group >> 12 & 63];
		*to++ = n > 1 ? (uint8_t)digits[group >> 6 & 63] : '=';
		*to++ = n > 2 ? (uint8_t)digits[group & 63] : '=';
	}
	*to = '"';
	buffer_commit(out, size);
	return 0;
}

/* Descriptors */

bool json_field_is_map(const ProtobufCMessageDescriptor *type, const ProtobufCFieldDescriptor *field)
{
	const ProtobufCMessageDescriptor *entry = field->descriptor;
	const char *name;
	size_t prefix = strlen(type->name);
	bool upper = true;

	if (field->label != PROTOBUF_C_LABEL_REPEATED || field->type != PROTOBUF_C_TYPE_MESSAGE)
		return false;
	if (entry->n_fields != 2 || entry->fields[0].id != 1 || entry->fields[1].id != 2 ||
	    strcmp(entry->fields[0].name, "key") != 0 || strcmp(entry->fields[1].name, "value") != 0)
		return false;
	/* Type.FieldNameEntry: protoc keeps this name for itself. */
	if (strncmp(entry->name, type->name, prefix) != 0 || entry->name[prefix] != '.')
		return false;
	name = entry->name + prefix + 1;
	for (const char *from = field->name; *from; from++) {
		if (*from == '_') {
			upper = true;
			continue;
		}
		if (*name++ != (upper && *from >= 'a' && *from <= 'z' ? *from - 32 : *from))
			return false;
		upper = false;
	}
	return strcmp(name, "Entry") == 0;
}

size_t json_value_size(ProtobufCType type)
{
	switch (type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
	case PROTOBUF_C_TYPE_ENUM:
		return sizeof(uint32_t);
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
		return sizeof(uint64_t);
	case PROTOBUF_C_TYPE_FLOAT:
		return sizeof(float);
	case PROTOBUF_C_TYPE_DOUBLE:
		return sizeof(double);
	case PROTOBUF_C_TYPE_BOOL:
		return sizeof(protobuf_c_boolean);
	case PROTOBUF_C_TYPE_BYTES:
		return sizeof(ProtobufCBinaryData);
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_MESSAGE:
		return sizeof(void *);
	}
	return 0;
}
