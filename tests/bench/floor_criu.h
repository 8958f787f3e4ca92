#ifndef PADDOCK_BENCH_FLOOR_CRIU_H
#define PADDOCK_BENCH_FLOOR_CRIU_H

#include "sample.h"
#include <stdbool.h>

/*
 * Bare CRIU, as fast as it goes: a process tree in pid, mount, network, ipc and host-name namespaces of its own, whose
 * network is external and not locked. No user namespace, no filter, no cgroup, and nothing is made durable.
 */

/* `criu`: /usr/sbin/criu, or a folder in which it was unpacked. `work`: a folder for the tree's root and images. */
void floor_criu_setup(const char *criu, const char *work);
/* Start `argv` as process 1 of a tree, wait until it has made /tmp/ready, then `rounds` times: dump it, which ends it,
 * and restore it. False: it failed here, and CRIU's log was printed. */
bool floor_criu(char *const *argv, int rounds, struct sample *dump, struct sample *restore);

#endif
