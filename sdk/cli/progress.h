#ifndef PADDOCK_CLI_PROGRESS_H
#define PADDOCK_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

/* One line on standard error that says how far a long thing is: only on a terminal, only after a second. */

struct progress {
	const char *what;
	uint64_t total; /* 0: not known, then a spinner */
	int64_t started_ms;
	int64_t shown_ms;
	bool enabled;
	bool shown;
};

void progress_start(struct progress *progress, const char *what, uint64_t total);
void progress_update(struct progress *progress, uint64_t done);
/* Clear the line. */
void progress_end(struct progress *progress);

#endif
