#include "record.h"
#include "rpc.h"
#include "sandbox/base/cleanup.h"
#include "sandbox_internal.h"
#include "validate.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A sandbox as the store keeps it and as the API shows it. */

struct text_list *text_list_copy(char *const *items, size_t count)
{
	size_t size = sizeof(struct text_list) + count * sizeof(char *);
	struct text_list *list;
	char *at;

	for (size_t i = 0; i < count; i++)
		size += strlen(items[i]) + 1;
	list = malloc(size);
	if (!list)
		return NULL;
	list->count = count;
	at = (char *)&list->item[count];
	for (size_t i = 0; i < count; i++) {
		list->item[i] = at;
		at = stpcpy(at, items[i]) + 1;
	}
	return list;
}

struct text_list *text_list_from_map(const void *entries, size_t count, char separator)
{
	const struct validate_entry *const *entry = entries;
	size_t size = sizeof(struct text_list) + 2 * count * sizeof(char *);
	struct text_list *list;
	char *at;

	for (size_t i = 0; i < count; i++)
		size += strlen(entry[i]->key) + strlen(entry[i]->value) + 2;
	list = malloc(size);
	if (!list)
		return NULL;
	list->count = 0;
	at = (char *)&list->item[2 * count];
	for (size_t i = 0; i < count; i++) {
		if (validate_entry_repeated(entry, count, i))
			continue;
		list->item[list->count++] = at;
		at = stpcpy(at, entry[i]->key) + 1;
		if (separator)
			at[-1] = separator;
		else
			list->item[list->count++] = at;
		at = stpcpy(at, entry[i]->value) + 1;
	}
	return list;
}

static Paddock__Internal__SandboxIntent intent_of(const struct sandbox *sandbox)
{
	if (sandbox->state == PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_CREATING)
		return PADDOCK__INTERNAL__SANDBOX_INTENT__SANDBOX_INTENT_CREATE;
	if (sandbox->state == PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_KILLING)
		return PADDOCK__INTERNAL__SANDBOX_INTENT__SANDBOX_INTENT_KILL;
	return PADDOCK__INTERNAL__SANDBOX_INTENT__SANDBOX_INTENT_NONE;
}

/* What is between the two is settled by the record after a crash: sandbox_pause.c. */
static Paddock__V1__SandboxState stored_state(const struct sandbox *sandbox)
{
	if (sandbox->state == PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_PAUSING)
		return PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_RUNNING;
	if (sandbox->state == PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_RESUMING)
		return PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_PAUSED;
	return sandbox->state;
}

static void fill_record(const struct sandbox *sandbox, Paddock__Internal__StoredSandbox *record)
{
	const struct sandbox_private *private = sandbox->private;

	paddock__internal__stored_sandbox__init(record);
	record->id = (char *)sandbox->id;
	record->tenant = (char *)sandbox->tenant;
	record->template_id = (char *)sandbox->template_id;
	record->template_name = (char *)sandbox->template_name;
	record->state = stored_state(sandbox);
	record->created_unix_ms = sandbox->created_unix_ms;
	record->expires_unix_ms = sandbox->expires_unix_ms;
	record->ended_unix_ms = sandbox->ended_unix_ms;
	record->end_reason = sandbox->end_reason;
	record->pause_mode = private->pause_mode;
	record->paused_unix_ms = private->paused_unix_ms;
	record->checkpoint_token = private->checkpoint_token;
	record->checkpoint_bytes = private->checkpoint_bytes;
	record->stored_bytes = private->stored_bytes;
	record->inherited_bytes = private->inherited_bytes;
	record->origin = (char *)private->origin_id;
	record->origin_files_only = private->bare;
	record->kernel_id = (char *)sandbox->kernel_id;
	record->reset_unix_ms = sandbox->reset_unix_ms;
	if (private->default_user)
		record->default_user = (char *)(uintptr_t) private->default_user;
	if (private->default_cwd)
		record->default_cwd = private->default_cwd;
	record->on_timeout = private->on_timeout;
	record->auto_resume = private->auto_resume;
	record->timeout_ms = private->timeout_ms;
	record->idle_timeout_ms = private->idle_timeout_ms;
	if (private->pause_text && private->paused_unix_ms)
		record->pause_text = (char *)(uintptr_t) private->pause_text;
	if (private->end_text)
		record->end_text = private->end_text;
	record->memory_bytes = sandbox->limits.memory_bytes;
	record->cpu_millis = sandbox->limits.cpu_millis;
	record->max_pids = sandbox->limits.max_pids;
	record->disk_bytes = sandbox->limits.disk_bytes;
	record->max_inodes = sandbox->limits.max_inodes;
	record->hostname = (char *)sandbox->hostname;
	record->port_access = private->port_access;
	record->port_host_header = (char *)private->port_host_header;
	record->intent = intent_of(sandbox);
	/* An ended sandbox needs its environment no more; it may hold what the tenant wants gone. */
	if (private->env && sandbox_is_living(sandbox)) {
		record->n_env = private->env->count;
		record->env = private->env->item;
	}
}

