#ifndef PADDOCK_WARDEN_SANDBOX_PRIVATE_H
#define PADDOCK_WARDEN_SANDBOX_PRIVATE_H

#include "record.h"
#include "sandbox.h"

/* What the files sandbox*.c share. */

/* sandbox_table.c */
struct sandbox *sandbox_find(const char *id);
struct sandbox *sandbox_new(const char *id, const char *template_id);
/* Out of the table; its descriptors are closed. Kernel objects are not its business. */
void sandbox_free(struct sandbox *s);
void sandbox_close_status(struct sandbox *s);
/* The first of all, newest first; the others by `older`. */
struct sandbox *sandbox_newest(void);

/* sandbox.c */
/* It has a deadline, or has none any more. */
void sandbox_set_busy(struct sandbox *s, bool busy);
/* A create or kill is done: the stock is refilled after a pause. */
void sandbox_worked(void);
/* A freeze that was not answered yet is answered by what ends it. */
void sandbox_cancel_freezer(struct sandbox *s);
/* With the limit of processor time that a dump may have lifted. */
int sandbox_thaw(struct sandbox *s);

/* sandbox_start.c */
int sandbox_start_setup(struct pdk_error *err);
/* May one more be made, with this id? */
int sandbox_check_new(const char *id, struct pdk_error *err);
/* Write its state file by one of record_create() and record_update(). */
int sandbox_record(const struct sandbox *s, enum record_ready ready, int (*store)(const struct record *));
/* Find the process that the builder has cloned, if it has, and watch it. */
void sandbox_find_first(struct sandbox *s);
/* The builder's and the first process's words: what failed, or that it is about to execute init, and then the end of
 * the pipe. It may end `s`. */
void sandbox_read_status(struct sandbox *s);
/* RUNNING: give the creator its link. */
void sandbox_started(struct sandbox *s);
void sandbox_create_failed(struct sandbox *s, int rc, const struct pdk_error *err);
/* A WAITING sandbox holds nothing but its struct. */
void sandbox_drop_waiting(struct sandbox *s, int rc, const struct pdk_error *err);

/* sandbox_end.c */
bool sandbox_has_process(const struct sandbox *s);
/* End everything in it; with `keep` it becomes STORED. */
void sandbox_begin_removal(struct sandbox *s);
/* DYING, and the last process is gone. */
void sandbox_try_remove(struct sandbox *s);
/* DYING, and its next deadline has passed: kill or remove again. */
void sandbox_remove_again(struct sandbox *s, unsigned long long now);
void sandbox_on_exit_of_init(struct watch *watch, uint32_t events);
void sandbox_on_exit_of_builder(struct watch *watch, uint32_t events);
/* Tell the creator and those who asked for the end. */
void sandbox_answer_all(struct sandbox *s, int rc, const struct pdk_error *err);

/* sandbox_adopt.c */
/* Find pid 1 in the leaf and watch it. */
int sandbox_watch_init(struct sandbox *s);

/* sandbox_checkpoint.c: it is ending, so a dump or restore of it is of no use any more. */
void sandbox_job_cancel(struct sandbox *s);
/* RUNNING, and `dump_ends`: tell of it, if the last of the dump is gone. */
void sandbox_dump_over(struct sandbox *s);
/* A restored tree is whole, and frozen: take it for the sandbox from now on, and let it go. */
int sandbox_take_restored(struct sandbox *s);
void sandbox_restore_failed(struct sandbox *s, int rc, const char *text);

#endif
