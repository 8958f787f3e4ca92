#include "fake.h"
#include "server/config.h"
#include "server/loop.h"
#include "server/metrics.h"
#include "server/store.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The store (only its processes are kept), sandboxes, metrics, configuration. */

#define ROWS_MAX 4096
#define CHANGES_MAX 4096

struct row {
	uint8_t key[64];
	size_t key_length;
	uint8_t *value; /* NULL: a deletion */
	size_t value_length;
};

struct store_batch {
	struct row *changes;
	size_t n;
	struct store_batch *next;
	void (*done)(int rc, void *arg);
	void *arg;
};

struct config server_config;
struct sandbox fake_sandbox;
char fake_lost[256];
char fake_data_dir[256];
bool fake_store_holds;
int fake_store_rc;
char fake_audit_action[64], fake_audit_outcome[64], fake_audit_detail[4200];
unsigned int fake_audits;

static struct row rows[ROWS_MAX];
static size_t n_rows;
static struct store_batch *waiting, **waiting_end = &waiting;

struct store_batch *store_batch_create(void)
{
	return calloc(1, sizeof(struct store_batch));
}

void store_batch_free(struct store_batch *batch)
{
	for (size_t i = 0; batch && i < batch->n; i++)
		free(batch->changes[i].value);
	if (batch)
		free(batch->changes);
	free(batch);
}

static struct row *change(struct store_batch *batch, const void *key, size_t key_length)
{
	struct row *row;

	batch->changes = reallocarray(batch->changes, batch->n + 1, sizeof(*batch->changes));
	row = &batch->changes[batch->n++];
	*row = (struct row){.key_length = key_length};
	memcpy(row->key, key, key_length);
	return row;
}

int store_put(struct store_batch *batch, enum store_db db, const void *key, size_t key_length, const void *value,
	      size_t value_length)
{
	struct row *row = change(batch, key, key_length);

	assert_int_equal(db, STORE_PROCESSES);
	row->value = malloc(value_length + 1);
	row->value_length = value_length;
	memcpy(row->value, value, value_length);
	return 0;
}

int store_delete(struct store_batch *batch, enum store_db db, const void *key, size_t key_length)
{
	change(batch, key, key_length);
	return 0;
}

static int compare(const struct row *row, const void *key, size_t length)
{
	int order = memcmp(row->key, key, row->key_length < length ? row->key_length : length);

	return order ? order : (row->key_length > length) - (row->key_length < length);
}

static void apply(struct row *row)
{
	size_t i = 0;

	while (i < n_rows && compare(&rows[i], row->key, row->key_length) < 0)
		i++;
	if (i < n_rows && compare(&rows[i], row->key, row->key_length) == 0) {
		free(rows[i].value);
		if (row->value) {
			rows[i] = *row;
		} else {
			n_rows--;
			memmove(&rows[i], &rows[i + 1], (n_rows - i) * sizeof(rows[0]));
		}
	} else if (row->value) {
		assert_true(n_rows < ROWS_MAX);
		memmove(&rows[i + 1], &rows[i], (n_rows - i) * sizeof(rows[0]));
		rows[i] = *row;
		n_rows++;
	}
	row->value = NULL;
}

static void commit_one(void *arg)
{
	struct store_batch *batch = waiting;

	if (!batch || (fake_store_holds && !arg))
		return;
	waiting = batch->next;
	if (!waiting)
		waiting_end = &waiting;
	for (size_t i = 0; i < batch->n && fake_store_rc == 0; i++)
		apply(&batch->changes[i]);
	if (batch->done)
		batch->done(fake_store_rc, batch->arg);
	store_batch_free(batch);
}

void store_commit(struct store_batch *batch, void (*done)(int rc, void *arg), void *arg)
{
	batch->done = done;
	batch->arg = arg;
	*waiting_end = batch;
	waiting_end = &batch->next;
	loop_defer(commit_one, NULL);
}

void store_commit_later(struct store_batch *batch, void (*done)(int rc, void *arg), void *arg)
{
	store_commit(batch, done, arg);
}

void fake_store_commit(void)
{
	while (waiting)
		commit_one(&waiting);
}

int store_each(enum store_db db, const void *from, size_t from_length,
	       int (*visit)(const void *key, size_t key_length, const void *value, size_t value_length, void *arg),
	       void *arg)
{
	int rc = 0;

	for (size_t i = 0; i < n_rows && rc == 0; i++) {
		if (compare(&rows[i], from, from_length) >= 0)
			rc = visit(rows[i].key, rows[i].key_length, rows[i].value, rows[i].value_length, arg);
	}
	return rc < 0 ? rc : 0;
}

Paddock__Internal__StoredProcess *fake_stored(uint64_t id)
{
	for (size_t i = 0; i < n_rows; i++) {
		if (rows[i].key[rows[i].key_length - 1] == (id & 0xff) &&
		    rows[i].key[rows[i].key_length - 2] == (id >> 8 & 0xff))
			return paddock__internal__stored_process__unpack(NULL, rows[i].value_length, rows[i].value);
	}
	return NULL;
}

size_t fake_stored_count(void)
{
	return n_rows;
}

void audit_event(const struct audit_entry *entry)
{
	fake_audits++;
	snprintf(fake_audit_action, sizeof(fake_audit_action), "%s", entry->action);
	snprintf(fake_audit_outcome, sizeof(fake_audit_outcome), "%s", entry->outcome);
	snprintf(fake_audit_detail, sizeof(fake_audit_detail), "%s", entry->detail ? entry->detail : "");
}

int sandbox_find(const struct rpc_call *call, const char *id, struct sandbox **ret, struct pdk_error *err)
{
	if (strcmp(id, fake_sandbox.id) != 0)
		return pdk_fail(err, -ENOENT, PDK_NOT_FOUND, "sandbox not found");
	*ret = &fake_sandbox;
	return 0;
}

void sandbox_want(struct sandbox *sandbox)
{
}

void sandbox_use(const struct rpc_call *call, struct sandbox *sandbox)
{
}

const char *sandbox_default_user(const struct sandbox *sandbox)
{
	return "user";
}

const char *sandbox_default_cwd(const struct sandbox *sandbox)
{
	return "";
}

int sandbox_find_running(const struct rpc_call *call, const char *id, struct sandbox **ret, struct pdk_error *err)
{
	int rc = sandbox_find(call, id, ret, err);

	if (rc == 0 && !fake_sandbox.guest)
		return pdk_fail(err, -ESHUTDOWN, PDK_FAILED_PRECONDITION, "sandbox has ended");
	return rc;
}

void sandbox_guest_lost(struct sandbox *sandbox, const char *text)
{
	assert_string_equal(fake_lost, "");
	snprintf(fake_lost, sizeof(fake_lost), "%s", text);
	guest_free(sandbox->guest);
	sandbox->guest = NULL;
}

void metric_add(enum metric metric, int64_t delta)
{
}
