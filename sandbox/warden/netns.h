#ifndef PADDOCK_WARDEN_NETNS_H
#define PADDOCK_WARDEN_NETNS_H

#include "sandbox/base/error.h"

/*
 * Network namespaces with nothing but `lo`, up. They are owned by the initial user namespace, so no
 * capability inside a sandbox can configure them. Made ahead of time: making one costs half a millisecond,
 * entering a finished one three microseconds.
 */
int netns_setup(struct pdk_error *err);
int netns_take(int *ret_fd, struct pdk_error *err);
/* Make one for the stock. 1 if it did, 0 if the stock holds `wanted`. */
int netns_stock(unsigned int wanted);
unsigned int netns_stocked(void);

#endif
