#include "store.h"

#include "audit.h"
#include "log.h"
#include "loop.h"
#include "metrics.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/fault.h"
#include "store_anchor.h"
#include "store_batch.h"
#include "store_env.h"
#include "store_journal.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>

/*
 * store_commit() queues a batch; the writer thread takes all that wait, applies them in one transaction,
 * commits it (LMDB syncs the data, then writes its meta page through an O_DSYNC descriptor) and runs the callbacks
 * under the loop lock. While it commits, the next batches gather: that is the group commit. A batch that nobody
 * waits for (records of reads, intents) starts no commit of its own at once: it goes along with the next one, or after
 * LAZY_NS.
 *
 * When a transaction fails, nothing of it is in the store and every batch of it fails. A full disk passes: LMDB
 * never overwrites a page that the last good state uses, so what a failed write or sync left behind is
 * unreferenced, and the next transaction writes its pages anew. Any other failure (EIO above all) ends the trust in the
 * device and in the page cache: the store then refuses everything until a restart reads the state back.
 *
 * A batch that was acknowledged when it was in the journal (store_commit_kept()) is not given up: when its transaction fails
 * it goes back to the front of the queue, so that order is kept, and nothing more is acknowledged that way until one succeeds.
 *
 * The audit chain's head lives in the writer: sequence and hash are given inside the transaction and kept only if
 * it commits. From time to time, and at the end, the head is signed and written down outside (store_anchor.c).
 *
 * Locks: store.lock guards the queue and the durable head; store.map is held shared by readers and exclusively
 * while the map grows or goes away. Neither is held while a callback runs.
 */

#define LAZY_NS 10000000ull
#define RETRY_NS 1000000000ull
#define JOURNAL_KEY "journal" /* in STORE_META: the number of the last batch of the journal that is in the store */
#define FULL_BYTES (1u << 20) /* less than this is a full disk */
#define EVENTS_MAX_BYTES (64u << 20)

static struct {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct store_batch *first, **last;
	size_t queued_bytes;
	bool urgent;          /* somebody waits for one of the queue */
	uint64_t lazy_due_ns; /* when the queue is committed all the same; 0: it is empty */
	uint64_t events_dropped;
	bool failing; /* the last transaction did */
	struct store_journal journal;
	struct audit_head durable;
	bool running, stopping;

	pthread_rwlock_t map;
	bool readable;
	struct store_env env;
	pthread_t thread;

	const char *journal_dir;

	/* the writer's own */
	int broken; /* errno that made the store refuse everything */
	struct audit_head head;
	struct store_anchor anchor;
} store = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.map = PTHREAD_RWLOCK_INITIALIZER,
	.last = &store.first,
	.env = STORE_ENV_CLOSED,
	.journal = STORE_JOURNAL_CLOSED,
};

/* ---- one transaction ---- */

static int append_audit(MDB_txn *txn, struct audit_head *head, const struct store_batch *batch, const uint8_t *tail,
			size_t tail_length)
{
	uint8_t key[8], prefix[AUDIT_PREFIX_MAX], *stored;
	size_t prefix_length = audit_encode_prefix(prefix, head->count + 1, batch->wall_ms, batch->boot_ns);
	size_t length = prefix_length + tail_length;
	_cleanup_free_ uint8_t *value = malloc(2 * AUDIT_HASH_SIZE + length);
	int rc;

	if (!value)
		return -ENOMEM;
	stored = value + 2 * AUDIT_HASH_SIZE;
	memcpy(value + AUDIT_HASH_SIZE, head->hash, AUDIT_HASH_SIZE);
	memcpy(stored, prefix, prefix_length);
	memcpy(stored + prefix_length, tail, tail_length);
	rc = audit_hash(head->hash, stored, length, value);
	if (rc < 0)
		return rc;
	head->count++;
	audit_key(head->count, key);
	rc = mdb_put(txn, store.env.dbi[STORE_AUDIT], &(MDB_val){sizeof(key), key},
		     &(MDB_val){2 * AUDIT_HASH_SIZE + length, value}, MDB_APPEND);
	memcpy(head->hash, value, AUDIT_HASH_SIZE);
	return rc;
}

