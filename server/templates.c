#include "templates.h"

#include "config.h"
#include "log.h"
#include "rpc.h"
#include "sandbox/base/cleanup.h"
#include "snapshot_internal.h"
#include "status.h"
#include "template_internal.h"
#include "validate.h"
#include "warden_client.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * Names and contents, and snapshots that names are made of. A content is a root file system that the warden holds,
 * known by its digest and kept once; a name belongs to a tenant, or to nobody (public), and points to a content. Names
 * are in the store; contents are what WARDEN_TEMPLATE_LIST says. A content goes with its last name and its last
 * sandbox: the warden refuses while one uses it (-EBUSY), and template_released() asks again whenever a sandbox has
 * ended.
 */

static struct template_name *names; /* sorted by name, then by tenant */
static struct template_content *contents;

/* --- contents --- */

struct template_content *template_content_find(const char *id)
{
	struct template_content *content = contents;

	while (content && strcmp(content->id, id) != 0)
		content = content->next;
	return content;
}

struct template_content *template_content_get(const struct warden_reply *reply)
{
	struct template_content *content = template_content_find(reply->template_id);

	if (content)
		return content;
	content = calloc(1, sizeof(*content));
	if (!content)
		return NULL;
	memcpy(content->id, reply->template_id, sizeof(content->id));
	memcpy(content->digest, reply->digest, sizeof(content->digest));
	content->size_bytes = reply->size_bytes;
	content->files = reply->files;
	content->next = contents;
	contents = content;
	return content;
}

static void content_free(struct template_content *content)
{
	struct template_content **slot = &contents;

	while (*slot != content)
		slot = &(*slot)->next;
	*slot = content->next;
	free(content);
}

static void on_content_removed(const struct warden_reply *reply, int *fd, void *arg)
{
	struct template_content *content = arg;

	content->removing = false;
	if (reply->status >= 0 || reply->status == -ENOENT) {
		log_event(LOG_INFO, "template.removed", "template", content->id, NULL);
		content_free(content);
	} else if (reply->status != -EBUSY) {
		/* It stays without a name; the next start tries again. */
		log_event(LOG_WARN, "template.remove_failed", "template", content->id, "reason", reply->text, NULL);
	}
}

void template_content_release(struct template_content *content)
{
	struct warden_request request = {.op = WARDEN_TEMPLATE_REMOVE};

	if (content->names > 0 || content->removing)
		return;
	sandbox_pool_evict(content->id);
	if (sandboxes_of_template(content->id) > 0)
		return;
	memcpy(request.template_id, content->id, sizeof(content->id));
	content->removing = warden_call(&request, -1, on_content_removed, content) >= 0;
}

void template_released(const char *template_id)
{
	struct template_content *content = template_content_find(template_id);

	if (content)
		template_content_release(content);
}

/* --- names --- */

struct template_name *template_name_find(const char *tenant, const char *name)
{
	for (struct template_name *entry = names; entry; entry = entry->next) {
		if (strcmp(entry->name, name) == 0 && strcmp(entry->tenant, tenant) == 0)
			return entry;
	}
	return NULL;
}

uint32_t template_name_count(const char *tenant)
{
	uint32_t count = 0;

	for (const struct template_name *entry = names; entry; entry = entry->next)
		count += strcmp(entry->tenant, tenant) == 0;
	return count;
}

static struct template_name *name_insert(const char *tenant, const char *name)
{
	struct template_name *entry = calloc(1, sizeof(*entry));
	struct template_name **slot = &names;

	if (!entry)
		return NULL;
	snprintf(entry->tenant, sizeof(entry->tenant), "%s", tenant);
	snprintf(entry->name, sizeof(entry->name), "%s", name);
	while (*slot && strcmp((*slot)->name, name) < 0)
		slot = &(*slot)->next;
	while (*slot && strcmp((*slot)->name, name) == 0 && strcmp((*slot)->tenant, tenant) < 0)
		slot = &(*slot)->next;
	entry->next = *slot;
	*slot = entry;
	return entry;
}

