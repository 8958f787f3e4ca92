#ifndef PADDOCK_ARCHIVE_SHA256_H
#define PADDOCK_ARCHIVE_SHA256_H

#include <stddef.h>
#include <stdint.h>

/* The functions for this one digest, which OpenSSL would rather see called through EVP: linked statically they are 26 KB,
 * where EVP brings the whole library into the root daemon and into the helper. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>

#define SHA256_SIZE 32

struct sha256 {
	SHA256_CTX context;
	uint64_t length;
};

void sha256_init(struct sha256 *sha256);
void sha256_update(struct sha256 *sha256, const void *bytes, size_t length);
void sha256_finish(struct sha256 *sha256, uint8_t digest[SHA256_SIZE]);
void sha256_hex(const uint8_t digest[SHA256_SIZE], char hex[2 * SHA256_SIZE + 1]);

#endif
