#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "sandbox/archive/archive.h"

/* paddock-archive against archives made by hand: what gets out, what is refused, what is bounded. */

#define TAR_MAX (4u << 20)

static char root[64]; /* a directory of this test; root/in is what is unpacked into, root/secret is next to it */

struct tar {
	uint8_t bytes[TAR_MAX];
	size_t length;
};

static struct tar tar;

static void tar_sum(uint8_t *header)
{
	unsigned int sum = 0;

	memset(header + 148, ' ', 8);
	for (int i = 0; i < 512; i++)
		sum += header[i];
	snprintf((char *)header + 148, 8, "%06o", sum);
}

/* One entry; `size` may lie. */
static uint8_t *tar_add(const char *name, char type, const char *link, const char *content, size_t length, size_t size)
{
	uint8_t *header = tar.bytes + tar.length;

	memset(header, 0, 512);
	memcpy(header, name, strnlen(name, 100));
	memcpy(header + 100, "0004755", 8);
	memcpy(header + 108, "0001747", 8); /* uid 999 */
	memcpy(header + 116, "0001747", 8);
	snprintf((char *)header + 124, 12, "%011o", (unsigned int)size & 037777777777u);
	memcpy(header + 136, "00000000001", 12);
	header[156] = (uint8_t)type;
	if (link)
		memcpy(header + 157, link, strnlen(link, 100));
	memcpy(header + 257, "ustar\00000", 8);
	tar_sum(header);
	tar.length += 512;
	memset(tar.bytes + tar.length, 0, (length + 511) & ~511ul);
	if (length)
		memcpy(tar.bytes + tar.length, content, length);
	tar.length += (length + 511) & ~511ul;
	return header;
}

static void tar_file(const char *name, const char *content)
{
	tar_add(name, '0', NULL, content, strlen(content), strlen(content));
}

static void tar_pax(const char *key, const char *value)
{
	char record[320], body[300];
	int length = snprintf(body, sizeof(body), " %s=%s\n", key, value);
	int total = length + 2;

	snprintf(record, sizeof(record), "%d%s", total, body);
	tar_add("pax", 'x', NULL, record, strlen(record), strlen(record));
}

static void tar_end(void)
{
	memset(tar.bytes + tar.length, 0, 1024);
	tar.length += 1024;
}

struct outcome {
	int code; /* -1: it was killed */
	char out[256];
	char err[512];
};

static void drain(int fd, char *text, size_t size)
{
	ssize_t n = read(fd, text, size - 1);

	text[n > 0 ? n : 0] = '\0';
	close(fd);
}

static struct outcome run(const char *const *argv, const uint8_t *input, size_t length)
{
	struct outcome outcome = {};
	int in[2], out[2], err[2];
	size_t done = 0;
	int status;
	pid_t pid;

	assert_true(pipe(in) == 0 && pipe(out) == 0 && pipe(err) == 0);
	pid = fork();
	if (pid == 0) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		dup2(err[1], 2);
		close(in[1]);
		execv(PADDOCK_ARCHIVE_BINARY, (char *const *)(uintptr_t)argv);
		_exit(99);
	}
	close(in[0]);
	close(out[1]);
	close(err[1]);
	while (done < length) {
		ssize_t n = write(in[1], input + done, length - done);

		if (n <= 0)
			break;
		done += (size_t)n;
	}
	close(in[1]);
	drain(out[0], outcome.out, sizeof(outcome.out));
	drain(err[0], outcome.err, sizeof(outcome.err));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	return outcome;
}

__attribute__((format(printf, 1, 2))) static void shell(const char *fmt, ...)
{
	char text[1024];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (system(text) != 0)
		fail_msg("failed: %s", text);
}

static void fresh(void)
{
	shell("rm -rf %s/in; mkdir %s/in; echo secret > %s/secret", root, root, root);
	tar.length = 0;
}

#define EXTRACT(...)                                                                                                   \
	run((const char *const[]){"paddock-archive", "extract", __VA_ARGS__, into(), NULL}, tar.bytes, tar.length)

