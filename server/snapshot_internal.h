#ifndef PADDOCK_SERVER_SNAPSHOT_INTERNAL_H
#define PADDOCK_SERVER_SNAPSHOT_INTERNAL_H

#include "loop.h"
#include "paddock/internal/store.pb-c.h"
#include "paddock/v1/snapshots.pb-c.h"
#include "sandbox_internal.h"
#include "snapshots.h"

/*
 * What the snapshot*.c files share, and sandbox_copy.c. Everything under the loop lock.
 *
 * Life of a snapshot:
 *
 *	TAKING    snapshot_take(): its source is being copied (snapshot_take.c); counted, in no list; -> READY, or gone
 *	READY     whole, and in the store, unless it is a fork's own; -> REMOVING
 *	REMOVING  its record is gone; when the last copy that is being made from it is done, the warden removes it
 *
 * There is no record of one that is being taken or removed: what the warden has and the store does not know is
 * nobody's, and is removed at the next start or reconnect.
 *
 * One that is UNLISTED (in its record) is in no list and no quota of snapshots: a template is made of it, or it is a
 * layer that a build has left for the next. When it is neither any more, it goes.
 */
enum snapshot_state { SNAPSHOT_TAKING, SNAPSHOT_READY, SNAPSHOT_REMOVING };

struct snapshot_take {
	/* It is READY (`err` is NULL), or it is gone when this returns. */
	void (*done)(struct snapshot *snapshot, const struct pdk_error *err, void *arg);
	void *arg;
};

struct snapshot {
	struct snapshot *next; /* newest first */
	enum snapshot_state state;
	Paddock__Internal__StoredSnapshot *stored;
	bool own;   /* a fork's: no name, no record, shown to nobody */
	bool seen;  /* reconciliation: in the warden's list */
	bool asked; /* TAKING: the warden's last answer is still to come */
	bool over;  /* TAKING: it has come, or will not; the source's link is being made again */
	struct pdk_error err;
	bool counted, counted_listed;
	uint64_t counted_bytes;
	uint32_t users; /* copies that are being made from it */
	uint32_t names; /* templates that are made of it: templates.c */
	struct loop_timer expiry;
	struct snapshot_take take;
};

extern struct snapshot *snapshot_newest;

/* --- snapshots.c --- */
/* Takes over `stored` on success. NULL when out of memory. */
struct snapshot *snapshot_new(Paddock__Internal__StoredSnapshot *stored);
/* Out of the list and memory. */
void snapshot_drop(struct snapshot *snapshot);
/* READY, by id or name, of the caller's tenant; the operator may name any by its id. NOT_FOUND "snapshot not found". */
int snapshot_find(const struct principal *principal, const char *name_or_id, struct snapshot **ret,
		  struct pdk_error *err);
/* The same for a create: an unlisted one of the caller's, by its id, too. */
int snapshot_find_origin(const struct principal *principal, const char *name_or_id, struct snapshot **ret,
			 struct pdk_error *err);
struct snapshot *snapshot_get(const char *id); /* by exact id, or NULL */
/* Nobody lists it any more: its record goes, or says so because it is needed. -ENOMEM. */
int snapshot_unlist(struct snapshot *snapshot, struct store_batch *batch);
/* One template less is made of it, or it is in no cache any more: it goes if that was the last reason. */
void snapshot_release(struct snapshot *snapshot);
/* Bytes of its owner and of the box: from now on these, instead of what was said before. */
void snapshot_count(struct snapshot *snapshot, uint64_t bytes);
/* Layers that builds have left make room, until the tenant's snapshots hold at most `most` bytes or no layer is left:
 * nobody else can remove them. */
void snapshot_yield(const char *tenant, uint64_t most);
/* RESOURCE_EXHAUSTED if the tenant or the box has no room for one more of this size. */
int snapshot_check_quota(const char *tenant, uint64_t bytes, struct pdk_error *err);
int snapshot_store(struct store_batch *batch, const struct snapshot *snapshot);
int snapshot_unstore(struct store_batch *batch, const struct snapshot *snapshot);
void snapshot_arm_expiry(struct snapshot *snapshot);
/* READY, and its record is gone or never was: remove it as soon as no copy is being made from it. */
void snapshot_discard(struct snapshot *snapshot);
void snapshot_use(struct snapshot *snapshot);
void snapshot_unuse(struct snapshot *snapshot);

/* --- snapshot_take.c --- */
/* Begin to take one of a RUNNING sandbox. `take->done` runs when it is over, perhaps before this returns. */
int snapshot_take(struct sandbox *source, const char *name, uint64_t ttl_ms, bool own, const struct snapshot_take *take,
		  struct pdk_error *err);

/* A layer alone, unlisted; nothing of the source is let go of. Otherwise as above. */
int snapshot_take_layer(struct sandbox *source, const struct snapshot_take *take, struct pdk_error *err);

/* --- templates.c --- */
/* The warden has lost it: what is made of it is gone. */
void templates_forget_snapshot(const struct snapshot *snapshot);

#endif
