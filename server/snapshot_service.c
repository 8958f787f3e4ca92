#include "snapshot_internal.h"

#include "log.h"
#include "rpc.h"
#include "sandbox/base/cleanup.h"
#include "validate.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The calls Create, Get, List and Remove. Fork is in snapshot_fork.c. */

#define TTL_MIN_MS 1000
#define TTL_MAX_MS (365ull * 86400000)
#define PAGE_DEFAULT 100
#define PAGE_MAX 1000

struct message {
	Paddock__V1__Snapshot snapshot;
	Paddock__V1__Resources resources;
};

static void fill_message(struct message *message, const struct snapshot *snapshot)
{
	const Paddock__Internal__StoredSnapshot *stored = snapshot->stored;
	Paddock__V1__Snapshot *shown = &message->snapshot;
	Paddock__V1__Resources *resources = &message->resources;

	paddock__v1__snapshot__init(shown);
	paddock__v1__resources__init(resources);
	shown->id = stored->id;
	shown->tenant = stored->tenant;
	shown->name = stored->name;
	shown->sandbox_id = stored->sandbox_id;
	shown->template_ = stored->template_id;
	shown->template_name = stored->template_name;
	shown->created_unix_ms = stored->created_unix_ms;
	shown->expires_unix_ms = stored->expires_unix_ms;
	shown->memory_bytes = stored->image_bytes;
	shown->disk_bytes = stored->layer_bytes;
	shown->stopped_us = stored->stopped_us;
	shown->stored_bytes = stored->stored_bytes;
	shown->processes = (uint32_t)stored->n_processes;
	resources->memory_bytes = stored->memory_bytes;
	resources->cpu_millis = stored->cpu_millis;
	resources->max_pids = stored->max_pids;
	resources->disk_bytes = stored->disk_bytes;
	resources->max_inodes = stored->max_inodes;
	shown->resources = resources;
}

/* --- Create --- */

/* Between the call, which may go away, and the snapshot, which goes on. */
struct asking {
	struct rpc_call *call;
};

static void on_cancel(struct rpc_call *call, const struct pdk_error *why)
{
	struct asking *asking = rpc_user(call);

	asking->call = NULL;
	rpc_fail(call, why);
}

/* It is whole: make it durable together with the call's audit record, or one of its own. */
static void commit(struct snapshot *snapshot, struct rpc_call *call)
{
	struct store_batch *batch = store_batch_create();
	struct message message;
	struct pdk_error err;

	if (!batch || snapshot_store(batch, snapshot) < 0) {
		store_batch_free(batch);
		snapshot_discard(snapshot);
		pdk_fail_errno(&err, -ENOMEM, "storing the snapshot");
		if (call)
			rpc_fail(call, &err);
		return;
	}
	snapshot_arm_expiry(snapshot);
	if (!call) {
		(void)store_audit(batch, &(struct audit_entry){.tenant = snapshot->stored->tenant,
							       .actor = "system",
							       .action = "snapshot.created",
							       .sandbox_id = snapshot->stored->sandbox_id,
							       .object = snapshot->stored->id,
							       .outcome = "OK"});
		store_commit(batch, NULL, NULL);
		return;
	}
	rpc_audit_object(call, snapshot->stored->sandbox_id, snapshot->stored->id);
	fill_message(&message, snapshot);
	rpc_finish_commit(call, batch, &message.snapshot.base);
}

static void on_taken(struct snapshot *snapshot, const struct pdk_error *err, void *arg)
{
	_cleanup_free_ struct asking *asking = arg;

	if (!err)
		commit(snapshot, asking->call);
	else if (asking->call)
		rpc_fail(asking->call, err);
}

static int validate_create(const Paddock__V1__CreateSnapshotRequest *request, struct pdk_error *err)
{
	int rc = request->name[0] ? validate_template_name("name", request->name, err) : 0;

	if (rc >= 0 && snapshot_id_valid(request->name))
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "name: has the form of a snapshot id");
	if (rc >= 0)
		rc = validate_optional_range("ttl_ms", request->ttl_ms, TTL_MIN_MS, TTL_MAX_MS, err);
	return rc;
}

void snapshots_create(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	static const struct rpc_events events = {.on_cancel = on_cancel};
	const Paddock__V1__CreateSnapshotRequest *request = (const void *)message;
	struct asking *asking = NULL;
	struct snapshot_take take = {.done = on_taken};
	struct sandbox *source;
	struct pdk_error err;
	int rc = validate_create(request, &err);

	if (rc >= 0)
		rc = sandbox_find_running(call, request->sandbox_id, &source, &err);
	if (rc >= 0) {
		rpc_audit_object(call, source->id, NULL);
		take.arg = asking = calloc(1, sizeof(*asking));
		rc = asking ? 0 : pdk_fail_errno(&err, -ENOMEM, "taking a snapshot");
	}
	if (rc >= 0) {
		asking->call = call;
		rpc_set_events(call, &events, asking);
		rc = snapshot_take(source, request->name, request->ttl_ms, false, &take, &err);
	}
	if (rc >= 0)
		return;
	free(asking);
	rpc_fail(call, &err);
}

/* --- Get, Remove --- */

static int find(struct rpc_call *call, const char *text, struct snapshot **ret, struct pdk_error *err)
{
	int rc = validate_label("snapshot", text, 128, err);

	if (rc >= 0)
		rc = snapshot_find(rpc_principal(call), text, ret, err);
	if (rc >= 0)
		rpc_audit_object(call, (*ret)->stored->sandbox_id, (*ret)->stored->id);
	return rc;
}

