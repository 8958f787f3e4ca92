#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "json_time.h"

/* A tree of JSON values to a message. Strings stay where jansson put them: in the arena. */

static int get_message(ProtobufCMessage *message, json_t *json, struct arena *arena, struct pdk_error *err);

static int no_room(struct pdk_error *err)
{
	return pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "JSON: the message is too large");
}

static int misfit(const ProtobufCFieldDescriptor *field, const char *wanted, struct pdk_error *err)
{
	return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "%s: not %s", field->name, wanted);
}

/* Numbers: as JSON numbers or in strings; "1.0" and "1e3" are whole numbers too. */

struct number {
	bool negative;
	uint64_t magnitude;
};

static int whole_of_real(double value, struct number *ret)
{
	if (isnan(value) || value != floor(value) || fabs(value) >= 18446744073709551616.0)
		return -EINVAL;
	ret->negative = value < 0;
	ret->magnitude = (uint64_t)fabs(value);
	return 0;
}

/* The grammar of a JSON number, nothing around it. */
static bool number_valid(const char *text)
{
	text += *text == '-';
	if (!isdigit((unsigned char)*text) || (*text == '0' && isdigit((unsigned char)text[1])))
		return false;
	text += strspn(text, "0123456789");
	if (*text == '.') {
		text++;
		if (!isdigit((unsigned char)*text))
			return false;
		text += strspn(text, "0123456789");
	}
	if (*text == 'e' || *text == 'E') {
		text++;
		text += *text == '+' || *text == '-';
		if (!isdigit((unsigned char)*text))
			return false;
		text += strspn(text, "0123456789");
	}
	return !*text;
}

static int whole_of_text(const char *text, struct number *ret)
{
	const char *digits = text + (*text == '-');

	if (!number_valid(text))
		return -EINVAL;
	if (strspn(digits, "0123456789") != strlen(digits))
		return whole_of_real(strtod(text, NULL), ret);
	errno = 0;
	ret->negative = *text == '-';
	ret->magnitude = strtoull(digits, NULL, 10);
	return errno ? -ERANGE : 0;
}

static int whole(json_t *json, struct number *ret)
{
	if (json_is_integer(json)) {
		json_int_t value = json_integer_value(json);

		ret->negative = value < 0;
		ret->magnitude = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
		return 0;
	}
	if (json_is_real(json))
		return whole_of_real(json_real_value(json), ret);
	return json_is_string(json) ? whole_of_text(json_string_value(json), ret) : -EINVAL;
}

static bool is_unsigned(ProtobufCType type)
{
	return type == PROTOBUF_C_TYPE_UINT32 || type == PROTOBUF_C_TYPE_FIXED32 || type == PROTOBUF_C_TYPE_UINT64 ||
	       type == PROTOBUF_C_TYPE_FIXED64;
}

/* Put a whole number into a field of any integer type. */
static int store_whole(ProtobufCType type, struct number number, void *to)
{
	bool narrow = json_value_size(type) == sizeof(uint32_t);
	uint64_t max = narrow ? UINT32_MAX : UINT64_MAX;
	uint64_t value = number.negative ? 0 - number.magnitude : number.magnitude;

	if (is_unsigned(type) && number.negative && number.magnitude)
		return -ERANGE;
	if (!is_unsigned(type))
		max = max / 2 + number.negative;
	if (number.magnitude > max)
		return -ERANGE;
	if (narrow)
		*(uint32_t *)to = (uint32_t)value;
	else
		*(uint64_t *)to = value;
	return 0;
}

static int real_of_text(const char *text, double *ret)
{
	if (strcmp(text, "NaN") == 0)
		*ret = (double)NAN;
	else if (strcmp(text, "Infinity") == 0)
		*ret = (double)INFINITY;
	else if (strcmp(text, "-Infinity") == 0)
		*ret = -(double)INFINITY;
	else if (number_valid(text))
		*ret = strtod(text, NULL);
	else
		return -EINVAL;
	return 0;
}

