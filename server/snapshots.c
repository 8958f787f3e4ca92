#include "snapshot_internal.h"

#include "log.h"
#include "record.h"
#include "rpc.h"
#include "sandbox/base/cleanup.h"
#include "warden_client.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The snapshots in memory: look-up, sums, expiry, removal, and what a restart or a reconnect finds. */

#define TIMER_MAX_MS 3600000 /* a timer looks again after an hour: the wall clock decides */

struct snapshot *snapshot_newest;

struct snapshot *snapshot_new(Paddock__Internal__StoredSnapshot *stored)
{
	struct snapshot *snapshot = calloc(1, sizeof(*snapshot));
	struct snapshot **at = &snapshot_newest;

	if (!snapshot)
		return NULL;
	snapshot->stored = stored;
	while (*at && ((*at)->stored->created_unix_ms > stored->created_unix_ms ||
		       ((*at)->stored->created_unix_ms == stored->created_unix_ms &&
			strcmp((*at)->stored->id, stored->id) > 0)))
		at = &(*at)->next;
	snapshot->next = *at;
	*at = snapshot;
	sandbox_template_use(stored->template_id, 1);
	return snapshot;
}

static void uncount(struct snapshot *snapshot)
{
	struct sandbox_owner *owner = snapshot->counted ? sandbox_owner_find(snapshot->stored->tenant) : NULL;

	if (!owner)
		return;
	snapshot->counted = false;
	owner->snapshots -= snapshot->counted_listed;
	snapshot->counted_listed = false;
	owner->snapshot_bytes -= snapshot->counted_bytes;
	admission_hold_disk(-(int64_t)snapshot->counted_bytes);
	sandbox_owner_put(owner);
}

void snapshot_count(struct snapshot *snapshot, uint64_t bytes)
{
	struct sandbox_owner *owner = sandbox_owner_get(snapshot->stored->tenant);

	if (!owner)
		return;
	if (snapshot->counted_listed == snapshot->stored->unlisted)
		owner->snapshots += snapshot->stored->unlisted ? -1u : 1u;
	snapshot->counted_listed = !snapshot->stored->unlisted;
	snapshot->counted = true;
	owner->snapshot_bytes += bytes - snapshot->counted_bytes;
	admission_hold_disk((int64_t)(bytes - snapshot->counted_bytes));
	snapshot->counted_bytes = bytes;
}

void snapshot_drop(struct snapshot *snapshot)
{
	struct snapshot **at = &snapshot_newest;

	while (*at != snapshot)
		at = &(*at)->next;
	*at = snapshot->next;
	uncount(snapshot);
	loop_timer_cancel(&snapshot->expiry);
	sandbox_template_use(snapshot->stored->template_id, -1);
	template_released(snapshot->stored->template_id);
	paddock__internal__stored_snapshot__free_unpacked(snapshot->stored, NULL);
	free(snapshot);
}

static int find(const struct principal *principal, const char *name_or_id, bool unlisted, struct snapshot **ret,
		struct pdk_error *err)
{
	for (struct snapshot *snapshot = snapshot_newest; snapshot; snapshot = snapshot->next) {
		const Paddock__Internal__StoredSnapshot *stored = snapshot->stored;
		bool is_callers = strcmp(stored->tenant, principal->tenant) == 0;
		bool by_id = strcmp(stored->id, name_or_id) == 0;
		bool by_name = stored->name[0] && strcmp(stored->name, name_or_id) == 0;

		if (snapshot->state != SNAPSHOT_READY || snapshot->own || (stored->unlisted && !unlisted))
			continue;
		if ((is_callers && (by_id || by_name)) || (principal->is_operator && by_id)) {
			*ret = snapshot;
			return 0;
		}
	}
	return pdk_fail(err, -ENOENT, PDK_NOT_FOUND, "snapshot not found");
}

int snapshot_find(const struct principal *principal, const char *name_or_id, struct snapshot **ret,
		  struct pdk_error *err)
{
	return find(principal, name_or_id, false, ret, err);
}

int snapshot_find_origin(const struct principal *principal, const char *name_or_id, struct snapshot **ret,
			 struct pdk_error *err)
{
	return find(principal, name_or_id, true, ret, err);
}