void snapshots_get(struct rpc_call *call, const struct ProtobufCMessage *request)
{
	struct snapshot *snapshot;
	struct message message;
	struct pdk_error err;

	if (find(call, ((const Paddock__V1__GetSnapshotRequest *)(const void *)request)->snapshot, &snapshot, &err) <
	    0) {
		rpc_fail(call, &err);
		return;
	}
	fill_message(&message, snapshot);
	rpc_finish(call, &message.snapshot.base);
}

void snapshots_remove(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__V1__RemoveSnapshotRequest *request = (const void *)message;
	Paddock__V1__RemoveSnapshotResponse reply = PADDOCK__V1__REMOVE_SNAPSHOT_RESPONSE__INIT;
	struct store_batch *batch = NULL;
	struct snapshot *snapshot;
	struct pdk_error err;
	int rc = find(call, request->snapshot, &snapshot, &err);

	if (rc >= 0) {
		batch = store_batch_create();
		/* Should the commit fail, the store takes no change any more, and the next start finds a record without
		 * images. */
		if (!batch || snapshot_unlist(snapshot, batch) < 0)
			rc = pdk_fail_errno(&err, -ENOMEM, "removing the snapshot");
	}
	if (rc < 0) {
		store_batch_free(batch);
		rpc_fail(call, &err);
		return;
	}
	rpc_finish_commit(call, batch, &reply.base);
}

/* --- List --- */

static bool is_listed(const struct snapshot *snapshot, const char *tenant,
		      const Paddock__V1__ListSnapshotsRequest *request)
{
	const Paddock__Internal__StoredSnapshot *stored = snapshot->stored;

	if (snapshot->state != SNAPSHOT_READY || snapshot->own || stored->unlisted ||
	    strcmp(stored->tenant, tenant) != 0)
		return false;
	if (request->sandbox_id[0] && strcmp(stored->sandbox_id, request->sandbox_id) != 0)
		return false;
	return !request->name[0] || strcmp(stored->name, request->name) == 0;
}

static bool is_after(const struct snapshot *snapshot, const struct page_cursor *cursor)
{
	const Paddock__Internal__StoredSnapshot *stored = snapshot->stored;

	if (stored->created_unix_ms != cursor->created_unix_ms)
		return stored->created_unix_ms < cursor->created_unix_ms;
	return strcmp(stored->id, cursor->id) < 0;
}

static int validate_list(const Paddock__V1__ListSnapshotsRequest *request, const char *tenant,
			 struct page_cursor *cursor, struct pdk_error *err)
{
	int rc = validate_label("sandbox_id", request->sandbox_id, 128, err);

	if (rc >= 0)
		rc = validate_label("name", request->name, 128, err);
	if (rc >= 0)
		rc = validate_optional_range("page_size", request->page_size, 1, PAGE_MAX, err);
	if (rc >= 0 && request->page_token[0])
		rc = page_token_read(tenant, request->page_token, cursor, err);
	if (rc >= 0 && request->page_token[0] && !snapshot_id_valid(cursor->id))
		rc = pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "page_token: is not from a previous page");
	return rc;
}

static int fill_page(struct rpc_call *call, const Paddock__V1__ListSnapshotsRequest *request,
		     const struct page_cursor *cursor, Paddock__V1__ListSnapshotsResponse *reply)
{
	size_t room = request->page_size ? request->page_size : PAGE_DEFAULT;
	const char *tenant = rpc_principal(call)->tenant;
	struct page_cursor last;

	reply->snapshots = rpc_alloc(call, room * sizeof(*reply->snapshots));
	if (!reply->snapshots)
		return -ENOMEM;
	for (const struct snapshot *snapshot = snapshot_newest; snapshot; snapshot = snapshot->next) {
		struct message *message;

		if (!is_listed(snapshot, tenant, request) || (cursor->id[0] && !is_after(snapshot, cursor)))
			continue;
		if (reply->n_snapshots == room) {
			reply->next_page_token = rpc_alloc(call, PAGE_TOKEN_SIZE);
			if (!reply->next_page_token)
				return -ENOMEM;
			page_token_make(tenant, &last, reply->next_page_token);
			return 0;
		}
		message = rpc_alloc(call, sizeof(*message));
		if (!message)
			return -ENOMEM;
		fill_message(message, snapshot);
		reply->snapshots[reply->n_snapshots++] = &message->snapshot;
		last.created_unix_ms = snapshot->stored->created_unix_ms;
		memcpy(last.id, snapshot->stored->id, SANDBOX_ID_SIZE);
	}
	return 0;
}

void snapshots_list(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__V1__ListSnapshotsRequest *request = (const void *)message;
	Paddock__V1__ListSnapshotsResponse reply = PADDOCK__V1__LIST_SNAPSHOTS_RESPONSE__INIT;
	struct page_cursor cursor = {0};
	struct pdk_error err;
	int rc = validate_list(request, rpc_principal(call)->tenant, &cursor, &err);

	if (rc >= 0) {
		rc = fill_page(call, request, &cursor, &reply);
		if (rc < 0)
			pdk_fail_errno(&err, rc, "listing");
	}
	if (rc < 0)
		rpc_fail(call, &err);
	else
		rpc_finish(call, &reply.base);
}
