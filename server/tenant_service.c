#include "admin.h"

#include "admin_private.h"
#include "paddock/v1/admin.pb-c.h"
#include "rpc.h"
#include "sandbox/base/cleanup.h"
#include "sandboxes.h"
#include "tenants.h"
#include "validate.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Admin: make, list and limit tenants. What is in memory changes when the change is durable. */

#define TENANTS_MAX 10000
#define QUOTA_COUNT_MAX 10000000
#define QUOTA_BYTES_MAX (1ull << 50)

static int check_name(const char *name, struct pdk_error *err)
{
	size_t length = strlen(name);

	if (length < 1 || length > TENANT_NAME_MAX || name[0] == '-' ||
	    strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != length)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "name: must match [a-z0-9][a-z0-9-]{0,62}");
	return 0;
}

static int check_quota(const Paddock__V1__Quota *quota, struct pdk_error *err)
{
	int rc;

	if (!quota)
		return 0;
	rc = validate_range("quota.max_sandboxes", quota->max_sandboxes, 0, QUOTA_COUNT_MAX, err);
	if (!rc)
		rc = validate_range("quota.creates_per_minute", quota->creates_per_minute, 0, QUOTA_COUNT_MAX, err);
	if (!rc)
		rc = validate_range("quota.max_templates", quota->max_templates, 0, QUOTA_COUNT_MAX, err);
	if (!rc)
		rc = validate_range("quota.max_snapshots", quota->max_snapshots, 0, QUOTA_COUNT_MAX, err);
	if (!rc)
		rc = validate_range("quota.max_memory_bytes", quota->max_memory_bytes, 0, QUOTA_BYTES_MAX, err);
	if (!rc)
		rc = validate_range("quota.total_memory_bytes", quota->total_memory_bytes, 0, QUOTA_BYTES_MAX, err);
	if (!rc)
		rc = validate_range("quota.max_disk_bytes", quota->max_disk_bytes, 0, QUOTA_BYTES_MAX, err);
	if (!rc)
		rc = validate_range("quota.total_disk_bytes", quota->total_disk_bytes, 0, QUOTA_BYTES_MAX, err);
	return rc;
}

/* Fields that are 0 keep their value. */
static void merge_quota(struct tenant_quota *into, const Paddock__V1__Quota *quota)
{
	if (!quota)
		return;
	if (quota->max_sandboxes)
		into->max_sandboxes = quota->max_sandboxes;
	if (quota->creates_per_minute)
		into->creates_per_minute = quota->creates_per_minute;
	if (quota->max_templates)
		into->max_templates = quota->max_templates;
	if (quota->max_snapshots)
		into->max_snapshots = quota->max_snapshots;
	if (quota->max_memory_bytes)
		into->max_memory_bytes = quota->max_memory_bytes;
	if (quota->total_memory_bytes)
		into->total_memory_bytes = quota->total_memory_bytes;
	if (quota->max_disk_bytes)
		into->max_disk_bytes = quota->max_disk_bytes;
	if (quota->total_disk_bytes)
		into->total_disk_bytes = quota->total_disk_bytes;
}

/* A tenant as the API shows it. */
struct shown {
	Paddock__V1__Tenant message;
	Paddock__V1__Quota quota;
};

static void show(struct shown *shown, const struct tenant *tenant)
{
	paddock__v1__tenant__init(&shown->message);
	tenant_show_quota(tenant->name, &shown->quota);
	shown->message.name = (char *)tenant->name;
	shown->message.quota = &shown->quota;
	shown->message.created_unix_ms = tenant->created_unix_ms;
	shown->message.sandboxes = sandboxes_of_tenant(tenant->name);
}

static void finish_with_tenant(struct rpc_call *call, const struct tenant *tenant)
{
	struct shown shown;

	show(&shown, tenant);
	rpc_finish(call, &shown.message.base);
}

/* ---- CreateTenant ---- */

static void tenant_created(struct rpc_call *call, int rc)
{
	struct tenant *tenant = rpc_user(call);

	if (rc < 0) {
		tenant_forget(tenant);
		admin_fail_change(call, rc);
		return;
	}
	tenant->pending = false;
	tenant->quota = tenant->written;
	finish_with_tenant(call, tenant);
}

