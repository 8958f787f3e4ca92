#ifndef PADDOCK_WARDEN_SANDBOX_H
#define PADDOCK_WARDEN_SANDBOX_H

#include "checkpoint.h"
#include "inodes.h"
#include "loop.h"
#include "protocol.h"
#include "sandbox/base/error.h"
#include "serve.h"
#include <stdbool.h>
#include <sys/types.h>

/*
 * The sandboxes that this warden knows. All authority is here: an id either names one of these or nothing.
 *
 * SANDBOX_WAITING   entered by a CREATE whose template is still being verified. No resource is held.
 *                   Leaves to STARTING, or away (the template is damaged; KILL).
 * SANDBOX_STARTING  the builder is cloned, makes the file systems and clones the first process, which becomes init
 *                   (child.h). `status` tells the end.
 *                   Leaves to RUNNING; to DYING on failure, KILL or after START_TIMEOUT_MS.
 * SANDBOX_RUNNING   init runs. ATTACH, LIMITS, USAGE, FREEZE, THAW are allowed. Leaves to DYING by KILL or init's end.
 * SANDBOX_RESTORING a child of ours restores it from its checkpoint, or a copy from a snapshot (sandbox_checkpoint.c).
 *                   Leaves to RUNNING; to DYING and from there back to STORED when it fails (a copy is removed); to DYING
 *                   by KILL.
 * SANDBOX_STORED    no process and no cgroup: only the layer and a checkpoint. RESTORE and KILL are allowed.
 * SANDBOX_DYING     everything in the cgroup has SIGKILL. When init is gone (its end waits for all others), and the
 * builder, the cgroups, the layer and the state are removed, waiting KILLs are answered and the struct is freed.
 * Removal that meets EBUSY is tried again from the idle function, for REMOVE_TIMEOUT_MS.
 */
enum sandbox_state {
	SANDBOX_WAITING,
	SANDBOX_STARTING,
	SANDBOX_RUNNING,
	SANDBOX_RESTORING,
	SANDBOX_STORED,
	SANDBOX_DYING
};

/* What the child of a sandbox does. A dump is done in RUNNING, a restore in RESTORING; either may outlive that. */
enum sandbox_job { SANDBOX_JOB_DUMP, SANDBOX_JOB_SNAPSHOT, SANDBOX_JOB_LAYER, SANDBOX_JOB_RESTORE };

#define SANDBOX_KILLERS_MAX 4

struct sandbox {
	struct sandbox *next;          /* in the hash chain */
	struct sandbox *newer, *older; /* among all */
	struct sandbox *next_busy;     /* of those with a deadline */
	bool busy;
	char id[SANDBOX_ID_SIZE];
	char template_id[TEMPLATE_ID_SIZE];
	char hostname[64];
	enum sandbox_state state;
	struct warden_limits limits;
	struct inode_watch inodes;
	uint32_t slot;
	bool has_slot;
	bool child; /* init is our child, and not adopted from an earlier warden */
	pid_t pid;  /* of init; 0: not known to be there */
	int pidfd;
	int link; /* connected end for paddockd, until the reply of CREATE */
	struct watch exit_watch, builder_watch, status_watch;
	int place; /* of the builder's descriptors (handover.h), or -1 */
	unsigned long long deadline_ms;
	unsigned long long retry_ms;
	bool executing; /* the child said that it is about to execute init */
	int wait_status;
	bool announce; /* paddockd knows it as running: tell when it dies by itself */
	struct ticket creator;
	struct ticket freezer; /* RUNNING: waits until everything stands still, at most until `deadline_ms` */
	/* A dump (RUNNING) or a restore (RESTORING) by a child of ours. */
	struct watch job_watch, job_status_watch;
	enum sandbox_job job;
	struct checkpoint_result *job_result; /* its last word, while there is one */
	/* Which the job writes, or it is made from; empty: its own checkpoint, or nothing but its template. */
	char snapshot_id[SANDBOX_ID_SIZE];
	struct ticket dumper;
	bool dump_ends;   /* RUNNING: the dump has failed, and its CRIU is not gone yet */
	bool lifted;      /* RUNNING: a dump has lifted its limit of processor time; set again before it runs */
	bool memory_lost; /* DYING: of a lazy restore; `failure` says why */
	bool keep;        /* DYING: layer and checkpoint stay, it becomes STORED */
	struct ticket killers[SANDBOX_KILLERS_MAX];
	unsigned int n_killers;
	struct pdk_error failure; /* why a create failed, told when it is removed */
	int failure_rc;
};

