/* The memory that is missing: against a model that has a number for each page. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "sandbox/warden/lazy_ranges.h"
#include "sandbox/warden/options.h"

struct options options;

#define PAGE 4096u
#define PAGES 200

/* Where the page's content is, in pages of the file and 1; 0: nothing is missing. */
static unsigned int model[PAGES];

static void compare(const struct lazy_ranges *ranges)
{
	uint64_t before = 0;

	for (size_t i = 0; i < ranges->n; i++) {
		assert_true(ranges->at[i].start >= before && ranges->at[i].end > ranges->at[i].start);
		before = ranges->at[i].end;
	}
	for (unsigned int page = 0; page < PAGES; page++) {
		const struct lazy_range *range = lazy_ranges_find(ranges, page * PAGE);
		unsigned int found = 0;

		if (range && range->start <= page * PAGE)
			found = (unsigned int)((range->offset + page * PAGE - range->start) / PAGE) + 1;
		assert_int_equal(found, model[page]);
	}
}

static void fill(struct lazy_ranges *ranges)
{
	memset(model, 0, sizeof(model));
	*ranges = (struct lazy_ranges){0};
	for (unsigned int page = 0, offset = 0; page + 20 < PAGES; page += 23) {
		assert_int_equal(lazy_ranges_append(ranges, page * PAGE, (page + 20) * PAGE, offset * PAGE), 0);
		for (unsigned int i = 0; i < 20; i++)
			model[page + i] = ++offset;
	}
	compare(ranges);
}

static void remove_some(struct lazy_ranges *ranges, unsigned int start, unsigned int n)
{
	assert_int_equal(lazy_ranges_remove(ranges, start * PAGE, (start + n) * PAGE), 0);
	memset(model + start, 0, n * sizeof(model[0]));
}

static void move_some(struct lazy_ranges *ranges, unsigned int from, unsigned int to, unsigned int n)
{
	unsigned int moved[PAGES];

	assert_int_equal(lazy_ranges_move(ranges, from * PAGE, to * PAGE, n * PAGE), 0);
	memcpy(moved, model + from, n * sizeof(model[0]));
	memset(model + from, 0, n * sizeof(model[0]));
	memcpy(model + to, moved, n * sizeof(model[0]));
}

static void test_each_case(void **state)
{
	struct lazy_ranges ranges;

	fill(&ranges);
	remove_some(&ranges, 0, 20);  /* a whole one */
	remove_some(&ranges, 23, 5);  /* its front */
	remove_some(&ranges, 40, 3);  /* its end */
	remove_some(&ranges, 50, 1);  /* its middle */
	remove_some(&ranges, 60, 80); /* over several */
	remove_some(&ranges, 65, 10); /* where nothing is */
	compare(&ranges);
	move_some(&ranges, 46, 70, 20); /* with a hole */
	move_some(&ranges, 75, 23, 5);  /* back, over another */
	move_some(&ranges, 100, 120, 5);
	compare(&ranges);
	lazy_ranges_free(&ranges);
}

static void test_at_random(void **state)
{
	srandom(1);
	for (int round = 0; round < 200; round++) {
		struct lazy_ranges ranges, copy;

		fill(&ranges);
		for (int i = 0; i < 40; i++) {
			unsigned int n = 1 + (unsigned int)random() % 30, a = (unsigned int)random() % (PAGES - n),
				     b = (unsigned int)random() % (PAGES - n);

			if (random() % 2)
				remove_some(&ranges, a, n);
			else if (a + n <= b || b + n <= a)
				move_some(&ranges, a, b, n);
			compare(&ranges);
		}
		assert_int_equal(lazy_ranges_copy(&ranges, &copy), 0);
		lazy_ranges_free(&ranges);
		compare(&copy);
		lazy_ranges_free(&copy);
	}
}

static void test_is_bounded(void **state)
{
	struct lazy_ranges ranges = {0}, copy;
	uint64_t at = 0;

	while (lazy_ranges_append(&ranges, at, at + PAGE, 0) == 0)
		at += 2 * PAGE;
	assert_int_equal(ranges.n, LAZY_RANGES_MAX);
	assert_true(lazy_ranges_copy(&ranges, &copy) < 0);
	assert_int_equal(lazy_ranges_remove(&ranges, 0, PAGE), 0);
	assert_int_equal(lazy_ranges_append(&ranges, at, at + PAGE, 0), 0);
	lazy_ranges_free(&ranges);
	assert_int_equal(lazy_ranges_append(&ranges, 0, PAGE, 0), 0);
	lazy_ranges_free(&ranges);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_case),
		cmocka_unit_test(test_at_random),
		cmocka_unit_test(test_is_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