static int get_real(json_t *json, bool single, double *ret)
{
	const char *text = json_string_value(json);
	double value;

	if (json_is_number(json))
		value = json_number_value(json);
	else if (!text || real_of_text(text, &value) < 0)
		return -EINVAL;
	/* A number that only overflowed is not infinity. */
	if (isinf(value) && !(text && strchr(text, 'I')))
		return -ERANGE;
	if (single && !isinf(value) && fabs(value) > 3.4028235677973366e38)
		return -ERANGE;
	*ret = value;
	return 0;
}

/* Bytes: base64, of either alphabet, with or without padding. */

static int digit_of(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' || c == '-' ? 62 : c == '/' || c == '_' ? 63 : -1;
}

static int get_bytes(json_t *json, struct arena *arena, ProtobufCBinaryData *ret, struct pdk_error *err)
{
	const char *text = json_string_value(json);
	size_t length = json_string_length(json);
	size_t n = 0;
	uint32_t group = 0;

	if (length % 4 == 0 && length && text[length - 1] == '=')
		length -= text[length - 2] == '=' ? 2 : 1;
	if (length % 4 == 1)
		return -EINVAL;
	ret->data = arena_alloc(arena, length / 4 * 3 + 3);
	if (!ret->data)
		return no_room(err);
	for (size_t i = 0; i < length; i++) {
		int digit = digit_of(text[i]);

		if (digit < 0)
			return -EINVAL;
		group = group << 6 | (uint32_t)digit;
		if (i % 4 == 0)
			continue;
		ret->data[n++] = (uint8_t)(group >> (6 - 2 * (i % 4)));
	}
	ret->len = n;
	return 0;
}

static int get_enum(json_t *json, const ProtobufCEnumDescriptor *type, int32_t *ret)
{
	const ProtobufCEnumValue *value;
	struct number number;

	if (json_is_string(json)) {
		value = protobuf_c_enum_descriptor_get_value_by_name(type, json_string_value(json));
		if (value) {
			*ret = value->value;
			return 0;
		}
	}
	return whole(json, &number) < 0 ? -EINVAL : store_whole(PROTOBUF_C_TYPE_INT32, number, ret);
}

static int get_submessage(const ProtobufCMessageDescriptor *type, json_t *json, struct arena *arena,
			  ProtobufCMessage **ret, struct pdk_error *err)
{
	ProtobufCMessage *message = arena_alloc(arena, type->sizeof_message);
	int rc;

	if (!message)
		return no_room(err);
	protobuf_c_message_init(type, message);
	if (json_time_kind(type) == JSON_TIME_NONE)
		rc = get_message(message, json, arena, err);
	else if (!json_is_string(json) || json_time_get(json_string_value(json), message) < 0)
		rc = pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "not a %s", type->short_name);
	else
		rc = 0;
	if (rc == 0)
		*ret = message;
	return rc;
}

static int get_whole(const ProtobufCFieldDescriptor *field, json_t *json, void *to, struct pdk_error *err)
{
	struct number number;

	if (whole(json, &number) < 0 || store_whole(field->type, number, to) < 0)
		return misfit(field, "a whole number that fits", err);
	return 0;
}

static int get_floating(const ProtobufCFieldDescriptor *field, json_t *json, void *to, struct pdk_error *err)
{
	bool single = field->type == PROTOBUF_C_TYPE_FLOAT;
	double value;

	if (get_real(json, single, &value) < 0)
		return misfit(field, "a number that fits", err);
	if (single)
		*(float *)to = (float)value;
	else
		*(double *)to = value;
	return 0;
}

/* `to` has json_value_size() bytes. */
static int get_value(const ProtobufCFieldDescriptor *field, json_t *json, void *to, struct arena *arena,
		     struct pdk_error *err)
{
	int rc;

