#include "guest_unpack.h"

#include <stdlib.h>

#define BLOCK_SIZE (64u << 10)

struct guest_arena_block {
	struct guest_arena_block *next;
	_Alignas(16) uint8_t bytes[];
};

static int arena_grow(struct guest_arena *arena, size_t size)
{
	struct guest_arena_block *block;

	if (size < BLOCK_SIZE)
		size = BLOCK_SIZE;
	if (size > GUEST_UNPACK_MAX - arena->total)
		return -1;
	block = malloc(sizeof(*block) + size);
	if (!block)
		return -1;
	block->next = arena->blocks;
	arena->blocks = block;
	arena->used = 0;
	arena->size = size;
	arena->total += size;
	return 0;
}

static void *arena_alloc(void *data, size_t size)
{
	struct guest_arena *arena = data;
	uint8_t *start;

	if (size > GUEST_UNPACK_MAX)
		return NULL;
	size = (size + 15) & ~(size_t)15;
	if (size > arena->size - arena->used && arena_grow(arena, size) < 0)
		return NULL;
	start = arena->blocks ? arena->blocks->bytes : arena->first;
	arena->used += size;
	return start + arena->used - size;
}

static void arena_release(void *data, void *pointer)
{
}

void guest_arena_init(struct guest_arena *arena)
{
	arena->allocator = (ProtobufCAllocator){.alloc = arena_alloc, .free = arena_release, .allocator_data = arena};
	arena->blocks = NULL;
	arena->used = 0;
	arena->size = sizeof(arena->first);
	arena->total = 0;
}

void guest_arena_free(struct guest_arena *arena)
{
	while (arena->blocks) {
		struct guest_arena_block *block = arena->blocks;

		arena->blocks = block->next;
		free(block);
	}
}

Paddock__Internal__GuestReply *guest_unpack_reply(struct guest_arena *arena, const uint8_t *bytes, size_t length)
{
	return paddock__internal__guest_reply__unpack(&arena->allocator, length, bytes);
}