/* 0, an LMDB code, or a negative errno of our own (-ENOMEM is in neither's way). */
static int apply_batch(MDB_txn *txn, struct audit_head *head, const struct store_batch *batch)
{
	const uint8_t *key, *value;
	struct store_op op;
	size_t offset = 0;
	int rc = 0;

	while (!rc && store_batch_next(batch, &offset, &op, &key, &value)) {
		MDB_val mdb_key = {op.key_length, (void *)key}, mdb_value = {op.value_length, (void *)value};

		if (op.kind == STORE_OP_PUT)
			rc = mdb_put(txn, store.env.dbi[op.db], &mdb_key, &mdb_value, 0);
		else if (op.kind == STORE_OP_DELETE)
			rc = mdb_del(txn, store.env.dbi[op.db], &mdb_key, NULL);
		else
			rc = append_audit(txn, head, batch, value, op.value_length);
		if (rc == MDB_NOTFOUND && op.kind == STORE_OP_DELETE)
			rc = 0;
	}
	return rc;
}

/* The number of the last one of them that is in the journal. */
static uint64_t last_kept(const struct store_batch *batches)
{
	uint64_t sequence = 0;

	for (; batches; batches = batches->next)
		if (batches->sequence)
			sequence = batches->sequence;
	return sequence;
}

static int note_kept(MDB_txn *txn, uint64_t sequence)
{
	if (!sequence)
		return 0;
	return mdb_put(txn, store.env.dbi[STORE_META], &(MDB_val){strlen(JOURNAL_KEY), (void *)JOURNAL_KEY},
		       &(MDB_val){sizeof(sequence), &sequence}, 0);
}

/* All batches in one transaction. 0 or what LMDB says. */
static int transact(const struct store_batch *batches, struct audit_head *head)
{
	MDB_txn *txn;
	int rc = mdb_txn_begin(store.env.env, NULL, 0, &txn);

	if (rc)
		return rc;
	for (const struct store_batch *batch = batches; batch && !rc; batch = batch->next)
		if (!batch->error)
			rc = apply_batch(txn, head, batch);
	if (!rc)
		rc = note_kept(txn, last_kept(batches));
	if (rc) {
		mdb_txn_abort(txn);
		return rc;
	}
	return mdb_txn_commit(txn);
}

static int grow(void)
{
	int rc;

	pthread_rwlock_wrlock(&store.map);
	rc = store_env_grow(&store.env);
	if (rc < 0)
		store.readable = false;
	pthread_rwlock_unlock(&store.map);
	return rc;
}

/* LMDB reports a write that a full disk cut short as EIO. */
static bool disk_is_full(void)
{
	struct statvfs stat;

	return !fstatvfs(store.env.dir_fd, &stat) && (uint64_t)stat.f_bavail * stat.f_frsize < FULL_BYTES;
}

/* What a failed transaction means: a negative errno for its batches, and perhaps the end of the store. */
static int judge_failure(int mdb_rc)
{
	int rc = mdb_rc == -ENOMEM ? mdb_rc : store_errno(mdb_rc);

	if (rc == -EIO && mdb_rc == EIO && disk_is_full())
		rc = -ENOSPC;
	if (rc != -ENOSPC && rc != -EDQUOT && rc != -ENOMEM)
		store.broken = -rc;
	log_event(LOG_ERROR, store.broken ? "store.broken" : "store.failed", "error", mdb_strerror(-rc), NULL);
	return rc;
}

static int write_batches(const struct store_batch *batches)
{
	struct audit_head head;
	int rc;

	if (store.broken)
		return -EIO;
	FAULT("store_commit");
	do {
		head = store.head;
		rc = transact(batches, &head);
		if (rc == MDB_MAP_FULL && grow() < 0) {
			store.broken = ENOMEM;
			return judge_failure(ENOMEM);
		}
	} while (rc == MDB_MAP_FULL);
	if (rc)
		return judge_failure(rc);
	FAULT("store_committed");
	metric_add(METRIC_STORE_COMMITS, 1);
	metric_add(METRIC_AUDIT_RECORDS, (int64_t)(head.count - store.head.count));
	store.head = head;
	pthread_mutex_lock(&store.lock);
	store.durable = head;
	store.failing = false;
	if (last_kept(batches) == store.journal.sequence)
		store_journal_rewind(&store.journal);
	pthread_mutex_unlock(&store.lock);
	return 0;
}

/* ---- the writer thread ---- */

static bool is_empty(const struct store_batch *batches)
{
	for (; batches; batches = batches->next)
		if (batches->length && !batches->error)
			return false;
	return true;
}

