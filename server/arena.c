#include "arena.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_MIN 2048u
#define CHUNK_MAX (256u << 10)
#define ALIGNMENT 16u

struct arena_chunk {
	struct arena_chunk *next;
	size_t size;
	uint8_t data[] __attribute__((aligned(ALIGNMENT)));
};

static atomic_size_t all_arenas;

static bool take(struct arena *arena, size_t size)
{
	if (size > arena->max - arena->total)
		return false;
	if (atomic_fetch_add(&all_arenas, size) + size > ARENA_TOTAL_MAX) {
		atomic_fetch_sub(&all_arenas, size);
		return false;
	}
	arena->total += size;
	return true;
}

static void give_back(struct arena *arena, size_t size)
{
	atomic_fetch_sub(&all_arenas, size);
	arena->total -= size;
}

/* Chunks double, so that a large message costs few of them; what is larger than a chunk gets one of its own size. */
static struct arena_chunk *add_chunk(struct arena *arena, size_t size)
{
	size_t want = arena->chunks ? 2 * arena->chunks->size : CHUNK_MIN;
	struct arena_chunk *chunk;

	if (want > CHUNK_MAX)
		want = CHUNK_MAX;
	if (want < size)
		want = size;
	if (!take(arena, want))
		return NULL;
	chunk = malloc(sizeof(*chunk) + want);
	if (!chunk) {
		give_back(arena, want);
		return NULL;
	}
	chunk->size = want;
	chunk->next = arena->chunks;
	arena->chunks = chunk;
	arena->used = 0;
	return chunk;
}

static void *allocate(struct arena *arena, size_t size)
{
	struct arena_chunk *chunk = arena->chunks;
	void *memory;

	if (size > ARENA_MAX) {
		arena->refused = true;
		return NULL;
	}
	size = (size + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
	if (!chunk || size > chunk->size - arena->used)
		chunk = add_chunk(arena, size);
	if (!chunk) {
		arena->refused = true;
		return NULL;
	}
	memory = chunk->data + arena->used;
	arena->used += size;
	return memory;
}

void *arena_alloc(struct arena *arena, size_t size)
{
	void *memory = allocate(arena, size);

	return memory ? memset(memory, 0, size) : NULL;
}

/* protobuf-c fills what it asks for. */
static void *protobuf_alloc(void *arena, size_t size)
{
	return allocate(arena, size);
}

static void protobuf_free(void *arena, void *memory)
{
}

void arena_init(struct arena *arena, size_t max)
{
	*arena = (struct arena){
		.max = max,
		.allocator = {.alloc = protobuf_alloc, .free = protobuf_free, .allocator_data = arena},
	};
}

void arena_clear(struct arena *arena)
{
	while (arena->chunks) {
		struct arena_chunk *chunk = arena->chunks;

		arena->chunks = chunk->next;
		give_back(arena, chunk->size);
		free(chunk);
	}
	arena->used = 0;
	arena->refused = false;
}

size_t arena_max_for_message(size_t length)
{
	size_t max = (4u << 20) + 64 * length;

	return max < ARENA_MAX ? max : ARENA_MAX;
}
