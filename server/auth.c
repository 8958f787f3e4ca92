#include "auth.h"

#include "admin_private.h"
#include "keys.h"
#include "loop.h"
#include "sandbox/base/hex.h"
#include "tenants.h"
#include <errno.h>
#include <openssl/crypto.h>
#include <string.h>
#include <strings.h>

/*
 * A key is "pdk_" + public id + "_" + secret. SDKs that accept only "e2b_" and hexadecimal digits get the same key as
 * "e2b_" + the digits of public id and secret. The id finds the record; the secret is only ever compared as its
 * SHA-256, in constant time, and an id that does not exist costs the same work. Nothing is cached: a revoked key
 * opens nothing from the moment its revocation is durable.
 */

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "e2b_" and digits: as the other spelling in `text`. */
static bool from_sdk_form(const char *key, char text[KEY_TEXT_LEN + 1])
{
	char plain[KEY_ID_LEN + KEY_SECRET_LEN];

	if (strnlen(key, KEY_SDK_TEXT_LEN + 1) != KEY_SDK_TEXT_LEN)
		return false;
	for (size_t i = 0; i < sizeof(plain); i++) {
		int high = hex_digit(key[4 + 2 * i]), low = hex_digit(key[5 + 2 * i]);

		if (high < 0 || low < 0)
			return false;
		plain[i] = (char)(high << 4 | low);
	}
	memcpy(text, "pdk_", 4);
	memcpy(text + 4, plain, KEY_ID_LEN);
	text[4 + KEY_ID_LEN] = '_';
	memcpy(text + 4 + KEY_ID_LEN + 1, plain + KEY_ID_LEN, KEY_SECRET_LEN);
	text[KEY_TEXT_LEN] = '\0';
	return true;
}

void key_sdk_form(const char *text, char ret[KEY_SDK_TEXT_LEN + 1])
{
	char *to = stpcpy(ret, "e2b_");

	to = hex_encode(text + 4, KEY_ID_LEN, to);
	hex_encode(text + 4 + KEY_ID_LEN + 1, KEY_SECRET_LEN, to);
}

/* Where the id and the secret are in "Bearer pdk_...", or false. `copy` has room for the other spelling's. */
static bool split(const char *authorization, char copy[KEY_TEXT_LEN + 1], const char **ret_id, const char **ret_secret)
{
	const char *key;

	if (!authorization || strncasecmp(authorization, "Bearer ", 7))
		return false;
	key = authorization + 7;
	if (strncmp(key, "e2b_", 4) == 0) {
		if (!from_sdk_form(key, copy))
			return false;
		key = copy;
	}
	if (strnlen(key, KEY_TEXT_LEN + 1) != KEY_TEXT_LEN || strncmp(key, "pdk_", 4) || key[4 + KEY_ID_LEN] != '_')
		return false;
	*ret_id = key + 4;
	*ret_secret = key + 4 + KEY_ID_LEN + 1;
	return true;
}

static struct key *authenticate(const char *authorization, char copy[KEY_TEXT_LEN + 1])
{
	static const uint8_t nobody[KEY_DIGEST_SIZE];
	uint8_t digest[KEY_DIGEST_SIZE];
	const char *id, *secret;
	struct key *key;
	bool equal;

	if (!split(authorization, copy, &id, &secret))
		return NULL;
	key = key_find(id);
	if (key_digest(secret, KEY_SECRET_LEN, digest) < 0)
		return NULL;
	equal = CRYPTO_memcmp(digest, key ? key->digest : nobody, sizeof(digest)) == 0;
	return key && equal && key_is_valid(key, loop_wall_ms()) ? key : NULL;
}

int auth_check(const char *authorization, struct principal *ret, struct pdk_error *err)
{
	char copy[KEY_TEXT_LEN + 1];
	struct key *key = authenticate(authorization, copy);

	explicit_bzero(copy, sizeof(copy));
	if (!key)
		return pdk_fail(err, -EACCES, PDK_UNAUTHENTICATED, "a valid API key is needed");
	key_used(key, loop_wall_ms());
	*ret = (struct principal){.scopes = key->scopes | SCOPE_ANY, .is_operator = key->scopes & SCOPE_ADMIN};
	memcpy(ret->tenant, key->tenant, sizeof(ret->tenant));
	memcpy(ret->key_id, key->id, sizeof(ret->key_id));
	return 0;
}

const char *principal_actor(const struct principal *principal)
{
	if (principal->key_id[0])
		return principal->key_id;
	if (principal->sandbox_id[0])
		return "access-token";
	return principal->is_operator ? "operator" : "anonymous";
}

int auth_load(struct pdk_error *err)
{
	int rc = tenants_load(err);

	admin_note_start();
	return rc < 0 ? rc : keys_load(err);
}
