#ifndef PADDOCK_BASE_HASH_H
#define PADDOCK_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* FNV-1a, for the buckets of tables. Not against a peer who chooses keys: such a table bounds how many there are. */
static inline uint32_t hash_bytes(const void *bytes, size_t length)
{
	const uint8_t *at = bytes;
	uint32_t hash = 2166136261u;

	for (size_t i = 0; i < length; i++)
		hash = (hash ^ at[i]) * 16777619u;
	return hash;
}

/* The same in 64 bits, for names: begin with HASH64_BEGIN, go on with what it returned. */
#define HASH64_BEGIN 14695981039346656037u

static inline uint64_t hash64_bytes(uint64_t hash, const void *bytes, size_t length)
{
	const uint8_t *at = bytes;

	for (size_t i = 0; i < length; i++)
		hash = (hash ^ at[i]) * 1099511628211u;
	return hash;
}

static inline uint32_t hash_text(const char *text)
{
	return hash_bytes(text, strlen(text));
}

#endif
