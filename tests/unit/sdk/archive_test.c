#include "test.h"

#include "sandbox/base/cleanup.h"
#include "sdk/cli/archive.h"
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A tar stream in memory, made by hand: what a hostile sandbox may send. */
struct stream {
	char *data;
	size_t length;
	size_t at;
};

struct row {
	const char *name;
	mode_t mode;
	const char *link;     /* target of a symbolic link */
	const char *hardlink; /* or of a hard link */
	const char *content;
};

static void make_stream(struct stream *stream, const struct row *rows)
{
	struct archive *out = archive_write_new();
	size_t room = 1 << 20;

	stream->data = malloc(room);
	stream->at = 0;
	archive_write_set_format_pax_restricted(out);
	assert_int_equal(archive_write_open_memory(out, stream->data, room, &stream->length), ARCHIVE_OK);
	for (; rows->name; rows++) {
		struct archive_entry *entry = archive_entry_new();

		archive_entry_set_pathname(entry, rows->name);
		archive_entry_set_mode(entry, rows->mode);
		archive_entry_set_size(entry, rows->content ? (int64_t)strlen(rows->content) : 0);
		if (rows->link)
			archive_entry_set_symlink(entry, rows->link);
		if (rows->hardlink)
			archive_entry_set_hardlink(entry, rows->hardlink);
		assert_int_equal(archive_write_header(out, entry), ARCHIVE_OK);
		if (rows->content)
			archive_write_data(out, rows->content, strlen(rows->content));
		archive_entry_free(entry);
	}
	archive_write_close(out);
	archive_write_free(out);
}

static ssize_t stream_source(void *arg, const void **ret_data, struct pdk_error *err)
{
	struct stream *stream = arg;
	size_t n = stream->length - stream->at < 1000 ? stream->length - stream->at : 1000;

	*ret_data = stream->data + stream->at;
	stream->at += n;
	return (ssize_t)n;
}

static int stream_sink(void *arg, const void *data, size_t length, struct pdk_error *err)
{
	struct stream *stream = arg;

	stream->data = realloc(stream->data, stream->length + length);
	memcpy(stream->data + stream->length, data, length);
	stream->length += length;
	return 0;
}

/* Each test works in a directory of its own: in/ is the target, outside/ holds what must not change. */
static int enter(void **state)
{
	char path[] = "/tmp/paddock-archive-XXXXXX";
	_cleanup_file_ FILE *file = NULL;

	if (!mkdtemp(path) || chdir(path) < 0 || mkdir("in", 0700) < 0 || mkdir("outside", 0700) < 0)
		return -1;
	file = fopen("outside/canary", "w");
	fputs("alive", file);
	*state = strdup(path);
	return 0;
}

static int leave(void **state)
{
	char command[128];
	int rc;

	snprintf(command, sizeof(command), "rm -rf %s", (char *)*state);
	free(*state);
	rc = chdir("/");
	return rc < 0 ? rc : system(command);
}

static void assert_content(const char *path, const char *content)
{
	char text[256] = "";
	_cleanup_file_ FILE *file = fopen(path, "r");

	assert_non_null(file);
	text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
	assert_string_equal(text, content);
}

static int unpack(const struct row *rows, const char *rename)
{
	struct stream stream = {0};
	struct pdk_error err = {0};
	uint64_t entries = 0;
	int rc;

	make_stream(&stream, rows);
	rc = archive_unpack("in", rename, stream_source, &stream, &entries, &err);
	free(stream.data);
	assert_content("outside/canary", "alive");
	return rc;
}

static void a_tree_is_unpacked_under_its_new_name(void **state)
{
	const struct row rows[] = {
		{"old/", S_IFDIR | 0755, NULL, NULL, NULL},          {"old/a", S_IFREG | 0755, NULL, NULL, "first"},
		{"old/sub/b", S_IFREG | 0644, NULL, NULL, "second"}, {"old/same", S_IFREG | 0644, NULL, "old/a", NULL},
		{"old/link", S_IFLNK | 0777, "sub/b", NULL, NULL},   {},
	};
	struct stat st;

	assert_int_equal(unpack(rows, "new"), 0);
	assert_content("in/new/a", "first");
	assert_content("in/new/same", "first");
	assert_content("in/new/link", "second");
	assert_int_equal(stat("in/new/a", &st), 0);
	assert_int_equal(st.st_mode & 0111, 0111);
	assert_int_equal(st.st_nlink, 2);
}

static void names_that_leave_are_refused(void **state)
{
	static const char *const names[] = {
		"../outside/canary", "/outside/canary", "x/../../outside/canary", "..", "x/..", NULL};
	int i;

	for (i = 0; names[i]; i++) {
		const struct row rows[] = {{names[i], S_IFREG | 0644, NULL, NULL, "dead"}, {}};

		assert_true(unpack(rows, NULL) < 0);
		assert_true(unpack(rows, "new") < 0);
	}
}