	switch (field->type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
		return get_whole(field, json, to, err);
	case PROTOBUF_C_TYPE_FLOAT:
	case PROTOBUF_C_TYPE_DOUBLE:
		return get_floating(field, json, to, err);
	case PROTOBUF_C_TYPE_BOOL:
		if (!json_is_boolean(json))
			return misfit(field, "a boolean", err);
		*(protobuf_c_boolean *)to = json_is_true(json);
		return 0;
	case PROTOBUF_C_TYPE_ENUM:
		return get_enum(json, field->descriptor, to) < 0 ? misfit(field, "a value of its enum", err) : 0;
	case PROTOBUF_C_TYPE_STRING:
		if (!json_is_string(json))
			return misfit(field, "a string", err);
		*(const char **)to = json_string_value(json);
		return 0;
	case PROTOBUF_C_TYPE_BYTES:
		rc = json_is_string(json) ? get_bytes(json, arena, to, err) : -EINVAL;
		return rc == -EINVAL ? misfit(field, "base64", err) : rc;
	case PROTOBUF_C_TYPE_MESSAGE:
		rc = get_submessage(field->descriptor, json, arena, to, err);
		return rc < 0 ? pdk_wrap(err, rc, "%s", field->name) : 0;
	}
	return -EINVAL;
}

/* Repeated fields and maps */

static int get_array(const ProtobufCFieldDescriptor *field, json_t *json, void **to, size_t *count, struct arena *arena,
		     struct pdk_error *err)
{
	size_t size = json_value_size(field->type);
	size_t n = json_array_size(json);
	uint8_t *values;

	if (!json_is_array(json))
		return misfit(field, "an array", err);
	values = n ? arena_alloc(arena, n * size) : NULL;
	if (n && !values)
		return no_room(err);
	for (size_t i = 0; i < n; i++) {
		json_t *value = json_array_get(json, i);
		int rc = json_is_null(value) ? misfit(field, "a value in every place", err)
					     : get_value(field, value, values + i * size, arena, err);

		if (rc < 0)
			return rc;
	}
	*to = values;
	*count = n;
	return 0;
}

static int get_key(const ProtobufCFieldDescriptor *field, const char *key, void *to, struct pdk_error *err)
{
	struct number number;

	if (field->type == PROTOBUF_C_TYPE_STRING) {
		*(const char **)to = key;
		return 0;
	}
	if (field->type == PROTOBUF_C_TYPE_BOOL) {
		if (strcmp(key, "true") != 0 && strcmp(key, "false") != 0)
			return misfit(field, "a boolean", err);
		*(protobuf_c_boolean *)to = key[0] == 't';
		return 0;
	}
	if (whole_of_text(key, &number) < 0 || store_whole(field->type, number, to) < 0)
		return misfit(field, "a whole number that fits", err);
	return 0;
}

static int get_entry(const ProtobufCMessageDescriptor *type, const char *key, json_t *value, struct arena *arena,
		     ProtobufCMessage **ret, struct pdk_error *err)
{
	ProtobufCMessage *entry = arena_alloc(arena, type->sizeof_message);
	int rc;

	if (!entry)
		return no_room(err);
	protobuf_c_message_init(type, entry);
	rc = get_key(&type->fields[0], key, (uint8_t *)entry + type->fields[0].offset, err);
	if (rc == 0 && json_is_null(value))
		rc = misfit(&type->fields[1], "a value for every key", err);
	if (rc == 0)
		rc = get_value(&type->fields[1], value, (uint8_t *)entry + type->fields[1].offset, arena, err);
	if (rc == 0)
		*ret = entry;
	return rc;
}

static int get_map(const ProtobufCFieldDescriptor *field, json_t *json, void **to, size_t *count, struct arena *arena,
		   struct pdk_error *err)
{
	size_t n = json_object_size(json);
	ProtobufCMessage **entries = n ? arena_alloc(arena, n * sizeof(*entries)) : NULL;
	const char *key;
	json_t *value;
	size_t i = 0;

