#include "store_anchor.h"

#include "log.h"
#include "loop.h"
#include <errno.h>
#include <string.h>
#include <time.h>

/*
 * At most once a second the head goes to audit.head. Every five minutes, and at a start and a stop, it goes to
 * audit.checkpoints, then to the daemon's log and (store.c) into the store. The file comes first, so that its last line
 * is never older than the store's last checkpoint.
 */

#define ANCHOR_INTERVAL_NS 1000000000ull
#define HISTORY_INTERVAL_NS 300000000000ull

uint64_t store_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* ---- opening ---- */

struct lookup {
	const struct audit_head *head;
	bool found;
};

static int compare_hash(const void *key, size_t key_length, const void *value, size_t value_length, void *arg)
{
	struct lookup *lookup = arg;
	struct audit_view view;

	lookup->found = !audit_view(key, key_length, value, value_length, &view) &&
			view.sequence == lookup->head->count && !memcmp(view.hash, lookup->head->hash, AUDIT_HASH_SIZE);
	return 1;
}

static bool log_has(const struct audit_head *head)
{
	struct lookup lookup = {.head = head};
	uint8_t key[8];

	if (!head->count)
		return true;
	audit_key(head->count, key);
	store_each(STORE_AUDIT, key, sizeof(key), compare_hash, &lookup);
	return lookup.found;
}

static int take_last(int rc, const struct audit_head *head, void *arg)
{
	struct audit_head *last = arg;

	if (rc < 0)
		return rc;
	*last = *head;
	return 0;
}

static int read_history(int dir_fd, struct audit_head *ret_last)
{
	int rc = audit_history_mend(dir_fd);

	return rc < 0 ? rc : audit_history_each(dir_fd, take_last, ret_last);
}

static int drop_stored(const struct store_env *env)
{
	MDB_txn *txn;
	int rc = mdb_txn_begin(env->env, NULL, 0, &txn);

	if (rc)
		return store_errno(rc);
	rc = mdb_drop(txn, env->dbi[STORE_CHECKPOINTS], 0);
	if (rc)
		mdb_txn_abort(txn);
	else
		rc = mdb_txn_commit(txn);
	return store_errno(rc);
}

/* Begin anew from the log as it is, with what contradicts it put aside. */
static int accept_loss(struct store_anchor *anchor, const struct store_env *env)
{
	int rc = audit_history_retire(env->dir_fd, loop_wall_ms());

	if (!rc)
		rc = drop_stored(env);
	anchor->remembered = (struct audit_head){0};
	return rc;
}

/* The first checkpoint is written before the first record, so that it is never missing for a good reason. */
static int write_first(struct store_anchor *anchor, int dir_fd, const struct audit_head *head, bool history)
{
	char checkpoint[AUDIT_CHECKPOINT_MAX];
	int rc = audit_checkpoint_make(head, loop_wall_ms(), checkpoint);

	if (!rc && history)
		rc = audit_history_append(dir_fd, checkpoint);
	if (!rc)
		rc = audit_anchor_write(dir_fd, checkpoint);
	if (rc < 0)
		return rc;
	if (history)
		anchor->remembered = *head;
	anchor->anchored = *head;
	return 0;
}

/* Also what a first start leaves that was cut short. */
static bool is_fresh(int rc, const struct audit_head *head)
{
	return rc == -ENOENT || (!rc && !head->count);
}

int store_anchor_open(struct store_anchor *anchor, const struct store_env *env, const struct audit_head *head,
		      struct pdk_error *err)
{
	struct audit_head at = {0};
	int anchor_rc, history_rc, rc = audit_sign_open(env->dir_fd, err);
	bool good, fresh;

	*anchor = (struct store_anchor){0};
	if (rc < 0)
		return rc;
	anchor_rc = audit_anchor_read(env->dir_fd, &at);
	history_rc = read_history(env->dir_fd, &anchor->remembered);
	fresh = is_fresh(anchor_rc, &at) && is_fresh(history_rc, &anchor->remembered) && !head->count;
	good = fresh || (!anchor_rc && !history_rc && log_has(&at) && log_has(&anchor->remembered));
	anchor->trusted = good || audit_anchor_accepted(env->dir_fd);
	if (!good)
		log_event(LOG_ERROR, anchor->trusted ? "audit.anchor_accepted" : "audit.anchor_broken", "records",
			  log_u64(head->count), "anchor", anchor_rc < 0 ? strerror(-anchor_rc) : log_u64(at.count),
			  "history", history_rc < 0 ? strerror(-history_rc) : log_u64(anchor->remembered.count), NULL);
	if (!anchor->trusted)
		return 0;
	if (!good)
		rc = accept_loss(anchor, env);
	if (!rc)
		rc = write_first(anchor, env->dir_fd, head, fresh || !good);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "store: writing the audit log's checkpoint");
	if (!good)
		audit_event(
			&(struct audit_entry){.actor = "system", .action = "audit.anchor_accepted", .outcome = "OK"});
	return 0;
}

/* ---- moving along ---- */

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return !a || (b && b < a) ? b : a;
}

uint64_t store_anchor_due_ns(const struct store_anchor *anchor, const struct audit_head *head)
{
	uint64_t due = 0;

	if (!anchor->trusted)
		return 0;
	if (anchor->anchored.count != head->count)
		due = anchor->anchor_tried_ns + ANCHOR_INTERVAL_NS;
	if (anchor->remembered.count != head->count)
		due = earlier(due, anchor->history_tried_ns + HISTORY_INTERVAL_NS);
	return due;
}

static int remember(struct store_anchor *anchor, int dir_fd, const struct audit_head *head, const char *checkpoint)
{
	int rc = audit_history_append(dir_fd, checkpoint);

	if (rc < 0)
		return rc;
	anchor->remembered = *head;
	log_event(LOG_INFO, "audit.checkpoint", "checkpoint", checkpoint, NULL);
	return 0;
}

bool store_anchor_move(struct store_anchor *anchor, int dir_fd, const struct audit_head *head, bool now,
		       char ret_checkpoint[AUDIT_CHECKPOINT_MAX])
{
	uint64_t at = store_now_ns();
	bool move = anchor->trusted && anchor->anchored.count != head->count &&
		    (now || at >= anchor->anchor_tried_ns + ANCHOR_INTERVAL_NS);
	bool history = anchor->trusted && anchor->remembered.count != head->count &&
		       (now || !anchor->history_tried_ns || at >= anchor->history_tried_ns + HISTORY_INTERVAL_NS);
	int rc;

	if (!move && !history)
		return false;
	rc = audit_checkpoint_make(head, loop_wall_ms(), ret_checkpoint);
	if (!rc && history) {
		anchor->history_tried_ns = at;
		rc = remember(anchor, dir_fd, head, ret_checkpoint);
		history = !rc;
	}
	anchor->anchor_tried_ns = at;
	if (!rc)
		rc = audit_anchor_write(dir_fd, ret_checkpoint);
	if (!rc)
		anchor->anchored = *head;
	else if (!anchor->failing)
		log_event(LOG_ERROR, "audit.anchor_failed", "error", strerror(-rc), NULL);
	anchor->failing = rc < 0;
	return history;
}