static int prepare_tenant(const Paddock__V1__CreateTenantRequest *request, struct tenant **ret, struct pdk_error *err)
{
	struct tenant *tenant = NULL;
	unsigned int count = 0;
	int rc = check_name(request->name, err);

	if (!rc)
		rc = check_quota(request->quota, err);
	if (rc < 0)
		return rc;
	for (tenant = tenants; tenant; tenant = tenant->next)
		count++;
	if (tenant_find_any(request->name))
		return pdk_fail(err, -EEXIST, PDK_ALREADY_EXISTS, "the tenant exists already");
	if (count >= TENANTS_MAX)
		return pdk_fail(err, -EDQUOT, PDK_RESOURCE_EXHAUSTED, "tenants: %d exist already", TENANTS_MAX);
	tenant = tenant_add(request->name);
	if (!tenant)
		return pdk_fail_errno(err, -ENOMEM, "making the tenant");
	tenant->pending = true;
	merge_quota(&tenant->written, request->quota);
	*ret = tenant;
	return 0;
}

void admin_create_tenant(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__V1__CreateTenantRequest *request = (const void *)message;
	struct store_batch *batch;
	struct tenant *tenant = NULL;
	struct pdk_error err;

	rpc_audit_object(call, NULL, request->name);
	if (prepare_tenant(request, &tenant, &err) < 0) {
		rpc_fail(call, &err);
		return;
	}
	batch = store_batch_create();
	if (tenant_write(tenant, batch) < 0) {
		store_batch_free(batch);
		tenant_forget(tenant);
		admin_fail_change(call, -ENOMEM);
		return;
	}
	admin_begin_change(call, tenant);
	rpc_commit(call, batch, tenant_created);
}

/* ---- SetQuota ---- */

struct quota_change {
	char name[TENANT_NAME_MAX + 1]; /* the tenant may be gone when the change is durable */
	struct tenant_quota quota;
};

static void quota_set(struct rpc_call *call, int rc)
{
	struct quota_change *change = rpc_user(call);
	struct tenant *tenant = tenant_find(change->name);
	struct pdk_error err;

	if (!tenant) {
		pdk_fail(&err, -ENOENT, PDK_NOT_FOUND, "tenant not found");
		rpc_fail(call, &err);
	} else if (rc < 0) {
		tenant->written = tenant->quota;
		admin_fail_change(call, rc);
	} else {
		tenant->quota = change->quota;
		finish_with_tenant(call, tenant);
	}
}

void admin_set_quota(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__V1__SetQuotaRequest *request = (const void *)message;
	struct tenant *tenant = tenant_find(request->tenant);
	struct quota_change *change = rpc_alloc(call, sizeof(*change));
	struct store_batch *batch;
	struct pdk_error err;
	int rc = check_quota(request->quota, &err);

	rpc_audit_object(call, NULL, request->tenant);
	if (!rc && !tenant)
		rc = pdk_fail(&err, -ENOENT, PDK_NOT_FOUND, "tenant not found");
	if (rc < 0) {
		rpc_fail(call, &err);
		return;
	}
	batch = store_batch_create();
	merge_quota(&tenant->written, request->quota);
	if (!change || tenant_write(tenant, batch) < 0) {
		store_batch_free(batch);
		tenant->written = tenant->quota;
		admin_fail_change(call, -ENOMEM);
		return;
	}
	memcpy(change->name, tenant->name, sizeof(change->name));
	change->quota = tenant->written;
	admin_begin_change(call, change);
	rpc_commit(call, batch, quota_set);
}

/* ---- ListTenants ---- */

static int compare_shown(const void *a, const void *b)
{
	const Paddock__V1__Tenant *const *left = a, *const *right = b;

	return strcmp((*left)->name, (*right)->name);
}

void admin_list_tenants(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	Paddock__V1__ListTenantsResponse reply = PADDOCK__V1__LIST_TENANTS_RESPONSE__INIT;
	_cleanup_free_ Paddock__V1__Tenant **list = NULL;
	_cleanup_free_ struct shown *shown = NULL;
	size_t count = 0;

	for (struct tenant *tenant = tenants; tenant; tenant = tenant->next)
		count++;
	list = calloc(count + 1, sizeof(*list));
	shown = calloc(count + 1, sizeof(*shown));
	if (!list || !shown) {
		admin_fail_change(call, -ENOMEM);
		return;
	}
	for (struct tenant *tenant = tenants; tenant; tenant = tenant->next) {
		if (tenant->pending || tenant->removing)
			continue;
		show(&shown[reply.n_tenants], tenant);
		list[reply.n_tenants] = &shown[reply.n_tenants].message;
		reply.n_tenants++;
	}
	qsort(list, reply.n_tenants, sizeof(*list), compare_shown);
	reply.tenants = list;
	rpc_finish(call, &reply.base);
}
