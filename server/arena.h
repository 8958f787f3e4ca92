#ifndef PADDOCK_SERVER_ARENA_H
#define PADDOCK_SERVER_ARENA_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>

/*
 * A bounded arena: memory that lives as long as a call (or one message of it). It serves protobuf-c, which can
 * need 50 times a message's size to unpack it. All arenas together are bounded too (ARENA_TOTAL_MAX), so that
 * a thousand hostile messages at once do not add up. Not thread-safe; the total is.
 */

#define ARENA_MAX (64u << 20)
#define ARENA_TOTAL_MAX ((size_t)1 << 30)

struct arena_chunk;

struct arena {
	struct arena_chunk *chunks; /* the newest first */
	size_t used;                /* of the newest chunk */
	size_t total;               /* bytes of all chunks */
	size_t max;
	bool refused; /* an allocation failed */
	ProtobufCAllocator allocator;
};

void arena_init(struct arena *arena, size_t max);
/* Free everything; the arena can be used again. */
void arena_clear(struct arena *arena);
/* Zeroed memory, aligned for anything; NULL at the bound. */
void *arena_alloc(struct arena *arena, size_t size);

/* The bound that fits a message of `length` bytes. */
size_t arena_max_for_message(size_t length);

#endif