/* Tell everybody, in the order of their commits, and free the batches. */
static void deliver(struct store_batch *batches, int rc)
{
	struct store_batch *batch;
	bool locked = false;
	int count = 0;

	for (; (batch = batches); count++) {
		batches = batch->next;
		if (batch->done) {
			if (!locked)
				loop_lock();
			locked = true;
			batch->done(batch->error ? batch->error : rc, batch->arg);
		}
		store_batch_free(batch);
	}
	if (locked)
		loop_unlock();
	metric_add(METRIC_STORE_BATCHES, count);
}

/* Take the anchor along. A checkpoint of the history is kept in the store too, so that exports can carry it. */
static void move_anchor(bool now)
{
	char checkpoint[AUDIT_CHECKPOINT_MAX];
	struct store_batch *batch;
	uint8_t key[8];

	if (!store_anchor_move(&store.anchor, store.env.dir_fd, &store.head, now, checkpoint))
		return;
	batch = store_batch_create();
	if (!batch)
		return;
	audit_key(store.head.count, key);
	if (store_put(batch, STORE_CHECKPOINTS, key, sizeof(key), checkpoint, strlen(checkpoint)) < 0)
		store_batch_free(batch);
	else
		deliver(batch, write_batches(batch));
}

/* When the writer has something to do though nobody waits; 0: never. */
static uint64_t due_unasked(void)
{
	uint64_t anchor = store_anchor_due_ns(&store.anchor, &store.head);

	return !anchor || (store.lazy_due_ns && store.lazy_due_ns < anchor) ? store.lazy_due_ns : anchor;
}

/* Wait for batches; NULL when only the anchor is due, or at the end. Called and returns with the lock held. */
static struct store_batch *wait_batches(void)
{
	struct store_batch *batches;

	while (!store.urgent && !store.stopping) {
		uint64_t due = due_unasked();
		struct timespec until = {(time_t)(due / 1000000000), (long)(due % 1000000000)};

		if (!due)
			pthread_cond_wait(&store.wake, &store.lock);
		else if (pthread_cond_timedwait(&store.wake, &store.lock, &until) == ETIMEDOUT)
			break;
	}
	batches = store.first;
	store.urgent = false;
	store.lazy_due_ns = 0;
	store.first = NULL;
	store.last = &store.first;
	store.queued_bytes = 0;
	return batches;
}

/* What was acknowledged is tried again, before all else. At the end, or when the store is broken, it is left to the journal. */
static struct store_batch *take_back(struct store_batch *batches)
{
	struct store_batch *others = NULL, **others_end = &others, *kept = NULL, **kept_end = &kept;

	pthread_mutex_lock(&store.lock);
	store.failing = true;
	for (; batches; batches = batches->next) {
		bool again = batches->sequence && !store.broken && !store.stopping;
		struct store_batch ***end = again ? &kept_end : &others_end;

		**end = batches;
		*end = &batches->next;
		store.queued_bytes += again ? batches->length : 0;
	}
	*others_end = NULL;
	*kept_end = NULL;
	if (kept) {
		*kept_end = store.first;
		if (!store.first)
			store.last = kept_end;
		store.first = kept;
		store.lazy_due_ns = store_now_ns() + RETRY_NS;
	}
	pthread_mutex_unlock(&store.lock);
	return others;
}

static void write_and_deliver(struct store_batch *batches)
{
	int rc = is_empty(batches) ? 0 : write_batches(batches);

	deliver(rc < 0 ? take_back(batches) : batches, rc);
}

static void *writer(void *arg)
{
	pthread_mutex_lock(&store.lock);
	while (!store.stopping || store.first) {
		struct store_batch *batches = wait_batches();

		pthread_mutex_unlock(&store.lock);
		if (batches)
			write_and_deliver(batches);
		move_anchor(false);
		pthread_mutex_lock(&store.lock);
	}
	pthread_mutex_unlock(&store.lock);
	move_anchor(true);
	return NULL;
}

static int start_writer(struct pdk_error *err)
{
	pthread_condattr_t monotonic;
	sigset_t all, old;
	int rc;

	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&store.wake, &monotonic);
	pthread_condattr_destroy(&monotonic);
	sigfillset(&all); /* signals are the main thread's */
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&store.thread, NULL, writer, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc)
		return pdk_fail_errno(err, -rc, "store: starting the writer");
	pthread_setname_np(store.thread, "store");
	return 0;
}

/* ---- opening ---- */

