#ifndef PADDOCK_WARDEN_IMAGES_FIELD_H
#define PADDOCK_WARDEN_IMAGES_FIELD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The protobuf messages in CRIU's images, one field after the other. */

/* One field of a message. */
struct field {
	unsigned int number, kind;
	uint64_t value; /* kind 0; for kind 2 the length */
	const uint8_t *start, *content, *end;
};

/* The field at `at`, or false at the end or when it is malformed (then `*bad` is set). */
bool images_take_field(const uint8_t *at, const uint8_t *end, struct field *field, bool *bad);

#endif
