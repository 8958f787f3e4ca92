#include "build_files.h"

#include "keys.h"
#include "loop.h"
#include "sandbox/base/hex.h"
#include "server_secret.h"
#include "tenants.h"
#include <errno.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * The token of an upload: expiry, MAC, key, ".", tenant. The SDKs send their files to an address, without a key, so
 * this is all that says whose they are. It is worth no more than the key that asked for it: that is looked at whenever
 * the token is used, and while the upload goes on.
 */

#define TTL_S 3600
#define MAC_SIZE 16
#define EXPIRES_LEN 16
#define HEAD_LEN (EXPIRES_LEN + 2 * MAC_SIZE + KEY_ID_LEN)
#define NO_KEY "----------------"

static uint8_t secret[SERVER_SECRET_SIZE];

_Static_assert(BUILD_TOKEN_SIZE > HEAD_LEN + 1 + TENANT_NAME_MAX, "a token fits");
_Static_assert(sizeof(NO_KEY) == KEY_ID_LEN + 1, "no key is as long as a key");
_Static_assert(sizeof(((struct build_token *)0)->tenant) == TENANT_NAME_MAX + 1, "a tenant fits");
_Static_assert(sizeof(((struct build_token *)0)->key_id) == KEY_ID_LEN + 1, "a key fits");

int build_token_start(struct pdk_error *err)
{
	if (server_secret_load("build_upload_key", secret) < 0)
		return pdk_fail_errno(err, -EIO, "the key of uploads");
	return 0;
}

/* Of this tenant, not of one that had its name before it. False: there is no such tenant. */
static bool make_mac(const struct build_token *token, const char *hash, const char *expires, char ret[2 * MAC_SIZE + 1])
{
	const struct tenant *found = tenant_find(token->tenant);
	char text[TENANT_NAME_MAX + BUILD_HASH_LEN + KEY_ID_LEN + 64];
	uint8_t digest[EVP_MAX_MD_SIZE];
	unsigned int length;

	if (!found)
		return false;
	snprintf(text, sizeof(text), "%s/%" PRId64 "/%s/%s/%s", token->tenant, found->created_unix_ms, token->key_id,
		 hash, expires);
	if (!HMAC(EVP_sha256(), secret, sizeof(secret), (const uint8_t *)text, strlen(text), digest, &length))
		return false;
	hex_encode(digest, MAC_SIZE, ret);
	return true;
}

bool build_token_make(const struct principal *principal, const char *hash, char ret[BUILD_TOKEN_SIZE])
{
	char expires[EXPIRES_LEN + 1], mac[2 * MAC_SIZE + 1];
	struct build_token token = {};

	memcpy(token.tenant, principal->tenant, sizeof(token.tenant));
	memcpy(token.key_id, principal->key_id, sizeof(token.key_id));
	snprintf(expires, sizeof(expires), "%016" PRIx64, (uint64_t)(loop_wall_ms() / 1000 + TTL_S));
	if (!make_mac(&token, hash, expires, mac))
		return false;
	snprintf(ret, BUILD_TOKEN_SIZE, "%s%s%s.%s", expires, mac, token.key_id[0] ? token.key_id : NO_KEY,
		 token.tenant);
	return true;
}

bool build_token_check(const char *text, const char *hash, struct build_token *ret)
{
	char expires[EXPIRES_LEN + 1] = "", mac[2 * MAC_SIZE + 1];
	struct build_token token = {};

	if (strlen(text) <= HEAD_LEN + 1 || strlen(text) > HEAD_LEN + 1 + TENANT_NAME_MAX || text[HEAD_LEN] != '.')
		return false;
	memcpy(expires, text, EXPIRES_LEN);
	memcpy(token.key_id, text + EXPIRES_LEN + 2 * MAC_SIZE, KEY_ID_LEN);
	if (strcmp(token.key_id, NO_KEY) == 0)
		token.key_id[0] = '\0';
	memcpy(token.tenant, text + HEAD_LEN + 1, strlen(text + HEAD_LEN + 1));
	if (!make_mac(&token, hash, expires, mac) || CRYPTO_memcmp(mac, text + EXPIRES_LEN, 2 * MAC_SIZE) != 0)
		return false;
	if (strtoull(expires, NULL, 16) < (uint64_t)loop_wall_ms() / 1000 || !build_token_holds(&token))
		return false;
	*ret = token;
	return true;
}

bool build_token_holds(const struct build_token *token)
{
	const struct key *key = token->key_id[0] ? key_find(token->key_id) : NULL;

	return !token->key_id[0] || (key && key_is_valid(key, loop_wall_ms()));
}
