#ifndef PADDOCK_INIT_SUDO_H
#define PADDOCK_INIT_SUDO_H

#include "sandbox/init/init.h"

/*
 * `sudo` inside a sandbox: set-uid does nothing there (no_new_privs), so the client sandbox/sudo asks init,
 * which starts the command as the sandbox's root on the caller's own descriptors, if GuestSetup said so. Each
 * request is told to paddockd as an event of stream 0.
 */

struct sudo_call;
struct process;

/* Make /run/paddock and listen there. A sandbox without it runs, but without sudo. */
void sudo_listen(struct init *init);

/* Take calls again, after the rate or the link made them wait. */
void sudo_resume(struct init *init);

/* From process.c: what became of the command. The call ends with the last two. */
void sudo_call_started(struct sudo_call *call, struct process *process);
void sudo_call_failed(struct init *init, struct sudo_call *call, const struct pdk_error *err);
void sudo_call_exited(struct init *init, struct sudo_call *call, int status);

#endif