static void a_symbolic_link_is_not_followed(void **state)
{
	const struct row through[] = {
		{"d/out", S_IFLNK | 0777, "../../outside", NULL, NULL},
		{"d/out/canary", S_IFREG | 0644, NULL, NULL, "dead"},
		{},
	};
	const struct row over[] = {
		{"d/out", S_IFLNK | 0777, "../../outside/canary", NULL, NULL},
		{"d/out", S_IFREG | 0644, NULL, NULL, "mine"},
		{},
	};

	unpack(through, NULL);
	assert_int_equal(unpack(over, "e"), 0);
	assert_content("in/e/out", "mine");
}

static void a_link_that_was_there_is_not_followed(void **state)
{
	const struct row rows[] = {{"d/canary", S_IFREG | 0644, NULL, NULL, "dead"}, {}};

	assert_int_equal(symlink("../outside", "in/d"), 0);
	unpack(rows, NULL);
}

static void a_hard_link_stays_inside(void **state)
{
	const struct row rows[] = {
		{"d/x", S_IFREG | 0644, NULL, "../outside/canary", NULL},
		{},
	};
	const struct row linked[] = {
		{"d/out", S_IFLNK | 0777, "../../outside", NULL, NULL},
		{"d/x", S_IFREG | 0644, NULL, "d/out/canary", NULL},
		{"d/x", S_IFREG | 0644, NULL, NULL, "dead"},
		{},
	};

	assert_true(unpack(rows, NULL) < 0);
	unpack(linked, "e");
}

static void special_files_and_bits_are_dropped(void **state)
{
	const struct row rows[] = {
		{"d/fifo", S_IFIFO | 0644, NULL, NULL, NULL},
		{"d/null", S_IFCHR | 0666, NULL, NULL, NULL},
		{"d/suid", S_IFREG | 06755, NULL, NULL, "x"},
		{},
	};
	struct stat st;

	assert_int_equal(unpack(rows, NULL), 0);
	assert_int_equal(lstat("in/d/fifo", &st), -1);
	assert_int_equal(lstat("in/d/null", &st), -1);
	assert_int_equal(lstat("in/d/suid", &st), 0);
	assert_int_equal(st.st_mode & 07000, 0);
}

static void a_broken_stream_is_an_error(void **state)
{
	const struct row rows[] = {{"d/a", S_IFREG | 0644, NULL, NULL, "content"}, {}};
	struct stream stream = {0};
	struct pdk_error err = {0};
	uint64_t entries;

	make_stream(&stream, rows);
	stream.length = 700;
	assert_true(archive_unpack("in", NULL, stream_source, &stream, &entries, &err) < 0);
	assert_int_not_equal(err.code, PDK_OK);
	memset(stream.data, 'x', stream.length);
	stream.at = 0;
	assert_true(archive_unpack("in", NULL, stream_source, &stream, &entries, &err) < 0);
	free(stream.data);
}

static void what_was_packed_is_unpacked(void **state)
{
	struct stream stream = {0};
	struct pdk_error err = {0};
	uint64_t entries = 0;

	assert_int_equal(system("mkdir -p tree/deep/er tree/empty && echo one > tree/a && echo two > tree/deep/er/b &&"
				"ln tree/a tree/hard && ln -s a tree/soft && ln -s ../outside tree/out &&"
				"mkfifo tree/fifo && chmod 700 tree/deep/er/b"),
			 0);
	assert_int_equal(archive_pack("tree", stream_sink, &stream, &err), 0);
	assert_int_equal(archive_unpack("in", NULL, stream_source, &stream, &entries, &err), 0);
	free(stream.data);
	assert_content("in/a", "one\n");
	assert_content("in/hard", "one\n");
	assert_content("in/soft", "one\n");
	assert_content("in/deep/er/b", "two\n");
	/* The link is copied as a link; what it points to is not. */
	assert_int_equal(system("test -L in/out && test -d in/empty && test ! -e in/fifo && test -x in/deep/er/b"), 0);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, enter, leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_FOLDER(a_tree_is_unpacked_under_its_new_name),
		IN_FOLDER(names_that_leave_are_refused),
		IN_FOLDER(a_symbolic_link_is_not_followed),
		IN_FOLDER(a_link_that_was_there_is_not_followed),
		IN_FOLDER(a_hard_link_stays_inside),
		IN_FOLDER(special_files_and_bits_are_dropped),
		IN_FOLDER(a_broken_stream_is_an_error),
		IN_FOLDER(what_was_packed_is_unpacked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
