#ifndef PADDOCK_WARDEN_SANDBOX_PRIVATE_H
#define PADDOCK_WARDEN_SANDBOX_PRIVATE_H

#include "record.h"
#include "sandbox.h"

/* What sandbox.c and sandbox_checkpoint.c share. */

struct sandbox *sandbox_find(const char *id);
bool sandbox_has_process(const struct sandbox *s);
/* End everything in it; with `keep` it becomes STORED. */
void sandbox_begin_removal(struct sandbox *s);
/* DYING, and the last process is gone. */
void sandbox_try_remove(struct sandbox *s);
/* Write its state file by one of record_create() and record_update(). */
int sandbox_record(const struct sandbox *s, bool ready, int (*store)(const struct record *));
/* Find pid 1 in the leaf and watch it. */
int sandbox_watch_init(struct sandbox *s);
/* RUNNING: give the creator its link. */
void sandbox_started(struct sandbox *s);
/* One more (or less) of those with a deadline. */
void sandbox_busy(int delta);

/* sandbox_checkpoint.c: it is ending, so a dump or restore of it is of no use any more. */
void sandbox_job_cancel(struct sandbox *s);
void sandbox_restore_failed(struct sandbox *s, int rc, const char *text);

#endif