/* What a name meant is needed by one name less. */
static void let_go(struct template_content *content, struct snapshot *snapshot)
{
	if (content) {
		content->names--;
		template_content_release(content);
	}
	if (snapshot) {
		snapshot->names--;
		snapshot_release(snapshot);
	}
}

/* The name goes; what it meant, if that was the last. */
static void name_remove(struct template_name *entry)
{
	struct template_content *content = entry->content;
	struct snapshot *snapshot = entry->snapshot;
	struct template_name **slot = &names;

	while (*slot != entry)
		slot = &(*slot)->next;
	*slot = entry->next;
	free(entry->labels);
	free(entry);
	let_go(content, snapshot);
}

#define KEY_SIZE (TENANT_NAME_MAX + TEMPLATE_REF_SIZE + 2)

static size_t make_key(const char *tenant, const char *name, char key[KEY_SIZE])
{
	return (size_t)snprintf(key, KEY_SIZE, "%s/%s", tenant, name);
}

#define LABELS_MAX 16

static int name_store(struct store_batch *batch, const struct template_name *entry,
		      const struct template_content *content, const struct snapshot *snapshot,
		      const struct text_list *labels, int64_t created)
{
	Paddock__Internal__StoredTemplate record = PADDOCK__INTERNAL__STORED_TEMPLATE__INIT;
	Paddock__Internal__StoredPair pairs[LABELS_MAX], *pointers[LABELS_MAX];
	char key[KEY_SIZE];
	_cleanup_free_ uint8_t *packed = NULL;
	size_t length;

	record.name = (char *)entry->name;
	record.tenant = (char *)entry->tenant;
	record.public_ = entry->tenant[0] == '\0';
	if (content) {
		record.id = (char *)content->id;
		record.digest = (char *)content->digest;
		record.size_bytes = content->size_bytes;
		record.files = content->files;
	}
	if (snapshot) {
		record.id = snapshot->stored->template_id;
		record.snapshot_id = snapshot->stored->id;
	}
	record.created_unix_ms = created;
	for (size_t i = 0; i < labels->count / 2; i++) {
		paddock__internal__stored_pair__init(&pairs[i]);
		pairs[i].key = labels->item[2 * i];
		pairs[i].value = labels->item[2 * i + 1];
		pointers[i] = &pairs[i];
	}
	record.n_labels = labels->count / 2;
	record.labels = pointers;
	length = paddock__internal__stored_template__get_packed_size(&record);
	packed = malloc(length + 1);
	if (!packed)
		return -ENOMEM;
	paddock__internal__stored_template__pack(&record, packed);
	return store_put(batch, STORE_TEMPLATES, key, make_key(entry->tenant, entry->name, key), packed, length);
}

/* `content` or `snapshot`. Takes over `labels` on success. */
static int name_set(const char *tenant, const char *name, struct template_content *content, struct snapshot *snapshot,
		    struct text_list *labels, struct store_batch *batch)
{
	struct template_name *entry = template_name_find(tenant, name);
	struct template_content *content_before = entry ? entry->content : NULL;
	struct snapshot *snapshot_before = entry ? entry->snapshot : NULL;
	int64_t created = loop_wall_ms();
	bool is_new = !entry;

	if (is_new)
		entry = name_insert(tenant, name);
	if (!entry)
		return -ENOMEM;
	if (name_store(batch, entry, content, snapshot, labels, created) < 0) {
		if (is_new)
			name_remove(entry);
		return -ENOMEM;
	}
	free(entry->labels);
	entry->labels = labels;
	entry->created_unix_ms = created;
	entry->content = content;
	entry->snapshot = snapshot;
	if (content)
		content->names++;
	if (snapshot)
		snapshot->names++;
	let_go(content_before, snapshot_before);
	return 0;
}

int template_name_set(const char *tenant, const char *name, struct template_content *content, struct text_list *labels,
		      struct store_batch *batch)
{
	return name_set(tenant, name, content, NULL, labels, batch);
}

