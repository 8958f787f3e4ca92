#ifndef PADDOCK_WARDEN_LAZY_H
#define PADDOCK_WARDEN_LAZY_H

#include "checkpoint.h"
#include "sandbox/base/error.h"
#include <stdbool.h>
#include <sys/types.h>

/*
 * A lazy restore: the processes run before their memory is there, and each page comes when it is first touched
 * (userfaultfd). The pages are given by a process of ours, the server of pages (lazy_server.c), which lives until the last
 * one is in, whoever else ends meanwhile.
 *
 *	`sandboxes/<id>/lazy`	is locked as long as pages are missing; what it holds is why the sandbox had to be ended
 *	`sandboxes/<id>/hurry`	a byte into this pipe, and the rest comes at full speed
 *
 * All that is a process or a file, so a new warden finds it as the old one left it.
 */

/* Try once whether this host can. Never fails: lazy_missing() says why not. */
void lazy_setup(void);
/* NULL, or why every restore is a plain one. */
const char *lazy_missing(void);

/* --- in the child that restores --- */

struct lazy;
/* There are pages enough to think of it, where this host can. */
bool lazy_is_large(int dir);
/*
 * Whether it is worth it; the structure of the images in `dir` has been checked. 1 with what there is to do, 0: a plain
 * restore is better, or -errno: it cannot be done lazily (a plain restore will tell what is damaged).
 */
int lazy_prepare(const struct checkpoint_plan *plan, int dir, struct lazy **ret);
/* Check those pages that do not come lazily. */
int lazy_check_rest(const struct lazy *lazy, struct pdk_error *err);
/* Start the server. CRIU finds it in the directory `work`. */
int lazy_start(struct lazy *lazy, const struct checkpoint_plan *plan, int work, struct pdk_error *err);
/* All processes are there and none has run: from now on the server is on its own. */
int lazy_admit(struct lazy *lazy, pid_t first, struct pdk_error *err);
/* Without lazy_admit() the server ends with this. */
void lazy_free(struct lazy *lazy);

/* --- in the warden and the child that dumps --- */

/* Pages of a sandbox are missing. */
bool lazy_pending(const char *id);
/* Wait until none is. */
int lazy_finish(const char *id, struct pdk_error *err);
/* Why the server had to end the sandbox; empty: it did not. */
void lazy_read_reason(const char *id, char text[160]);

#endif
