#include "previews.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "log.h"
#include "paddock/internal/store.pb-c.h"
#include "preview_internal.h"
#include "record.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/hash.h"
#include "sandbox_internal.h"

/* The grants in memory: found by id, written to the store, ended and forgotten. */

#define BUCKETS 1024u
#define AGENT_PORT 49983u
#define SSH_PORT 22u

#define ACTIVE PADDOCK__V1__PREVIEW_STATE__PREVIEW_STATE_ACTIVE
#define EXPIRED PADDOCK__V1__PREVIEW_STATE__PREVIEW_STATE_EXPIRED
#define REVOKED PADDOCK__V1__PREVIEW_STATE__PREVIEW_STATE_REVOKED

static struct preview *buckets[BUCKETS];
static struct preview *oldest, *newest;
static unsigned int count;

bool preview_port_valid(uint32_t port)
{
	return port > 0 && port <= 65535 && port != SSH_PORT && port != AGENT_PORT;
}

/* The table */

static struct preview **slot_of(const char *id)
{
	struct preview **at = &buckets[hash_text(id) % BUCKETS];

	while (*at && strcmp((*at)->id, id) != 0)
		at = &(*at)->next_bucket;
	return at;
}

struct preview *preview_get(const char *id)
{
	return strnlen(id, PREVIEW_ID_SIZE) == PREVIEW_ID_LEN ? *slot_of(id) : NULL;
}

struct preview *preview_oldest(void)
{
	return oldest;
}

unsigned int preview_count(void)
{
	return count;
}

static void unlink_of_sandbox(struct preview *preview)
{
	struct sandbox *sandbox = sandbox_get(preview->sandbox_id);
	struct preview **at = sandbox ? &sandbox->previews : NULL;

	while (at && *at && *at != preview)
		at = &(*at)->next;
	if (at && *at)
		*at = preview->next;
	preview->next = NULL;
}

static void drop(struct preview *preview)
{
	loop_timer_cancel(&preview->timer);
	*slot_of(preview->id) = preview->next_bucket;
	if (preview->older)
		preview->older->newer = preview->newer;
	else
		oldest = preview->newer;
	if (preview->newer)
		preview->newer->older = preview->older;
	else
		newest = preview->older;
	count--;
	free(preview);
}

static void link_in(struct preview *preview)
{
	struct preview *behind = newest;

	while (behind && behind->created_unix_ms > preview->created_unix_ms)
		behind = behind->older;
	preview->older = behind;
	preview->newer = behind ? behind->newer : oldest;
	if (preview->older)
		preview->older->newer = preview;
	else
		oldest = preview;
	if (preview->newer)
		preview->newer->older = preview;
	else
		newest = preview;
	*slot_of(preview->id) = preview;
	count++;
}

/* Ends */

struct sandbox *preview_sandbox(const struct preview *preview)
{
	struct sandbox *sandbox = sandbox_get(preview->sandbox_id);

	if (!sandbox || sandbox_generation(sandbox) != preview->generation || !sandbox_is_living(sandbox) ||
	    sandbox->state == PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_KILLING)
		return NULL;
	return sandbox;
}

void preview_finish(struct preview *preview, Paddock__V1__PreviewState state)
{
	if (preview->state != ACTIVE)
		return;
	unlink_of_sandbox(preview);
	preview->state = state;
	preview->ended_unix_ms = loop_wall_ms();
	visits_cut_preview(preview, state == EXPIRED ? PADDOCK__INTERNAL__VISIT_REFUSAL__VISIT_EXPIRED
						     : PADDOCK__INTERNAL__VISIT_REFUSAL__VISIT_REVOKED);
	preview_arm(preview);
}

static void commit_end(struct preview *preview, const char *action)
{
	struct store_batch *batch = store_batch_create();
	struct audit_entry entry = {
		.tenant = preview->tenant,
		.actor = "system",
		.action = action,
		.sandbox_id = preview->sandbox_id,
		.object = preview->id,
		.outcome = "OK",
	};

	if (batch && preview_store(batch, preview) >= 0 && store_audit(batch, &entry) >= 0)
		store_commit(batch, NULL, NULL);
	else
		store_batch_free(batch);
}

static void forget(struct preview *preview)
{
	struct store_batch *batch = store_batch_create();

	if (batch && store_delete(batch, STORE_PREVIEWS, preview->id, PREVIEW_ID_LEN) >= 0)
		store_commit(batch, NULL, NULL);
	else
		store_batch_free(batch);
	drop(preview);
}

static void on_timer(void *arg)
{
	struct preview *preview = arg;

	if (preview->state != ACTIVE) {
		forget(preview);
		return;
	}
	preview_finish(preview, EXPIRED);
	commit_end(preview, "preview.expired");
}

