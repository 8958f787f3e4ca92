#ifndef PADDOCK_TESTS_FAKE_WARDEN_H
#define PADDOCK_TESTS_FAKE_WARDEN_H

#include "sandbox/warden/protocol.h"
#include <stdbool.h>
#include <stdint.h>

/* A warden on a thread: it keeps a set of ids and templates, and does what a test tells it. */

void fake_warden_start(const char *runtime_dir);
void fake_warden_stop(void);
/* Close the daemon's connection; what lives, lives on. */
void fake_warden_hang_up(void);
/* Answer nothing of this op until released (0). */
void fake_warden_hold(enum warden_op op);
/* The next `n` requests of this op fail. */
void fake_warden_fail(enum warden_op op, unsigned int n, int status, const char *text);
void fake_warden_add(const char *id);
bool fake_warden_has(const char *id);
/* It goes, and nobody is told. */
void fake_warden_freeze(const char *id, bool frozen);
bool fake_warden_frozen(const char *id);
void fake_warden_forget(const char *id);
/* Remove it and send WARDEN_EVENT_EXITED. */
void fake_warden_exit(const char *id, int status, uint64_t oom_kills);
unsigned int fake_warden_living(void);
void fake_warden_add_template(const char *id);
void fake_warden_forget_template(const char *id);
bool fake_warden_has_template(const char *id);
unsigned int fake_warden_requests(enum warden_op op);
uint64_t fake_warden_imported_bytes(void);
/* What the next import gives. */
void fake_warden_next_template(const char *id);
/* The importer reads nothing until this is false. */
void fake_warden_stall_import(bool stall);
void fake_warden_set_disk(uint64_t bytes);

#endif
