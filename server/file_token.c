#include "file_token.h"

#include <errno.h>
#include <string.h>

#define CHECK_SIZE 8u

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* FNV-1a: a check against mistakes, not against forgers. */
static uint64_t add(uint64_t hash, const void *data, size_t length)
{
	const uint8_t *bytes = data;

	for (size_t i = 0; i < length; i++)
		hash = (hash ^ bytes[i]) * 0x100000001b3ull;
	return (hash ^ length) * 0x100000001b3ull;
}

uint64_t file_token_check(const char *sandbox_id, const ProtobufCBinaryData *path, const char *user, uint32_t depth)
{
	uint64_t hash = add(0xcbf29ce484222325ull, sandbox_id, strlen(sandbox_id));

	hash = add(hash, path->data, path->len);
	hash = add(hash, user, strlen(user));
	return add(hash, &depth, sizeof(depth));
}

void file_token_make(char ret[FILE_TOKEN_SIZE], uint64_t check, const ProtobufCBinaryData *after)
{
	uint8_t raw[CHECK_SIZE + FILE_TOKEN_PATH_MAX];
	size_t length = after->len < FILE_TOKEN_PATH_MAX ? after->len : FILE_TOKEN_PATH_MAX;
	uint32_t bits = 0;
	unsigned int n_bits = 0;
	size_t n = 0;

	memcpy(raw, &check, CHECK_SIZE);
	memcpy(raw + CHECK_SIZE, after->data, length);
	for (size_t i = 0; i < CHECK_SIZE + length; i++) {
		bits = bits << 8 | raw[i];
		for (n_bits += 8; n_bits >= 6; n_bits -= 6)
			ret[n++] = digits[bits >> (n_bits - 6) & 63];
	}
	if (n_bits)
		ret[n++] = digits[bits << (6 - n_bits) & 63];
	ret[n] = '\0';
}

static int fail(struct pdk_error *err)
{
	return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "page_token: is not of this listing");
}

int file_token_parse(const char *token, uint64_t check, uint8_t ret[FILE_TOKEN_PATH_MAX], size_t *ret_length,
		     struct pdk_error *err)
{
	uint8_t raw[CHECK_SIZE + FILE_TOKEN_PATH_MAX];
	uint32_t bits = 0;
	unsigned int n_bits = 0;
	size_t n = 0;

	*ret_length = 0;
	if (!token[0])
		return 0;
	for (; *token; token++) {
		const char *digit = strchr(digits, *token);

		if (!digit)
			return fail(err);
		bits = bits << 6 | (uint32_t)(digit - digits);
		n_bits += 6;
		if (n_bits < 8)
			continue;
		if (n == sizeof(raw))
			return fail(err);
		n_bits -= 8;
		raw[n++] = (uint8_t)(bits >> n_bits);
	}
	if (n <= CHECK_SIZE || memcmp(raw, &check, CHECK_SIZE) != 0 || memchr(raw + CHECK_SIZE, 0, n - CHECK_SIZE))
		return fail(err);
	*ret_length = n - CHECK_SIZE;
	memcpy(ret, raw + CHECK_SIZE, *ret_length);
	return 0;
}
