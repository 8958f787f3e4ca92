/* Digests of chunks: the same however the bytes come, and no chunk that is not what was digested. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sandbox/warden/chunks.h"
#include "sandbox/warden/options.h"
#include "sandbox/warden/pagemap.h"

struct options options;

#define LENGTH (3 * CHUNK_BYTES + 4096)

static char directory[] = "/tmp/paddock-chunks-XXXXXX";
static uint8_t bytes[LENGTH], root[SHA256_SIZE];
static int dir;

static void put(const char *name, const void *content, size_t length)
{
	int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0 && write(fd, content, length) == (ssize_t)length);
	close(fd);
}

static void digest(size_t step, uint8_t ret[SHA256_SIZE], const char *sums)
{
	struct chunks chunks;

	chunks_begin(&chunks);
	for (size_t at = 0; at < LENGTH; at += step)
		assert_int_equal(chunks_add(&chunks, bytes + at, step < LENGTH - at ? step : LENGTH - at), 0);
	assert_int_equal(chunks_end(&chunks, ret), 0);
	assert_int_equal(buffer_length(&chunks.digests), 4 * SHA256_SIZE);
	if (sums)
		put(sums, buffer_data(&chunks.digests), buffer_length(&chunks.digests));
	chunks_free(&chunks);
}

static int setup(void **state)
{
	for (size_t i = 0; i < LENGTH; i++)
		bytes[i] = (uint8_t)(i * 7 + i / 999);
	dir = mkdtemp(directory) ? open(directory, O_DIRECTORY | O_RDONLY | O_CLOEXEC) : -1;
	put("pages", bytes, LENGTH);
	digest(LENGTH, root, "sums");
	return dir < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	static const char *const names[] = {"pages", "sums", "pagemap-1.img"};

	for (size_t i = 0; i < 3; i++)
		unlinkat(dir, names[i], 0);
	close(dir);
	return rmdir(directory);
}

static void test_steps(void **state)
{
	static const size_t steps[] = {4096, 999, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES};
	uint8_t found[SHA256_SIZE];

	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		digest(steps[i], found, NULL);
		assert_memory_equal(found, root, SHA256_SIZE);
	}
}

static void test_each_chunk_is_checked(void **state)
{
	static uint8_t chunk[CHUNK_BYTES];
	struct chunk_file file;

	assert_int_equal(chunk_file_open(dir, "pages", "sums", root, LENGTH, &file), 0);
	for (size_t i = 0; i < 4; i++) {
		assert_int_equal(chunk_file_read(&file, i, chunk), i < 3 ? CHUNK_BYTES : 4096);
		assert_memory_equal(chunk, bytes + i * CHUNK_BYTES, i < 3 ? CHUNK_BYTES : 4096);
	}
	assert_int_equal(chunk_file_read(&file, 4, chunk), -EBADMSG);
	bytes[2 * CHUNK_BYTES + 5] ^= 1;
	put("pages", bytes, LENGTH);
	bytes[2 * CHUNK_BYTES + 5] ^= 1;
	chunk_file_close(&file);
	assert_int_equal(chunk_file_open(dir, "pages", "sums", root, LENGTH, &file), 0);
	assert_int_equal(chunk_file_read(&file, 1, chunk), CHUNK_BYTES);
	assert_int_equal(chunk_file_read(&file, 2, chunk), -EBADMSG);
	assert_int_equal(chunk_file_read(&file, 3, chunk), 4096);
	assert_int_equal(ftruncate(file.fd, 0), -1); /* it is open for reading alone */
	put("pages", bytes, LENGTH - 1);
	assert_int_equal(chunk_file_read(&file, 3, chunk), -EBADMSG);
	chunk_file_close(&file);
	assert_int_equal(chunk_file_open(dir, "pages", "sums", root, LENGTH, &file), -EBADMSG);
	put("pages", bytes, LENGTH);
}

static void test_digests_are_checked(void **state)
{
	struct chunk_file file;
	uint8_t other[SHA256_SIZE];

	memcpy(other, root, sizeof(other));
	other[31] ^= 1;
	assert_int_equal(chunk_file_open(dir, "pages", "sums", other, LENGTH, &file), -EBADMSG);
	put("sums", bytes, 4 * SHA256_SIZE);
	assert_int_equal(chunk_file_open(dir, "pages", "sums", root, LENGTH, &file), -EBADMSG);
	put("sums", bytes, 3);
	assert_int_equal(chunk_file_open(dir, "pages", "sums", root, LENGTH, &file), -EBADMSG);
	digest(LENGTH, root, "sums");
	assert_int_equal(chunk_file_open(dir, "pages", "sums", root, LENGTH, &file), 0);
	chunk_file_close(&file);
}

/* Magic; { pages_id: 3 }; 2 pages at 0x10000, present; 1 page at 0x20000 and 1 at 0x30000, lazy and present. */
static const uint8_t good[] = {1,  2, 3,    4,    5, 6,  7, 8,  2, 0,    0,    0,  8,  3, 8,    0,    0,
			       0,  8, 0x80, 0x80, 4, 16, 2, 32, 4, 8,    0,    0,  0,  8, 0x80, 0x80, 8,
			       40, 1, 32,   6,    8, 0,  0, 0,  8, 0x80, 0x80, 12, 16, 1, 32,   6};

static void test_pagemap(void **state)
{
	struct pagemap map;

	put("pagemap-1.img", good, sizeof(good));
	assert_int_equal(pagemap_read(dir, "pagemap-1.img", &map), 0);
	assert_int_equal(map.pid, 1);
	assert_int_equal(map.pages, 3);
	assert_int_equal(map.n, 3);
	assert_int_equal(map.lazy_bytes, 2 * PAGE_BYTES);
	assert_true(map.entries[0].start == 0x10000 && map.entries[0].end == 0x12000 && !map.entries[0].lazy);
	assert_true(map.entries[1].start == 0x20000 && map.entries[1].offset == 0x2000 && map.entries[1].lazy);
	assert_true(map.entries[2].start == 0x30000 && map.entries[2].offset == 0x3000);
	pagemap_free(&map);
}

static void test_bad_pagemaps(void **state)
{
	uint8_t bad[sizeof(good)];
	struct pagemap map;

	for (size_t length = 0; length < sizeof(good); length++) {
		put("pagemap-1.img", good, length);
		if (pagemap_read(dir, "pagemap-1.img", &map) == 0) {
			assert_true(length == 14 || length == 26 || length == 38); /* at an entry's end */
			pagemap_free(&map);
		}
	}
	memcpy(bad, good, sizeof(bad));
	bad[33] = 4; /* the second where the first is */
	put("pagemap-1.img", bad, sizeof(bad));
	assert_int_equal(pagemap_read(dir, "pagemap-1.img", &map), -EBADMSG);
	bad[33] = 8;
	bad[37] = 2; /* somewhere else */
	put("pagemap-1.img", bad, sizeof(bad));
	assert_int_equal(pagemap_read(dir, "pagemap-1.img", &map), -EBADMSG);
	bad[37] = 6;
	bad[31] = 0x81; /* not a page's start */
	put("pagemap-1.img", bad, sizeof(bad));
	assert_int_equal(pagemap_read(dir, "pagemap-1.img", &map), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_steps),
		cmocka_unit_test(test_each_chunk_is_checked),
		cmocka_unit_test(test_digests_are_checked),
		cmocka_unit_test(test_pagemap),
		cmocka_unit_test(test_bad_pagemaps),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
