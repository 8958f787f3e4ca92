#include "sandbox_access.h"

#include <assert.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

#include "rpc.h"
#include "sandbox/base/hex.h"
#include "sandbox_internal.h"
#include "server_secret.h"

/*
 * The access token of a sandbox is an HMAC-SHA-256 over its id, under a key of this server that is in the store and
 * nowhere else. Nothing is kept for each sandbox, the token is the same for its whole life and survives a restart, and
 * no other sandbox has it, because ids are never used again.
 */

#define TOKEN_LENGTH SANDBOX_TOKEN_LEN

/* Both kinds, equally long. */
static const char for_access[] = "sandbox-access-1", for_traffic[] = "sandbox-traffic1";
static_assert(sizeof(for_access) == sizeof(for_traffic), "one size of input");
static uint8_t key[SERVER_SECRET_SIZE];

int sandbox_access_start(void)
{
	return server_secret_load("access_token_key", key);
}

static bool make_token(const char *purpose, const char *sandbox_id, char token[TOKEN_LENGTH + 1])
{
	uint8_t input[sizeof(for_access) + SANDBOX_ID_SIZE] = {0};
	uint8_t digest[EVP_MAX_MD_SIZE];
	unsigned int length;

	memcpy(input, purpose, sizeof(for_access));
	memcpy(input + sizeof(for_access), sandbox_id, strnlen(sandbox_id, SANDBOX_ID_LEN));
	if (!HMAC(EVP_sha256(), key, sizeof(key), input, sizeof(input), digest, &length))
		return false;
	hex_encode(digest, TOKEN_LENGTH / 2, token);
	return true;
}

bool sandbox_access_token(const char *sandbox_id, char token[SANDBOX_TOKEN_LEN + 1])
{
	return make_token(for_access, sandbox_id, token);
}

int sandbox_access_check(const char *sandbox_id, const char *token, struct principal *ret, struct pdk_error *err)
{
	struct sandbox *sandbox = sandbox_id && sandbox_id_valid(sandbox_id) ? sandbox_get(sandbox_id) : NULL;
	char expected[TOKEN_LENGTH + 1], given[TOKEN_LENGTH + 1] = "";
	bool equal;

	/* The same work whether or not there is such a sandbox. */
	if (token && strnlen(token, TOKEN_LENGTH + 1) == TOKEN_LENGTH)
		memcpy(given, token, TOKEN_LENGTH);
	equal = make_token(for_access, sandbox ? sandbox->id : "", expected) &&
		CRYPTO_memcmp(expected, given, TOKEN_LENGTH) == 0;
	if (!equal || !sandbox || sandbox->private->pooled || !sandbox_is_living(sandbox))
		return pdk_fail(err, -EACCES, PDK_UNAUTHENTICATED, "a valid access token is needed");
	*ret = (struct principal){.scopes = SCOPE_TOKEN};
	memcpy(ret->tenant, sandbox->tenant, sizeof(ret->tenant));
	memcpy(ret->sandbox_id, sandbox->id, sizeof(ret->sandbox_id));
	return 0;
}

bool sandbox_traffic_token(const struct sandbox *sandbox, char token[SANDBOX_TOKEN_LEN + 1])
{
	token[0] = '\0';
	return sandbox->private->port_access == PADDOCK__V1__PORT_ACCESS__PORT_ACCESS_UNSPECIFIED ||
	       make_token(for_traffic, sandbox->id, token);
}

/* The SDKs' code interpreter: whoever reaches it runs code. The SDK sends the traffic token with each of its requests.
 */
#define INTERPRETER_PORT 49999u

bool sandbox_port_wants_token(const struct sandbox *sandbox, uint32_t port)
{
	return port == INTERPRETER_PORT || sandbox->private->port_access == PADDOCK__V1__PORT_ACCESS__PORT_ACCESS_TOKEN;
}

bool sandbox_traffic_check(const struct sandbox *sandbox, const char *token)
{
	char expected[TOKEN_LENGTH + 1], given[TOKEN_LENGTH + 1] = "";

	if (strnlen(token, TOKEN_LENGTH + 1) == TOKEN_LENGTH)
		memcpy(given, token, TOKEN_LENGTH);
	return make_token(for_traffic, sandbox->id, expected) && CRYPTO_memcmp(expected, given, TOKEN_LENGTH) == 0;
}

void sandboxes_get_access(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__V1__GetAccessRequest *request = (const void *)message;
	Paddock__V1__SandboxAccess reply = PADDOCK__V1__SANDBOX_ACCESS__INIT;
	char token[TOKEN_LENGTH + 1], traffic[TOKEN_LENGTH + 1];
	struct sandbox *sandbox;
	struct pdk_error err;
	int rc = sandbox_find(call, request->sandbox_id, &sandbox, &err);

	if (rc >= 0)
		rpc_audit_object(call, sandbox->id, NULL);
	if (rc >= 0 && !sandbox_is_living(sandbox))
		rc = pdk_fail(&err, -EINVAL, PDK_FAILED_PRECONDITION, "sandbox has ended");
	else if (rc >= 0 && (!make_token(for_access, sandbox->id, token) || !sandbox_traffic_token(sandbox, traffic)))
		rc = pdk_fail(&err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "the server is out of memory");
	if (rc < 0) {
		rpc_fail(call, &err);
		return;
	}
	reply.access_token = token;
	reply.traffic_token = traffic;
	rpc_finish(call, &reply.base);
}
