#ifndef PADDOCK_BASE_VARINT_H
#define PADDOCK_BASE_VARINT_H

#include <stddef.h>
#include <stdint.h>

#define VARINT_MAX 10 /* bytes */

/* A number as Protocol Buffers write it, where a message is put together by hand. Returns its length. */
static inline size_t varint_put(uint8_t *at, uint64_t value)
{
	size_t n = 0;

	for (; value >= 0x80; value >>= 7)
		at[n++] = (uint8_t)(value | 0x80);
	at[n++] = (uint8_t)value;
	return n;
}

#endif
