#ifndef PADDOCK_SERVER_STORE_H
#define PADDOCK_SERVER_STORE_H

#include "sandbox/base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The LMDB store. Daemon state lives in memory and is loaded at start; every change is a batch that one
 * writer thread commits (default durability: when `done` runs with 0 it survives a power cut). Batches that wait
 * while a commit runs share the next one. Order of commits = order of store_commit() calls.
 * After a failed fsync the store refuses everything until restart.
 */

enum store_db {
	STORE_META,        /* schema version, counters, server id */
	STORE_SANDBOXES,   /* sandbox id -> internal StoredSandbox */
	STORE_PROCESSES,   /* sandbox id "/" 8-byte big-endian process id -> StoredProcess */
	STORE_TENANTS,     /* name -> StoredTenant */
	STORE_KEYS,        /* key id -> StoredKey */
	STORE_TEMPLATES,   /* tenant "/" name -> StoredTemplate */
	STORE_IDEMPOTENCY, /* tenant "/" key -> StoredIdempotency */
	STORE_AUDIT,       /* 8-byte big-endian sequence -> hash (32) previous hash (32) record bytes */
	STORE_PREVIEWS,    /* preview id -> StoredPreview */
	STORE_SNAPSHOTS,   /* snapshot id -> internal StoredSnapshot */
	STORE_CHECKPOINTS, /* 8-byte big-endian number of records -> signed checkpoint of the audit log (text) */
	STORE_BUILDS,      /* build id -> internal StoredBuild */
	STORE_DB_COUNT
};

struct store_batch;

struct store_batch *store_batch_create(void);
void store_batch_free(struct store_batch *batch);
/* Key and value are copied. -ENOMEM. */
int store_put(struct store_batch *batch, enum store_db db, const void *key, size_t key_length, const void *value,
	      size_t value_length);
int store_delete(struct store_batch *batch, enum store_db db, const void *key, size_t key_length);

/* One audit record. Strings may be NULL; they are cut at their limits and cleaned of invalid UTF-8. Sequence number and
 * hash are given by the writer thread. */
struct audit_entry {
	const char *tenant;
	const char *actor;
	const char *action;
	const char *sandbox_id;
	const char *object;
	const char *outcome;
	const char *detail; /* JSON object */
};
int store_audit(struct store_batch *batch, const struct audit_entry *entry);

/* Commit (consumes the batch). `done` runs under the loop lock with 0 or a negative errno. Without it nobody waits, and
 * the commit may take 10 ms longer, to go along with others. */
void store_commit(struct store_batch *batch, void (*done)(int rc, void *arg), void *arg);
/* The same, for a `done` that is in no hurry: the commit may take 10 ms longer. */
void store_commit_later(struct store_batch *batch, void (*done)(int rc, void *arg), void *arg);

/* For a change that the kernel keeps as long as the machine runs, and that ends with it: true when it is written down where it
 * outlives this process (store_journal.h). Then it may be acknowledged at once, and is committed within 10 ms, or at the next
 * start. False, without touching the batch: wait for it. */
bool store_commit_kept(struct store_batch *batch);

/* Append one audit record on its own, not waited for. */
void audit_event(const struct audit_entry *entry);

/* Iterate a whole database in key order (start-up, audit pages). `visit` returns 0 to go on, 1 to stop, or a
 * negative errno. Starts at the first key >= `from` when given. Opens a read transaction for the call only. */
int store_each(enum store_db db, const void *from, size_t from_length,
	       int (*visit)(const void *key, size_t key_length, const void *value, size_t value_length, void *arg),
	       void *arg);

/* Open (or make) DIR/store, mode 0700, one process at a time (flock). Refuses a newer schema and a file that
 * others can write. */
int store_open(const char *dir, struct pdk_error *err);
/* Before store_open(): where the journal is. Without it nothing is kept there. */
void store_keep_journal(const char *dir);
/* Commit what waits, stop the writer, close. */
void store_close(void);
uint64_t store_audit_count(void);

#endif
