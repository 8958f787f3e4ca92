#ifndef PADDOCK_BASE_HEX_H
#define PADDOCK_BASE_HEX_H

#include <stddef.h>
#include <stdint.h>

/* In lower case; `ret` has room for 2 * length characters and the end. Returns where that is. */
static inline char *hex_encode(const void *bytes, size_t length, char *ret)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *at = bytes;

	for (size_t i = 0; i < length; i++) {
		*ret++ = digits[at[i] >> 4];
		*ret++ = digits[at[i] & 15];
	}
	*ret = '\0';
	return ret;
}

#endif
