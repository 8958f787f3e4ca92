#ifndef PADDOCK_SERVER_GUEST_UNPACK_H
#define PADDOCK_SERVER_GUEST_UNPACK_H

#include "paddock/internal/guest.pb-c.h"
#include <stddef.h>
#include <stdint.h>

/*
 * Unpack what init says within a bound: protobuf-c can need fifty times the size of a hostile message.
 * The arena's first block serves nearly all replies; more comes from the heap up to GUEST_UNPACK_MAX.
 */

#define GUEST_UNPACK_MAX (16u << 20)

struct guest_arena_block;
struct guest_arena {
	ProtobufCAllocator allocator;
	struct guest_arena_block *blocks;
	size_t used;  /* of the newest block */
	size_t size;  /* of the newest block */
	size_t total; /* of all blocks */
	_Alignas(16) uint8_t first[2048];
};

void guest_arena_init(struct guest_arena *arena);
void guest_arena_free(struct guest_arena *arena);
/* NULL when it does not parse or needs more than the bound. Freed with the arena. */
Paddock__Internal__GuestReply *guest_unpack_reply(struct guest_arena *arena, const uint8_t *bytes, size_t length);

#endif