int template_name_set_snapshot(const char *tenant, const char *name, struct snapshot *snapshot,
			       struct store_batch *batch)
{
	struct text_list *labels = text_list_copy(NULL, 0);
	int rc = labels ? name_set(tenant, name, NULL, snapshot, labels, batch) : -ENOMEM;

	if (rc < 0)
		free(labels);
	return rc;
}

/* The caller's own name for this content, else a public one. */
static struct template_name *name_of_content(const char *tenant, const char *id)
{
	struct template_name *found = NULL;

	for (struct template_name *entry = names; entry; entry = entry->next) {
		if (!entry->content || strcmp(entry->content->id, id) != 0)
			continue;
		if (strcmp(entry->tenant, tenant) == 0)
			return entry;
		if (entry->tenant[0] == '\0')
			found = entry;
	}
	return found;
}

static struct template_name *find(const char *tenant, const char *name_or_id)
{
	struct template_name *entry;
	char ref[TEMPLATE_REF_SIZE];

	if (template_ref("template", name_or_id, ref, NULL) < 0)
		return NULL;
	entry = template_name_find(tenant, ref);
	if (!entry)
		entry = template_name_find("", ref);
	if (!entry && template_id_valid(name_or_id))
		entry = name_of_content(tenant, name_or_id);
	return entry;
}

int template_find(const char *tenant, const char *name_or_id, char ret_id[TEMPLATE_ID_SIZE], char ret_name[64],
		  struct snapshot **ret_snapshot, struct pdk_error *err)
{
	const struct template_name *entry = find(tenant, name_or_id);

	if (!entry)
		return pdk_fail(err, -ENOENT, PDK_NOT_FOUND, "template not found");
	snprintf(ret_id, TEMPLATE_ID_SIZE, "%s",
		 entry->content ? entry->content->id : entry->snapshot->stored->template_id);
	snprintf(ret_name, TEMPLATE_NAME_SIZE, "%.*s", (int)strcspn(entry->name, ":"), entry->name);
	*ret_snapshot = entry->snapshot;
	return 0;
}

/* --- start --- */

static void on_content(const struct warden_reply *reply, int *fd, void *arg)
{
	if (!(reply->flags & WARDEN_MORE)) {
		*(int *)arg = reply->status;
		return;
	}
	if (!template_id_valid(reply->template_id) || !template_content_get(reply))
		log_event(LOG_ERROR, "template.list_entry_ignored", NULL);
}

static struct text_list *load_labels(const Paddock__Internal__StoredTemplate *record)
{
	char *items[2 * LABELS_MAX];

	if (record->n_labels > LABELS_MAX)
		return NULL;
	for (size_t i = 0; i < record->n_labels; i++) {
		items[2 * i] = record->labels[i]->key;
		items[2 * i + 1] = record->labels[i]->value;
	}
	return text_list_copy(items, 2 * record->n_labels);
}

static int load_name(const Paddock__Internal__StoredTemplate *record, struct store_batch *stale, const void *key,
		     size_t key_length)
{
	struct template_content *content = template_content_find(record->id);
	struct template_name *entry;

	if (!content) {
		log_event(LOG_WARN, "template.lost", "template", record->id, "name", record->name, "tenant",
			  record->tenant, "reason", "the warden does not have it", NULL);
		return store_delete(stale, STORE_TEMPLATES, key, key_length);
	}
	entry = name_insert(record->tenant, record->name);
	if (!entry)
		return -ENOMEM;
	entry->content = content;
	content->names++;
	entry->created_unix_ms = record->created_unix_ms;
	entry->labels = load_labels(record);
	return entry->labels ? 0 : -ENOMEM;
}

static int load_record(const void *key, size_t key_length, const void *value, size_t value_length, void *arg)
{
	Paddock__Internal__StoredTemplate *record =
		paddock__internal__stored_template__unpack(NULL, value_length, value);
	int rc = 0;

	if (record && record->snapshot_id[0])
		; /* templates_bind() */
	else if (record && strlen(record->name) < TEMPLATE_REF_SIZE && strlen(record->tenant) <= TENANT_NAME_MAX)
		rc = load_name(record, arg, key, key_length);
	else
		log_event(LOG_ERROR, "store.bad_record", "kind", "template", NULL);
	if (record)
		paddock__internal__stored_template__free_unpacked(record, NULL);
	return rc;
}

