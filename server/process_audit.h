#ifndef PADDOCK_SERVER_PROCESS_AUDIT_H
#define PADDOCK_SERVER_PROCESS_AUDIT_H

#include "paddock/internal/guest.pb-c.h"
#include "paddock/internal/store.pb-c.h"

/* The JSON that audit records of processes carry. Both return malloc'ed text, or NULL (out of memory: no detail). */

/* Bytes of argv (as JSON) that a record shows; a longer command line is cut, and "argc" and "argv_bytes" say what it
 * was. */
#define PROCESS_AUDIT_ARGV_MAX 2048u

char *process_audit_start(const Paddock__Internal__StoredProcess *process);
char *process_audit_sudo(const Paddock__Internal__GuestSudo *sudo);

#endif
