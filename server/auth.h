#ifndef PADDOCK_SERVER_AUTH_H
#define PADDOCK_SERVER_AUTH_H

#include "sandbox/base/error.h"
#include "sandbox/base/id.h"
#include <stdbool.h>
#include <stdint.h>

/* Who makes a call. Embedded in every rpc_call; filled before the handler runs. */

#define TENANT_NAME_MAX 63
#define KEY_ID_LEN 16

enum auth_scope {
	SCOPE_NONE = 0,      /* open to anybody: health only */
	SCOPE_ANY = 1u << 0, /* any valid key */
	SCOPE_READ = 1u << 1,
	SCOPE_SANDBOX = 1u << 2,
	SCOPE_TEMPLATE = 1u << 3,
	SCOPE_ADMIN = 1u << 4, /* operator: admin socket, or a key with "admin" */
	SCOPE_TOKEN = 1u << 5, /* the access token of the one sandbox that the request names; no key has it */
};

struct principal {
	char tenant[TENANT_NAME_MAX + 1];
	char key_id[KEY_ID_LEN + 1]; /* empty on the admin socket */
	unsigned int scopes;
	bool is_operator;
	char sandbox_id[SANDBOX_ID_SIZE]; /* an access token: this sandbox and no other; else empty */
};

/* Fill `ret` from the value of the "authorization" metadata ("Bearer pdk_..." or, the same key in the spelling that the
 * hosted-sandbox SDKs accept, "Bearer e2b_..."; NULL when absent).
 * Any failure is the same UNAUTHENTICATED text. The secret is compared by its SHA-256 in constant time after a
 * look-up by the key's public id. Lock held. */
int auth_check(const char *authorization, struct principal *ret, struct pdk_error *err);

/* "operator", "access-token", or the key id. */
const char *principal_actor(const struct principal *principal);

/* Quotas of a tenant, in force (defaults filled in). Zeroed if the tenant is unknown. */
struct tenant_quota {
	uint32_t max_sandboxes;
	uint32_t creates_per_minute;
	uint32_t max_templates;
	uint32_t max_snapshots;
	uint64_t max_memory_bytes;
	uint64_t total_memory_bytes;
	uint64_t max_disk_bytes;
	uint64_t total_disk_bytes;
};
bool tenant_exists(const char *name);
void tenant_get_quota(const char *name, struct tenant_quota *ret);
/* The same, as the API shows it. */
struct Paddock__V1__Quota;
void tenant_show_quota(const char *name, struct Paddock__V1__Quota *ret);

/* Count one create against creates_per_minute (token bucket). RESOURCE_EXHAUSTED, naming the quota. */
int tenant_take_create(const char *name, struct pdk_error *err);

/* Keys and tenants live in memory, loaded from the store at start by auth_load(). */
int auth_load(struct pdk_error *err);

#endif