/* What an import left that never got its name. The warden keeps what sandboxes use. */
static void release_nameless(void)
{
	for (struct template_content *content = contents, *next; content; content = next) {
		next = content->next;
		if (content->names > 0)
			continue;
		log_event(LOG_WARN, "template.nameless", "template", content->id, NULL);
		template_content_release(content);
	}
}

int templates_start(struct pdk_error *err)
{
	struct warden_request request = {.op = WARDEN_TEMPLATE_LIST};
	struct store_batch *stale;
	int status = 0;
	int rc = warden_call_wait(&request, on_content, &status, WARDEN_TIMEOUT_MS, err);

	if (rc < 0)
		return rc;
	if (status < 0)
		return pdk_fail_errno(err, status, "the warden cannot list its templates");
	stale = store_batch_create();
	if (!stale)
		return pdk_fail_errno(err, -ENOMEM, "loading templates");
	rc = store_each(STORE_TEMPLATES, NULL, 0, load_record, stale);
	if (rc < 0) {
		store_batch_free(stale);
		return pdk_fail_errno(err, rc, "loading templates from the store");
	}
	store_commit(stale, NULL, NULL);
	release_nameless();
	return 0;
}

/* One that is made of a snapshot. */
static int bind_name(const Paddock__Internal__StoredTemplate *record, struct store_batch *stale, const void *key,
		     size_t key_length)
{
	struct snapshot *snapshot = snapshot_get(record->snapshot_id);
	struct template_name *entry;

	if (!snapshot || strcmp(snapshot->stored->tenant, record->tenant) != 0) {
		log_event(LOG_WARN, "template.lost", "template", record->snapshot_id, "name", record->name, "tenant",
			  record->tenant, "reason", "its snapshot is not there", NULL);
		return store_delete(stale, STORE_TEMPLATES, key, key_length);
	}
	entry = name_insert(record->tenant, record->name);
	if (!entry)
		return -ENOMEM;
	entry->snapshot = snapshot;
	snapshot->names++;
	entry->created_unix_ms = record->created_unix_ms;
	entry->labels = load_labels(record);
	return entry->labels ? 0 : -ENOMEM;
}

static int bind_record(const void *key, size_t key_length, const void *value, size_t value_length, void *arg)
{
	Paddock__Internal__StoredTemplate *record =
		paddock__internal__stored_template__unpack(NULL, value_length, value);
	int rc = 0;

	if (record && record->snapshot_id[0] && strlen(record->name) < TEMPLATE_REF_SIZE &&
	    strlen(record->tenant) <= TENANT_NAME_MAX)
		rc = bind_name(record, arg, key, key_length);
	if (record)
		paddock__internal__stored_template__free_unpacked(record, NULL);
	return rc;
}

int templates_bind(struct pdk_error *err)
{
	struct store_batch *stale = store_batch_create();
	int rc = stale ? store_each(STORE_TEMPLATES, NULL, 0, bind_record, stale) : -ENOMEM;

	if (rc < 0) {
		store_batch_free(stale);
		return pdk_fail_errno(err, rc, "loading templates from the store");
	}
	store_commit(stale, NULL, NULL);
	for (struct snapshot *snapshot = snapshot_newest, *next; snapshot; snapshot = next) {
		next = snapshot->next;
		snapshot_release(snapshot);
	}
	return 0;
}

static int forget_record(struct store_batch *batch, const struct template_name *entry);

