#include "sandbox/base/buffer.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BUFFER_SIZE_FIRST 512u
#define BUFFER_SIZE_KEPT 4096u

static size_t size_for(const struct buffer *buffer, size_t needed)
{
	size_t size = buffer->size ? buffer->size : BUFFER_SIZE_FIRST;

	while (size < needed)
		size *= 2;
	return size < buffer->maximum || buffer->maximum < needed ? size : buffer->maximum;
}

uint8_t *buffer_reserve(struct buffer *buffer, size_t length, int *ret_rc)
{
	size_t used = buffer_length(buffer);

	if (length > buffer_room(buffer)) {
		*ret_rc = -ENOBUFS;
		return NULL;
	}
	if (buffer->size - buffer->end >= length && buffer->bytes)
		return buffer->bytes + buffer->end;
	if (buffer->start) {
		memmove(buffer->bytes, buffer->bytes + buffer->start, used);
		buffer->start = 0;
		buffer->end = used;
	}
	if (buffer->size - used < length || !buffer->bytes) {
		size_t size = size_for(buffer, used + length);
		uint8_t *bytes = realloc(buffer->bytes, size);

		if (!bytes) {
			*ret_rc = -ENOMEM;
			return NULL;
		}
		buffer->bytes = bytes;
		buffer->size = size;
	}
	return buffer->bytes + buffer->end;
}

void buffer_commit(struct buffer *buffer, size_t length)
{
	assert(length <= buffer->size - buffer->end);
	buffer->end += length;
}

int buffer_append(struct buffer *buffer, const void *bytes, size_t length)
{
	uint8_t *place;
	int rc = 0;

	if (!length)
		return 0;
	place = buffer_reserve(buffer, length, &rc);
	if (!place)
		return rc;
	memcpy(place, bytes, length);
	buffer_commit(buffer, length);
	return 0;
}

void buffer_take(struct buffer *buffer, size_t length)
{
	assert(length <= buffer_length(buffer));
	buffer->start += length;
	if (buffer->start < buffer->end)
		return;
	buffer->start = buffer->end = 0;
	if (buffer->size > BUFFER_SIZE_KEPT)
		buffer_free(buffer);
}

void buffer_free(struct buffer *buffer)
{
	free(buffer->bytes);
	*buffer = BUFFER(buffer->maximum);
}
