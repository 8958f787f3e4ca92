#include "log.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/hash.h"
#include "sandbox_internal.h"
#include "validate.h"
#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

/*
 * Idempotency keys of Create, remembered for a day: tenant "/" key -> digest of the request, sandbox id. An entry
 * is pending (in memory only) from the moment the first call is let in until its sandbox runs; then it goes into
 * the store in the transaction that makes the sandbox durable, so a crash leaves both or neither. A create that
 * fails takes its pending entry away: the next try is a new one.
 *
 * The digest is taken over the packed request with its maps sorted and without the key, so that a client whose
 * maps have no fixed order repeats itself safely.
 */

#define BUCKETS 4096
#define KEEP_MS (24 * 3600 * 1000ll)
#define KEYS_PER_TENANT 100000
#define SWEEP_NS (60 * 1000000000ull)
#define SWEEP_BATCH 1024
#define DIGEST_LENGTH 32

struct idempotency {
	struct idempotency *next_bucket;
	struct idempotency *older, *newer; /* settled ones, in order of time */
	struct sandbox *pending;
	struct sandbox_owner *owner;
	int64_t created_unix_ms;
	uint8_t digest[DIGEST_LENGTH];
	char sandbox_id[SANDBOX_ID_SIZE];
	char name[]; /* tenant "/" key */
};

static struct idempotency *bucket[BUCKETS];
static struct idempotency *oldest, *newest;
static struct loop_timer sweep;

static struct idempotency **entry_slot(const char *name)
{
	struct idempotency **slot = &bucket[hash_text(name) % BUCKETS];

	while (*slot && strcmp((*slot)->name, name) != 0)
		slot = &(*slot)->next_bucket;
	return slot;
}

static int compare_entries(const void *a, const void *b)
{
	const struct validate_entry *const *left = a, *const *right = b;

	return strcmp((*left)->key, (*right)->key);
}

static void *sorted(void *entries, size_t count)
{
	void **copy = calloc(count + 1, sizeof(*copy));

	if (!copy)
		return NULL;
	if (count > 0)
		memcpy(copy, entries, count * sizeof(*copy));
	qsort(copy, count, sizeof(*copy), compare_entries);
	return copy;
}

struct digest_buffer {
	ProtobufCBuffer base;
	EVP_MD_CTX *context;
};

static void digest_append(ProtobufCBuffer *buffer, size_t length, const uint8_t *data)
{
	EVP_DigestUpdate(((struct digest_buffer *)buffer)->context, data, length);
}

static int make_digest(const Paddock__V1__CreateSandboxRequest *request, uint8_t digest[DIGEST_LENGTH])
{
	Paddock__V1__CreateSandboxRequest copy = *request;
	_cleanup_free_ void *metadata = sorted(request->metadata, request->n_metadata);
	_cleanup_free_ void *env = sorted(request->env, request->n_env);
	struct digest_buffer buffer = {.base.append = digest_append, .context = EVP_MD_CTX_new()};
	int rc = -ENOMEM;

	copy.idempotency_key = (char *)protobuf_c_empty_string;
	copy.metadata = metadata;
	copy.env = env;
	if (metadata && env && buffer.context && EVP_DigestInit_ex(buffer.context, EVP_sha256(), NULL)) {
		protobuf_c_message_pack_to_buffer(&copy.base, &buffer.base);
		rc = EVP_DigestFinal_ex(buffer.context, digest, NULL) ? 0 : -ENOMEM;
	}
	EVP_MD_CTX_free(buffer.context);
	return rc;
}

static struct idempotency *entry_new(const char *name, const char *tenant)
{
	struct idempotency *entry = calloc(1, sizeof(*entry) + strlen(name) + 1);
	struct sandbox_owner *owner = entry ? sandbox_owner_get(tenant) : NULL;

	if (!owner) {
		free(entry);
		return NULL;
	}
	owner->keys++;
	entry->owner = owner;
	strcpy(entry->name, name);
	*entry_slot(name) = entry;
	return entry;
}