static const char *into(void)
{
	static char path[80];

	snprintf(path, sizeof(path), "%s/in", root);
	return path;
}

static void expect_refused(const char *what, const char *text)
{
	struct outcome outcome = EXTRACT("--owner", "self");

	if (outcome.code != ARCHIVE_EXIT_REFUSED || !strstr(outcome.err, text))
		fail_msg("%s: code %d: %s", what, outcome.code, outcome.err);
	assert_null(strchr(strchr(outcome.err, '\n') + 1, '\n'));
	assert_string_equal(outcome.out, "");
	shell("test \"$(cat %s/secret)\" = secret; test ! -e /paddock-test-file; test $(ls %s | wc -l) = 2", root,
	      root);
}

static int make_root(void **state)
{
	signal(SIGPIPE, SIG_IGN);
	snprintf(root, sizeof(root), "/tmp/paddock-archive-test.XXXXXX");
	return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
	shell("rm -rf %s", root);
	return 0;
}

static void test_plain(void **state)
{
	struct outcome outcome;

	fresh();
	tar_add("./", '5', NULL, NULL, 0, 0);
	tar_add("d/", '5', NULL, NULL, 0, 0);
	tar_file("./d/f", "one");
	tar_file("d/f", "two!");
	tar_add("d/l", '2', "/etc/passwd", NULL, 0, 0);
	tar_add("h", '1', "d/f", NULL, 0, 0);
	tar_file("made/up/parents", "x");
	tar_end();
	outcome = EXTRACT("--owner", "self");
	assert_string_equal(outcome.err, "");
	assert_int_equal(outcome.code, 0);
	assert_string_equal(outcome.out, "entries 7 bytes 8\n");
	/* The set-uid bit of the archive is not kept, nor its owner. */
	shell("cd %s/in; test \"$(cat h)\" = 'two!'; test $(stat -c %%a-%%u h) = 755-$(id -u); test h -ef d/f", root);
}

static void test_escapes(void **state)
{
	fresh();
	tar_file("../secret", "x");
	expect_refused("dot dot", "\"..\"");
	fresh();
	tar_file("a/../../secret", "x");
	expect_refused("dot dot inside", "\"..\"");
	fresh();
	tar_file("/paddock-test-file", "x");
	expect_refused("absolute", "absolute");
	fresh();
	tar_add("a", '2', "..", NULL, 0, 0);
	tar_file("a/secret", "x");
	expect_refused("file through a link", "symbolic link");
	fresh();
	tar_add("d/", '5', NULL, NULL, 0, 0);
	tar_add("d", '2', "..", NULL, 0, 0);
	tar_file("d/secret", "x");
	expect_refused("directory replaced by a link", "symbolic link");
	fresh();
	tar_add("a", '2', "..", NULL, 0, 0);
	tar_add("b", '2', "a", NULL, 0, 0);
	tar_add("b/x", '5', NULL, NULL, 0, 0);
	expect_refused("link to link", "symbolic link");
	fresh();
	tar_add("h", '1', "../secret", NULL, 0, 0);
	expect_refused("hard link out", "\"..\"");
	fresh();
	tar_add("a", '2', "..", NULL, 0, 0);
	tar_add("h", '1', "a/secret", NULL, 0, 0);
	expect_refused("hard link through a link", "symbolic link");
	fresh();
	tar_pax("path", "../secret");
	tar_file("harmless", "x");
	expect_refused("pax path", "\"..\"");
	fresh();
	tar_pax("linkpath", "../secret");
	tar_add("h", '1', "x", NULL, 0, 0);
	expect_refused("pax linkpath", "\"..\"");
}

/* A link as the last component is replaced, never written through. */
static void test_replaced_link(void **state)
{
	fresh();
	shell("ln -s ../secret %s/in/s", root);
	tar_file("s", "mine");
	tar_end();
	assert_int_equal(EXTRACT("--owner", "self").code, 0);
	shell("test \"$(cat %s/secret)\" = secret; test \"$(cat %s/in/s)\" = mine; test ! -L %s/in/s", root, root,
	      root);
}

