#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* Both ways of computing it are in there; on one machine only one of them is used. */
#include "sandbox/archive/sha256.c"

static void digest_text(const char *text, size_t step, char hex[2 * SHA256_SIZE + 1])
{
	size_t length = strlen(text);
	uint8_t digest[SHA256_SIZE];
	struct sha256 sha;

	sha256_init(&sha);
	for (size_t at = 0; at < length; at += step)
		sha256_update(&sha, text + at, length - at < step ? length - at : step);
	sha256_finish(&sha, digest);
	sha256_hex(digest, hex);
}

/* The examples of FIPS 180-4. */
static void test_known_answers(void **state)
{
	static const struct {
		const char *text, *hex;
	} known[] = {
		{"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		{"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
		{"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
		 "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
	};
	char hex[2 * SHA256_SIZE + 1];

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		for (size_t step = 1; step < 70; step += 9) {
			digest_text(known[i].text, step, hex);
			assert_string_equal(hex, known[i].hex);
		}
}

static void test_both_ways_agree(void **state)
{
	uint32_t plain[8], sha[8];
	uint8_t blocks[5 * 64];

	if (!processor_has_sha())
		return; /* the other test has shown the only way there is here */
	for (unsigned int round = 0; round < 200; round++) {
		for (size_t i = 0; i < sizeof(blocks); i++)
			blocks[i] = (uint8_t)(i * 31 + round * 97 + (i * round >> 3));
		for (unsigned int i = 0; i < 8; i++)
			plain[i] = sha[i] = 0x9e3779b9u * (i + round + 1);
		compress_plain(plain, blocks, round % 6);
		compress_sha(sha, blocks, round % 6);
		assert_memory_equal(plain, sha, sizeof(plain));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known_answers),
		cmocka_unit_test(test_both_ways_agree),
	};

	return cmocka_run_group_tests_name("sha256", tests, NULL, NULL);
}