void templates_forget_snapshot(const struct snapshot *snapshot)
{
	struct store_batch *batch = snapshot->names ? store_batch_create() : NULL;

	for (struct template_name *entry = names, *next; entry && snapshot->names; entry = next) {
		next = entry->next;
		if (entry->snapshot != snapshot)
			continue;
		log_event(LOG_WARN, "template.lost", "template", snapshot->stored->id, "name", entry->name, "tenant",
			  entry->tenant, "reason", "its snapshot is not there", NULL);
		if (batch)
			(void)forget_record(batch, entry);
		entry->snapshot->names--;
		entry->snapshot = NULL;
		name_remove(entry);
	}
	if (batch)
		store_commit(batch, NULL, NULL);
}

/* Frees what memory holds; after warden_client_stop(), whose replies name contents. */
void templates_stop(void)
{
	while (names) {
		struct template_name *entry = names;

		names = entry->next;
		free(entry->labels);
		free(entry);
	}
	while (contents)
		content_free(contents);
}

/* --- List, Get, Remove --- */

static void clear_users(void)
{
	for (struct template_content *content = contents; content; content = content->next)
		content->users = 0;
}

static void count_user(const struct sandbox *sandbox, void *arg)
{
	struct template_content *content = template_content_find(sandbox->template_id);

	if (content)
		content->users++;
}

/* Living sandboxes per content: the caller's own, or all for the operator. */
static void count_users(const struct rpc_call *call)
{
	const struct principal *principal = rpc_principal(call);

	clear_users();
	sandbox_each_living(principal->is_operator ? NULL : principal->tenant, count_user, NULL);
}

static void fill_labels(const struct text_list *labels, Paddock__V1__Template *message,
			Paddock__V1__Template__LabelsEntry **pointers, Paddock__V1__Template__LabelsEntry *entries)
{
	message->n_labels = labels->count / 2;
	message->labels = pointers;
	for (size_t i = 0; i < message->n_labels; i++) {
		paddock__v1__template__labels_entry__init(&entries[i]);
		entries[i].key = labels->item[2 * i];
		entries[i].value = labels->item[2 * i + 1];
		pointers[i] = &entries[i];
	}
}

Paddock__V1__Template *template_message(struct rpc_call *call, const struct template_name *name)
{
	size_t n = name->labels->count / 2;
	Paddock__V1__Template *message = rpc_alloc(call, sizeof(*message));
	Paddock__V1__Template__LabelsEntry **pointers = rpc_alloc(call, (n + 1) * sizeof(*pointers));
	Paddock__V1__Template__LabelsEntry *entries = rpc_alloc(call, (n + 1) * sizeof(*entries));

	if (!message || !pointers || !entries)
		return NULL;
	paddock__v1__template__init(message);
	message->name = (char *)name->name;
	message->tenant = (char *)name->tenant;
	message->created_unix_ms = name->created_unix_ms;
	if (name->content) {
		message->id = name->content->id;
		message->digest = name->content->digest;
		message->size_bytes = name->content->size_bytes;
		message->files = name->content->files;
		message->sandboxes = name->content->users;
	} else {
		message->id = name->snapshot->stored->template_id;
		message->build_id = name->snapshot->stored->build_id;
		message->size_bytes = name->snapshot->stored->layer_bytes + name->snapshot->stored->image_bytes;
		message->has_memory = !name->snapshot->stored->files_only;
	}
	fill_labels(name->labels, message, pointers, entries);
	return message;
}

static void fail_full(struct rpc_call *call)
{
	struct pdk_error err;

	pdk_fail(&err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "the reply is too large for this call");
	rpc_fail(call, &err);
}

static bool is_usable(const struct template_name *entry, const char *tenant)
{
	return entry->tenant[0] == '\0' || strcmp(entry->tenant, tenant) == 0;
}

void templates_list(struct rpc_call *call, const ProtobufCMessage *request)
{
	Paddock__V1__ListTemplatesResponse reply = PADDOCK__V1__LIST_TEMPLATES_RESPONSE__INIT;
	const char *tenant = rpc_principal(call)->tenant;
	size_t room = 0;

	for (const struct template_name *entry = names; entry; entry = entry->next)
		room += is_usable(entry, tenant);
	count_users(call);
	reply.templates = rpc_alloc(call, (room + 1) * sizeof(*reply.templates));
	for (const struct template_name *entry = names; reply.templates && entry; entry = entry->next) {
		if (!is_usable(entry, tenant))
			continue;
		reply.templates[reply.n_templates] = template_message(call, entry);
		if (!reply.templates[reply.n_templates++]) {
			fail_full(call);
			return;
		}
	}
	if (reply.templates)
		rpc_finish(call, &reply.base);
	else
		fail_full(call);
}

