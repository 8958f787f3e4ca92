#include "build_internal.h"

#include "sandbox/base/cleanup.h"
#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

/*
 * Layers that builds leave for others: snapshots with a key, which says how they were made, step by step from the base.
 * They belong to a tenant and are for its builds alone. Their number and size are bounded; what was not used for
 * longest goes.
 */

#define LAYERS_OF_TENANT_MAX 64
#define BYTES_OF_TENANT_MAX (16ull << 30)
#define LAYERS_MAX 512

static bool digest(const uint8_t *before, const uint8_t *data, size_t length, uint8_t key[BUILD_KEY_SIZE])
{
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	bool done = context && EVP_DigestInit_ex(context, EVP_sha256(), NULL) == 1 &&
		    (!before || EVP_DigestUpdate(context, before, BUILD_KEY_SIZE) == 1) &&
		    EVP_DigestUpdate(context, data, length) == 1 && EVP_DigestFinal_ex(context, key, NULL) == 1;

	EVP_MD_CTX_free(context);
	return done;
}

void build_cache_base(const char *template_id, const struct snapshot *snapshot, uint8_t key[BUILD_KEY_SIZE])
{
	char text[TEMPLATE_ID_SIZE + SANDBOX_ID_SIZE + 2];

	snprintf(text, sizeof(text), "%s/%s", template_id, snapshot ? snapshot->stored->id : "");
	memset(key, 0, BUILD_KEY_SIZE);
	(void)digest(NULL, (const uint8_t *)text, strlen(text), key);
}

bool build_cache_step(const uint8_t before[BUILD_KEY_SIZE], const Paddock__V1__TemplateBuildStep *step,
		      uint8_t key[BUILD_KEY_SIZE])
{
	Paddock__V1__TemplateBuildStep plain = *step;
	_cleanup_free_ uint8_t *packed = NULL;
	size_t length;

	plain.force = false;
	length = paddock__v1__template_build_step__get_packed_size(&plain);
	packed = malloc(length + 1);
	if (!packed)
		return false;
	paddock__v1__template_build_step__pack(&plain, packed);
	return digest(before, packed, length, key);
}

static bool is_cached(const struct snapshot *snapshot, const char *tenant)
{
	return snapshot->state == SNAPSHOT_READY && snapshot->stored->cache_key.len == BUILD_KEY_SIZE &&
	       (!tenant || strcmp(snapshot->stored->tenant, tenant) == 0);
}

struct snapshot *build_cache_find(const char *tenant, const uint8_t key[BUILD_KEY_SIZE])
{
	for (struct snapshot *snapshot = snapshot_newest; snapshot; snapshot = snapshot->next)
		if (is_cached(snapshot, tenant) && memcmp(snapshot->stored->cache_key.data, key, BUILD_KEY_SIZE) == 0)
			return snapshot;
	return NULL;
}

static void store(struct snapshot *layer)
{
	struct store_batch *batch = store_batch_create();

	if (batch && snapshot_store(batch, layer) >= 0)
		store_commit(batch, NULL, NULL);
	else
		store_batch_free(batch);
}

static void forget(struct snapshot *layer)
{
	free(layer->stored->cache_key.data);
	layer->stored->cache_key = (ProtobufCBinaryData){0};
	if (layer->names)
		store(layer);
	else
		snapshot_release(layer);
}

/* What was not used for longest, of a tenant or of all, until it is within these bounds. */
static void shrink(const char *tenant, unsigned int max, uint64_t max_bytes)
{
	for (;;) {
		struct snapshot *oldest = NULL;
		unsigned int count = 0;
		uint64_t bytes = 0;

		for (struct snapshot *layer = snapshot_newest; layer; layer = layer->next) {
			if (!is_cached(layer, tenant))
				continue;
			count++;
			bytes += layer->stored->layer_bytes;
			if (!oldest || layer->stored->used_unix_ms < oldest->stored->used_unix_ms)
				oldest = layer;
		}
		if (!oldest || (count <= max && bytes <= max_bytes))
			return;
		forget(oldest);
	}
}

int build_cache_add(struct snapshot *layer, const uint8_t key[BUILD_KEY_SIZE])
{
	struct snapshot *before = build_cache_find(layer->stored->tenant, key);
	struct store_batch *batch;

	if (before)
		forget(before); /* a forced build: the newer one counts */
	shrink(layer->stored->tenant, LAYERS_OF_TENANT_MAX - 1, BYTES_OF_TENANT_MAX);
	shrink(NULL, LAYERS_MAX - 1, UINT64_MAX);
	layer->stored->cache_key.data = malloc(BUILD_KEY_SIZE);
	batch = layer->stored->cache_key.data ? store_batch_create() : NULL;
	if (!batch)
		return -ENOMEM;
	memcpy(layer->stored->cache_key.data, key, BUILD_KEY_SIZE);
	layer->stored->cache_key.len = BUILD_KEY_SIZE;
	layer->stored->used_unix_ms = loop_wall_ms();
	if (snapshot_store(batch, layer) < 0) {
		store_batch_free(batch);
		return -ENOMEM;
	}
	store_commit(batch, NULL, NULL);
	return 0;
}

void build_cache_touch(struct snapshot *layer)
{
	layer->stored->used_unix_ms = loop_wall_ms();
	store(layer);
}