static void test_kinds(void **state)
{
	fresh();
	tar_add("null", '3', NULL, NULL, 0, 0);
	expect_refused("device", "device");
	fresh();
	tar_add("disk", '4', NULL, NULL, 0, 0);
	expect_refused("block device", "device");
	fresh();
	tar_file("f", "x");
	tar_add("f/g", '5', NULL, NULL, 0, 0);
	expect_refused("below a file", "a file");
	fresh();
	tar_file("d/f", "x");
	tar_file("d", "x");
	expect_refused("full directory", "not empty");
	fresh();
	tar_add("h", '1', "h", NULL, 0, 0);
	expect_refused("link to itself", "itself");
	fresh();
	tar_add("h", '1', "gone", NULL, 0, 0);
	expect_refused("link to nothing", "did not make");
}

static void test_damaged(void **state)
{
	uint8_t *header;

	fresh();
	tar_add("f", '0', NULL, "abc", 3, 100000);
	expect_refused("truncated", "");
	fresh();
	header = tar_add("f", '0', NULL, "abc", 3, 3);
	memset(header + 124, 0xff, 12); /* -1 in base 256 */
	tar_sum(header);
	tar_end();
	expect_refused("negative size", "");
	fresh();
	memset(tar.bytes, 'x', 5000);
	tar.length = 5000;
	expect_refused("no archive", "");
	fresh();
	memcpy(tar.bytes, "\x1f\x8b\x08\0\0\0\0\0\0\3garbage-garbage-garbage", 34);
	tar.length = 34;
	expect_refused("broken gzip", "");
	fresh();
	tar_add("././@LongLink", 'L', NULL, NULL, 0, 1 << 20);
	memset(tar.bytes + tar.length, 'n', 1 << 20);
	tar.length += 1 << 20;
	tar_file("short", "x");
	tar_end();
	expect_refused("name of a megabyte", "");
}

static void test_limits(void **state)
{
	struct outcome outcome;

	fresh();
	for (int i = 0; i < 20; i++)
		tar_file((char[]){(char)('a' + i), 0}, "0123456789");
	tar_end();
	outcome = EXTRACT("--max-entries", "19");
	assert_int_equal(outcome.code, ARCHIVE_EXIT_LIMIT);
	outcome = EXTRACT("--max-bytes", "199");
	assert_int_equal(outcome.code, ARCHIVE_EXIT_LIMIT);
	outcome = EXTRACT("--max-bytes", "200", "--max-entries", "20");
	assert_int_equal(outcome.code, 0);
	/* Holes count: a sparse file of a terabyte is a terabyte. */
	fresh();
	tar_pax("GNU.sparse.major", "1");
	tar_pax("GNU.sparse.realsize", "1099511627776");
	tar_add("sparse", '0', NULL, "1\n0\n0\n", 6, 512);
	tar_end();
	outcome = EXTRACT("--max-bytes", "1000000");
	assert_true(outcome.code == ARCHIVE_EXIT_LIMIT || outcome.code == ARCHIVE_EXIT_REFUSED);
	shell("test $(du -s --apparent-size %s/in | cut -f1) -lt 1000", root);
}

static void test_bomb(void **state)
{
	struct outcome outcome;
	char file[80];
	FILE *stream;

	/* Some hundred kilobytes that hold 100 MiB. */
	fresh();
	shell("cd %s/in && truncate -s 100M bomb && tar cz -f ../bomb.tgz bomb && rm bomb", root);
	snprintf(file, sizeof(file), "%s/bomb.tgz", root);
	stream = fopen(file, "r");
	assert_non_null(stream);
	tar.length = fread(tar.bytes, 1, sizeof(tar.bytes), stream);
	fclose(stream);
	unlink(file);
	outcome = EXTRACT("--max-bytes", "1000000");
	assert_int_equal(outcome.code, ARCHIVE_EXIT_LIMIT);
	shell("test $(du -s %s/in | cut -f1) -lt 1000", root);
}

