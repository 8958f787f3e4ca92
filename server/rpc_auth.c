#include "rpc_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

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
	unsigned int scope = call->method->scope;
	int rc;

	if (scope == SCOPE_NONE)
		return 0;
	rc = authenticate(call, arrival, err);
	if (rc < 0 || scope & (SCOPE_ANY | call->principal.scopes) || call->principal.is_operator)
		return rc;
	return pdk_fail(err, -EACCES, PDK_PERMISSION_DENIED, "the API key has no scope that allows this call");
}
