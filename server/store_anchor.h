#ifndef PADDOCK_SERVER_STORE_ANCHOR_H
#define PADDOCK_SERVER_STORE_ANCHOR_H

#include "audit.h"
#include "store_env.h"

/* When the audit log's head is signed and written down outside the store, and whether it may be. The writer thread's
 * own; private to store*.c. */

struct store_anchor {
	bool trusted;                 /* constant while the store is open */
	struct audit_head anchored;   /* in audit.head */
	struct audit_head remembered; /* in audit.checkpoints */
	uint64_t anchor_tried_ns;
	uint64_t history_tried_ns;
	bool failing;
};

/* Compare the files with the log, whose durable head is `head`. They are evidence: if they disagree they stay as they
 * are (and Verify says so) until an operator accepts the loss. */
int store_anchor_open(struct store_anchor *anchor, const struct store_env *env, const struct audit_head *head,
		      struct pdk_error *err);

/* CLOCK_MONOTONIC, by which the writer waits. */
uint64_t store_now_ns(void);
/* By that clock: when the next move is due; 0 when nothing is behind. */
uint64_t store_anchor_due_ns(const struct store_anchor *anchor, const struct audit_head *head);
/* Move what is due along (all that is behind, with `now`). True: `ret_checkpoint` was added to the history and belongs
 * into STORE_CHECKPOINTS. */
bool store_anchor_move(struct store_anchor *anchor, int dir_fd, const struct audit_head *head, bool now,
		       char ret_checkpoint[AUDIT_CHECKPOINT_MAX]);

#endif
