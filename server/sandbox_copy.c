#include "guest.h"
#include "processes.h"
#include "sandbox/base/cleanup.h"
#include "snapshot_internal.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/*
 * What is different for a sandbox that is made from a snapshot. Its create is that of any other (sandbox_create.c) but for
 * the warden's part, WARDEN_COPY; and when init answers, it already has processes: they are taken over as after a
 * restart, under the records that the snapshot holds.
 */

void sandbox_copy_over(struct sandbox *sandbox)
{
	if (sandbox->private->origin)
		snapshot_unuse(STEAL_PTR(sandbox->private->origin));
}

void sandbox_copy_request(const struct sandbox *sandbox, struct warden_request *request)
{
	const Paddock__Internal__StoredSnapshot *stored = sandbox->private->origin->stored;

	memcpy(request->snapshot_id, stored->id, SANDBOX_ID_SIZE);
	if (sandbox->private->bare)
		return;
	request->op = WARDEN_COPY;
	request->value = stored->token;
}

/* What the snapshot says where the request says nothing. */
void sandbox_copy_limits(const struct snapshot *snapshot, Paddock__V1__Resources *resources)
{
	const Paddock__Internal__StoredSnapshot *stored = snapshot->stored;

#define GIVEN(field) resources->field = resources->field ? resources->field : stored->field
	GIVEN(memory_bytes);
	GIVEN(cpu_millis);
	GIVEN(max_pids);
	GIVEN(disk_bytes);
	GIVEN(max_inodes);
#undef GIVEN
}

static bool has_name(const struct text_list *env, const char *entry)
{
	size_t length = strcspn(entry, "=") + 1;

	for (size_t i = 0; i < env->count; i++)
		if (strncmp(env->item[i], entry, length) == 0)
			return true;
	return false;
}

/* The snapshot's environment, under what the request asks for. */
struct text_list *sandbox_copy_env(const struct snapshot *snapshot, const struct text_list *asked)
{
	const Paddock__Internal__StoredSnapshot *stored = snapshot->stored;
	_cleanup_free_ char **items = calloc(asked->count + stored->n_env + 1, sizeof(char *));
	size_t n = 0;

	if (!items)
		return NULL;
	for (size_t i = 0; i < stored->n_env; i++)
		if (!has_name(asked, stored->env[i]))
			items[n++] = stored->env[i];
	for (size_t i = 0; i < asked->count; i++)
		items[n++] = asked->item[i];
	return text_list_copy(items, n);
}

/* Another machine, as far as its programs can tell. */
int sandbox_copy_rename(struct sandbox *sandbox)
{
	const struct text_list *env = sandbox->private->env;
	char id[33];
	uint64_t random[2];

	if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return -EIO;
	snprintf(id, sizeof(id), "%016" PRIx64 "%016" PRIx64, random[0], random[1]);
	return guest_setup(sandbox->guest, env->item, env->count, sandbox->hostname, id);
}

void sandbox_copy_fill(struct sandbox *sandbox, void (*done)(struct sandbox *sandbox, int rc))
{
	const Paddock__Internal__StoredSnapshot *stored = sandbox->private->origin->stored;
	struct store_batch *batch = store_batch_create();
	int rc = batch ? processes_inherit(sandbox, stored->processes, stored->n_processes, batch) : -ENOMEM;

	if (rc < 0) {
		store_batch_free(batch);
		done(sandbox, rc);
		return;
	}
	/* Before the record of RUNNING: commits keep their order. */
	store_commit(batch, NULL, NULL);
	rc = sandbox_copy_rename(sandbox);
	if (rc < 0)
		done(sandbox, rc);
	else
		processes_adopt(sandbox, done);
}