static void entry_free(struct idempotency *entry)
{
	*entry_slot(entry->name) = entry->next_bucket;
	entry->owner->keys--;
	sandbox_owner_put(entry->owner);
	free(entry);
}

static void append_newest(struct idempotency *entry)
{
	entry->older = newest;
	entry->newer = NULL;
	if (newest)
		newest->newer = entry;
	else
		oldest = entry;
	newest = entry;
}

static void remove_settled(struct idempotency *entry)
{
	if (entry->older)
		entry->older->newer = entry->newer;
	else
		oldest = entry->newer;
	if (entry->newer)
		entry->newer->older = entry->older;
	else
		newest = entry->older;
	entry_free(entry);
}

static bool is_over(const struct idempotency *entry)
{
	return entry->created_unix_ms + KEEP_MS <= loop_wall_ms();
}

static int repeat(const struct idempotency *entry, const uint8_t digest[DIGEST_LENGTH], struct sandbox **ret_sandbox,
		  struct pdk_error *err)
{
	struct sandbox *sandbox = entry->pending ? entry->pending : sandbox_get(entry->sandbox_id);

	if (memcmp(entry->digest, digest, DIGEST_LENGTH) != 0)
		return pdk_fail(err, -EEXIST, PDK_ABORTED, "idempotency_key: was used with a different request");
	if (!sandbox)
		return pdk_fail(err, -ENOENT, PDK_ABORTED,
				"idempotency_key: its sandbox has ended and is no longer kept");
	*ret_sandbox = sandbox;
	return entry->pending ? IDEMPOTENCY_PENDING : IDEMPOTENCY_DONE;
}

int idempotency_begin(const char *tenant, const Paddock__V1__CreateSandboxRequest *request, struct idempotency **ret,
		      struct sandbox **ret_sandbox, struct pdk_error *err)
{
	char name[TENANT_NAME_MAX + 1 + 128 + 1];
	uint8_t digest[DIGEST_LENGTH];
	const struct sandbox_owner *owner;
	struct idempotency *entry;

	snprintf(name, sizeof(name), "%s/%s", tenant, request->idempotency_key);
	if (make_digest(request, digest) < 0)
		return pdk_fail_errno(err, -ENOMEM, "reading the request");
	entry = *entry_slot(name);
	if (entry && (entry->pending || !is_over(entry)))
		return repeat(entry, digest, ret_sandbox, err);
	if (entry) /* a day old, only not swept yet; its record is overwritten, or swept after the next start */
		remove_settled(entry);
	owner = sandbox_owner_find(tenant);
	if (owner && owner->keys >= KEYS_PER_TENANT)
		return pdk_fail(err, -ENOSPC, PDK_RESOURCE_EXHAUSTED,
				"idempotency keys exhausted: %u of %u were used in the last 24 hours", owner->keys,
				KEYS_PER_TENANT);
	entry = entry_new(name, tenant);
	if (!entry)
		return pdk_fail_errno(err, -ENOMEM, "remembering the idempotency key");
	memcpy(entry->digest, digest, DIGEST_LENGTH);
	*ret = entry;
	return IDEMPOTENCY_NEW;
}

void idempotency_bind(struct idempotency *entry, struct sandbox *sandbox)
{
	entry->pending = sandbox;
	sandbox->private->idempotency = entry;
}

static int entry_store(struct idempotency *entry, struct store_batch *batch)
{
	Paddock__Internal__StoredIdempotency record = PADDOCK__INTERNAL__STORED_IDEMPOTENCY__INIT;
	uint8_t packed[128];
	size_t length;

	record.request_sha256 = (ProtobufCBinaryData){.data = entry->digest, .len = DIGEST_LENGTH};
	record.sandbox_id = entry->sandbox_id;
	record.created_unix_ms = entry->created_unix_ms;
	length = paddock__internal__stored_idempotency__get_packed_size(&record);
	if (length > sizeof(packed))
		return -EMSGSIZE;
	paddock__internal__stored_idempotency__pack(&record, packed);
	return store_put(batch, STORE_IDEMPOTENCY, entry->name, strlen(entry->name), packed, length);
}