int sandbox_store(struct store_batch *batch, const struct sandbox *sandbox)
{
	const struct text_list *metadata = sandbox->private->metadata;
	size_t n = metadata ? metadata->count / 2 : 0;
	Paddock__Internal__StoredPair pairs[METADATA_PAIRS_MAX];
	Paddock__Internal__StoredPair *pointers[METADATA_PAIRS_MAX];
	Paddock__Internal__StoredSandbox record;
	_cleanup_free_ uint8_t *packed = NULL;
	size_t length;

	fill_record(sandbox, &record);
	for (size_t i = 0; i < n; i++) {
		paddock__internal__stored_pair__init(&pairs[i]);
		pairs[i].key = metadata->item[2 * i];
		pairs[i].value = metadata->item[2 * i + 1];
		pointers[i] = &pairs[i];
	}
	record.n_metadata = n;
	record.metadata = pointers;
	length = paddock__internal__stored_sandbox__get_packed_size(&record);
	packed = malloc(length + 1);
	if (!packed)
		return -ENOMEM;
	paddock__internal__stored_sandbox__pack(&record, packed);
	return store_put(batch, STORE_SANDBOXES, sandbox->id, SANDBOX_ID_LEN, packed, length);
}

int sandbox_unstore(struct store_batch *batch, const struct sandbox *sandbox)
{
	return store_delete(batch, STORE_SANDBOXES, sandbox->id, SANDBOX_ID_LEN);
}

static int copy_lists(struct sandbox *sandbox, const Paddock__Internal__StoredSandbox *record)
{
	struct sandbox_private *private = sandbox->private;
	char *items[2 * METADATA_PAIRS_MAX];

	for (size_t i = 0; i < record->n_metadata; i++) {
		items[2 * i] = record->metadata[i]->key;
		items[2 * i + 1] = record->metadata[i]->value;
	}
	private->metadata = text_list_copy(items, 2 * record->n_metadata);
	private->env = text_list_copy(record->env, record->n_env);
	if (record->end_text[0])
	private->end_text = strdup(record->end_text);
	if (record->default_cwd[0] && !(private->default_cwd = strdup(record->default_cwd)))
		return -ENOMEM;
	private->default_user = strcmp(record->default_user, "root") == 0 ? "root" : NULL;
	return private->metadata && private->env && (private->end_text || !record->end_text[0]) ? 0 : -ENOMEM;
}

