#include "keys.h"

#include "keys_private.h"
#include "log.h"
#include "loop.h"
#include "paddock/internal/store.pb-c.h"
#include "record.h"
#include "rpc.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/hash.h"
#include "tenants.h"
#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

/* The API keys in memory: found by id, written to the store, used and forgotten. */

#define BUCKETS 1024
#define MINUTE_MS 60000
#define DEAD_KEPT_MS (30ll * 24 * 3600 * 1000)
#define USE_FLUSH_NS 30000000000ull
#define EXPIRY_LOOK_MS 5000

static struct key *buckets[BUCKETS];
static struct loop_timer use_timer, expiry_timer;
unsigned int keys_count;

static void arm_expiry(int64_t left_ms);

static struct key **bucket_of(const char id[KEY_ID_LEN])
{
	return &buckets[hash_bytes(id, KEY_ID_LEN) % BUCKETS];
}

struct key *key_find(const char id[KEY_ID_LEN])
{
	struct key *key = *bucket_of(id);

	while (key && memcmp(key->id, id, KEY_ID_LEN))
		key = key->next;
	return key;
}

/*
 * A call is let in once, and may stay open for hours: when its key expires it ends. New calls look at the clock
 * themselves; this may come EXPIRY_LOOK_MS later where that was set forward. One that was set back makes the key valid again.
 */
static void cut_expired(void *arg)
{
	int64_t now = loop_wall_ms(), left = INT64_MAX;

	for (struct key *key = key_after(NULL); key; key = key_after(key)) {
		bool expired = key->expires_unix_ms && key->expires_unix_ms <= now;

		if (expired && !key->cut)
			rpc_cancel_key(key->id);
		key->cut = expired;
		if (key->expires_unix_ms && !expired && key->expires_unix_ms - now < left)
			left = key->expires_unix_ms - now;
	}
	if (left != INT64_MAX)
		arm_expiry(left);
}

static void arm_expiry(int64_t left_ms)
{
	uint64_t wait_ns = left_ms < EXPIRY_LOOK_MS ? (uint64_t)left_ms * 1000000 : EXPIRY_LOOK_MS * 1000000ull;
	uint64_t due_ns = loop_now_ns() + wait_ns;

	if (expiry_timer.due_ns && expiry_timer.due_ns <= due_ns)
		return;
	expiry_timer.handler = cut_expired;
	if (loop_timer_set(&expiry_timer, due_ns) < 0)
		log_event(LOG_ERROR, "keys.timer_lost", "reason", "out of memory", NULL);
}

void key_insert(struct key *key)
{
	struct key **bucket = bucket_of(key->id);
	int64_t left_ms = key->expires_unix_ms - loop_wall_ms();

	key->next = *bucket;
	*bucket = key;
	keys_count++;
	if (key->expires_unix_ms)
		arm_expiry(left_ms > 0 ? left_ms : 0);
}

struct key *key_after(const struct key *key)
{
	size_t i = 0;

	if (key && key->next)
		return key->next;
	if (key)
		i = (size_t)(bucket_of(key->id) - buckets) + 1;
	while (i < BUCKETS && !buckets[i])
		i++;
	return i < BUCKETS ? buckets[i] : NULL;
}

static void forget(struct key *key)
{
	struct key **at = bucket_of(key->id);

	while (*at != key)
		at = &(*at)->next;
	*at = key->next;
	keys_count--;
	explicit_bzero(key, sizeof(*key));
	free(key);
}

bool key_is_valid(const struct key *key, int64_t now_ms)
{
	return !key->revoked_unix_ms && (!key->expires_unix_ms || now_ms < key->expires_unix_ms) &&
	       tenant_find(key->tenant);
}

int key_digest(const char *secret, size_t length, uint8_t ret[KEY_DIGEST_SIZE])
{
	return EVP_Digest(secret, length, ret, NULL, EVP_sha256(), NULL) ? 0 : -ENOMEM;
}

unsigned int scope_names(unsigned int scopes, char *ret[4])
{
	static const struct {
		unsigned int scope;
		const char *name;
	} names[] = {
		{SCOPE_READ, "read"}, {SCOPE_SANDBOX, "sandbox"}, {SCOPE_TEMPLATE, "template"}, {SCOPE_ADMIN, "admin"}};
	unsigned int count = 0;

	for (unsigned int i = 0; i < ARRAY_SIZE(names); i++)
		if (scopes & names[i].scope)
			ret[count++] = (char *)names[i].name;
	return count;
}

/* ---- the store ---- */

int key_write(const struct key *key, struct store_batch *batch)
{
	Paddock__Internal__StoredKey stored = PADDOCK__INTERNAL__STORED_KEY__INIT;

	stored.id = (char *)key->id;
	stored.tenant = (char *)key->tenant;
	stored.name = (char *)key->name;
	stored.scopes = key->scopes;
	stored.secret_sha256 = (ProtobufCBinaryData){sizeof(key->digest), (uint8_t *)key->digest};
	stored.created_unix_ms = key->created_unix_ms;
	stored.expires_unix_ms = key->expires_unix_ms;
	stored.revoked_unix_ms = key->revoked_written;
	stored.last_used_unix_ms = key->last_used_unix_ms;
	return record_put(batch, STORE_KEYS, key->id, &stored.base);
}

