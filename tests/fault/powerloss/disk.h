#ifndef PADDOCK_TESTS_POWERLOSS_DISK_H
#define PADDOCK_TESTS_POWERLOSS_DISK_H

#include "event.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A disk that loses power. Events before the cut are replayed; what was synced is there, and of what was not,
 * `loss` says what became of it. Names (create, rename, unlink) are lost from the end backwards, as in a journal.
 */

enum disk_loss {
	DISK_LOSES_ALL,     /* nothing that was not synced arrived */
	DISK_LOSES_NOTHING, /* everything arrived, although not synced */
	DISK_LOSES_WRITES,  /* each write arrived or did not */
	DISK_LOSES_SECTORS, /* each 512 bytes of each write arrived or did not */
	DISK_LOSS_COUNT
};

struct recording {
	uint8_t *bytes;
	const struct event **events; /* each followed by its bytes */
	size_t count;
};

int recording_load(struct recording *recording, const char *path);
static inline const uint8_t *event_bytes(const struct event *event)
{
	return (const uint8_t *)(event + 1);
}

/* Rebuild what is left in the empty directory `dir` after the first `cut` events. With `lies`, the disk says that a
 * sync has worked but does nothing. */
void disk_rebuild(const struct recording *recording, size_t cut, enum disk_loss loss, bool lies, const char *dir);

#endif