static int from_record(struct sandbox *sandbox, const Paddock__Internal__StoredSandbox *record)
{
	if (!record_text(sandbox->tenant, sizeof(sandbox->tenant), record->tenant) ||
	    !record_text(sandbox->template_id, sizeof(sandbox->template_id), record->template_id) ||
	    !record_text(sandbox->template_name, sizeof(sandbox->template_name), record->template_name) ||
	    !record_text(sandbox->hostname, sizeof(sandbox->hostname), record->hostname) ||
	    !record_text(sandbox->private->origin_id, sizeof(sandbox->private->origin_id), record->origin) ||
	    !record_text(sandbox->private->port_host_header, sizeof(sandbox->private->port_host_header),
			 record->port_host_header) ||
	    record->n_metadata > METADATA_PAIRS_MAX)
		return -EBADMSG;
	sandbox->state = record->state;
	sandbox->created_unix_ms = record->created_unix_ms;
	sandbox->expires_unix_ms = record->expires_unix_ms;
	sandbox->ended_unix_ms = record->ended_unix_ms;
	sandbox->end_reason = record->end_reason;
	sandbox->private->port_access = record->port_access;
	sandbox->private->pause_mode = record->pause_mode;
	sandbox->private->paused_unix_ms = record->paused_unix_ms;
	sandbox->private->checkpoint_token = record->checkpoint_token;
	sandbox->private->checkpoint_bytes = record->checkpoint_bytes;
	sandbox->private->stored_bytes = record->stored_bytes;
	sandbox->private->inherited_bytes = record->inherited_bytes;
	sandbox->private->bare = record->origin_files_only;
	sandbox->reset_unix_ms = record->reset_unix_ms;
	if (sandbox_id_valid(record->kernel_id))
		sandbox_set_kernel(sandbox, record->kernel_id);
	sandbox->private->on_timeout = record->on_timeout;
	sandbox->private->auto_resume = record->auto_resume;
	sandbox->private->timeout_ms = record->timeout_ms;
	sandbox->private->idle_timeout_ms = record->idle_timeout_ms;
	sandbox->private->pause_text = sandbox_pause_text(record->pause_text);
	sandbox->private->keep_paused = record->paused_unix_ms && !record->expires_unix_ms;
	sandbox->limits.memory_bytes = record->memory_bytes;
	sandbox->limits.disk_bytes = record->disk_bytes;
	sandbox->limits.max_inodes = record->max_inodes;
	sandbox->limits.cpu_millis = record->cpu_millis;
	sandbox->limits.max_pids = record->max_pids;
	return copy_lists(sandbox, record);
}

int sandbox_load(const void *value, size_t length, Paddock__Internal__SandboxIntent *ret_intent, struct sandbox **ret)
{
	Paddock__Internal__StoredSandbox *record = paddock__internal__stored_sandbox__unpack(NULL, length, value);
	struct sandbox *sandbox = NULL;
	int rc = -EBADMSG;

	if (!record)
		return -EBADMSG;
	if (sandbox_id_valid(record->id) && !sandbox_get(record->id)) {
		sandbox = sandbox_new(record->id);
		rc = sandbox ? from_record(sandbox, record) : -ENOMEM;
		if (rc >= 0)
			rc = sandbox_own(sandbox);
	}
	if (rc >= 0) {
		*ret_intent = record->intent;
		*ret = sandbox;
	} else if (sandbox) {
		sandbox_drop(sandbox);
	}
	paddock__internal__stored_sandbox__free_unpacked(record, NULL);
	return rc;
}

struct message_block {
	Paddock__V1__Sandbox sandbox;
	Paddock__V1__Resources resources;
	Paddock__V1__Sandbox__MetadataEntry *pointers[];
};

static size_t pair_count(const struct sandbox *sandbox)
{
	return sandbox->private->metadata ? sandbox->private->metadata->count / 2 : 0;
}

size_t sandbox_message_size(const struct sandbox *sandbox)
{
	return sizeof(struct message_block) + pair_count(sandbox) * (sizeof(Paddock__V1__Sandbox__MetadataEntry *) +
								     sizeof(Paddock__V1__Sandbox__MetadataEntry));
}

static void fill_metadata(const struct sandbox *sandbox, struct message_block *block)
{
	size_t n = pair_count(sandbox);
	Paddock__V1__Sandbox__MetadataEntry *entries = (void *)&block->pointers[n];

	for (size_t i = 0; i < n; i++) {
		paddock__v1__sandbox__metadata_entry__init(&entries[i]);
		entries[i].key = sandbox->private->metadata->item[2 * i];
		entries[i].value = sandbox->private->metadata->item[2 * i + 1];
		block->pointers[i] = &entries[i];
	}
	block->sandbox.n_metadata = n;
	block->sandbox.metadata = block->pointers;
}

