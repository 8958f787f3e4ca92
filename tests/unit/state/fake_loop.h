#ifndef PADDOCK_TESTS_FAKE_LOOP_H
#define PADDOCK_TESTS_FAKE_LOOP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* needs the headers above and does not include them */
#include <cmocka.h>

#include "server/loop.h"
#include "server/store.h"

/* server/loop.h, log.h and metrics.h for tests: one lock, a clock that can be moved, deferred calls and timers that run
 * when the test says so. */

extern _Atomic int64_t fake_wall_offset_ms;
extern _Atomic uint64_t fake_boot_offset_ns;

/* Hold the lock; let others have it until `*flag` is true (fails the test after 10 s). */
void fake_wait(const bool *flag);
/* Run what was deferred, and timers that are due. */
void fake_run(void);

/* Commit and wait; returns what `done` was given. With the lock held. */
int commit_wait(struct store_batch *batch);

/* A new empty directory, removed with everything in it by fake_remove_dir(). */
char *fake_make_dir(void);
void fake_remove_dir(char *dir);

#endif