int snapshot_store(struct store_batch *batch, const struct snapshot *snapshot)
{
	return record_put(batch, STORE_SNAPSHOTS, snapshot->stored->id, &snapshot->stored->base);
}

int snapshot_unstore(struct store_batch *batch, const struct snapshot *snapshot)
{
	return store_delete(batch, STORE_SNAPSHOTS, snapshot->stored->id, strlen(snapshot->stored->id));
}

/* --- the end --- */

static void on_removed(const struct warden_reply *reply, int *fd, void *arg)
{
	if (reply->status < 0 && reply->status != -ECONNRESET)
		log_event(LOG_ERROR, "snapshot.remove_failed", "snapshot", reply->id, "errno", log_i64(reply->status),
			  "reason", reply->text, NULL);
}

static void ask_removal(const char *id)
{
	struct warden_request request = {.op = WARDEN_SNAPSHOT_REMOVE};

	snprintf(request.snapshot_id, sizeof(request.snapshot_id), "%s", id);
	/* A warden that is away is asked by the next reconciliation: then it is nobody's. */
	(void)warden_call(&request, -1, on_removed, NULL);
}

void snapshot_discard(struct snapshot *snapshot)
{
	snapshot->state = SNAPSHOT_REMOVING;
	loop_timer_cancel(&snapshot->expiry);
	if (snapshot->users > 0)
		return;
	ask_removal(snapshot->stored->id);
	snapshot_drop(snapshot);
}

void snapshot_use(struct snapshot *snapshot)
{
	snapshot->users++;
}

void snapshot_unuse(struct snapshot *snapshot)
{
	snapshot->users--;
	if (snapshot->state == SNAPSHOT_REMOVING)
		snapshot_discard(snapshot);
}

static void audit(struct store_batch *batch, const struct snapshot *snapshot, const char *action)
{
	const struct audit_entry entry = {.tenant = snapshot->stored->tenant,
					  .actor = "system",
					  .action = action,
					  .sandbox_id = snapshot->stored->sandbox_id,
					  .object = snapshot->stored->id,
					  .outcome = "OK"};

	if (batch)
		(void)store_audit(batch, &entry);
	else
		audit_event(&entry);
}

int snapshot_unlist(struct snapshot *snapshot, struct store_batch *batch)
{
	int rc;

	if (!snapshot->names) {
		rc = snapshot_unstore(batch, snapshot);
		if (rc >= 0)
			snapshot_discard(snapshot);
		return rc;
	}
	snapshot->stored->unlisted = true;
	snapshot->stored->expires_unix_ms = 0;
	if (snapshot->stored->name[0]) /* else it is protobuf-c's own, which is constant */
		snapshot->stored->name[0] = '\0';
	loop_timer_cancel(&snapshot->expiry);
	rc = snapshot_store(batch, snapshot);
	if (rc >= 0)
		snapshot_count(snapshot, snapshot->counted_bytes);
	return rc;
}

/* Its end, without a call: the record first, as then nobody can ask for it any more. */
static void end_unasked(struct snapshot *snapshot, const char *action)
{
	struct store_batch *batch = store_batch_create();

	log_event(LOG_INFO, action, "snapshot", snapshot->stored->id, "tenant", snapshot->stored->tenant, NULL);
	if (batch && snapshot_unstore(batch, snapshot) >= 0) {
		audit(batch, snapshot, action);
		store_commit(batch, NULL, NULL);
	} else {
		store_batch_free(batch);
	}
	snapshot_discard(snapshot);
}

void snapshot_release(struct snapshot *snapshot)
{
	if (!snapshot->names && snapshot->state == SNAPSHOT_READY && snapshot->stored->unlisted &&
	    !snapshot->stored->cache_key.len)
		end_unasked(snapshot, "layer.removed");
}

