#ifndef PADDOCK_CLI_FOLLOW_H
#define PADDOCK_CLI_FOLLOW_H

#include "cli.h"
#include <stdbool.h>

/*
 * Following a process to its end: output to standard output and standard error, input and signals by the pump. A
 * connection that breaks is made again for up to a minute, and output goes on from the byte that was
 * last seen; only a process that is not known to have started is not started twice.
 */

struct follow {
	struct cli *cli;
	const char *sandbox_id;
	uint64_t process_id; /* 0: not started yet */
	uint64_t next;       /* number of the first byte that was not seen */
	bool interact;       /* with input: by Interact */
	bool bounded;        /* stop at byte `until`, without waiting for more (logs without -f) */
	uint64_t until;
	struct paddock_stream *stream;
	struct pump *pump;
	bool exited;
	uint32_t exit_code;
	uint32_t signal;
	bool timed_out;
	bool sandbox_ended;
	int unwritable; /* the errno of standard output or error, when one could not be written */
};

/* Start it, or attach to follow->process_id from follow->next. Returns when `started` has come. */
int follow_start(struct follow *follow, Paddock__V1__StartProcessRequest *request);
int follow_attach(struct follow *follow);
/* To the end of the process. */
int follow_to_end(struct follow *follow);
void follow_clear(struct follow *follow);
/* What the command line's exit status is for how the process ended. */
int follow_status(const struct follow *follow);

#endif
