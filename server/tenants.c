#include "tenants.h"

#include "config.h"
#include "log.h"
#include "loop.h"
#include "paddock/internal/store.pb-c.h"
#include "record.h"
#include "sandbox/base/cleanup.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The tenants in memory, their quotas in force, and the bucket of creates per minute. */

struct tenant *tenants;

struct tenant *tenant_find_any(const char *name)
{
	for (struct tenant *tenant = tenants; tenant; tenant = tenant->next)
		if (!strcmp(tenant->name, name))
			return tenant;
	return NULL;
}

struct tenant *tenant_find(const char *name)
{
	struct tenant *tenant = tenant_find_any(name);

	return tenant && !tenant->pending && !tenant->removing ? tenant : NULL;
}

struct tenant *tenant_add(const char *name)
{
	struct tenant *tenant = calloc(1, sizeof(*tenant));

	if (!tenant)
		return NULL;
	strncpy(tenant->name, name, TENANT_NAME_MAX);
	tenant->created_unix_ms = loop_wall_ms();
	tenant->next = tenants;
	tenants = tenant;
	return tenant;
}

void tenant_forget(struct tenant *tenant)
{
	struct tenant **at = &tenants;

	while (*at && *at != tenant)
		at = &(*at)->next;
	if (*at)
		*at = tenant->next;
	free(tenant);
}

/* ---- quotas ---- */

bool tenant_exists(const char *name)
{
	return tenant_find(name);
}

#define FIRST(given, otherwise) ((given) ? (given) : (otherwise))

void tenant_get_quota(const char *name, struct tenant_quota *ret)
{
	const struct tenant *tenant = tenant_find_any(name);
	const struct config *config = &server_config;
	const struct tenant_quota *own = tenant ? &tenant->quota : NULL;

	*ret = (struct tenant_quota){0};
	if (!own || tenant->pending)
		return;
	ret->max_sandboxes = FIRST(own->max_sandboxes, config->quota_max_sandboxes);
	ret->creates_per_minute = FIRST(own->creates_per_minute, config->quota_creates_per_minute);
	ret->max_templates = FIRST(own->max_templates, config->quota_max_templates);
	ret->max_snapshots = FIRST(own->max_snapshots, config->quota_max_snapshots);
	ret->max_memory_bytes = FIRST(own->max_memory_bytes, config->quota_max_memory_bytes);
	ret->total_memory_bytes = FIRST(own->total_memory_bytes, config->quota_total_memory_bytes);
	ret->max_disk_bytes = FIRST(own->max_disk_bytes, config->quota_max_disk_bytes);
	ret->total_disk_bytes = FIRST(own->total_disk_bytes, config->quota_total_disk_bytes);
}

/* The bucket holds a minute's worth and starts full. */
static void refill(struct tenant *tenant, uint32_t per_minute)
{
	uint64_t now = loop_now_ns();
	double minutes = (double)(now - tenant->refilled_ns) / 60e9;

	tenant->tokens += minutes * per_minute;
	if (!tenant->refilled_ns || tenant->tokens > per_minute)
		tenant->tokens = per_minute;
	tenant->refilled_ns = now;
}

int tenant_take_create(const char *name, struct pdk_error *err)
{
	struct tenant *tenant = tenant_find(name);
	struct tenant_quota quota;

	if (!tenant)
		return pdk_fail(err, -ENOENT, PDK_NOT_FOUND, "tenant not found");
	tenant_get_quota(name, &quota);
	if (!quota.creates_per_minute)
		return 0;
	refill(tenant, quota.creates_per_minute);
	if (tenant->tokens < 1)
		return pdk_fail(err, -EDQUOT, PDK_RESOURCE_EXHAUSTED,
				"tenant quota creates_per_minute exhausted: %u of %u in use; retry in %llu ms",
				quota.creates_per_minute, quota.creates_per_minute,
				(unsigned long long)((1 - tenant->tokens) * 60000 / quota.creates_per_minute) + 1);
	tenant->tokens--;
	return 0;
}

