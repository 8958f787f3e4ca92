#ifndef PADDOCK_SERVER_AUDIT_H
#define PADDOCK_SERVER_AUDIT_H

#include "auth.h"
#include "store.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The audit log: how a record is encoded and chained, the head anchor beside the store, and the check of both.
 * Nothing here takes the loop lock. */

#define AUDIT_HASH_SIZE 32
#define AUDIT_PREFIX_MAX 33
#define AUDIT_SIGNATURE_SIZE 64
#define AUDIT_CHECKPOINT_MAX 288 /* of a line, with its end */

/* Where the chain stands: the number of records, and the hash of the newest (zeros when there is none). */
struct audit_head {
	uint64_t count;
	uint8_t hash[AUDIT_HASH_SIZE];
};

/* Pack everything of an AuditRecord but sequence and times: fields 4 to 10, cleaned and cut. `ret` is malloc'ed. */
int audit_encode(const struct audit_entry *entry, uint8_t **ret, size_t *ret_length);

/* Pack fields 1 to 3, which go in front. Returns the length. */
size_t audit_encode_prefix(uint8_t prefix[AUDIT_PREFIX_MAX], uint64_t sequence, int64_t wall_ms, uint64_t boot_ns);

/* SHA-256(previous || stored). */
int audit_hash(const uint8_t previous[AUDIT_HASH_SIZE], const void *stored, size_t length,
	       uint8_t ret[AUDIT_HASH_SIZE]);

/* One record as it lies in the store; nothing is copied. */
struct audit_text {
	const char *data;
	size_t length;
};
struct audit_view {
	uint64_t sequence;        /* of the key */
	uint64_t stored_sequence; /* of the record's bytes */
	const uint8_t *hash;
	const uint8_t *previous;
	const uint8_t *stored;
	size_t stored_length;
	struct audit_text tenant;
	struct audit_text action;
	struct audit_text sandbox_id;
};
void audit_key(uint64_t sequence, uint8_t key[8]);
/* -EBADMSG: not a record. */
int audit_view(const void *key, size_t key_length, const void *value, size_t value_length, struct audit_view *ret);

/* The Ed25519 key of the log, DIR/audit.key (mode 0600, made when it is missing), and its public half in
 * DIR/audit.pub. A key that others can use, or that is none, is an error. */
int audit_sign_open(int dir_fd, struct pdk_error *err);
void audit_sign_close(void);
const char *audit_public_key(void); /* PEM */

/* A checkpoint: a line of text (without its newline) that says where the log stood and when, signed. Any thread. */
int audit_checkpoint_make(const struct audit_head *head, int64_t wall_ms, char ret[AUDIT_CHECKPOINT_MAX]);
/* -EBADMSG: not a checkpoint; -EKEYREJECTED: not signed with this log's key. */
int audit_checkpoint_read(const char *line, struct audit_head *ret);

/* DIR/audit.head: the newest checkpoint, kept outside the store so that a log that was cut or rolled back is seen to
 * be shorter. */
int audit_anchor_write(int dir_fd, const char *checkpoint);
/* -ENOENT; and as audit_checkpoint_read(). */
int audit_anchor_read(int dir_fd, struct audit_head *ret);
/* True once after an operator has put DIR/audit.accept there, as the daemon's user, to accept a broken anchor; the file
 * is removed. */
bool audit_anchor_accepted(int dir_fd);

/* DIR/audit.checkpoints: all periodic checkpoints, a line each. */
int audit_history_append(int dir_fd, const char *checkpoint);
/* Every line in turn, with what audit_checkpoint_read() says of it. `visit` returns 0 to go on. -ENOENT. */
int audit_history_each(int dir_fd, int (*visit)(int rc, const struct audit_head *head, void *arg), void *arg);
int audit_history_mend(int dir_fd);
/* Put it aside under another name, as evidence. */
int audit_history_retire(int dir_fd, int64_t wall_ms);

struct audit_report {
	bool ok;
	uint64_t records;            /* good ones, from the first */
	uint64_t first_bad_sequence; /* 0: none, or not one of the records */
	uint64_t checkpoints;        /* of the history beside the store, signed and in agreement with the log */
	struct audit_head head;      /* of the good ones */
	char text[160];
};
/* Recompute the chain and compare it with the checkpoints: the anchor, the history and the store's own. Reads in short
 * slices, without any lock; a record that is appended meanwhile is not looked at. -ECANCELED when `*stop` became true.
 */
int audit_check(struct audit_report *ret, const atomic_bool *stop);

/* The same on a thread of its own; `done` runs under the loop lock. -EBUSY: one is running. Lock held. */
int audit_check_start(void (*done)(int rc, const struct audit_report *report, void *arg), void *arg);
/* End it and wait; `done` has run then. Called without the lock, by store_close(). */
void audit_check_stop(void);

/* Of the open store (store.c): the head that is durable, and the data directory. */
void store_audit_head(struct audit_head *ret);
int store_dir_fd(void);
/* False while the anchor is broken and nobody has accepted that: nothing may be signed. */
bool store_audit_trusted(void);

#endif
