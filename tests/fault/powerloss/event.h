#ifndef PADDOCK_TESTS_POWERLOSS_EVENT_H
#define PADDOCK_TESTS_POWERLOSS_EVENT_H

#include <stdint.h>

/* The recording: a file of struct event, each followed by `length` bytes and zeros up to
 * a multiple of eight. Written in the order in which the driver's
 * system calls began; a write is on the disk for sure only after a sync that began later has ended. */

enum event_kind {
	EVENT_WRITE = 1, /* offset, bytes of a file; `id` */
	EVENT_WRITTEN,   /* write `id` was through an O_DSYNC descriptor and has returned: durable */
	EVENT_SYNC,      /* fsync or fdatasync of a file has returned */
	EVENT_TRUNCATE,  /* offset = the new size */
	EVENT_CREATE,    /* bytes = path */
	EVENT_MKDIR,     /* bytes = path */
	EVENT_RENAME,    /* bytes = old path, NUL, new path */
	EVENT_UNLINK,    /* bytes = path */
	EVENT_SYNC_DIR,  /* bytes = path; has returned */
	EVENT_ACK,       /* bytes = what the driver said on its standard output */
};

struct event {
	uint32_t kind;
	uint32_t length;
	uint64_t inode;
	uint64_t offset;
	uint64_t id;
};

static inline uint32_t event_padding(uint32_t length)
{
	return -length & 7;
}

#endif
