#include "sandbox/archive/sha256.h"

#include <stdio.h>

void sha256_init(struct sha256 *sha256)
{
	SHA256_Init(&sha256->context);
	sha256->length = 0;
}

void sha256_update(struct sha256 *sha256, const void *bytes, size_t length)
{
	SHA256_Update(&sha256->context, bytes, length);
	sha256->length += length;
}

void sha256_finish(struct sha256 *sha256, uint8_t digest[SHA256_SIZE])
{
	SHA256_Final(digest, &sha256->context);
}

void sha256_hex(const uint8_t digest[SHA256_SIZE], char hex[2 * SHA256_SIZE + 1])
{
	for (int i = 0; i < SHA256_SIZE; i++)
		sprintf(hex + 2 * i, "%02x", digest[i]);
}
