#include "http_chunk.h"

#include <ctype.h>

enum { SIZE, SIZE_LF, DATA, DATA_CR, DATA_LF, LAST_CR, LAST_LF, DONE };

static bool add_digit(struct http_chunk *chunk, uint8_t c)
{
	if (!isxdigit(c) || chunk->digits == 12)
		return false;
	chunk->digits++;
	chunk->left = chunk->left << 4 | (uint64_t)(isdigit(c) ? c - '0' : (c | 32) - 'a' + 10);
	return true;
}

/* One byte of the framing. False: it must not be there. */
static bool step(struct http_chunk *chunk, uint8_t c)
{
	switch (chunk->state) {
	case SIZE:
		if (c != '\r')
			return add_digit(chunk, c);
		chunk->state = SIZE_LF;
		return chunk->digits > 0;
	case SIZE_LF:
		chunk->state = chunk->left ? DATA : LAST_CR;
		chunk->digits = 0;
		return c == '\n';
	case DATA_CR:
		chunk->state = DATA_LF;
		return c == '\r';
	case DATA_LF:
		chunk->state = SIZE;
		return c == '\n';
	case LAST_CR:
		chunk->state = LAST_LF;
		return c == '\r';
	case LAST_LF:
		chunk->state = DONE;
		return c == '\n';
	default:
		return false;
	}
}

enum http_chunk_result http_chunk_feed(struct http_chunk *chunk, const uint8_t *bytes, size_t length, size_t *ret_used,
				       size_t *ret_data)
{
	size_t used = 0;

	*ret_data = 0;
	while (chunk->state != DONE && used < length) {
		if (chunk->state == DATA) {
			size_t n = length - used < chunk->left ? length - used : (size_t)chunk->left;

			chunk->left -= n;
			if (!chunk->left)
				chunk->state = DATA_CR;
			*ret_used = used + n;
			*ret_data = n;
			return HTTP_CHUNK_DATA;
		}
		if (!step(chunk, bytes[used++]))
			return HTTP_CHUNK_BAD;
	}
	*ret_used = used;
	return chunk->state == DONE ? HTTP_CHUNK_END : HTTP_CHUNK_MORE;
}

bool http_chunk_is_last(const struct http_chunk *chunk)
{
	return chunk->state >= LAST_CR;
}