void snapshot_yield(const char *tenant, uint64_t most)
{
	for (;;) {
		const struct sandbox_owner *owner = sandbox_owner_find(tenant);
		struct snapshot *oldest = NULL;

		if (!owner || owner->snapshot_bytes <= most)
			return;
		for (struct snapshot *layer = snapshot_newest; layer; layer = layer->next)
			if (layer->state == SNAPSHOT_READY && layer->stored->cache_key.len && !layer->names &&
			    !layer->users && strcmp(layer->stored->tenant, tenant) == 0 &&
			    (!oldest || layer->stored->used_unix_ms < oldest->stored->used_unix_ms))
				oldest = layer;
		if (!oldest)
			return;
		end_unasked(oldest, "layer.removed");
	}
}

int snapshot_check_quota(const char *tenant, uint64_t bytes, struct pdk_error *err)
{
	const struct sandbox_owner *owner = sandbox_owner_find(tenant);
	uint64_t wanted = bytes + (owner ? owner->disk_bytes : 0), used;
	struct tenant_quota quota;
	uint32_t count;

	tenant_get_quota(tenant, &quota);
	if (quota.total_disk_bytes)
		snapshot_yield(tenant, quota.total_disk_bytes > wanted ? quota.total_disk_bytes - wanted : 0);
	owner = sandbox_owner_find(tenant);
	count = owner ? owner->snapshots : 0;
	used = owner ? owner->disk_bytes + owner->snapshot_bytes : 0;
	if (count >= quota.max_snapshots)
		return pdk_fail(err, -EDQUOT, PDK_RESOURCE_EXHAUSTED,
				"tenant quota max_snapshots exhausted: %u of %u in use; retry in 1000 ms", count,
				quota.max_snapshots);
	if (quota.total_disk_bytes && (bytes > quota.total_disk_bytes || used > quota.total_disk_bytes - bytes))
		return pdk_fail(err, -EDQUOT, PDK_RESOURCE_EXHAUSTED,
				"tenant quota total_disk_bytes exhausted: %llu of %llu in use, up to %llu more asked "
				"for; retry in 1000 ms",
				(unsigned long long)used, (unsigned long long)quota.total_disk_bytes,
				(unsigned long long)bytes);
	return admission_check_disk(bytes, err);
}

/* A template is made of it: it stays for that alone. */
static void expire_listing(struct snapshot *snapshot)
{
	struct store_batch *batch = store_batch_create();

	if (!batch || snapshot_unlist(snapshot, batch) < 0) {
		store_batch_free(batch);
		return;
	}
	audit(batch, snapshot, "snapshot.expired");
	store_commit(batch, NULL, NULL);
}

static void on_expiry(void *arg)
{
	struct snapshot *snapshot = arg;

	if (snapshot->stored->expires_unix_ms > loop_wall_ms())
		snapshot_arm_expiry(snapshot);
	else if (snapshot->names)
		expire_listing(snapshot);
	else
		end_unasked(snapshot, "snapshot.expired");
}

void snapshot_arm_expiry(struct snapshot *snapshot)
{
	int64_t left_ms = snapshot->stored->expires_unix_ms - loop_wall_ms();

	if (!snapshot->stored->expires_unix_ms)
		return;
	left_ms = left_ms < 0 ? 0 : left_ms > TIMER_MAX_MS ? TIMER_MAX_MS : left_ms;
	snapshot->expiry.handler = on_expiry;
	snapshot->expiry.arg = snapshot;
	if (loop_timer_set(&snapshot->expiry, loop_now_ns() + (uint64_t)left_ms * 1000000) < 0)
		log_event(LOG_ERROR, "snapshot.expiry_lost", "snapshot", snapshot->stored->id, NULL);
}

int snapshots_remove_tenant(const char *tenant, struct store_batch *batch)
{
	for (const struct snapshot *snapshot = snapshot_newest; snapshot; snapshot = snapshot->next)
		if (strcmp(snapshot->stored->tenant, tenant) == 0 && snapshot->state == SNAPSHOT_READY &&
		    snapshot_unstore(batch, snapshot) < 0)
			return -ENOMEM;
	for (struct snapshot *snapshot = snapshot_newest, *next; snapshot; snapshot = next) {
		next = snapshot->next;
		if (strcmp(snapshot->stored->tenant, tenant) == 0 && snapshot->state == SNAPSHOT_READY)
			snapshot_discard(snapshot);
	}
	return 0;
}