/* A template is a root: links in the way are followed, as if it were "/", and devices are left out. */
static void test_template(void **state)
{
	struct outcome outcome;

	fresh();
	tar_add("./", '5', NULL, NULL, 0, 0);
	tar_add("./usr/bin/", '5', NULL, NULL, 0, 0);
	tar_add("./bin", '2', "usr/bin", NULL, 0, 0);
	tar_add("./evil", '2', "/../../../..", NULL, 0, 0);
	tar_add("./dev/null", '3', NULL, NULL, 0, 0);
	tar_file("./bin/sh", "#!");
	tar_file("./evil/file", "inside");
	tar_end();
	outcome = EXTRACT("--template");
	assert_string_equal(outcome.err, "");
	assert_int_equal(outcome.code, 0);
	shell("cd %s/in; test -f usr/bin/sh; test -L bin; test -f file; test ! -e dev/null;"
	      "test $(stat -c %%a-%%u usr/bin/sh) = 4755-999; test ! -e ../file",
	      root);
}

static void test_digest(void **state)
{
	const char *argv[] = {"paddock-archive", "digest", into(), NULL};
	struct outcome first, second;

	fresh();
	shell("cd %s/in; mkdir d; echo a > d/f; ln -s d l; chmod 640 d/f", root);
	first = run(argv, NULL, 0);
	assert_int_equal(first.code, 0);
	assert_memory_equal(first.out, "sha256:", 7);
	assert_string_equal(first.out + 71, " 1 2\n");
	shell("touch -d 2001-01-01 %s/in/d/f", root);
	second = run(argv, NULL, 0);
	assert_string_equal(first.out, second.out);
	static const char *const changes[] = {"chmod 600 d/f", "chmod 640 d/f; echo b > d/f",
					      "echo a > d/f; ln -sfn e l", "ln -sfn d l; mv d/f d/g"};
	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		shell("cd %s/in; %s", root, changes[i]);
		second = run(argv, NULL, 0);
		assert_int_equal(second.code, 0);
		assert_string_not_equal(first.out, second.out);
	}
	shell("cd %s/in; mv d/g d/f", root);
	second = run(argv, NULL, 0);
	assert_string_equal(first.out, second.out);
}

/* What comes out goes in again, whatever the names are. */
static void test_round_trip(void **state)
{
	fresh();
	shell("cd %s/in; mkdir -p t/a; cd t; seq 1 100000 > a/big; ln a/big hard; ln -s /etc/shadow farm; mkfifo p;"
	      "touch -- \"new\nline\" \"$(printf 'b\\377d')\" '-dash' ; touch $(printf 'n%%.0s' $(seq 250)); chmod 500 "
	      "a;"
	      "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")'",
	      root);
	shell("cd %s/in; for c in '' '--compress gzip' '--compress zstd'; do rm -rf back; mkdir back;"
	      "%s create $c t | %s extract back > /dev/null || exit 1;"
	      "rm -f back/t/sock t/sock; test \"$(%s digest t)\" = \"$(%s digest back/t)\" || exit 2;"
	      "test back/t/hard -ef back/t/a/big || exit 3; test -L back/t/farm || exit 4; done",
	      root, PADDOCK_ARCHIVE_BINARY, PADDOCK_ARCHIVE_BINARY, PADDOCK_ARCHIVE_BINARY, PADDOCK_ARCHIVE_BINARY);
	shell("cd %s/in; test \"$(%s create --exclude 'n*' --exclude 'a/b*' t | tar t 2>/dev/null | grep -c -e /n -e "
	      "big)\" = 0",
	      root, PADDOCK_ARCHIVE_BINARY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain),         cmocka_unit_test(test_escapes),
		cmocka_unit_test(test_replaced_link), cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_damaged),       cmocka_unit_test(test_limits),
		cmocka_unit_test(test_bomb),          cmocka_unit_test(test_template),
		cmocka_unit_test(test_digest),        cmocka_unit_test(test_round_trip),
	};

	return cmocka_run_group_tests(tests, make_root, remove_root);
}