/* The chain goes on from its last record. */
static int load_head(struct pdk_error *err)
{
	MDB_val key, value;
	struct audit_view view;
	MDB_cursor *cursor;
	MDB_txn *txn;
	int rc = mdb_txn_begin(store.env.env, NULL, MDB_RDONLY, &txn);

	store.head = (struct audit_head){0};
	if (rc)
		return pdk_fail_errno(err, store_errno(rc), "store: reading the audit log");
	rc = mdb_cursor_open(txn, store.env.dbi[STORE_AUDIT], &cursor);
	if (!rc) {
		rc = mdb_cursor_get(cursor, &key, &value, MDB_LAST);
		if (!rc && audit_view(key.mv_data, key.mv_size, value.mv_data, value.mv_size, &view) < 0)
			rc = MDB_CORRUPTED;
		if (!rc) {
			store.head.count = view.sequence;
			memcpy(store.head.hash, view.hash, AUDIT_HASH_SIZE);
		}
		mdb_cursor_close(cursor);
	}
	mdb_txn_abort(txn);
	if (rc && rc != MDB_NOTFOUND)
		return pdk_fail_errno(err, store_errno(rc), "store: reading the audit log");
	store.durable = store.head;
	return 0;
}

void store_keep_journal(const char *dir)
{
	store.journal_dir = dir;
}

static int find_kept(const void *key, size_t key_length, const void *value, size_t value_length, void *arg)
{
	if (key_length == strlen(JOURNAL_KEY) && memcmp(key, JOURNAL_KEY, key_length) == 0 &&
	    value_length == sizeof(uint64_t))
		memcpy(arg, value, value_length);
	return 1;
}

/* What an earlier server has acknowledged and not stored. */
static int catch_up(struct pdk_error *err)
{
	struct store_batch *lost = NULL;
	uint64_t stored = 0;
	unsigned int n = 0;
	int rc = store_each(STORE_META, JOURNAL_KEY, strlen(JOURNAL_KEY), find_kept, &stored);

	if (rc < 0)
		return pdk_fail_errno(err, rc, "store: reading the journal's number");
	rc = store_journal_open(&store.journal, store.journal_dir, stored, &lost, err);
	if (rc < 0 || !lost)
		return rc;
	for (const struct store_batch *batch = lost; batch; batch = batch->next)
		n++;
	rc = write_batches(lost);
	while (lost) {
		struct store_batch *next = lost->next;

		store_batch_free(lost);
		lost = next;
	}
	if (rc < 0)
		return pdk_fail_errno(err, rc, "store: what was acknowledged last");
	log_event(LOG_WARN, "store.caught_up", "batches", log_u64(n), NULL);
	return 0;
}

int store_open(const char *dir, struct pdk_error *err)
{
	int rc = store_env_open(&store.env, dir, err);

	if (rc < 0)
		return rc;
	store.broken = 0;
	store.stopping = store.failing = false;
	store.readable = true;
	rc = load_head(err);
	if (!rc)
		rc = store_anchor_open(&store.anchor, &store.env, &store.head, err);
	if (!rc && store.journal_dir)
		rc = catch_up(err);
	if (!rc)
		rc = start_writer(err);
	if (rc < 0) {
		store.readable = false;
		store_journal_close(&store.journal);
		audit_sign_close();
		store_env_close(&store.env);
		return rc;
	}
	pthread_mutex_lock(&store.lock);
	store.running = true;
	pthread_mutex_unlock(&store.lock);
	log_event(LOG_INFO, "store.opened", "audit_records", log_u64(store_audit_count()), NULL);
	return 0;
}

void store_close(void)
{
	bool running;

	audit_check_stop();
	pthread_mutex_lock(&store.lock);
	running = store.running;
	store.stopping = true;
	store.running = false;
	if (running)
		pthread_cond_signal(&store.wake);
	pthread_mutex_unlock(&store.lock);
	if (!running)
		return;
	pthread_join(store.thread, NULL);
	pthread_cond_destroy(&store.wake);
	store_journal_close(&store.journal);
	pthread_rwlock_wrlock(&store.map);
	store.readable = false;
	audit_sign_close();
	store_env_close(&store.env);
	pthread_rwlock_unlock(&store.map);
}

/* ---- use ---- */

/* With the lock held. */
static void enqueue_locked(struct store_batch *batch, void (*done)(int rc, void *arg), void *arg, bool urgent)
{
	bool wake;

	batch->done = done;
	batch->arg = arg;
	batch->next = NULL;
	*store.last = batch;
	store.last = &batch->next;
	store.queued_bytes += batch->length;
	/* The first of a queue that nobody waits for only sets the writer's alarm. */
	wake = urgent ? !store.urgent : !store.lazy_due_ns;
	if (urgent)
		store.urgent = true;
	if (!store.lazy_due_ns)
		store.lazy_due_ns = store_now_ns() + LAZY_NS;
	if (store.running && wake)
		pthread_cond_signal(&store.wake);
}