void preview_arm(struct preview *preview)
{
	int64_t due = preview->state == ACTIVE ? preview->expires_unix_ms
					       : preview->ended_unix_ms + (int64_t)server_config.retention_ms;
	int64_t left = due - loop_wall_ms();

	preview->timer.handler = on_timer;
	preview->timer.arg = preview;
	if (loop_timer_set(&preview->timer, loop_now_ns() + (left > 0 ? (uint64_t)left * 1000000 : 0)) >= 0)
		return;
	log_event(LOG_ERROR, "preview.timer_lost", "preview", preview->id, "reason", "out of memory", NULL);
	/* Without a timer it would be open for ever. */
	if (preview->state == ACTIVE)
		preview_finish(preview, EXPIRED);
}

void preview_insert(struct preview *preview)
{
	struct sandbox *sandbox = preview_sandbox(preview);

	link_in(preview);
	if (preview->state == ACTIVE && sandbox) {
		preview->next = sandbox->previews;
		sandbox->previews = preview;
	}
	preview_arm(preview);
}

void previews_end(struct sandbox *sandbox)
{
	while (sandbox->previews) {
		struct preview *preview = sandbox->previews;

		preview_finish(preview, REVOKED);
		commit_end(preview, "preview.revoked");
	}
	visits_cut_sandbox(sandbox, PADDOCK__INTERNAL__VISIT_REFUSAL__VISIT_ENDED);
}

void previews_suspend(struct sandbox *sandbox)
{
	visits_cut_sandbox(sandbox, PADDOCK__INTERNAL__VISIT_REFUSAL__VISIT_PAUSED);
}

/* The store */

int preview_store(struct store_batch *batch, const struct preview *preview)
{
	Paddock__Internal__StoredPreview stored = PADDOCK__INTERNAL__STORED_PREVIEW__INIT;

	stored.id = (char *)preview->id;
	stored.tenant = (char *)preview->tenant;
	stored.sandbox_id = (char *)preview->sandbox_id;
	stored.generation = preview->generation;
	stored.port = preview->port;
	stored.state = preview->state;
	stored.created_unix_ms = preview->created_unix_ms;
	stored.expires_unix_ms = preview->expires_unix_ms;
	stored.ended_unix_ms = preview->ended_unix_ms;
	stored.read_only = preview->read_only;
	stored.one_visitor = preview->one_visitor;
	stored.counts_as_activity = preview->counts_as_activity;
	stored.resumes = preview->resumes;
	stored.host_header = (char *)preview->host_header;
	stored.visitors = preview->visitors;
	stored.last_visit_unix_ms = preview->last_visit_unix_ms;
	stored.visitor = (char *)preview->visitor;
	return record_put(batch, STORE_PREVIEWS, preview->id, &stored.base);
}

static int from_record(struct preview *preview, const Paddock__Internal__StoredPreview *stored)
{
	if (strlen(stored->id) != PREVIEW_ID_LEN || !record_text(preview->id, sizeof(preview->id), stored->id) ||
	    !record_text(preview->tenant, sizeof(preview->tenant), stored->tenant) ||
	    !record_text(preview->sandbox_id, sizeof(preview->sandbox_id), stored->sandbox_id) ||
	    !record_text(preview->host_header, sizeof(preview->host_header), stored->host_header) ||
	    !record_text(preview->visitor, sizeof(preview->visitor), stored->visitor) ||
	    !preview_port_valid(stored->port))
		return -EBADMSG;
	preview->generation = stored->generation;
	preview->port = (uint16_t)stored->port;
	preview->state = stored->state;
	preview->created_unix_ms = stored->created_unix_ms;
	preview->expires_unix_ms = stored->expires_unix_ms;
	preview->ended_unix_ms = stored->ended_unix_ms;
	preview->read_only = stored->read_only;
	preview->one_visitor = stored->one_visitor;
	preview->counts_as_activity = stored->counts_as_activity;
	preview->resumes = stored->resumes;
	preview->visitors = stored->visitors;
	preview->last_visit_unix_ms = stored->last_visit_unix_ms;
	return 0;
}

static int visit_record(const void *name, size_t name_length, const void *value, size_t value_length, void *arg)
{
	Paddock__Internal__StoredPreview *stored = paddock__internal__stored_preview__unpack(NULL, value_length, value);
	struct preview *preview = stored ? calloc(1, sizeof(*preview)) : NULL;
	int rc = !stored ? -EBADMSG : preview ? from_record(preview, stored) : -ENOMEM;

	if (rc >= 0)
		preview_insert(preview);
	else
		free(preview);
	if (stored)
		paddock__internal__stored_preview__free_unpacked(stored, NULL);
	return rc;
}

int previews_start(struct pdk_error *err)
{
	int rc = preview_token_start();

	if (rc >= 0)
		rc = store_each(STORE_PREVIEWS, NULL, 0, visit_record, NULL);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "previews");
	for (struct preview *preview = oldest; preview; preview = preview->newer) {
		if (preview->state == ACTIVE && !preview_sandbox(preview)) {
			preview_finish(preview, REVOKED);
			commit_end(preview, "preview.revoked");
		}
	}
	return 0;
}

void previews_stop(void)
{
	while (oldest) {
		unlink_of_sandbox(oldest);
		drop(oldest);
	}
}