Paddock__V1__Sandbox *sandbox_message(const struct sandbox *sandbox, void *space)
{
	struct message_block *block = space;
	Paddock__V1__Sandbox *message = &block->sandbox;
	Paddock__V1__Resources *resources = &block->resources;

	paddock__v1__sandbox__init(message);
	paddock__v1__resources__init(resources);
	message->id = (char *)sandbox->id;
	message->tenant = (char *)sandbox->tenant;
	message->template_ = (char *)sandbox->template_id;
	message->template_name = (char *)sandbox->template_name;
	message->state =
		sandbox->private->settling ? PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_PAUSING : sandbox->state;
	message->created_unix_ms = sandbox->created_unix_ms;
	message->expires_unix_ms = sandbox->expires_unix_ms;
	message->ended_unix_ms = sandbox->ended_unix_ms;
	message->pause_mode = sandbox->private->pause_mode;
	message->paused_unix_ms = sandbox->private->paused_unix_ms;
	message->reset_unix_ms = sandbox->reset_unix_ms;
	/* What is left of an earlier one is of no interest. */
	if (sandbox_is_living(sandbox) &&
	    sandbox->private->pause_mode == PADDOCK__V1__PAUSE_MODE__PAUSE_MODE_CHECKPOINT) {
		message->checkpoint_bytes = sandbox->private->checkpoint_bytes;
		message->stored_bytes = sandbox->private->stored_bytes;
	}
	message->on_timeout = sandbox->private->on_timeout;
	message->auto_resume = sandbox->private->auto_resume;
	message->idle_timeout_ms = sandbox->private->idle_timeout_ms;
	if (sandbox->private->paused_unix_ms && sandbox->private->pause_text)
		message->pause_text = (char *)(uintptr_t)sandbox->private->pause_text;
	/* Both are decided when KILLING begins, but "empty while it lives". */
	if (!sandbox_is_living(sandbox)) {
		message->end_reason = sandbox->end_reason;
		if (sandbox->private->end_text)
			message->end_text = sandbox->private->end_text;
	}
	message->hostname = (char *)sandbox->hostname;
	message->port_access = sandbox->private->port_access;
	message->port_host_header = (char *)sandbox->private->port_host_header;
	resources->memory_bytes = sandbox->limits.memory_bytes;
	resources->cpu_millis = sandbox->limits.cpu_millis;
	resources->max_pids = sandbox->limits.max_pids;
	resources->disk_bytes = sandbox->limits.disk_bytes;
	resources->max_inodes = sandbox->limits.max_inodes;
	message->resources = resources;
	fill_metadata(sandbox, block);
	return message;
}

Paddock__V1__Sandbox *sandbox_reply(struct rpc_call *call, const struct sandbox *sandbox)
{
	void *block = rpc_alloc(call, sandbox_message_size(sandbox));
	struct pdk_error err;

	if (block)
		return sandbox_message(sandbox, block);
	pdk_fail(&err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "the reply is too large for this call");
	rpc_fail(call, &err);
	return NULL;
}

void sandbox_save(const struct sandbox *sandbox)
{
	struct store_batch *batch = store_batch_create();

	if (batch && sandbox_store(batch, sandbox) >= 0)
		store_commit(batch, NULL, NULL);
	else
		store_batch_free(batch);
}

int sandbox_save_for(struct rpc_call *call, struct sandbox *sandbox, Paddock__V1__SandboxEvent__Type event)
{
	struct store_batch *batch = store_batch_create();
	Paddock__V1__Sandbox *reply;
	struct pdk_error err;

	if (!batch || sandbox_store(batch, sandbox) < 0) {
		store_batch_free(batch);
		pdk_fail_errno(&err, -ENOMEM, "storing the sandbox");
		rpc_fail(call, &err);
		return -ENOMEM;
	}
	sandbox_event(sandbox, event);
	reply = sandbox_reply(call, sandbox);
	if (reply)
		rpc_finish_commit(call, batch, &reply->base);
	else
		store_commit(batch, NULL, NULL);
	return 0;
}
