#include "rpc.h"
#include "sandbox_internal.h"
#include <unistd.h>

/* GetQuota: what the caller's tenant may have, and has. */

static void add_cpu(const struct sandbox *sandbox, void *arg)
{
	*(uint64_t *)arg += sandbox->limits.cpu_millis;
}

void sandboxes_get_quota(struct rpc_call *call, const struct ProtobufCMessage *request)
{
	const char *tenant = rpc_principal(call)->tenant;
	const struct sandbox_owner *owner = sandbox_owner_find(tenant);
	Paddock__V1__TenantUsage reply = PADDOCK__V1__TENANT_USAGE__INIT;
	Paddock__V1__Quota shown;
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	tenant_show_quota(tenant, &shown);
	reply.quota = &shown;
	reply.max_cpu_millis = 1000 * (uint32_t)(cores > 0 ? cores : 1);
	if (owner) {
		reply.sandboxes = owner->living;
		reply.memory_bytes = owner->memory_bytes;
		reply.disk_bytes = owner->disk_bytes;
		reply.snapshots = owner->snapshots;
	}
	sandbox_each_living(tenant, add_cpu, &reply.cpu_millis);
	rpc_finish(call, &reply.base);
}
