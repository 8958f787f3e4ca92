#ifndef PADDOCK_WARDEN_IMAGES_FIELD_H
#define PADDOCK_WARDEN_IMAGES_FIELD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* CRIU's images: a whole file, and the protobuf messages in it, one field after the other. */

/* All of NAME in the directory; the caller frees it. -EBADMSG: it is smaller or larger than that. */
int images_read_whole(int dir, const char *name, size_t least, size_t most, uint8_t **ret, size_t *ret_length);

/* One field of a message. */
struct field {
	unsigned int number, kind;
	uint64_t value; /* kind 0; for kind 2 the length */
	const uint8_t *start, *content, *end;
};

/* The field at `at`, or false at the end or when it is malformed (then `*bad` is set). */
bool images_take_field(const uint8_t *at, const uint8_t *end, struct field *field, bool *bad);

#endif