int idempotency_settle(struct idempotency *entry, struct store_batch *batch)
{
	int rc;

	memcpy(entry->sandbox_id, entry->pending->id, SANDBOX_ID_SIZE);
	entry->created_unix_ms = loop_wall_ms();
	rc = entry_store(entry, batch);
	if (rc < 0)
		return rc;
	entry->pending = NULL;
	append_newest(entry);
	return 0;
}

void idempotency_forget(struct idempotency *entry)
{
	entry_free(entry);
}

static void on_sweep(void *arg)
{
	struct store_batch *batch = store_batch_create();
	unsigned int n = 0;

	for (; batch && oldest && is_over(oldest) && n < SWEEP_BATCH; n++) {
		if (store_delete(batch, STORE_IDEMPOTENCY, oldest->name, strlen(oldest->name)) < 0)
			break;
		remove_settled(oldest);
	}
	if (n > 0)
		store_commit(batch, NULL, NULL);
	else
		store_batch_free(batch);
	(void)loop_timer_set(&sweep, loop_now_ns() + (n == SWEEP_BATCH ? 0 : SWEEP_NS));
}

static int load_entry(const void *key, size_t key_length, const void *value, size_t value_length, void *arg)
{
	Paddock__Internal__StoredIdempotency *record =
		paddock__internal__stored_idempotency__unpack(NULL, value_length, value);
	_cleanup_free_ char *name = strndup(key, key_length);
	char *slash = name ? strchr(name, '/') : NULL;
	struct idempotency *entry = NULL;

	if (record && slash && record->request_sha256.len == DIGEST_LENGTH && sandbox_id_valid(record->sandbox_id)) {
		char tenant[TENANT_NAME_MAX + 1];

		snprintf(tenant, sizeof(tenant), "%.*s", (int)(slash - name), name);
		entry = entry_new(name, tenant);
	}
	if (entry) {
		memcpy(entry->digest, record->request_sha256.data, DIGEST_LENGTH);
		memcpy(entry->sandbox_id, record->sandbox_id, SANDBOX_ID_SIZE);
		entry->created_unix_ms = record->created_unix_ms;
		append_newest(entry); /* put into order afterwards */
	} else {
		log_event(LOG_WARN, "store.bad_record", "kind", "idempotency", NULL);
	}
	if (record)
		paddock__internal__stored_idempotency__free_unpacked(record, NULL);
	return 0;
}

static int compare_age(const void *a, const void *b)
{
	const struct idempotency *const *left = a, *const *right = b;

	return ((*left)->created_unix_ms > (*right)->created_unix_ms) -
	       ((*left)->created_unix_ms < (*right)->created_unix_ms);
}

static int sort_by_age(void)
{
	_cleanup_free_ struct idempotency **all = NULL;
	size_t n = 0, i = 0;

	for (struct idempotency *entry = oldest; entry; entry = entry->newer)
		n++;
	all = calloc(n + 1, sizeof(struct idempotency *));
	if (!all)
		return -ENOMEM;
	for (struct idempotency *entry = oldest; entry; entry = entry->newer)
		all[i++] = entry;
	qsort(all, n, sizeof(struct idempotency *), compare_age);
	oldest = newest = NULL;
	for (i = 0; i < n; i++)
		append_newest(all[i]);
	return 0;
}

int idempotency_start(void)
{
	int rc = store_each(STORE_IDEMPOTENCY, NULL, 0, load_entry, NULL);

	if (rc >= 0)
		rc = sort_by_age();
	if (rc < 0)
		return rc;
	sweep.handler = on_sweep;
	return loop_timer_set(&sweep, loop_now_ns() + SWEEP_NS);
}

void idempotency_stop(void)
{
	loop_timer_cancel(&sweep);
	while (oldest)
		remove_settled(oldest);
}
