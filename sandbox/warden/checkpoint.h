#ifndef PADDOCK_WARDEN_CHECKPOINT_H
#define PADDOCK_WARDEN_CHECKPOINT_H

#include "rootfs.h"
#include "sandbox/base/error.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * A sandbox's processes and memory on disk: `checkpoints/<id>` of the pool, written aside as `<id>.new`. The two long
 * pieces of work run in children of the warden, as straight lines; what they have to say is one struct on a pipe.
 *
 * The dump runs as the host's root, since reading a seccomp filter and a memory map takes that. The restore, which
 * makes real whatever the images say, runs inside the sandbox's own user and network namespace and holds no
 * authority over the host: should all checks of the images fail, they still cannot name anything outside.
 */

struct checkpoint_result {
	bool runs_on; /* snapshot: a word before the last: the sandbox goes on, the rest needs only what is on disk */
	bool lazy;    /* restore: its memory comes later (lazy.h) */
	int error;    /* positive errno; 0: done */
	int code;     /* enum pdk_code of the failure */
	pid_t pid;    /* restore: the first process */
	uint64_t bytes, layer_bytes;
	uint64_t stored_bytes; /* of `bytes`, on disk; 0: not known yet */
	uint64_t stopped_usec;
	uint64_t generation; /* restore from a snapshot: the state of its images that was checked */
	char text[240];
};

struct checkpoint_plan {
	const char *id;
	const char *snapshot; /* into, or from this snapshot; NULL: the sandbox's own checkpoint */
	bool brief;           /* into a snapshot that need not outlive the machine */
	const char *hostname;
	uint64_t token;      /* names this checkpoint of the sandbox */
	int status;          /* where the result goes */
	int cgroup;          /* the v2 leaf */
	pid_t pid;           /* dump: the sandbox's first process */
	bool is_lazy;        /* dump: its memory is not all back yet, and it is not frozen before that */
	uint64_t frozen_ns;  /* dump: when it was frozen, by CLOCK_MONOTONIC */
	uint32_t cpu_millis; /* dump: the sandbox's limit, which is lifted until it runs on */
	uint64_t limit_ms;   /* CRIU is ended after so long */
	bool alone;          /* dump: no other is under way */
	int lock;            /* dump: of record_lock(), held as long as CRIU works on the sandbox's processes */
	/* restore: */
	struct rootfs_plan rootfs;
	int netns;
	int listener;
	uint64_t checked_generation; /* images in this state need no second check; 0: check them */
};

/* Find CRIU, make what the work needs. Without CRIU the warden runs all the same: checkpoint_missing() says why not. */
int checkpoint_setup(struct pdk_error *err);
/* NULL, or why no checkpoint can be made on this host. */
const char *checkpoint_missing(void);

void checkpoint_run_dump(const struct checkpoint_plan *plan) __attribute__((noreturn));
/* The same into a snapshot. The sandbox is let go on as soon as its memory and its layer are copied. */
void checkpoint_run_snapshot(const struct checkpoint_plan *plan) __attribute__((noreturn));
/* Its layer alone, without processes and memory. */
void checkpoint_run_layer(const struct checkpoint_plan *plan) __attribute__((noreturn));
void checkpoint_run_restore(const struct checkpoint_plan *plan) __attribute__((noreturn));

/* Is a whole one there? Its template, unless `template_id` is NULL. */
bool checkpoint_exists(const char *id, char *template_id);
/* Remove it, or what there is of one. 0 if there is none. */
int checkpoint_discard(const char *id);

#endif
