#ifndef PADDOCK_INIT_PORTS_H
#define PADDOCK_INIT_PORTS_H

#include "sandbox/init/init.h"

/* TCP ports of the sandbox, for previews. Neither waits, so both are init's own work. */

/* GuestPorts: what is listened on. */
int ports_list(struct init *init, uint32_t stream, struct pdk_error *err);
/* GuestDial: a socket that is connected to a port, or about to be. It leaves with the reply; init keeps nothing of it. */
int ports_dial(struct init *init, uint32_t stream, uint32_t port, struct pdk_error *err);

#endif