int sandbox_setup(struct pdk_error *err);
/* Adopt or remove what earlier wardens left. */
void sandbox_reconcile(void);

/* Answers later, by `ticket`. The arguments are checked by the caller. `snapshot_id`: on a copy of its layer; empty: on
 * none. */
void sandbox_create(const char *id, const char *template_id, const char *snapshot_id, const char *hostname,
		    const struct warden_limits *limits, struct ticket ticket);
/* The template of waiting sandboxes is now verified (rc 0) or damaged. */
void sandbox_template_ready(const char *template_id, int rc);
void sandbox_kill(const char *id, struct ticket ticket);
int sandbox_attach(const char *id, int *ret_fd, struct pdk_error *err);
int sandbox_limit(const char *id, const struct warden_limits *limits, struct pdk_error *err);
int sandbox_usage(const char *id, struct warden_usage *usage, struct pdk_error *err);
/* WARDEN_USAGE_SAMPLE: the fields that it says. */
int sandbox_sample(const char *id, struct warden_usage *usage, uint64_t *ret_cache, struct pdk_error *err);
/* cgroup_activity() of one whose init runs. */
int sandbox_activity(const char *id, uint64_t *ret_cpu_usec, uint64_t *ret_io_usec, struct pdk_error *err);
/* Answers when nothing in it runs any more, or when it does not come to that (and then it is thawed again). */
void sandbox_freeze(const char *id, bool frozen, struct ticket ticket);
/* Processes and memory into a checkpoint with this token; it is left frozen, and THAW takes that back. */
void sandbox_checkpoint(const char *id, uint64_t token, struct ticket ticket);
/* End the processes of a frozen sandbox with this checkpoint. */
void sandbox_release(const char *id, uint64_t token, struct ticket ticket);
/* As sandbox_create(), from the checkpoint. */
void sandbox_restore(const char *id, const char *hostname, const struct warden_limits *limits, uint64_t token,
		     struct ticket ticket);
/* What it is now, into a snapshot that does not exist yet. It is let go on before that is whole. */
void sandbox_snapshot(const char *id, const char *snapshot_id, uint64_t token, bool brief, struct ticket ticket);
/* The same of its layer alone. */
void sandbox_layer(const char *id, const char *snapshot_id, struct ticket ticket);
/* As sandbox_create(), from a snapshot. */
void sandbox_copy(const char *id, const char *snapshot_id, const char *hostname, const struct warden_limits *limits,
		  uint64_t token, struct ticket ticket);
bool sandbox_uses_snapshot(const char *snapshot_id);
/* It is on its way to or from the disk: nobody can say yet whether it will run, stand still or be stored. */
bool sandbox_is_unsettled(const struct sandbox *s);
unsigned int sandbox_count(void);
bool sandbox_uses_template(const char *template_id);
void sandbox_each(void (*visit)(const struct sandbox *sandbox, void *arg), void *arg);
void sandbox_visit(void (*visit)(struct sandbox *sandbox, void *arg), void *arg);
/* Deadlines and retries. Milliseconds until the next one, or -1. */
int sandbox_tick(void);

/* A stock of prepared layers, namespaces and ranges. */
void sandbox_set_stock(unsigned int wanted);
/* Refill one piece. 1 if it did something. */
int sandbox_refill(void);
unsigned int sandbox_stocked(void);

#endif
