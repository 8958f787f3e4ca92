#include "snapshot_internal.h"

#include "log.h"
#include "processes.h"
#include "sandbox/base/cleanup.h"
#include "warden_client.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * How a snapshot is taken. Its source stays RUNNING for everybody:
 *
 *	sandbox_detach()     pipes and link are let go
 *	WARDEN_SNAPSHOT	     frozen, copied, let go on: the first answer. The link is made again, processes are taken over
 *	the last answer	     whole. When the link is there too, `take.done` has it stored; a pause that was asked for
 *			     meanwhile begins
 *
 * The source may end at any time: then it fails, or, when it is whole already, lives on without it.
 */

#define RUNNING PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_RUNNING
#define RECORD_MAX (24u << 20) /* bytes: an environment of 8 MiB and what a few thousand processes are called */

/* The source, as long as this snapshot is being taken of it. */
static struct sandbox *source_of(const struct snapshot *snapshot)
{
	struct sandbox *source = sandbox_get(snapshot->stored->sandbox_id);

	return source && source->private->snapshot == snapshot ? source : NULL;
}

static bool is_linked(const struct sandbox *source)
{
	return source->state != RUNNING || (source->guest && !source->private->adopting);
}

/* It is over, one way or the other. Whoever asked for it hears of it when its source can be used again. */
static void settle(struct snapshot *snapshot)
{
	struct sandbox *source = source_of(snapshot);
	bool whole = snapshot->err.code == PDK_OK;

	if (source && !is_linked(source)) {
		sandbox_link_again(source);
		return;
	}
	if (source)
		source->private->snapshot = NULL;
	snapshot->over = false;
	if (whole)
		snapshot->state = SNAPSHOT_READY;
	snapshot->take.done(snapshot, whole ? NULL : &snapshot->err, snapshot->take.arg);
	if (!whole)
		snapshot_drop(snapshot);
	if (source)
		sandbox_snapshot_over(source);
}

static void fail(struct snapshot *snapshot, const struct pdk_error *err)
{
	log_event(LOG_ERROR, "snapshot.failed", "sandbox", snapshot->stored->sandbox_id, "reason", err->text, NULL);
	snapshot->err = *err;
	snapshot->over = true;
	settle(snapshot);
}

void sandbox_snapshot_linked(struct sandbox *source)
{
	struct snapshot *snapshot = source->private->snapshot;

	if (snapshot && snapshot->over)
		settle(snapshot);
}

void sandbox_snapshot_fail(struct sandbox *sandbox)
{
	struct snapshot *snapshot = STEAL_PTR(sandbox->private->snapshot);
	struct pdk_error err;

	/* What the warden was asked for, it answers. */
	if (!snapshot || snapshot->asked)
		return;
	if (snapshot->over) {
		settle(snapshot);
		return;
	}
	pdk_fail(&err, -ECANCELED, PDK_ABORTED, "snapshot could not be taken: the sandbox has ended");
	fail(snapshot, &err);
}

static void on_whole(struct snapshot *snapshot, const struct warden_reply *reply)
{
	Paddock__Internal__StoredSnapshot *stored = snapshot->stored;

	stored->image_bytes = reply->value;
	stored->stored_bytes = reply->stored_bytes;
	stored->layer_bytes += reply->size_bytes;
	stored->stopped_us = reply->stopped_usec;
	snapshot_count(snapshot, stored->image_bytes + stored->layer_bytes);
	log_event(LOG_INFO, "snapshot.taken", "sandbox", stored->sandbox_id, "snapshot", stored->id, "bytes",
		  log_u64(stored->image_bytes), "stopped_us", log_u64(stored->stopped_us), NULL);
	snapshot->over = true;
	settle(snapshot);
}

static void on_snapshot(const struct warden_reply *reply, int *fd, void *arg)
{
	struct snapshot *snapshot = arg;
	struct sandbox *source = source_of(snapshot);
	struct pdk_error err;

	if (reply->flags & WARDEN_MORE) {
		if (source)
			sandbox_link_again(source);
		return;
	}
	snapshot->asked = false;
	if (reply->status >= 0) {
		on_whole(snapshot, reply);
		return;
	}
	sandbox_explain(reply, "snapshot could not be taken", &err);
	fail(snapshot, &err);
}

