#include "rpc_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "sandbox_access.h"

/* Who makes a call, and may they make it: the only place that knows which listener means what. */

static void become_operator(struct principal *principal)
{
	*principal = (struct principal){
		.tenant = "default",
		.scopes = SCOPE_ANY | SCOPE_READ | SCOPE_SANDBOX | SCOPE_TEMPLATE | SCOPE_ADMIN,
		.is_operator = true,
	};
}

/* The method decides whether it was signed for reading or for writing. */
static int authenticate_file(struct rpc_call *call, const struct rpc_arrival *arrival, struct pdk_error *err)
{
	bool write = strcmp(call->method->path, "/paddock.v1.Files/Write") == 0;
	int rc;

	if (!write && strcmp(call->method->path, "/paddock.v1.Files/Read") != 0)
		return pdk_fail(err, -EACCES, PDK_UNAUTHENTICATED, "a signature is for one file");
	rc = sandbox_signature_check(arrival->sandbox_id, arrival->file, write, &call->principal, err);
	if (rc < 0)
		return rc;
	call->signed_path = rpc_strdup(call, arrival->file->path);
	call->signed_user = rpc_strdup(call, arrival->file->user);
	if (call->signed_path && call->signed_user)
		return 0;
	return pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "the server is out of memory");
}

static int authenticate(struct rpc_call *call, const struct rpc_arrival *arrival, struct pdk_error *err)
{
	struct principal principal = {};
	int rc;

	if (arrival->principal) {
		call->principal = *arrival->principal;
		return 0;
	}
	if (arrival->file)
		return authenticate_file(call, arrival, err);
	if (arrival->access_token)
		return sandbox_access_check(arrival->sandbox_id, arrival->access_token, &call->principal, err);
	if (!arrival->authorization && arrival->trusted) {
		become_operator(&call->principal);
		return 0;
	}
	rc = auth_check(arrival->authorization, &principal, err);
	if (rc >= 0)
		call->principal = principal;
	return rc;
}

/* Of those that allow a call, the one that allows least else. */
static const char *least_scope(unsigned int scopes)
{
	return scopes & SCOPE_READ       ? "read"
	       : scopes & SCOPE_SANDBOX  ? "sandbox"
	       : scopes & SCOPE_TEMPLATE ? "template"
					 : "admin";
}

int rpc_admit(struct rpc_call *call, const struct rpc_arrival *arrival, struct pdk_error *err)
{
	unsigned int scope = call->method->scope, held;
	int rc;

	if (scope == SCOPE_NONE)
		return 0;
	rc = authenticate(call, arrival, err);
	/* "Any key" is not any token. */
	held = call->principal.scopes | (call->principal.sandbox_id[0] ? 0 : SCOPE_ANY);
	if (rc < 0 || scope & held || call->principal.is_operator)
		return rc;
	if (call->principal.sandbox_id[0])
		return pdk_fail(err, -EACCES, PDK_PERMISSION_DENIED, "an access token does not allow this call");
	return pdk_fail(err, -EACCES, PDK_PERMISSION_DENIED,
			"the API key has no scope that allows this call: one with the scope \"%s\" does",
			least_scope(scope));
}
