#ifndef PADDOCK_WARDEN_HANDOVER_H
#define PADDOCK_WARDEN_HANDOVER_H

#include "sandbox/base/error.h"

/*
 * What a builder gets of the warden's descriptors. The warden holds one for every sandbox, and a copy of the table
 * costs time for each of them, in the clone and again in the end of the copy. So a builder is born with the warden's
 * own table (CLONE_FILES), and makes itself one of the low numbers alone before it does anything else. There are the
 * modules' descriptors, which are opened at the start, and places in which its own ones are put for it.
 */

enum handover_fd { HANDOVER_STATUS, HANDOVER_LISTENER, HANDOVER_USERNS, HANDOVER_NETNS, HANDOVER_FDS };

/* After the modules have opened what they keep. */
int handover_setup(struct pdk_error *err);
/* Copies of these into a free place: its number, or -EAGAIN when all places are taken. */
int handover_take(const int fds[HANDOVER_FDS]);
int handover_fd(int place, enum handover_fd which);
/* The builder has a table of its own, or is gone. -1: nothing. */
void handover_release(int place);
/* In the builder: a table of its own, in which of all places there is only this; -1: none. 0 or a negative errno. */
int handover_settle(int place);

#endif