/* What runs in the source goes on in its copies. */
static int record_processes(struct snapshot *snapshot, struct sandbox *source)
{
	Paddock__Internal__StoredSnapshot *stored = snapshot->stored;
	int rc;

	stored->processes = calloc(PROCESSES_RUNNING_MAX, sizeof(Paddock__Internal__StoredProcess *));
	if (!stored->processes)
		return -ENOMEM;
	rc = processes_record(source, stored->processes, &stored->n_processes);
	if (rc >= 0 && paddock__internal__stored_snapshot__get_packed_size(stored) > RECORD_MAX)
		rc = -E2BIG;
	return rc;
}

static void on_detached(struct sandbox *source, int rc)
{
	struct warden_request request = {.op = WARDEN_SNAPSHOT};
	struct snapshot *snapshot = source->private->snapshot;
	struct pdk_error err;

	if (!snapshot)
		return;
	if (rc == -EAGAIN) {
		pdk_fail(&err, rc, PDK_ABORTED, "snapshot could not be taken: processes come and go; try again");
		fail(snapshot, &err);
		return;
	}
	if (rc >= 0)
		rc = record_processes(snapshot, source);
	if (snapshot->own) /* for a fork: nothing is made from it later */
		request.op = WARDEN_SNAPSHOT_BRIEF;
	memcpy(request.id, source->kernel_id, SANDBOX_ID_SIZE);
	memcpy(request.snapshot_id, snapshot->stored->id, SANDBOX_ID_SIZE);
	request.value = snapshot->stored->token;
	if (rc >= 0)
		rc = warden_call(&request, -1, on_snapshot, snapshot);
	if (rc >= 0) {
		snapshot->asked = true;
		return;
	}
	if (rc == -ENOTCONN)
		pdk_fail(&err, rc, PDK_UNAVAILABLE, "the sandbox manager is away; try again");
	else
		pdk_fail_errno(&err, rc, "taking the snapshot");
	fail(snapshot, &err);
}

/* The record without what is known only later. Every field is copied. */
static Paddock__Internal__StoredSnapshot *make_record(const struct sandbox *source, const char *name, uint64_t ttl_ms,
						      bool is_layer)
{
	Paddock__Internal__StoredSnapshot record = PADDOCK__INTERNAL__STORED_SNAPSHOT__INIT;
	const struct text_list *env = source->private->env;
	_cleanup_free_ uint8_t *packed = NULL;
	char id[SANDBOX_ID_SIZE];
	size_t length;

	snapshot_id_make(id);
	record.id = id;
	record.tenant = (char *)source->tenant;
	record.name = (char *)name;
	record.sandbox_id = (char *)source->id;
	record.template_id = (char *)source->template_id;
	record.template_name = (char *)source->template_name;
	record.created_unix_ms = loop_wall_ms();
	record.expires_unix_ms = ttl_ms ? record.created_unix_ms + (int64_t)ttl_ms : 0;
	record.layer_bytes = source->private->inherited_bytes;
	record.memory_bytes = source->limits.memory_bytes;
	record.cpu_millis = source->limits.cpu_millis;
	record.max_pids = source->limits.max_pids;
	record.disk_bytes = source->limits.disk_bytes;
	record.max_inodes = source->limits.max_inodes;
	record.n_env = env ? env->count : 0;
	record.env = env ? (char **)(uintptr_t)env->item : NULL;
	record.default_user = (char *)(uintptr_t)sandbox_default_user(source);
	record.default_cwd = (char *)(uintptr_t)sandbox_default_cwd(source);
	record.unlisted = record.files_only = is_layer;
	record.token = checkpoint_token_make();
	length = paddock__internal__stored_snapshot__get_packed_size(&record);
	packed = malloc(length);
	if (!packed)
		return NULL;
	paddock__internal__stored_snapshot__pack(&record, packed);
	return paddock__internal__stored_snapshot__unpack(NULL, length, packed);
}

