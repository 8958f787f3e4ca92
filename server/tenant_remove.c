#include "admin.h"

#include "admin_private.h"
#include "builds.h"
#include "keys.h"
#include "log.h"
#include "loop.h"
#include "paddock/v1/admin.pb-c.h"
#include "rpc.h"
#include "sandbox/base/cleanup.h"
#include "sandboxes.h"
#include "snapshots.h"
#include "status.h"
#include "tenants.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * RemoveTenant in three steps, each safe to be the last before a crash:
 *   1. one commit marks the tenant as removing and its keys as revoked; from then on nothing can use it;
 *   2. its calls are cut and its sandboxes killed;
 *   3. one commit deletes its template names, its keys and the tenant itself.
 * After a restart, tenants_load() finds the mark and goes on with step 2, without a call.
 */

struct removal {
	char tenant[TENANT_NAME_MAX + 1];
	struct rpc_call *call; /* NULL: resumed after a restart */
};

static void finish_removal(struct removal *removal, int rc)
{
	Paddock__V1__RemoveTenantResponse reply = PADDOCK__V1__REMOVE_TENANT_RESPONSE__INIT;

	if (rc < 0)
		log_event(LOG_ERROR, "tenant.remove_failed", "tenant", removal->tenant, "error", strerror(-rc), NULL);
	if (removal->call && rc < 0)
		admin_fail_change(removal->call, rc);
	else if (removal->call)
		rpc_finish(removal->call, &reply.base);
	free(removal);
}

static void records_deleted(int rc, void *arg)
{
	struct removal *removal = arg;
	struct tenant *tenant = tenant_find_any(removal->tenant);

	if (!rc && tenant) {
		keys_forget(removal->tenant);
		tenant_forget(tenant);
	}
	finish_removal(removal, rc);
}

static void sandboxes_gone(void *arg)
{
	struct removal *removal = arg;
	struct store_batch *batch = store_batch_create();
	int rc = store_delete(batch, STORE_TENANTS, removal->tenant, strlen(removal->tenant));

	if (!rc)
		rc = keys_write_deleted(removal->tenant, batch);
	if (!rc)
		rc = store_audit(batch, &(struct audit_entry){.tenant = removal->tenant,
							      .actor = "system",
							      .action = "tenant.removed",
							      .object = removal->tenant,
							      .outcome = "OK"});
	if (!rc)
		rc = builds_remove_tenant(removal->tenant, batch);
	if (!rc)
		rc = templates_remove_tenant(removal->tenant, batch);
	if (!rc)
		rc = snapshots_remove_tenant(removal->tenant, batch);
	if (rc < 0) {
		store_batch_free(batch);
		finish_removal(removal, rc);
		return;
	}
	store_commit(batch, records_deleted, removal);
}

static void continue_removal(struct removal *removal)
{
	keys_cut(removal->tenant, loop_wall_ms());
	sandboxes_kill_tenant(removal->tenant, sandboxes_gone, removal);
}

static void removal_durable(struct rpc_call *call, int rc)
{
	struct removal *removal = rpc_user(call);
	struct tenant *tenant = tenant_find_any(removal->tenant);

	if (rc < 0) {
		if (tenant)
			tenant->removing = false;
		keys_not_revoked(removal->tenant);
		finish_removal(removal, rc);
		return;
	}
	continue_removal(removal);
}

static int check_removal(const char *name, bool force, struct tenant **ret, struct pdk_error *err)
{
	struct tenant *tenant = tenant_find_any(name);

	if (!tenant || tenant->pending)
		return pdk_fail(err, -ENOENT, PDK_NOT_FOUND, "tenant not found");
	if (tenant->removing)
		return pdk_fail(err, -EBUSY, PDK_ABORTED, "the tenant is being removed already");
	if (!strcmp(name, TENANT_DEFAULT))
		return pdk_fail(err, -EPERM, PDK_FAILED_PRECONDITION, "the default tenant always exists");
	if (!force && sandboxes_of_tenant(name))
		return pdk_fail(err, -EBUSY, PDK_FAILED_PRECONDITION,
				"the tenant has %u living sandboxes and force is not set", sandboxes_of_tenant(name));
	*ret = tenant;
	return 0;
}

void admin_remove_tenant(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__V1__RemoveTenantRequest *request = (const void *)message;
	_cleanup_free_ struct removal *removal = calloc(1, sizeof(*removal));
	struct store_batch *batch;
	struct tenant *tenant = NULL;
	struct pdk_error err;
	int rc;

	rpc_audit_object(call, NULL, request->tenant);
	if (check_removal(request->tenant, request->force, &tenant, &err) < 0) {
		rpc_fail(call, &err);
		return;
	}
	batch = store_batch_create();
	tenant->removing = true; /* at once: no create may slip in while this is committed */
	rc = removal ? tenant_write(tenant, batch) : -ENOMEM;
	if (!rc)
		rc = keys_write_revoked(tenant->name, loop_wall_ms(), batch);
	if (rc < 0) {
		tenant->removing = false;
		keys_not_revoked(tenant->name);
		store_batch_free(batch);
		admin_fail_change(call, rc);
		return;
	}
	memcpy(removal->tenant, tenant->name, sizeof(removal->tenant));
	removal->call = call;
	admin_begin_change(call, STEAL_PTR(removal));
	rpc_commit(call, batch, removal_durable);
}

void tenant_resume_removal(struct tenant *tenant)
{
	struct removal *removal = calloc(1, sizeof(*removal));

	if (!removal) {
		log_event(LOG_ERROR, "tenant.remove_failed", "tenant", tenant->name, "error", "out of memory", NULL);
		return;
	}
	memcpy(removal->tenant, tenant->name, sizeof(removal->tenant));
	continue_removal(removal);
}
