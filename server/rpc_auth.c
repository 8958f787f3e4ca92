#include "rpc_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Who makes a call, and may they make it: the only place that knows which listener means what. */

#define AUTHORIZATION_MAX 255

/* Copy the one "authorization" value. 1 = there is one, 0 = none; several, or one that is too long, are as good
 * as a wrong key. */
static int find_authorization(const grpc_metadata_array *metadata, char ret[AUTHORIZATION_MAX + 1])
{
	int found = 0;

	for (size_t i = 0; i < metadata->count; i++) {
		grpc_slice value = metadata->metadata[i].value;

		if (grpc_slice_str_cmp(metadata->metadata[i].key, "authorization") != 0)
			continue;
		if (found || GRPC_SLICE_LENGTH(value) > AUTHORIZATION_MAX) {
			strcpy(ret, "?");
			return 1;
		}
		memcpy(ret, GRPC_SLICE_START_PTR(value), GRPC_SLICE_LENGTH(value));
		ret[GRPC_SLICE_LENGTH(value)] = '\0';
		found = 1;
	}
	return found;
}

static void become_operator(struct principal *principal)
{
	*principal = (struct principal){
		.tenant = "default",
		.scopes = SCOPE_ANY | SCOPE_READ | SCOPE_SANDBOX | SCOPE_TEMPLATE | SCOPE_ADMIN,
		.is_operator = true,
	};
}

static int authenticate(struct rpc_call *call, struct pdk_error *err)
{
	char authorization[AUTHORIZATION_MAX + 1];
	struct principal principal = {};
	int found = find_authorization(&call->metadata, authorization);
	int rc;

	if (!found && call->listener->trusted) {
		become_operator(&call->principal);
		return 0;
	}
	rc = auth_check(found ? authorization : NULL, &principal, err);
	explicit_bzero(authorization, sizeof(authorization));
	if (rc >= 0)
		call->principal = principal;
	return rc;
}

int rpc_admit(struct rpc_call *call, struct pdk_error *err)
{
	unsigned int scope = call->method->scope;
	int rc;

	if (scope == SCOPE_NONE)
		return 0;
	rc = authenticate(call, err);
	if (rc < 0 || scope & (SCOPE_ANY | call->principal.scopes) || call->principal.is_operator)
		return rc;
	return pdk_fail(err, -EACCES, PDK_PERMISSION_DENIED, "the API key has no scope that allows this call");
}