static int check_source(const struct sandbox *source, struct pdk_error *err)
{
	if (source->private->snapshot)
		return pdk_fail(err, -EBUSY, PDK_ABORTED,
				"a snapshot of the sandbox is being taken already; try again");
	if (source->private->pausers)
		return pdk_fail(err, -EBUSY, PDK_FAILED_PRECONDITION, "sandbox is being paused");
	return 0;
}

static int check_name(const char *tenant, const char *name, struct pdk_error *err)
{
	for (const struct snapshot *other = snapshot_newest; name[0] && other; other = other->next)
		if (other->state != SNAPSHOT_REMOVING && strcmp(other->stored->name, name) == 0 &&
		    strcmp(other->stored->tenant, tenant) == 0)
			return pdk_fail(err, -EEXIST, PDK_ALREADY_EXISTS, "name: a snapshot has it already");
	return 0;
}

int snapshot_take(struct sandbox *source, const char *name, uint64_t ttl_ms, bool own, const struct snapshot_take *take,
		  struct pdk_error *err)
{
	/* Its memory is at most that: what it really is, is known when it is whole. */
	uint64_t bytes = source->limits.memory_bytes + source->private->inherited_bytes;
	Paddock__Internal__StoredSnapshot *stored;
	struct snapshot *snapshot;
	int rc = check_source(source, err);

	if (rc >= 0)
		rc = check_name(source->tenant, name, err);
	if (rc >= 0)
		rc = snapshot_check_quota(source->tenant, bytes, err);
	if (rc < 0)
		return rc;
	stored = make_record(source, name, ttl_ms, false);
	snapshot = stored ? snapshot_new(stored) : NULL;
	if (!snapshot) {
		if (stored)
			paddock__internal__stored_snapshot__free_unpacked(stored, NULL);
		return pdk_fail_errno(err, -ENOMEM, "taking the snapshot");
	}
	snapshot->own = own;
	snapshot->take = *take;
	snapshot_count(snapshot, bytes);
	source->private->snapshot = snapshot;
	sandbox_detach(source, on_detached);
	return 0;
}

/* --- a layer alone --- */

static void on_layer(const struct warden_reply *reply, int *fd, void *arg)
{
	struct snapshot *snapshot = arg;

	if (reply->flags & WARDEN_MORE)
		return;
	snapshot->asked = false;
	if (reply->status < 0) {
		sandbox_explain(reply, "layer could not be taken", &snapshot->err);
		snapshot->take.done(snapshot, &snapshot->err, snapshot->take.arg);
		snapshot_drop(snapshot);
		return;
	}
	snapshot->stored->layer_bytes += reply->size_bytes;
	snapshot->stored->stopped_us = reply->stopped_usec;
	snapshot_count(snapshot, snapshot->stored->layer_bytes);
	snapshot->state = SNAPSHOT_READY;
	snapshot->take.done(snapshot, NULL, snapshot->take.arg);
}

int snapshot_take_layer(struct sandbox *source, const struct snapshot_take *take, struct pdk_error *err)
{
	struct warden_request request = {.op = WARDEN_LAYER};
	Paddock__Internal__StoredSnapshot *stored;
	struct snapshot *snapshot;
	int rc = check_source(source, err);

	if (rc < 0)
		return rc;
	stored = make_record(source, "", 0, true);
	snapshot = stored ? snapshot_new(stored) : NULL;
	if (!snapshot) {
		if (stored)
			paddock__internal__stored_snapshot__free_unpacked(stored, NULL);
		return pdk_fail_errno(err, -ENOMEM, "taking the layer");
	}
	snapshot->take = *take;
	snapshot_count(snapshot, 0);
	memcpy(request.id, source->kernel_id, SANDBOX_ID_SIZE);
	memcpy(request.snapshot_id, stored->id, SANDBOX_ID_SIZE);
	rc = warden_call(&request, -1, on_layer, snapshot);
	if (rc >= 0) {
		snapshot->asked = true;
		return 0;
	}
	snapshot_drop(snapshot);
	return pdk_fail(err, rc, PDK_UNAVAILABLE, "the sandbox manager is away; try again");
}
