#include "fake.h"
#include "server/output.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* The kept output against a model: what is read back must be a prefix of head_bytes, one gap, and the newest bytes. */

#define TOTAL_MAX (4u << 20)

static uint8_t model_bytes[TOTAL_MAX];
static uint8_t model_streams[TOTAL_MAX];
static char dir[64];

static int setup(void **state)
{
	strcpy(dir, "/tmp/paddock-output-XXXXXX");
	assert_non_null(mkdtemp(dir));
	return 0;
}

static int teardown(void **state)
{
	char path[100];

	output_remove_sandbox(dir, "box");
	snprintf(path, sizeof(path), "%s/output", dir);
	rmdir(path);
	return rmdir(dir);
}

/* Read from `from` to the end and compare. Returns how many bytes were missing; the kept bytes must be right. */
static uint64_t check(struct output *output, uint64_t from, uint64_t *ret_head)
{
	static uint8_t data[OUTPUT_PIECE_MAX];
	struct output_cursor cursor = {.sequence = from};
	struct output_piece piece;
	uint64_t at = from, dropped = 0;
	int rc;

	*ret_head = 0;
	while ((rc = output_read(output, &cursor, data, &piece)) == 1) {
		assert_int_equal(piece.sequence, at);
		if (piece.dropped) {
			assert_int_equal(dropped, 0);
			dropped = piece.dropped;
			*ret_head = at;
			at += piece.dropped;
			continue;
		}
		assert_true(piece.length > 0 && piece.length <= OUTPUT_PIECE_MAX);
		assert_memory_equal(data, model_bytes + at, piece.length);
		for (size_t i = 0; i < piece.length; i++)
			assert_int_equal(piece.stream, model_streams[at + i]);
		at += piece.length;
	}
	assert_int_equal(rc, 0);
	assert_int_equal(at, output_total(output));
	return dropped;
}

static void append_random(struct output *output, uint64_t *total, size_t max_piece)
{
	unsigned int stream = 1 + (unsigned int)rand() % 2;
	size_t length = 1 + (size_t)rand() % max_piece;

	if (*total + length > TOTAL_MAX)
		length = TOTAL_MAX - *total;
	for (size_t i = 0; i < length; i++) {
		model_bytes[*total + i] = (uint8_t)rand();
		model_streams[*total + i] = (uint8_t)stream;
	}
	output_append(output, stream, model_bytes + *total, length);
	*total += length;
}

static void run_model(unsigned int seed, size_t max_piece, uint64_t head, uint64_t tail, uint64_t bytes)
{
	struct output *output = output_create(dir, "box", seed, head, tail);
	uint64_t total = 0, dropped, shown_head;

	srand(seed);
	while (total < bytes) {
		append_random(output, &total, max_piece);
		if (rand() % 16)
			continue;
		/* A daemon that was killed reads the same back. */
		output_free(output);
		output = output_create(dir, "box", seed, head, tail);
		assert_int_equal(output_load(output), 0);
		assert_int_equal(output_total(output), total);
	}
	dropped = check(output, 0, &shown_head);
	assert_int_equal(dropped, output_dropped(output));
	if (total <= head + tail)
		assert_int_equal(dropped, 0);
	if (dropped) {
		assert_int_equal(shown_head, head);
		assert_true(total - shown_head - dropped >= tail);
	}
	for (int i = 0; i < 20; i++)
		check(output, (uint64_t)rand() % (total + 1), &shown_head);
	output_free(output);
}

static void test_model(void **state)
{
	run_model(1, 100, 1000, 5000, 900);
	run_model(2, 20000, 256 << 10, 1 << 20, 1 << 20);
	run_model(3, 300000, 256 << 10, 1 << 20, 4 << 20);
	run_model(4, 70000, 0, 100000, 2 << 20);
	run_model(5, 50000, 100000, 0, 2 << 20);
	run_model(6, 2000, 65536, 65536, 400000);
}

/* Tiny pieces of alternating streams: the frames count too, so less than tail_bytes may stay, but nothing is wrong. */
static void test_tiny_pieces(void **state)
{
	struct output *output = output_create(dir, "box", 9, 4096, 16384);
	uint64_t total = 0, head;

	srand(9);
	while (total < 60000)
		append_random(output, &total, 3);
	assert_true(check(output, 0, &head) > 0);
	output_free(output);
}

static void test_no_file_without_bytes(void **state)
{
	struct output *output = output_create(dir, "box", 10, 4096, 16384);
	char path[100];
	struct stat st;
	uint64_t head;

	assert_int_equal(output_load(output), 0);
	assert_int_equal(check(output, 0, &head), 0);
	snprintf(path, sizeof(path), "%s/output", dir);
	assert_int_not_equal(stat(path, &st), 0);
	output_free(output);
}

static void test_damaged_file(void **state)
{
	char path[100];

	for (int i = 0; i < 200; i++) {
		struct output *output = output_create(dir, "box", 11, 4096, 16384);
		struct output_cursor cursor = {.sequence = 0};
		static uint8_t data[OUTPUT_PIECE_MAX];
		struct output_piece piece;
		uint64_t total = 0;
		FILE *file;

		srand((unsigned int)i);
		while (total < 40000)
			append_random(output, &total, 3000);
		output_free(output);
		snprintf(path, sizeof(path), "%s/output/box/11", dir);
		file = fopen(path, "r+");
		for (int j = 0; j < 8; j++) {
			fseek(file, j < 4 ? rand() % 128 : rand() % 20000, SEEK_SET);
			fputc(rand(), file);
		}
		fclose(file);
		output = output_create(dir, "box", 11, 4096, 16384);
		output_load(output);
		for (int steps = 0; steps < 1000 && output_read(output, &cursor, data, &piece) == 1; steps++)
			assert_true(piece.dropped || piece.length <= OUTPUT_PIECE_MAX);
		output_append(output, 1, "more", 4);
		output_free(output);
		unlink(path);
	}
}

/* A full disk: what cannot be kept is counted. */
static void test_no_space(void **state)
{
	struct output *output = output_create(dir, "box", 12, 64 << 10, 1 << 20);
	struct rlimit limit, old;
	uint64_t total = 0, head, dropped;

	getrlimit(RLIMIT_FSIZE, &old);
	limit = old;
	limit.rlim_cur = 128 << 10;
	setrlimit(RLIMIT_FSIZE, &limit);
	srand(12);
	while (total < 300000)
		append_random(output, &total, 10000);
	setrlimit(RLIMIT_FSIZE, &old);
	assert_int_equal(output_total(output), total);
	dropped = check(output, 0, &head);
	assert_int_equal(dropped, output_dropped(output));
	assert_true(dropped > 100000 && head > 60000);
	output_free(output);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_model, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tiny_pieces, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_file_without_bytes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_space, setup, teardown),
	};

	signal(SIGXFSZ, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