static void flush_uses(void *arg)
{
	struct store_batch *batch = store_batch_create();

	for (struct key *key = key_after(NULL); key && batch; key = key_after(key)) {
		if (!key->use_unstored)
			continue;
		key_write(key, batch);
		key->use_unstored = false;
	}
	if (batch)
		store_commit(batch, NULL, NULL);
}

void key_used(struct key *key, int64_t now_ms)
{
	int64_t minute = now_ms - now_ms % MINUTE_MS;

	if (minute <= key->last_used_unix_ms)
		return;
	key->last_used_unix_ms = minute;
	key->use_unstored = true;
	if (use_timer.due_ns)
		return;
	use_timer.handler = flush_uses;
	loop_timer_set(&use_timer, loop_now_ns() + USE_FLUSH_NS);
}

/* ---- loading ---- */

static bool is_long_dead(const Paddock__Internal__StoredKey *stored, int64_t now_ms)
{
	int64_t died = stored->revoked_unix_ms ? stored->revoked_unix_ms : stored->expires_unix_ms;

	return died && died < now_ms - DEAD_KEPT_MS;
}

static bool is_whole(const Paddock__Internal__StoredKey *stored)
{
	return stored && strlen(stored->id) == KEY_ID_LEN && strlen(stored->tenant) <= TENANT_NAME_MAX &&
	       strlen(stored->name) <= KEY_NAME_MAX && stored->secret_sha256.len == KEY_DIGEST_SIZE;
}

static void free_stored(Paddock__Internal__StoredKey **stored)
{
	paddock__internal__stored_key__free_unpacked(*stored, NULL);
}

static int load_one(const void *key_bytes, size_t key_length, const void *value, size_t value_length, void *arg)
{
	_cleanup_(free_stored) Paddock__Internal__StoredKey *stored =
		paddock__internal__stored_key__unpack(NULL, value_length, value);
	struct store_batch *dead = arg;
	struct key *key;

	if (!is_whole(stored))
		return -EBADMSG;
	if (!tenant_find_any(stored->tenant) || is_long_dead(stored, loop_wall_ms()))
		return store_delete(dead, STORE_KEYS, key_bytes, key_length);
	key = calloc(1, sizeof(*key));
	if (!key)
		return -ENOMEM;
	memcpy(key->id, stored->id, KEY_ID_LEN);
	strcpy(key->tenant, stored->tenant);
	strcpy(key->name, stored->name);
	key->scopes = stored->scopes;
	memcpy(key->digest, stored->secret_sha256.data, KEY_DIGEST_SIZE);
	key->created_unix_ms = stored->created_unix_ms;
	key->expires_unix_ms = stored->expires_unix_ms;
	key->revoked_unix_ms = key->revoked_written = stored->revoked_unix_ms;
	key->last_used_unix_ms = stored->last_used_unix_ms;
	key_insert(key);
	return 0;
}

int keys_load(struct pdk_error *err)
{
	struct store_batch *dead = store_batch_create();
	int rc = dead ? store_each(STORE_KEYS, NULL, 0, load_one, dead) : -ENOMEM;

	if (rc < 0) {
		store_batch_free(dead);
		return pdk_fail_errno(err, rc, "loading keys");
	}
	store_commit(dead, NULL, NULL);
	return 0;
}

/* ---- RemoveTenant ---- */

int keys_write_revoked(const char *tenant, int64_t now_ms, struct store_batch *batch)
{
	for (struct key *key = key_after(NULL); key; key = key_after(key)) {
		if (strcmp(key->tenant, tenant) || key->revoked_written)
			continue;
		key->revoked_written = now_ms;
		if (key_write(key, batch) < 0)
			return -ENOMEM;
	}
	return 0;
}

void keys_not_revoked(const char *tenant)
{
	for (struct key *key = key_after(NULL); key; key = key_after(key))
		if (!strcmp(key->tenant, tenant))
			key->revoked_written = key->revoked_unix_ms;
}

void keys_cut(const char *tenant, int64_t now_ms)
{
	for (struct key *key = key_after(NULL); key; key = key_after(key)) {
		if (strcmp(key->tenant, tenant))
			continue;
		if (!key->revoked_unix_ms)
			key->revoked_unix_ms = key->revoked_written = now_ms;
		key->use_unstored = false;
		rpc_cancel_key(key->id);
	}
}

int keys_write_deleted(const char *tenant, struct store_batch *batch)
{
	for (struct key *key = key_after(NULL); key; key = key_after(key))
		if (!strcmp(key->tenant, tenant) && store_delete(batch, STORE_KEYS, key->id, KEY_ID_LEN) < 0)
			return -ENOMEM;
	return 0;
}

void keys_forget(const char *tenant)
{
	struct key *next;

	for (struct key *key = key_after(NULL); key; key = next) {
		next = key_after(key);
		if (!strcmp(key->tenant, tenant))
			forget(key);
	}
}
