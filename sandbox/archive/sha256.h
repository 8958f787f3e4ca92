#ifndef PADDOCK_ARCHIVE_SHA256_H
#define PADDOCK_ARCHIVE_SHA256_H

#include <stddef.h>
#include <stdint.h>

/* FIPS 180-4. Small enough to have here, so that neither warden nor helper needs a cryptography library. With the
 * processor's instructions for it, where there are any. */

#define SHA256_SIZE 32

struct sha256 {
	uint32_t state[8];
	uint64_t length;
	uint8_t block[64];
};

void sha256_init(struct sha256 *sha256);
void sha256_update(struct sha256 *sha256, const void *bytes, size_t length);
void sha256_finish(struct sha256 *sha256, uint8_t digest[SHA256_SIZE]);
void sha256_hex(const uint8_t digest[SHA256_SIZE], char hex[2 * SHA256_SIZE + 1]);

#endif
