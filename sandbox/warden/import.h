#ifndef PADDOCK_WARDEN_IMPORT_H
#define PADDOCK_WARDEN_IMPORT_H

#include "sandbox/base/error.h"
#include "serve.h"
#include <stdint.h>

/* Work on template content, always inside a confined child: unpack a tar, compute a digest. One job at a time. */

int import_setup(struct pdk_error *err);
/* Unpack the tar that comes through `pipe` (owned by the import from now on). Answers by `ticket`. */
void import_start(int pipe, uint64_t max_bytes, struct ticket ticket);
/* If no job runs: start the next waiting import, or verify the next unverified template. 1 if it started something. */
int import_work(void);
/* Deadlines and progress. Milliseconds until the next, or -1. */
int import_tick(void);
/* At the end of the warden: the job that runs ends. The next start removes or verifies what it was about. */
void import_stop(void);

#endif
