#include "sandbox/archive/sha256.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#ifdef __x86_64__
#include <cpuid.h>
#include <immintrin.h>
#endif

static const uint32_t constants[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotate(uint32_t value, unsigned int n)
{
	return value >> n | value << (32 - n);
}

static void compress_block(uint32_t state[8], const uint8_t *block)
{
	uint32_t w[64], s[8];

	for (int i = 0; i < 16; i++)
		w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 |
		       (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
	for (int i = 16; i < 64; i++) {
		uint32_t a = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3;
		uint32_t b = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;

		w[i] = w[i - 16] + a + w[i - 7] + b;
	}
	memcpy(s, state, sizeof(s));
	for (int i = 0; i < 64; i++) {
		uint32_t e = rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25);
		uint32_t t1 = s[7] + e + ((s[4] & s[5]) ^ (~s[4] & s[6])) + constants[i] + w[i];
		uint32_t a = rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22);
		uint32_t t2 = a + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));

		memmove(s + 1, s, 7 * sizeof(*s));
		s[4] += t1;
		s[0] = t1 + t2;
	}
	for (int i = 0; i < 8; i++)
		state[i] += s[i];
}

static void compress_plain(uint32_t state[8], const uint8_t *at, size_t blocks)
{
	for (; blocks; blocks--, at += 64)
		compress_block(state, at);
}

#ifdef __x86_64__
/*
 * The processor's own instructions: two rounds each, on a state that is kept as {f, e, b, a} and {h, g, d, c}. Four
 * rounds take the next four words of the schedule, and make those that are needed twelve rounds later.
 */

#define FOUR_ROUNDS(i, words)                                                                                          \
	do {                                                                                                           \
		__m128i sum = _mm_add_epi32(words, _mm_loadu_si128((const __m128i *)(constants + 4 * (i))));           \
                                                                                                                       \
		cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);                                                         \
		abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0e));                                \
	} while (0)

/* `a` becomes the four words behind `d`. */
#define EXTEND(a, b, c, d)                                                                                             \
	(a = _mm_sha256msg2_epu32(_mm_add_epi32(_mm_sha256msg1_epu32(a, b), _mm_alignr_epi8(d, c, 4)), d))

#define SIXTEEN_ROUNDS(i)                                                                                              \
	do {                                                                                                           \
		EXTEND(w0, w1, w2, w3);                                                                                \
		FOUR_ROUNDS(i, w0);                                                                                    \
		EXTEND(w1, w2, w3, w0);                                                                                \
		FOUR_ROUNDS((i) + 1, w1);                                                                              \
		EXTEND(w2, w3, w0, w1);                                                                                \
		FOUR_ROUNDS((i) + 2, w2);                                                                              \
		EXTEND(w3, w0, w1, w2);                                                                                \
		FOUR_ROUNDS((i) + 3, w3);                                                                              \
	} while (0)

__attribute__((target("sha,sse4.1"))) static void compress_sha(uint32_t state[8], const uint8_t *at, size_t blocks)
{
	const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
	__m128i badc = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state), 0xb1);
	__m128i hgfe = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(state + 4)), 0x1b);
	__m128i abef = _mm_alignr_epi8(badc, hgfe, 8), cdgh = _mm_blend_epi16(hgfe, badc, 0xf0);

	for (; blocks; blocks--, at += 64) {
		const __m128i abef_before = abef, cdgh_before = cdgh;
		const __m128i *block = (const __m128i *)at;
		__m128i w0 = _mm_shuffle_epi8(_mm_loadu_si128(block), big_endian);
		__m128i w1 = _mm_shuffle_epi8(_mm_loadu_si128(block + 1), big_endian);
		__m128i w2 = _mm_shuffle_epi8(_mm_loadu_si128(block + 2), big_endian);
		__m128i w3 = _mm_shuffle_epi8(_mm_loadu_si128(block + 3), big_endian);

		FOUR_ROUNDS(0, w0);
		FOUR_ROUNDS(1, w1);
		FOUR_ROUNDS(2, w2);
		FOUR_ROUNDS(3, w3);
		SIXTEEN_ROUNDS(4);
		SIXTEEN_ROUNDS(8);
		SIXTEEN_ROUNDS(12);
		abef = _mm_add_epi32(abef, abef_before);
		cdgh = _mm_add_epi32(cdgh, cdgh_before);
	}
	abef = _mm_shuffle_epi32(abef, 0x1b);
	cdgh = _mm_shuffle_epi32(cdgh, 0xb1);
	_mm_storeu_si128((__m128i *)state, _mm_blend_epi16(abef, cdgh, 0xf0));
	_mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(cdgh, abef, 8));
}

static bool processor_has_sha(void)
{
	unsigned int a, b, c, d;

	return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_SSE4_1) && (c & bit_SSSE3) &&
	       __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA);
}
#else
static bool processor_has_sha(void)
{
	return false;
}
#define compress_sha compress_plain
#endif

static void compress(uint32_t state[8], const uint8_t *at, size_t blocks)
{
	static void (*chosen)(uint32_t state[8], const uint8_t *at, size_t blocks);

	if (!chosen)
		chosen = processor_has_sha() ? compress_sha : compress_plain;
	chosen(state, at, blocks);
}

void sha256_init(struct sha256 *sha256)
{
	*sha256 = (struct sha256){.state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c,
					    0x1f83d9ab, 0x5be0cd19}};
}

void sha256_update(struct sha256 *sha256, const void *bytes, size_t length)
{
	size_t used = sha256->length % 64;
	const uint8_t *at = bytes;

	sha256->length += length;
	if (used + length < 64) {
		memcpy(sha256->block + used, at, length);
		return;
	}
	if (used) {
		memcpy(sha256->block + used, at, 64 - used);
		compress(sha256->state, sha256->block, 1);
		at += 64 - used;
		length -= 64 - used;
	}
	if (length >= 64)
		compress(sha256->state, at, length / 64);
	memcpy(sha256->block, at + length / 64 * 64, length % 64);
}

void sha256_finish(struct sha256 *sha256, uint8_t digest[SHA256_SIZE])
{
	uint64_t bits = sha256->length * 8;
	uint8_t end[72] = {0x80};
	size_t pad = (sha256->length % 64 < 56 ? 56 : 120) - sha256->length % 64;

	for (int i = 0; i < 8; i++)
		end[pad + (size_t)i] = (uint8_t)(bits >> (56 - 8 * i));
	sha256_update(sha256, end, pad + 8);
	for (int i = 0; i < SHA256_SIZE; i++)
		digest[i] = (uint8_t)(sha256->state[i / 4] >> (24 - 8 * (i % 4)));
}

void sha256_hex(const uint8_t digest[SHA256_SIZE], char hex[2 * SHA256_SIZE + 1])
{
	for (int i = 0; i < SHA256_SIZE; i++)
		sprintf(hex + 2 * i, "%02x", digest[i]);
}