/* --- start and reconnect --- */

static int load_one(const void *key, size_t key_length, const void *value, size_t length, void *arg)
{
	Paddock__Internal__StoredSnapshot *stored = paddock__internal__stored_snapshot__unpack(NULL, length, value);
	struct snapshot *snapshot;

	if (!stored || !snapshot_id_valid(stored->id) || !template_id_valid(stored->template_id) ||
	    strlen(stored->tenant) > TENANT_NAME_MAX || !sandbox_id_valid(stored->sandbox_id)) {
		log_event(LOG_ERROR, "store.bad_record", "kind", "snapshot", NULL);
		if (stored)
			paddock__internal__stored_snapshot__free_unpacked(stored, NULL);
		return 0;
	}
	snapshot = snapshot_new(stored);
	if (!snapshot) {
		paddock__internal__stored_snapshot__free_unpacked(stored, NULL);
		return -ENOMEM;
	}
	snapshot->state = SNAPSHOT_READY;
	snapshot_count(snapshot, stored->image_bytes + stored->layer_bytes);
	return 0;
}

struct snapshot *snapshot_get(const char *id)
{
	for (struct snapshot *snapshot = snapshot_newest; snapshot; snapshot = snapshot->next)
		if (strcmp(snapshot->stored->id, id) == 0)
			return snapshot;
	return NULL;
}

static void list_entry(const struct warden_reply *reply)
{
	struct snapshot *snapshot = snapshot_id_valid(reply->id) ? snapshot_get(reply->id) : NULL;

	if (snapshot) {
		snapshot->seen = true;
		return;
	}
	log_event(LOG_WARN, "snapshot.removed", "snapshot", reply->id, "reason", "unknown to the store", NULL);
	ask_removal(reply->id);
}

static void unsee_all(void)
{
	for (struct snapshot *snapshot = snapshot_newest; snapshot; snapshot = snapshot->next)
		snapshot->seen = snapshot->state == SNAPSHOT_TAKING;
}

static void end_unseen(void)
{
	for (struct snapshot *snapshot = snapshot_newest, *next; snapshot; snapshot = next) {
		next = snapshot->next;
		if (snapshot->seen || snapshot->state != SNAPSHOT_READY)
			continue;
		templates_forget_snapshot(snapshot);
		end_unasked(snapshot, "snapshot.lost");
	}
}

static void on_list(const struct warden_reply *reply, int *fd, void *arg)
{
	int *status = arg;

	if (reply->flags & WARDEN_MORE)
		list_entry(reply);
	else if (status)
		*status = reply->status;
	else if (reply->status >= 0)
		end_unseen();
}

void snapshots_reconcile(void)
{
	struct warden_request request = {.op = WARDEN_SNAPSHOT_LIST};

	unsee_all();
	(void)warden_call(&request, -1, on_list, NULL);
}

int snapshots_start(struct pdk_error *err)
{
	struct warden_request request = {.op = WARDEN_SNAPSHOT_LIST};
	int status = 0, rc = store_each(STORE_SNAPSHOTS, NULL, 0, load_one, NULL);

	if (rc < 0)
		return pdk_fail_errno(err, rc, "loading the snapshots from the store");
	rc = warden_call_wait(&request, on_list, &status, WARDEN_TIMEOUT_MS, err);
	if (rc < 0)
		return rc;
	if (status < 0)
		return pdk_fail_errno(err, status, "the warden cannot list its snapshots");
	end_unseen();
	for (struct snapshot *snapshot = snapshot_newest; snapshot; snapshot = snapshot->next)
		snapshot_arm_expiry(snapshot);
	return 0;
}

/* Whoever waits for one has ended, but for what it holds. */
static void stop_taking(struct snapshot *snapshot)
{
	struct pdk_error err;

	pdk_fail(&err, -ECANCELED, PDK_UNAVAILABLE, "the server stops");
	if (snapshot->state == SNAPSHOT_TAKING)
		snapshot->take.done(snapshot, &err, snapshot->take.arg);
}

void snapshots_stop(void)
{
	while (snapshot_newest) {
		stop_taking(snapshot_newest);
		snapshot_drop(snapshot_newest);
	}
}