static void stamp(struct store_batch *batch)
{
	batch->wall_ms = loop_wall_ms();
	batch->boot_ns = loop_now_ns();
}

static void enqueue(struct store_batch *batch, void (*done)(int rc, void *arg), void *arg, bool urgent)
{
	pthread_mutex_lock(&store.lock);
	stamp(batch);
	enqueue_locked(batch, done, arg, urgent);
	pthread_mutex_unlock(&store.lock);
}

bool store_commit_kept(struct store_batch *batch)
{
	bool kept;

	pthread_mutex_lock(&store.lock);
	stamp(batch);
	kept = store.running && !store.failing && !batch->error && store_journal_append(&store.journal, batch);
	if (kept)
		enqueue_locked(batch, NULL, NULL, false);
	pthread_mutex_unlock(&store.lock);
	return kept;
}

void store_commit(struct store_batch *batch, void (*done)(int rc, void *arg), void *arg)
{
	enqueue(batch, done, arg, done != NULL);
}

void store_commit_later(struct store_batch *batch, void (*done)(int rc, void *arg), void *arg)
{
	enqueue(batch, done, arg, false);
}

/* Records that nobody waits for must not fill the memory when the disk stalls: they are counted instead. */
static bool drop_event(uint64_t *ret_dropped)
{
	bool full;

	pthread_mutex_lock(&store.lock);
	full = store.queued_bytes > EVENTS_MAX_BYTES;
	if (full) {
		store.events_dropped++;
	} else {
		*ret_dropped = store.events_dropped;
		store.events_dropped = 0;
	}
	pthread_mutex_unlock(&store.lock);
	return full;
}

void audit_event(const struct audit_entry *entry)
{
	struct store_batch *batch;
	uint64_t dropped;
	char detail[64];

	if (drop_event(&dropped))
		return;
	batch = store_batch_create();
	if (!batch)
		return;
	if (dropped) {
		snprintf(detail, sizeof(detail), "{\"records\":%llu}", (unsigned long long)dropped);
		store_audit(batch, &(struct audit_entry){.actor = "system",
							 .action = "audit.dropped",
							 .detail = detail,
							 .outcome = "RESOURCE_EXHAUSTED"});
	}
	store_audit(batch, entry);
	store_commit(batch, NULL, NULL);
}

static int each(MDB_cursor *cursor, const void *from, size_t from_length,
		int (*visit)(const void *key, size_t key_length, const void *value, size_t value_length, void *arg),
		void *arg)
{
	MDB_val key = {from_length, (void *)from}, value;
	int rc = mdb_cursor_get(cursor, &key, &value, from ? MDB_SET_RANGE : MDB_FIRST);

	while (!rc) {
		int visited = visit(key.mv_data, key.mv_size, value.mv_data, value.mv_size, arg);

		if (visited)
			return visited < 0 ? visited : 0;
		rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
	}
	return rc == MDB_NOTFOUND ? 0 : store_errno(rc);
}

int store_each(enum store_db db, const void *from, size_t from_length,
	       int (*visit)(const void *key, size_t key_length, const void *value, size_t value_length, void *arg),
	       void *arg)
{
	MDB_cursor *cursor;
	MDB_txn *txn;
	int rc = -ESHUTDOWN;

	pthread_rwlock_rdlock(&store.map);
	if (store.readable)
		rc = store_errno(mdb_txn_begin(store.env.env, NULL, MDB_RDONLY, &txn));
	if (!rc) {
		rc = store_errno(mdb_cursor_open(txn, store.env.dbi[db], &cursor));
		if (!rc) {
			rc = each(cursor, from, from_length, visit, arg);
			mdb_cursor_close(cursor);
		}
		mdb_txn_abort(txn);
	}
	pthread_rwlock_unlock(&store.map);
	return rc;
}

uint64_t store_audit_count(void)
{
	struct audit_head head;

	store_audit_head(&head);
	return head.count;
}

void store_audit_head(struct audit_head *ret)
{
	pthread_mutex_lock(&store.lock);
	*ret = store.durable;
	pthread_mutex_unlock(&store.lock);
}

bool store_audit_trusted(void)
{
	return store.anchor.trusted;
}

int store_dir_fd(void)
{
	return store.env.dir_fd;
}
