#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/auth.h"
#include "server/loop.h"
#include "server/sandbox_access.h"
#include "server/store.h"
#include "service.h"

atomic_int store_commits, store_records, events_recorded, store_result, store_keeps;
char last_outcome[32], last_action[64], last_detail[256];

/* Two keys, and a store that answers on the loop thread. */

int auth_check(const char *authorization, struct principal *ret, struct pdk_error *err)
{
	bool good = authorization && strcmp(authorization, GOOD_KEY) == 0;
	bool reader = authorization && strcmp(authorization, READ_KEY) == 0;

	if (!good && !reader)
		return pdk_fail(err, -EACCES, PDK_UNAUTHENTICATED, "a valid API key is needed");
	*ret = (struct principal){.tenant = "default", .scopes = good ? SCOPE_SANDBOX : SCOPE_READ};
	strcpy(ret->key_id, good ? "good" : "read");
	return 0;
}

int sandbox_access_check(const char *sandbox_id, const char *token, struct principal *ret, struct pdk_error *err)
{
	if (!sandbox_id || strcmp(sandbox_id, "box") != 0 || strcmp(token, "token") != 0)
		return pdk_fail(err, -EACCES, PDK_UNAUTHENTICATED, "a valid access token is needed");
	*ret = (struct principal){.tenant = "default", .scopes = SCOPE_TOKEN, .sandbox_id = "box"};
	return 0;
}

int sandbox_signature_check(const char *sandbox_id, const struct rpc_file_signature *file, bool write,
			    struct principal *ret, struct pdk_error *err)
{
	return pdk_fail(err, -EACCES, PDK_UNAUTHENTICATED, "invalid signature");
}

const char *principal_actor(const struct principal *principal)
{
	return principal->key_id[0] ? principal->key_id : "operator";
}

struct store_batch {
	void (*done)(int rc, void *arg);
	void *arg;
};

struct store_batch *store_batch_create(void)
{
	return calloc(1, sizeof(struct store_batch));
}

void store_batch_free(struct store_batch *batch)
{
	free(batch);
}

static void note(const struct audit_entry *entry)
{
	snprintf(last_outcome, sizeof(last_outcome), "%s", entry->outcome);
	snprintf(last_action, sizeof(last_action), "%s", entry->action);
	snprintf(last_detail, sizeof(last_detail), "%s", entry->detail ? entry->detail : "");
}

int store_audit(struct store_batch *batch, const struct audit_entry *entry)
{
	note(entry);
	atomic_fetch_add(&store_records, 1);
	return 0;
}

void audit_event(const struct audit_entry *entry)
{
	note(entry);
	atomic_fetch_add(&events_recorded, 1);
}

static void commit_done(void *arg)
{
	struct store_batch *batch = arg;

	batch->done(atomic_load(&store_result), batch->arg);
	free(batch);
}

bool store_commit_kept(struct store_batch *batch)
{
	if (!atomic_load(&store_keeps))
		return false;
	free(batch);
	return true;
}

void store_commit(struct store_batch *batch, void (*done)(int rc, void *arg), void *arg)
{
	batch->done = done;
	batch->arg = arg;
	atomic_fetch_add(&store_commits, 1);
	if (loop_defer(commit_done, batch) < 0)
		abort();
}
