#ifndef PADDOCK_WARDEN_USERNS_H
#define PADDOCK_WARDEN_USERNS_H

#include "sandbox/base/error.h"
#include <stdbool.h>
#include <stdint.h>

/*
 * User namespaces, each with a network namespace of its own, and the uid ranges they map. They are made ahead of time:
 * a network namespace costs half a millisecond, entering a finished one three microseconds.
 *
 * Slot n is the 65,536 host ids from range_base + n * 65536; no two living sandboxes share one, also not sandboxes of
 * two wardens (ranges.h). A slot is given back only when the sandbox's cgroups could be removed, which proves that no
 * process is left; otherwise it stays in quarantine until the host restarts. Slots are handed out in turn, so of those
 * at hand each is reused as late as possible.
 */

#define USERNS_IDS 65536u
#define USERNS_SLOTS 16384u

struct userns {
	uint32_t slot;
	uint32_t base; /* host uid and gid of id 0 inside */
	int fd;        /* the user namespace, or -1 */
	int netns;     /* a network namespace that it owns, or -1 */
};
#define USERNS_NONE                                                                                                    \
	{                                                                                                              \
		.fd = -1, .netns = -1                                                                                  \
	}

/* The descriptors, not the slot. */
void userns_close(struct userns *userns);

/* From the stock, or made now. */
int userns_take(struct userns *ret, struct pdk_error *err);
/* Make one for the stock. 1 if it did, 0 if the stock holds `wanted`. */
int userns_stock(unsigned int wanted);
unsigned int userns_stocked(void);
/* `verified`: nothing of the sandbox is left. Otherwise the slot is never used again by this warden. */
void userns_release(uint32_t slot, bool verified);
/* A sandbox of an earlier warden holds this slot. False: it is another warden's now, so that sandbox cannot live. */
bool userns_reserve(uint32_t slot);
uint32_t userns_base(uint32_t slot);

#endif
