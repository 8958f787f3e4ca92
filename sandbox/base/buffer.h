#ifndef PADDOCK_BASE_BUFFER_H
#define PADDOCK_BASE_BUFFER_H

#include <stddef.h>
#include <stdint.h>

/*
 * A byte queue that is born with its maximum: what a peer sends can never grow it further. Bytes are put
 * in behind and taken from the front. Memory grows with the content and is given back when it is empty.
 */
struct buffer {
	uint8_t *bytes;
	size_t start; /* first byte that was not taken yet */
	size_t end;   /* behind the last byte */
	size_t size;  /* of the allocation */
	size_t maximum;
};

#define BUFFER(max) ((struct buffer){.maximum = (max)})

static inline size_t buffer_length(const struct buffer *buffer)
{
	return buffer->end - buffer->start;
}

static inline const uint8_t *buffer_data(const struct buffer *buffer)
{
	/* NULL of an empty buffer: even adding 0 to it is undefined. */
	return buffer->bytes ? buffer->bytes + buffer->start : NULL;
}

/* The same bytes, to be changed where they are. */
static inline uint8_t *buffer_writable(struct buffer *buffer)
{
	return buffer->bytes ? buffer->bytes + buffer->start : NULL;
}

/* How many bytes may still be put in. */
static inline size_t buffer_room(const struct buffer *buffer)
{
	return buffer->maximum - buffer_length(buffer);
}

/* Make room for `length` more bytes and return where they go; NULL with -ENOBUFS in *ret_rc when they would
 * pass the maximum, or -ENOMEM. Nothing counts before buffer_commit(). */
uint8_t *buffer_reserve(struct buffer *buffer, size_t length, int *ret_rc);
void buffer_commit(struct buffer *buffer, size_t length);

/* All of it or nothing: 0, -ENOBUFS or -ENOMEM. */
int buffer_append(struct buffer *buffer, const void *bytes, size_t length);

/* Drop `length` bytes from the front; with the last byte the memory goes too, if it is large. */
void buffer_take(struct buffer *buffer, size_t length);
void buffer_free(struct buffer *buffer);

#endif
