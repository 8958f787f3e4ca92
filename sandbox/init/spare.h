#ifndef PADDOCK_INIT_SPARE_H
#define PADDOCK_INIT_SPARE_H

#include "sandbox/init/spawn.h"

/*
 * A child that is forked before anybody asks for a command. The fork and the page faults that follow it in both
 * processes are a third of what a command costs before its program runs; they are paid in a pause then. There is at
 * most one, made when a sandbox is set up and a moment after a command has ended, and it goes away when it was not
 * needed for a few seconds or when paddockd goes: a sandbox that does nothing holds no memory for it, and a checkpoint
 * has none.
 *
 * It has done what does not depend on the command, holds no descriptor but its end of a socket pair, and is init's own
 * like every child before it becomes the user. What depends on files of the sandbox (/etc/passwd) comes after the
 * command.
 */

/* Give the plan to the spare child, if there is one and the plan is small enough. Its pid, or 0: fork one. */
pid_t spare_take(struct init *init, const struct spawn_plan *plan, int report);
/* Make one in a moment, unless something else begins first; at once without `pause`. */
void spare_prepare(struct init *init, bool pause);
/* It is gone when this returns. */
void spare_dismiss(struct init *init);
/* What is due. */
void spare_check_deadline(struct init *init);
/* A child was reaped. */
void spare_ended(struct init *init, pid_t pid);

#endif
