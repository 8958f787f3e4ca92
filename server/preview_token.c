#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "preview_internal.h"
#include "sandbox/base/hex.h"
#include "server_secret.h"

/*
 * The token of a link and the cookie of a visitor are HMAC-SHA-256 under a key of this server that is in the store and
 * nowhere else. Both are over the grant's id, its sandbox and when that was made, the port and the flags, each in a
 * field of fixed size; a cookie also over the random name of its visitor, which it carries. So neither can be made from
 * the other, and none of another grant, sandbox or port. Whether the grant is in force is not in them: the record says
 * it.
 */

#define PURPOSE_SIZE 24
#define INPUT_SIZE (PURPOSE_SIZE + PREVIEW_ID_SIZE + SANDBOX_ID_SIZE + 8 + 2 + 1 + PREVIEW_VISITOR_LEN)

static uint8_t key[SERVER_SECRET_SIZE];

int preview_token_start(void)
{
	return server_secret_load("preview_key", key);
}

static void random_bytes(uint8_t *bytes, size_t length)
{
	if (getrandom(bytes, length, 0) != (ssize_t)length)
		abort();
}

void preview_make_id(char id[PREVIEW_ID_SIZE])
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz234567";
	uint8_t bytes[PREVIEW_ID_LEN - 1];

	random_bytes(bytes, sizeof(bytes));
	id[0] = 'p';
	for (size_t i = 0; i < sizeof(bytes); i++)
		id[i + 1] = letters[bytes[i] & 31];
	id[PREVIEW_ID_LEN] = '\0';
}

void preview_make_visitor(char visitor[PREVIEW_VISITOR_LEN + 1])
{
	uint8_t bytes[PREVIEW_VISITOR_LEN / 2];

	random_bytes(bytes, sizeof(bytes));
	hex_encode(bytes, sizeof(bytes), visitor);
}

/* `visitor`: PREVIEW_VISITOR_LEN characters, or NULL. */
static bool make_mac(const char *purpose, const struct preview *preview, const char *visitor,
		     char ret[PREVIEW_TOKEN_LEN + 1])
{
	static const struct preview nobody;
	uint8_t input[INPUT_SIZE] = {0}, digest[EVP_MAX_MD_SIZE];
	uint8_t *at = input;
	unsigned int length;

	if (!preview)
		preview = &nobody;
	strncpy((char *)at, purpose, PURPOSE_SIZE - 1);
	at += PURPOSE_SIZE;
	memcpy(at, preview->id, PREVIEW_ID_SIZE);
	at += PREVIEW_ID_SIZE;
	memcpy(at, preview->sandbox_id, SANDBOX_ID_SIZE);
	at += SANDBOX_ID_SIZE;
	for (unsigned int i = 0; i < 8; i++)
		*at++ = (uint8_t)((uint64_t)preview->generation >> (56 - 8 * i));
	*at++ = (uint8_t)(preview->port >> 8);
	*at++ = (uint8_t)preview->port;
	*at++ = (uint8_t)(preview->read_only | preview->one_visitor << 1);
	if (visitor)
		memcpy(at, visitor, PREVIEW_VISITOR_LEN);
	if (!HMAC(EVP_sha256(), key, sizeof(key), input, sizeof(input), digest, &length) ||
	    length != PREVIEW_TOKEN_LEN / 2)
		return false;
	hex_encode(digest, length, ret);
	return true;
}

bool preview_make_token(const struct preview *preview, char token[PREVIEW_TOKEN_LEN + 1])
{
	return make_mac("preview-token-1", preview, NULL, token);
}

bool preview_make_cookie(const struct preview *preview, const char *visitor, char cookie[PREVIEW_COOKIE_LEN + 1])
{
	memcpy(cookie, visitor, PREVIEW_VISITOR_LEN);
	return make_mac("preview-cookie-1", preview, visitor, cookie + PREVIEW_VISITOR_LEN);
}

bool preview_check_token(const struct preview *preview, const char *token)
{
	char expected[PREVIEW_TOKEN_LEN + 1], given[PREVIEW_TOKEN_LEN + 1] = "";

	if (strnlen(token, PREVIEW_TOKEN_LEN + 1) == PREVIEW_TOKEN_LEN)
		memcpy(given, token, PREVIEW_TOKEN_LEN);
	return preview_make_token(preview, expected) && CRYPTO_memcmp(expected, given, PREVIEW_TOKEN_LEN) == 0 &&
	       preview;
}

bool preview_check_cookie(const struct preview *preview, const char *cookie)
{
	char expected[PREVIEW_COOKIE_LEN + 1], given[PREVIEW_COOKIE_LEN + 1] = "";

	if (strnlen(cookie, PREVIEW_COOKIE_LEN + 1) == PREVIEW_COOKIE_LEN)
		memcpy(given, cookie, PREVIEW_COOKIE_LEN);
	if (!preview_make_cookie(preview, given, expected) || CRYPTO_memcmp(expected, given, PREVIEW_COOKIE_LEN) != 0 ||
	    !preview)
		return false;
	return !preview->one_visitor || CRYPTO_memcmp(preview->visitor, given, PREVIEW_VISITOR_LEN) == 0;
}
