#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "ration.h"
#include "rpc_internal.h"
#include "sandbox_access.h"
#include "sandbox_internal.h"

/*
 * Signed file URLs of the hosted-sandbox SDKs: "v1_" and base64 without padding of SHA-256 over
 * "path:read|write:user:access token[:expires]". Whoever has the access token makes them; the URL says which sandbox
 * only when its host does. Without that, the sandbox is the living one whose token fits; there are at most as many of
 * such searches as SEARCHES_PER_SECOND, since each costs a hash for every sandbox.
 */

#define SEARCHES_PER_SECOND 100u
#define SIGNATURE_LENGTH 46 /* "v1_" and 43 characters */

static bool sign(const struct rpc_file_signature *file, bool write, const char *token, char ret[SIGNATURE_LENGTH + 4])
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned int length;
	char text[8192];
	int n = snprintf(text, sizeof(text), "%s:%s:%s:%s", file->path, write ? "write" : "read", file->user, token);

	if (n > 0 && n < (int)sizeof(text) && file->expires)
		n += snprintf(text + n, sizeof(text) - (size_t)n, ":%lld", (long long)file->expires_unix_s);
	if (n <= 0 || n >= (int)sizeof(text) || !EVP_Digest(text, (size_t)n, digest, &length, EVP_sha256(), NULL))
		return false;
	explicit_bzero(text, sizeof(text));
	memcpy(ret, "v1_", 3);
	/* 44 characters, the last of which is the padding. */
	EVP_EncodeBlock((unsigned char *)ret + 3, digest, (int)length);
	ret[SIGNATURE_LENGTH] = '\0';
	return true;
}

static bool fits(const struct sandbox *sandbox, const struct rpc_file_signature *file, bool write)
{
	char token[SANDBOX_TOKEN_LEN + 1], expected[SIGNATURE_LENGTH + 4];

	return !sandbox->private->pooled && sandbox_is_living(sandbox) && sandbox_access_token(sandbox->id, token) &&
	       sign(file, write, token, expected) && CRYPTO_memcmp(expected, file->signature, SIGNATURE_LENGTH) == 0;
}

struct search {
	const struct rpc_file_signature *file;
	bool write;
	const struct sandbox *found;
};

static void try_one(const struct sandbox *sandbox, void *arg)
{
	struct search *search = arg;

	if (!search->found && fits(sandbox, search->file, search->write))
		search->found = sandbox;
}

static bool may_search(void)
{
	static struct ration ration;

	return ration_take(&ration, SEARCHES_PER_SECOND);
}

int sandbox_signature_check(const char *sandbox_id, const struct rpc_file_signature *file, bool write,
			    struct principal *ret, struct pdk_error *err)
{
	struct search search = {.file = file, .write = write};
	const struct sandbox *sandbox = NULL;

	if (strnlen(file->signature, SIGNATURE_LENGTH + 1) != SIGNATURE_LENGTH)
		return pdk_fail(err, -EACCES, PDK_UNAUTHENTICATED, "invalid signature");
	if (!sandbox_id && !may_search())
		return pdk_fail(err, -EAGAIN, PDK_RESOURCE_EXHAUSTED,
				"too many signed URLs that name no sandbox; try again");
	if (sandbox_id)
		sandbox = sandbox_id_valid(sandbox_id) ? sandbox_get(sandbox_id) : NULL;
	else
		sandbox_each_living(NULL, try_one, &search);
	if (sandbox && fits(sandbox, file, write))
		search.found = sandbox;
	if (!search.found)
		return pdk_fail(err, -EACCES, PDK_UNAUTHENTICATED, "invalid signature");
	if (file->expires && file->expires_unix_s <= loop_wall_ms() / 1000)
		return pdk_fail(err, -EACCES, PDK_UNAUTHENTICATED, "signature is already expired");
	*ret = (struct principal){.scopes = SCOPE_TOKEN};
	memcpy(ret->tenant, search.found->tenant, sizeof(ret->tenant));
	memcpy(ret->sandbox_id, search.found->id, sizeof(ret->sandbox_id));
	return 0;
}
