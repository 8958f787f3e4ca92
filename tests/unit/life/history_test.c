#include "fixture.h"

#include "server/usage_history.h"
#include <stdlib.h>

/* What is kept of a sandbox's past: how much, what of it, and that means are right whatever was left out. */

#define SECOND 1000000000ull
#define BEGIN (77 * SECOND)

/* It takes a tenth of a processor, and has as many MiB as seconds have gone by. */
static struct usage_reading at(uint64_t second)
{
	return (struct usage_reading){
		.at_ns = BEGIN + second * SECOND,
		.cpu_usec = second * 100000,
		.memory_bytes = second << 20,
		.cache_bytes = second << 19,
		.disk_bytes = second << 12,
	};
}

static struct usage_history *filled(uint64_t seconds)
{
	struct usage_history *history = usage_history_create(BEGIN);

	for (uint64_t second = 5; second <= seconds; second += 5) {
		struct usage_reading reading = at(second);

		usage_history_add(history, &reading);
	}
	return history;
}

static void keeps_the_last_and_one_a_minute(void **state)
{
	struct usage_sample samples[USAGE_SAMPLES_MAX];
	struct usage_history *history = filled(24 * 3600);
	size_t n = usage_history_read(history, 0, UINT64_MAX, samples);

	/* The oldest one is there for the next to be compared with. */
	assert_int_equal(n, USAGE_SAMPLES_MAX - 1);
	for (size_t i = 0; i < n; i++) {
		uint64_t second = (samples[i].at_ns - BEGIN) / SECOND;

		assert_int_equal(samples[i].memory_bytes, second << 20);
		assert_int_equal(samples[i].cache_bytes, second << 19);
		assert_int_equal(samples[i].disk_bytes, second << 12);
		assert_true(samples[i].cpu_percent > 9.99 && samples[i].cpu_percent < 10.01);
		if (i > 0 && i < USAGE_OLDER - 1)
			assert_int_equal(samples[i].at_ns - samples[i - 1].at_ns, 60 * SECOND);
		if (i > USAGE_OLDER)
			assert_int_equal(samples[i].at_ns - samples[i - 1].at_ns, 5 * SECOND);
	}
	assert_int_equal(samples[n - 1].at_ns, BEGIN + 24 * 3600 * SECOND);
	free(history);
}

static void ranges_have_both_ends(void **state)
{
	struct usage_sample samples[USAGE_SAMPLES_MAX];
	struct usage_history *history = filled(100);

	assert_int_equal(usage_history_read(history, 0, UINT64_MAX, samples), 20);
	assert_int_equal(usage_history_read(history, BEGIN + 10 * SECOND, BEGIN + 20 * SECOND, samples), 3);
	assert_int_equal(samples[0].at_ns, BEGIN + 10 * SECOND);
	/* Its mean is since the sample before the range. */
	assert_true(samples[0].cpu_percent > 9.99 && samples[0].cpu_percent < 10.01);
	assert_int_equal(usage_history_read(history, BEGIN + 101 * SECOND, UINT64_MAX, samples), 0);
	assert_int_equal(usage_history_read(history, BEGIN + 20 * SECOND, BEGIN + 10 * SECOND, samples), 0);
	free(history);
}

static void a_counter_that_starts_again(void **state)
{
	struct usage_history *history = filled(100);
	struct usage_reading reading = at(105);
	struct usage_sample sample;

	reading.cpu_usec = 1000000; /* it came back from disk, and has taken a second of five */
	sample = usage_history_measure(history, &reading);
	assert_true(sample.cpu_percent > 19.9 && sample.cpu_percent < 20.1);
	usage_history_add(history, &reading);
	assert_true(usage_history_last(history, &sample));
	assert_true(sample.cpu_percent > 19.9 && sample.cpu_percent < 20.1);
	reading.at_ns += 5 * SECOND;
	reading.cpu_usec += 2500000;
	usage_history_add(history, &reading);
	assert_true(usage_history_last(history, &sample));
	assert_true(sample.cpu_percent > 49.9 && sample.cpu_percent < 50.1);
	free(history);
}

static void odd_readings(void **state)
{
	struct usage_history *history = usage_history_create(BEGIN);
	struct usage_reading reading = {.at_ns = 1, .cpu_usec = UINT64_MAX, .memory_bytes = UINT64_MAX};
	struct usage_sample sample;

	assert_false(usage_history_last(history, &sample));
	usage_history_add(history, &reading); /* before the beginning */
	usage_history_add(history, &reading); /* twice in one moment */
	assert_true(usage_history_last(history, &sample));
	assert_int_equal(sample.at_ns, BEGIN);
	assert_true(sample.cpu_percent == 0);
	assert_int_equal(sample.memory_bytes, (uint64_t)UINT32_MAX << 12);
	free(history);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keeps_the_last_and_one_a_minute),
		cmocka_unit_test(ranges_have_both_ends),
		cmocka_unit_test(a_counter_that_starts_again),
		cmocka_unit_test(odd_readings),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
