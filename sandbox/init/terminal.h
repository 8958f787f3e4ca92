#ifndef PADDOCK_INIT_TERMINAL_H
#define PADDOCK_INIT_TERMINAL_H

#include "sandbox/init/init.h"
#include <sys/types.h>

/*
 * A pseudo-terminal whose master stays with init, which relays it from a pipe (input) and to a pipe (output)
 * that paddockd holds. So paddockd sees only pipes, and the end of its input pipe becomes end-of-file.
 */

struct terminal;
struct process;

/* `uid` owns the slave. *ret_slave, *ret_input (write end) and *ret_output (read end) become the caller's. */
int terminal_open(struct init *init, struct process *process, uid_t uid, unsigned int columns, unsigned int rows,
		  struct terminal **ret_terminal, int *ret_slave, int *ret_input, int *ret_output);
int terminal_resize(struct terminal *terminal, unsigned int columns, unsigned int rows);
/* The process was reaped: call process_drained() when its output has gone out. */
void terminal_finish(struct init *init, struct terminal *terminal);
void terminal_free(struct init *init, struct terminal *terminal);

#endif
