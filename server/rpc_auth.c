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

static int authenticate(struct rpc_call *call, const struct rpc_arrival *arrival, struct pdk_error *err)
{
	struct principal principal = {};
	int rc;

	if (arrival->principal) {
		call->principal = *arrival->principal;
		return 0;
	}
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
	return pdk_fail(err, -EACCES, PDK_PERMISSION_DENIED,
			call->principal.sandbox_id[0] ? "an access token does not allow this call"
						      : "the API key has no scope that allows this call");
}
