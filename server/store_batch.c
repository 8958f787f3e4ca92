#include "store_batch.h"

#include "audit.h"
#include "sandbox/base/cleanup.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define KEY_MAX 511 /* LMDB's */
#define VALUE_MAX (16u << 20)
#define BATCH_MAX (64u << 20)

struct store_batch *store_batch_create(void)
{
	return calloc(1, sizeof(struct store_batch));
}

void store_batch_free(struct store_batch *batch)
{
	if (!batch)
		return;
	free(batch->bytes);
	free(batch);
}

static int reserve(struct store_batch *batch, size_t more)
{
	size_t capacity = batch->capacity ? batch->capacity : 512;
	uint8_t *bytes;

	if (more > BATCH_MAX - batch->length)
		return -EMSGSIZE;
	while (capacity - batch->length < more)
		capacity *= 2;
	if (capacity == batch->capacity)
		return 0;
	bytes = realloc(batch->bytes, capacity);
	if (!bytes)
		return -ENOMEM;
	batch->bytes = bytes;
	batch->capacity = capacity;
	return 0;
}

static void append(struct store_batch *batch, const void *data, size_t length)
{
	if (length)
		memcpy(batch->bytes + batch->length, data, length);
	batch->length += length;
}

static int add(struct store_batch *batch, enum store_op_kind kind, enum store_db db, const void *key, size_t key_length,
	       const void *value, size_t value_length)
{
	struct store_op op = {.kind = (uint8_t)kind,
			      .db = (uint8_t)db,
			      .key_length = (uint32_t)key_length,
			      .value_length = (uint32_t)value_length};
	int rc;

	if (!batch)
		return -ENOMEM;
	if (key_length > KEY_MAX || (!key_length && kind != STORE_OP_AUDIT))
		rc = -EINVAL;
	else if (value_length > VALUE_MAX)
		rc = -EMSGSIZE;
	else
		rc = reserve(batch, sizeof(op) + key_length + value_length);
	if (rc < 0) {
		batch->error = rc;
		return rc;
	}
	append(batch, &op, sizeof(op));
	append(batch, key, key_length);
	append(batch, value, value_length);
	return 0;
}

int store_put(struct store_batch *batch, enum store_db db, const void *key, size_t key_length, const void *value,
	      size_t value_length)
{
	if (db == STORE_AUDIT) /* append-only: store_audit() */
		return -EINVAL;
	return add(batch, STORE_OP_PUT, db, key, key_length, value, value_length);
}

int store_delete(struct store_batch *batch, enum store_db db, const void *key, size_t key_length)
{
	if (db == STORE_AUDIT)
		return -EINVAL;
	return add(batch, STORE_OP_DELETE, db, key, key_length, NULL, 0);
}

int store_audit(struct store_batch *batch, const struct audit_entry *entry)
{
	_cleanup_free_ uint8_t *packed = NULL;
	size_t length = 0;
	int rc;

	if (!batch)
		return -ENOMEM;
	rc = audit_encode(entry, &packed, &length);
	if (rc < 0) {
		batch->error = rc;
		return rc;
	}
	rc = add(batch, STORE_OP_AUDIT, STORE_AUDIT, NULL, 0, packed, length);
	if (!rc)
		batch->audit_records++;
	return rc;
}

int store_batch_next(const struct store_batch *batch, size_t *offset, struct store_op *ret_op, const uint8_t **ret_key,
		     const uint8_t **ret_value)
{
	if (*offset >= batch->length)
		return 0;
	memcpy(ret_op, batch->bytes + *offset, sizeof(*ret_op));
	*ret_key = batch->bytes + *offset + sizeof(*ret_op);
	*ret_value = *ret_key + ret_op->key_length;
	*offset += sizeof(*ret_op) + ret_op->key_length + ret_op->value_length;
	return 1;
}
