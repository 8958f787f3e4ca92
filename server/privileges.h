#ifndef PADDOCK_SERVER_PRIVILEGES_H
#define PADDOCK_SERVER_PRIVILEGES_H

#include "config.h"

/* What paddockd sheds before it opens the store or hears a client. */

/* As root: make data_dir and runtime_dir so that `user` can make its files in them, then become that user for good.
 * Not root: nothing. */
int privileges_drop(const struct config *config, struct pdk_error *err);

/* For every user: no core files, no ptrace by others, no new privileges, as many descriptors as allowed. */
int privileges_harden(struct pdk_error *err);

#endif
