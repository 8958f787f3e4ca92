#include "images_field.h"

static const uint8_t *take_varint(const uint8_t *at, const uint8_t *end, uint64_t *ret)
{
	uint64_t value = 0;

	for (unsigned int shift = 0; at < end && shift < 64; shift += 7) {
		value |= (uint64_t)(*at & 0x7f) << shift;
		if (!(*at++ & 0x80)) {
			*ret = value;
			return at;
		}
	}
	return NULL;
}

bool images_take_field(const uint8_t *at, const uint8_t *end, struct field *field, bool *bad)
{
	uint64_t key;

	*bad = false;
	if (at >= end)
		return false;
	field->start = at;
	*bad = true;
	at = take_varint(at, end, &key);
	if (!at)
		return false;
	field->number = (unsigned int)(key >> 3);
	field->kind = key & 7;
	field->value = field->kind == 1 ? 8 : 4;
	if (field->kind == 0 || field->kind == 2)
		at = take_varint(at, end, &field->value);
	if (!at || (field->kind != 0 && field->value > (uint64_t)(end - at)))
		return false;
	if (field->kind != 0 && field->kind != 1 && field->kind != 2 && field->kind != 5)
		return false;
	field->content = at;
	field->end = field->kind == 0 ? at : at + field->value;
	*bad = false;
	return true;
}