/* ---- the store ---- */

int tenant_write(const struct tenant *tenant, struct store_batch *batch)
{
	Paddock__Internal__StoredTenant stored = PADDOCK__INTERNAL__STORED_TENANT__INIT;
	Paddock__Internal__StoredQuota quota = PADDOCK__INTERNAL__STORED_QUOTA__INIT;

	quota.max_sandboxes = tenant->written.max_sandboxes;
	quota.creates_per_minute = tenant->written.creates_per_minute;
	quota.max_templates = tenant->written.max_templates;
	quota.max_snapshots = tenant->written.max_snapshots;
	quota.max_memory_bytes = tenant->written.max_memory_bytes;
	quota.total_memory_bytes = tenant->written.total_memory_bytes;
	quota.max_disk_bytes = tenant->written.max_disk_bytes;
	quota.total_disk_bytes = tenant->written.total_disk_bytes;
	stored.name = (char *)tenant->name;
	stored.quota = &quota;
	stored.created_unix_ms = tenant->created_unix_ms;
	stored.removing = tenant->removing;
	return record_put(batch, STORE_TENANTS, tenant->name, &stored.base);
}

static void free_stored(Paddock__Internal__StoredTenant **stored)
{
	paddock__internal__stored_tenant__free_unpacked(*stored, NULL);
}

static int load_one(const void *key, size_t key_length, const void *value, size_t value_length, void *arg)
{
	_cleanup_(free_stored) Paddock__Internal__StoredTenant *stored =
		paddock__internal__stored_tenant__unpack(NULL, value_length, value);
	const Paddock__Internal__StoredQuota *quota;
	struct tenant *tenant;

	if (!stored || strlen(stored->name) > TENANT_NAME_MAX)
		return -EBADMSG;
	tenant = tenant_add(stored->name);
	if (!tenant)
		return -ENOMEM;
	tenant->created_unix_ms = stored->created_unix_ms;
	tenant->removing = stored->removing;
	quota = stored->quota;
	if (quota)
		tenant->quota = (struct tenant_quota){
			.max_sandboxes = quota->max_sandboxes,
			.creates_per_minute = quota->creates_per_minute,
			.max_templates = quota->max_templates,
			.max_snapshots = quota->max_snapshots,
			.max_memory_bytes = quota->max_memory_bytes,
			.total_memory_bytes = quota->total_memory_bytes,
			.max_disk_bytes = quota->max_disk_bytes,
			.total_disk_bytes = quota->total_disk_bytes,
		};
	tenant->written = tenant->quota;
	return 0;
}

/* Runs when the loop does: sandboxes and templates are loaded by then. */
static void resume_removals(void *arg)
{
	struct tenant *next;

	for (struct tenant *tenant = tenants; tenant; tenant = next) {
		next = tenant->next;
		if (tenant->removing)
			tenant_resume_removal(tenant);
	}
}

static int make_default(struct pdk_error *err)
{
	struct store_batch *batch;
	struct tenant *tenant;

	if (tenant_find_any(TENANT_DEFAULT))
		return 0;
	batch = store_batch_create();
	tenant = tenant_add(TENANT_DEFAULT);
	if (!batch || !tenant) {
		store_batch_free(batch);
		return pdk_fail_errno(err, -ENOMEM, "loading tenants");
	}
	tenant_write(tenant, batch);
	store_commit(batch, NULL, NULL);
	return 0;
}

int tenants_load(struct pdk_error *err)
{
	int rc = store_each(STORE_TENANTS, NULL, 0, load_one, NULL);

	if (rc < 0)
		return pdk_fail_errno(err, rc, "loading tenants");
	rc = make_default(err);
	if (rc < 0)
		return rc;
	for (struct tenant *tenant = tenants; tenant; tenant = tenant->next)
		if (tenant->removing)
			return loop_defer(resume_removals, NULL);
	return 0;
}