	if (!json_is_object(json))
		return misfit(field, "an object", err);
	if (n && !entries)
		return no_room(err);
	json_object_foreach(json, key, value)
	{
		int rc = get_entry(field->descriptor, key, value, arena, &entries[i++], err);

		if (rc < 0)
			return pdk_wrap(err, rc, "%s", field->name);
	}
	*to = entries;
	*count = n;
	return 0;
}

/* Messages */

/* "symlinkTarget" or "symlink_target" names the field symlink_target. */
static bool name_matches(const char *name, const char *key)
{
	const char *plain = name;
	const char *from = key;

	while (*plain && *plain == *from) {
		plain++;
		from++;
	}
	if (!*plain && !*from)
		return true;
	for (bool upper = false; *name; name++) {
		if (*name == '_') {
			upper = true;
			continue;
		}
		if (*key++ != (upper && *name >= 'a' && *name <= 'z' ? *name - 32 : *name))
			return false;
		upper = false;
	}
	return !*key;
}

static const ProtobufCFieldDescriptor *find_field(const ProtobufCMessageDescriptor *type, const char *key)
{
	for (unsigned int i = 0; i < type->n_fields; i++) {
		if (name_matches(type->fields[i].name, key))
			return &type->fields[i];
	}
	return NULL;
}

/* Note that the field is there. A second member of a oneof, or the field by its other name, is an error. */
static int mark_given(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field, uint8_t *seen,
		      struct pdk_error *err)
{
	uint8_t *quantifier = (uint8_t *)message + field->quantifier_offset;

	if (seen[field - message->descriptor->fields]++)
		return misfit(field, "given once", err);
	if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
		if (*(uint32_t *)quantifier)
			return misfit(field, "the only one of its oneof", err);
		*(uint32_t *)quantifier = field->id;
		memset((uint8_t *)message + field->offset, 0, json_value_size(field->type));
	} else if (field->label == PROTOBUF_C_LABEL_OPTIONAL && field->type != PROTOBUF_C_TYPE_STRING &&
		   field->type != PROTOBUF_C_TYPE_MESSAGE) {
		*(protobuf_c_boolean *)quantifier = true;
	}
	return 0;
}

static int get_field(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field, json_t *value,
		     struct arena *arena, struct pdk_error *err)
{
	uint8_t *base = (uint8_t *)message;
	void *to = base + field->offset;
	size_t *count = (size_t *)(base + field->quantifier_offset);

	if (field->label != PROTOBUF_C_LABEL_REPEATED)
		return get_value(field, value, to, arena, err);
	if (json_field_is_map(message->descriptor, field))
		return get_map(field, value, to, count, arena, err);
	return get_array(field, value, to, count, arena, err);
}

static int get_message(ProtobufCMessage *message, json_t *json, struct arena *arena, struct pdk_error *err)
{
	const ProtobufCMessageDescriptor *type = message->descriptor;
	uint8_t *seen = arena_alloc(arena, type->n_fields + 1);
	const char *key;
	json_t *value;

	if (!json_is_object(json))
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "not an object");
	if (!seen)
		return no_room(err);
	json_object_foreach(json, key, value)
	{
		const ProtobufCFieldDescriptor *field = find_field(type, key);
		int rc;

		if (!field || json_is_null(value))
			continue;
		rc = mark_given(message, field, seen, err);
		if (rc == 0)
			rc = get_field(message, field, value, arena, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int json_decode(const ProtobufCMessageDescriptor *type, const void *text, size_t length, struct arena *arena,
		ProtobufCMessage **ret, struct pdk_error *err)
{
	json_t *tree = NULL;
	int rc = json_read(text, length, arena, &tree, err);

	return rc < 0 ? rc : get_submessage(type, tree, arena, ret, err);
}
