#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "core_test.pb-c.h"
#include "server/arena.h"

static void memory_is_zeroed_and_aligned(void **state)
{
	struct arena arena;

	arena_init(&arena, 1 << 20);
	for (size_t size = 0; size < 5000; size += 7) {
		uint8_t *memory = arena_alloc(&arena, size);

		if (!memory)
			break;
		assert_int_equal((uintptr_t)memory % 16, 0);
		for (size_t i = 0; i < size; i++)
			assert_int_equal(memory[i], 0);
		memset(memory, 0xff, size);
	}
	assert_true(arena.total <= 1 << 20);
	arena_clear(&arena);
	assert_int_equal(arena.total, 0);
	arena_clear(&arena);
}

static void bound_holds(void **state)
{
	struct arena arena;

	arena_init(&arena, 10000);
	assert_null(arena_alloc(&arena, 10001));
	assert_true(arena.refused);
	assert_null(arena_alloc(&arena, SIZE_MAX));
	assert_null(arena_alloc(&arena, SIZE_MAX - 15));
	assert_non_null(arena_alloc(&arena, 5000));
	assert_null(arena_alloc(&arena, 6000));
	arena_clear(&arena);
	assert_false(arena.refused);
	assert_non_null(arena_alloc(&arena, 6000));
	arena_clear(&arena);
}

/* A million empty strings in 2 MB: protobuf-c wants far more than the message's size. */
static void expanding_message_is_refused(void **state)
{
	const size_t length = 8 << 20;
	uint8_t *bytes = malloc(length);
	struct arena arena;

	for (size_t i = 0; i < length; i += 2) {
		bytes[i] = 0x12;
		bytes[i + 1] = 0;
	}
	arena_init(&arena, arena_max_for_message(length));
	assert_null(paddock__test__text__unpack(&arena.allocator, length, bytes));
	assert_true(arena.refused);
	arena_clear(&arena);
	arena_init(&arena, arena_max_for_message(2000));
	assert_non_null(paddock__test__text__unpack(&arena.allocator, 2000, bytes));
	arena_clear(&arena);
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_is_zeroed_and_aligned),
		cmocka_unit_test(bound_holds),
		cmocka_unit_test(expanding_message_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
