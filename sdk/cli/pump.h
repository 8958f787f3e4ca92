#ifndef PADDOCK_CLI_PUMP_H
#define PADDOCK_CLI_PUMP_H

#include "paddock.h"
#include <stdbool.h>
#include <stdint.h>

/*
 * The thread that carries standard input and signals to a process in a sandbox, while the main thread carries its
 * output. Input goes down the stream of an Interact call; signals and window sizes are calls of their own, so that
 * they are not stuck behind input that the process does not read.
 */

struct pump;

struct pump_options {
	bool input;    /* read standard input */
	bool terminal; /* forward window sizes instead of SIGINT and SIGQUIT, which the terminal makes itself */
};

struct pump *pump_start(struct paddock_client *client, const char *sandbox_id, struct pump_options options,
			struct pdk_error *err);
/* From now on the process is known: what was waiting is sent. */
void pump_set_process(struct pump *pump, uint64_t process_id);
/* Use this stream; NULL: hold the input back. The stream before is cancelled first, so that a send that hangs in it
 * ends. Returns true if input was lost, or may have been, with it. */
bool pump_set_stream(struct pump *pump, struct paddock_stream *stream);
/* The user has pressed Ctrl-C three times: leave, without waiting for the process. */
bool pump_gave_up(const struct pump *pump);
/* Ends the thread and frees. The stream must have been cancelled or be over. NULL is fine. */
void pump_stop(struct pump *pump);

#endif
