#include "sandbox/base/hex.h"
#include "sandbox_internal.h"
#include "server_secret.h"
#include <assert.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

/*
 * A page token is the hexadecimal form of a place in the list (creation time and id of the last sandbox shown) and
 * a truncated HMAC-SHA-256 over the tenant and that place. The key is in the store, so tokens survive a restart;
 * a token of another tenant, or one that was tampered with, is refused like garbage.
 */

#define MAC_LENGTH 16
#define PLACE_LENGTH (8 + SANDBOX_ID_LEN)
#define RAW_LENGTH (PLACE_LENGTH + MAC_LENGTH)

static_assert(2 * RAW_LENGTH < PAGE_TOKEN_SIZE, "a token fits its buffer");

static uint8_t key[SERVER_SECRET_SIZE];

int page_token_start(void)
{
	return server_secret_load("page_token_key", key);
}

static bool make_mac(const char *tenant, const uint8_t place[PLACE_LENGTH], uint8_t mac[MAC_LENGTH])
{
	uint8_t input[TENANT_NAME_MAX + 1 + PLACE_LENGTH] = {0};
	uint8_t digest[EVP_MAX_MD_SIZE];
	unsigned int length;

	memcpy(input, tenant, strnlen(tenant, TENANT_NAME_MAX));
	memcpy(input + TENANT_NAME_MAX + 1, place, PLACE_LENGTH);
	if (!HMAC(EVP_sha256(), key, sizeof(key), input, sizeof(input), digest, &length))
		return false;
	memcpy(mac, digest, MAC_LENGTH);
	return true;
}

void page_token_make(const char *tenant, const struct page_cursor *cursor, char token[PAGE_TOKEN_SIZE])
{
	uint8_t raw[RAW_LENGTH];

	for (unsigned int i = 0; i < 8; i++)
		raw[i] = (uint8_t)((uint64_t)cursor->created_unix_ms >> (56 - 8 * i));
	memcpy(raw + 8, cursor->id, SANDBOX_ID_LEN);
	token[0] = '\0';
	if (!make_mac(tenant, raw, raw + PLACE_LENGTH))
		return;
	hex_encode(raw, RAW_LENGTH, token);
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool from_hex(const char *token, uint8_t raw[RAW_LENGTH])
{
	if (strnlen(token, PAGE_TOKEN_SIZE) != 2 * RAW_LENGTH)
		return false;
	for (unsigned int i = 0; i < RAW_LENGTH; i++) {
		int high = hex_digit(token[2 * i]), low = hex_digit(token[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		raw[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}

int page_token_read(const char *tenant, const char *token, struct page_cursor *ret, struct pdk_error *err)
{
	uint8_t raw[RAW_LENGTH], mac[MAC_LENGTH];
	uint64_t created = 0;

	if (!from_hex(token, raw) || !make_mac(tenant, raw, mac) ||
	    CRYPTO_memcmp(mac, raw + PLACE_LENGTH, MAC_LENGTH) != 0)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "page_token: is not from a previous page");
	for (unsigned int i = 0; i < 8; i++)
		created = created << 8 | raw[i];
	ret->created_unix_ms = (int64_t)created;
	memcpy(ret->id, raw + 8, SANDBOX_ID_LEN);
	ret->id[SANDBOX_ID_LEN] = '\0';
	return 0;
}
