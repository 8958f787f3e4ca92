#ifndef PADDOCK_PREVIEW_HTTP_CHUNK_H
#define PADDOCK_PREVIEW_HTTP_CHUNK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A chunked body, taken apart as it comes. As strict as the head: no extensions, no trailers, no bare LF, sizes of at
 * most 12 hexadecimal digits. */

struct http_chunk {
	int state;
	unsigned int digits;
	uint64_t left; /* of the chunk */
};

enum http_chunk_result {
	HTTP_CHUNK_MORE, /* all of the input was used */
	HTTP_CHUNK_DATA, /* a piece of the body */
	HTTP_CHUNK_END,  /* the body is whole */
	HTTP_CHUNK_BAD,
};

/* Look at `length` bytes. `*ret_used` of them are done with; with HTTP_CHUNK_DATA the last `*ret_data` of those are
 * body. Call again with the rest. */
enum http_chunk_result http_chunk_feed(struct http_chunk *chunk, const uint8_t *bytes, size_t length, size_t *ret_used,
				       size_t *ret_data);

/* After HTTP_CHUNK_BAD: the body itself is whole, and what was wrong came behind its last chunk (trailers). */
bool http_chunk_is_last(const struct http_chunk *chunk);

#endif