static int find_for(struct rpc_call *call, const char *name_or_id, struct template_name **ret, struct pdk_error *err)
{
	int rc = validate_label("template", name_or_id, 128, err);

	if (rc < 0)
		return rc;
	*ret = find(rpc_principal(call)->tenant, name_or_id);
	if (!*ret)
		return pdk_fail(err, -ENOENT, PDK_NOT_FOUND, "template not found");
	return 0;
}

void templates_get(struct rpc_call *call, const ProtobufCMessage *message)
{
	const Paddock__V1__GetTemplateRequest *request = (const void *)message;
	Paddock__V1__Template *reply;
	struct template_name *entry;
	struct pdk_error err;

	if (find_for(call, request->template_, &entry, &err) < 0) {
		rpc_fail(call, &err);
		return;
	}
	count_users(call);
	reply = template_message(call, entry);
	if (reply)
		rpc_finish(call, &reply->base);
	else
		fail_full(call);
}

static int check_removal(struct rpc_call *call, const struct template_name *entry, bool force, struct pdk_error *err)
{
	if (entry->tenant[0] == '\0' && !rpc_principal(call)->is_operator)
		return pdk_fail(err, -EPERM, PDK_PERMISSION_DENIED, "template: a public one is the operator's");
	count_users(call);
	if (entry->content && entry->content->users > 0 && !force)
		return pdk_fail(err, -EBUSY, PDK_FAILED_PRECONDITION, "%u sandboxes use this template",
				entry->content->users);
	return 0;
}

static int forget_record(struct store_batch *batch, const struct template_name *entry)
{
	char key[KEY_SIZE];

	return store_delete(batch, STORE_TEMPLATES, key, make_key(entry->tenant, entry->name, key));
}

void templates_remove(struct rpc_call *call, const ProtobufCMessage *message)
{
	const Paddock__V1__RemoveTemplateRequest *request = (const void *)message;
	Paddock__V1__RemoveTemplateResponse reply = PADDOCK__V1__REMOVE_TEMPLATE_RESPONSE__INIT;
	struct store_batch *batch = NULL;
	struct template_name *entry;
	struct pdk_error err;
	int rc = find_for(call, request->template_, &entry, &err);

	if (rc >= 0)
		rc = check_removal(call, entry, request->force, &err);
	if (rc >= 0) {
		batch = store_batch_create();
		if (!batch || forget_record(batch, entry) < 0)
			rc = pdk_fail_errno(&err, -ENOMEM, "removing the template");
	}
	if (rc < 0) {
		store_batch_free(batch);
		rpc_fail(call, &err);
		return;
	}
	rpc_audit_object(call, NULL, entry->name);
	name_remove(entry);
	rpc_finish_commit(call, batch, &reply.base);
}

int templates_remove_names(struct template_name *const *entries, size_t count, struct store_batch *batch)
{
	for (size_t i = 0; i < count; i++)
		if (forget_record(batch, entries[i]) < 0)
			return -ENOMEM;
	for (size_t i = 0; i < count; i++)
		name_remove(entries[i]);
	return 0;
}

int templates_remove_tenant(const char *tenant, struct store_batch *batch)
{
	for (const struct template_name *entry = names; entry; entry = entry->next) {
		if (strcmp(entry->tenant, tenant) == 0 && forget_record(batch, entry) < 0)
			return -ENOMEM;
	}
	for (struct template_name *entry = names, *next; entry; entry = next) {
		next = entry->next;
		if (strcmp(entry->tenant, tenant) == 0)
			name_remove(entry);
	}
	return 0;
}
