#include "test.h"

#include "sandbox/base/cleanup.h"
#include "sdk/cli/build_context.h"
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The folder of a build: what COPY takes of it, what is ignored, and that nothing leads out. */

static char dir[64];
static struct build_context *context;
static struct build_tree tree;
static struct pdk_error error;

static int sh(const char *script)
{
	char command[4096];

	snprintf(command, sizeof(command), "cd %s && %s", dir, script);
	return system(command);
}

static int setup(void **state)
{
	strcpy(dir, "/tmp/paddock-context.XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	build_context_close(STEAL_PTR(context));
	build_tree_clear(&tree);
	return sh("rm -rf \"$PWD\"");
}

static int collect(const char *one, const char *two, bool to_folder)
{
	char *sources[] = {(char *)(uintptr_t)one, (char *)(uintptr_t)two};

	build_context_close(context);
	build_tree_clear(&tree);
	context = build_context_open(dir, &error);
	assert_non_null(context);
	return build_context_collect(context, sources, two ? 2 : 1, to_folder, &tree, &error);
}

/* The names of the tree, in order. */
static void expect(const char *one, const char *two, const char *source, const char *names)
{
	char text[1024] = "";

	if (collect(one, two, true) < 0)
		fail_msg("%s", error.text);
	for (size_t i = 0; i < tree.n; i++) {
		strcat(text, i ? " " : "");
		strcat(text, tree.entries[i].name);
	}
	assert_string_equal(text, names);
	assert_string_equal(tree.source, source);
}

static void expect_error(const char *source, const char *says)
{
	assert_true(collect(source, NULL, true) < 0);
	if (!strstr(error.text, says))
		fail_msg("\"%s\" is not in \"%s\"", says, error.text);
}

static void what_a_copy_takes(void **state)
{
	assert_int_equal(sh("mkdir -p src/sub other; echo a >src/a.txt; echo b >src/sub/b.txt; echo o >other/a.txt; ln "
			    "-s a.txt src/link; "
			    "echo x >x.py; echo y >y.py; chmod 4755 x.py"),
			 0);
	expect("src", NULL, "files", "files files/a.txt files/link files/sub files/sub/b.txt");
	expect("./src//sub/", NULL, "files", "files files/b.txt");
	expect("/src/a.txt", NULL, "a.txt", "a.txt");
	expect("src/link", NULL, "link", "link");
	assert_string_equal(tree.entries[0].link, "a.txt");
	expect("*.py", NULL, "files", "files files/x.py files/y.py");
	assert_int_equal(tree.entries[1].mode, S_IFREG | 0755); /* without the set-user-id bit */
	expect("s*/*.txt", NULL, "files", "files files/a.txt");
	expect("x.py", "src", "files", "files files/a.txt files/link files/sub files/sub/b.txt files/x.py");
	expect("src/a.txt", "other/a.txt", "files", "files files/a.txt");
	assert_string_equal(tree.entries[1].path, "other/a.txt");
	expect(".", NULL, "files",
	       "files files/other files/other/a.txt files/src files/src/a.txt files/src/link files/src/sub "
	       "files/src/sub/b.txt "
	       "files/x.py files/y.py");
	expect_error("none", "none: No such file");
	expect_error("*.c", "nothing matches '*.c'");
	assert_true(collect("x.py", "y.py", false) < 0);
}

static void what_is_ignored(void **state)
{
	assert_int_equal(sh("mkdir -p node_modules/a src/deep/log keep/in; echo 1 >node_modules/a/f; echo 1 >src/f.o; "
			    "echo 1 >src/deep/log/x.log; "
			    "echo 1 >src/main; echo 1 >keep/in/f; echo 1 >keep/g; "
			    "printf '# not\\n/node_modules/\\n**/*.log\\n*/*.o\\nkeep\\n!keep/in\\n' >.dockerignore"),
			 0);
	expect(".", NULL, "files",
	       "files files/.dockerignore files/keep files/keep/in files/keep/in/f files/src files/src/deep "
	       "files/src/deep/log "
	       "files/src/main");
	expect_error("src/f.o", "is ignored by .dockerignore");
	expect_error("src/*.o", "nothing matches");
	expect("src/main", NULL, "main", "main");
	assert_int_equal(sh("echo '*' >.dockerignore"), 0);
	expect_error("src", "is ignored");
	expect(".", NULL, "files", "files");
}

static void expect_ignored(const char *rules, const char *path, bool ignored)
{
	struct build_ignore ignore;

	build_ignore_parse(rules, &ignore);
	if (build_ignore_matches(&ignore, path) != ignored)
		fail_msg("\"%s\" does %smatch \"%s\"", rules, ignored ? "not " : "", path);
	build_ignore_clear(&ignore);
}

static void patterns(void **state)
{
	char path[4096] = "a", rules[512] = "";

	expect_ignored("a", "a", true);
	expect_ignored("a", "a/b", true);
	expect_ignored("a/b", "a", false);
	expect_ignored("a", "b/a", false);
	expect_ignored("**/a", "a", true);
	expect_ignored("**/a", "b/c/a/d", true);
	expect_ignored("a/**", "a", false);
	expect_ignored("a/**", "a/b/c", true);
	expect_ignored("a/**/d", "a/d", true);
	expect_ignored("a/**/d", "a/b/c/d", true);
	expect_ignored("a/**/d", "a/b/c", false);
	expect_ignored("**", "a", true);
	expect_ignored("*.o\n!b.o", "a.o", true);
	expect_ignored("*.o\n!b.o", "b.o", false);
	expect_ignored("!b.o\n*.o", "b.o", true);
	expect_ignored("# a\n \n\n", "a", false);
	expect_ignored(" ./a/ \r\n", "a", true);
	/* Many ways to match are not tried one by one. */
	for (size_t i = 0; i < 1000; i++)
		strcat(path, "/a");
	for (size_t i = 0; i < 30; i++)
		strcat(rules, "**/a/");
	expect_ignored(rules, path, true);
	strcat(rules, "b");
	expect_ignored(rules, path, false);
}

static void nothing_leads_out(void **state)
{
	assert_int_equal(sh("mkdir in; echo 1 >in/f; ln -s /etc etc; ln -s ../.. up; ln -s in inner; mkfifo fifo"), 0);
	expect_error("../x", "'..' leads out");
	expect_error("in/../../x", "'..' leads out");
	expect_error("etc/passwd", "leads out of the folder");
	expect_error("up/etc/passwd", "leads out of the folder");
	expect_error("fifo", "not a file, a folder or a link");
	expect("inner/f", NULL, "f", "f"); /* the control: a link inside */
	expect("etc", NULL, "etc", "etc");
	assert_string_equal(tree.entries[0].link, "/etc");
	assert_int_equal(sh("rm fifo"), 0);
	expect(".", NULL, "files", "files files/etc files/in files/in/f files/inner files/up");
}

/* --- the tar --- */

static char packed[1 << 20];
static size_t packed_length;

static int take(void *arg, const void *data, size_t length, struct pdk_error *err)
{
	assert_true(packed_length + length <= sizeof(packed));
	memcpy(packed + packed_length, data, length);
	packed_length += length;
	return 0;
}

static int pack(void)
{
	packed_length = 0;
	return build_context_pack(context, &tree, take, NULL, &error);
}

static void a_tar_is_what_was_hashed(void **state)
{
	static const char *const names[] = {"files/", "files/f", "files/l"};
	struct archive_entry *entry;
	struct archive *in;
	char text[64], hash[65];

	assert_int_equal(sh("mkdir src; printf hello >src/f; ln -s f src/l"), 0);
	expect("src", NULL, "files", "files files/f files/l");
	strcpy(hash, tree.hash);
	assert_int_equal(pack(), 0);
	in = archive_read_new();
	archive_read_support_format_tar(in);
	assert_int_equal(archive_read_open_memory(in, packed, packed_length), ARCHIVE_OK);
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(archive_read_next_header(in, &entry), ARCHIVE_OK);
		assert_string_equal(archive_entry_pathname(entry), names[i]);
		if (i == 1)
			assert_int_equal(archive_read_data(in, text, sizeof(text)), 5);
	}
	assert_string_equal(archive_entry_symlink(entry), "f");
	assert_int_equal(archive_read_next_header(in, &entry), ARCHIVE_EOF);
	archive_read_free(in);
	/* Times do not count, everything else does. */
	assert_int_equal(sh("touch -d 2001-01-01 src/f"), 0);
	expect("src", NULL, "files", "files files/f files/l");
	assert_string_equal(tree.hash, hash);
	for (const char *const *change = (const char *const[]){"chmod 700 src/f", "printf jello >src/f",
							       "ln -sf g src/l", "mv src/f src/e", NULL};
	     *change; change++) {
		assert_int_equal(sh(*change), 0);
		assert_int_equal(collect("src", NULL, true), 0);
		assert_string_not_equal(tree.hash, hash);
		strcpy(hash, tree.hash);
	}
	/* A file that changes between the two. */
	assert_int_equal(pack(), 0);
	assert_int_equal(sh("printf cello >src/e"), 0);
	assert_int_equal(pack(), -ESTALE);
	assert_int_equal(sh("printf longer >src/e"), 0);
	assert_int_equal(pack(), -ESTALE);
	assert_int_equal(sh("rm src/e; ln -s /etc/passwd src/e"), 0);
	assert_true(pack() < 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_a_copy_takes), TEST(what_is_ignored),          TEST(patterns),
		TEST(nothing_leads_out), TEST(a_tar_is_what_was_hashed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
