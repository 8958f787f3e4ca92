#include "fake.h"
#include "sandbox/base/cleanup.h"
#include "server/file_token.h"
#include "server/files.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Files: questions, transfers in both directions, watches. */

#define PATH(text) ((ProtobufCBinaryData){.len = sizeof(text) - 1, .data = (uint8_t *)(text)})

static uint8_t megabyte[1 << 20];

static void reply_file(uint32_t stream, const int *fd)
{
	Paddock__Internal__GuestFile file = PADDOCK__INTERNAL__GUEST_FILE__INIT;
	Paddock__Internal__GuestReply reply = PADDOCK__INTERNAL__GUEST_REPLY__INIT;

	file.path = PATH("/home/user/a");
	file.type = 1;
	file.mode = 0644;
	file.size = 5;
	file.uid = 1000;
	file.user = (char *)"us\xff";
	file.group = (char *)"user";
	reply.result_case = PADDOCK__INTERNAL__GUEST_REPLY__RESULT_FILE;
	reply.file = &file;
	fake_reply(stream, LINK_REPLY, &reply, fd, fd ? 1 : 0);
}

static void reply_empty(uint32_t stream, const int *fd)
{
	Paddock__Internal__GuestReply reply = PADDOCK__INTERNAL__GUEST_REPLY__INIT;

	fake_reply(stream, LINK_REPLY, &reply, fd, fd ? 1 : 0);
}

/* Give the daemon one end of a pipe, keep the other. */
static int give_pipe(uint32_t stream, bool daemon_reads, bool with_file)
{
	int pair[2], given, kept;

	assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
	given = pair[daemon_reads ? 0 : 1];
	kept = pair[daemon_reads ? 1 : 0];
	if (with_file)
		reply_file(stream, &given);
	else
		reply_empty(stream, &given);
	close(given);
	fcntl(kept, F_SETFL, O_NONBLOCK);
	return kept;
}

static struct rpc_call *stat_file(ProtobufCBinaryData path, char *user)
{
	Paddock__V1__StatRequest request = PADDOCK__V1__STAT_REQUEST__INIT;
	struct rpc_call *call = fake_call();

	request.sandbox_id = fake_sandbox.id;
	request.path = path;
	request.user = user;
	files_stat(call, &request.base);
	return call;
}

static void test_stat(void **state)
{
	struct rpc_call *call = stat_file(PATH("a"), (char *)"root");
	struct request asked = fake_next();
	Paddock__V1__FileInfo *info;

	assert_string_equal(asked.message->stat->user, "root");
	assert_string_equal(call->object, "a");
	reply_file(asked.stream, NULL);
	fake_end(asked.stream);
	fake_request_free(&asked);
	fake_finished(call, PDK_OK);
	info = paddock__v1__file_info__unpack(NULL, call->reply.length, call->reply.bytes);
	assert_int_equal(info->type, PADDOCK__V1__FILE_TYPE__FILE_TYPE_REGULAR);
	/* A name that is no text becomes the number. */
	assert_string_equal(info->user, "1000");
	paddock__v1__file_info__free_unpacked(info, NULL);
	fake_call_free(call);

	call = stat_file(PATH("missing"), (char *)"");
	asked = fake_next();
	fake_error(asked.stream, PDK_NOT_FOUND, "missing: No such file or directory");
	fake_request_free(&asked);
	fake_finished(call, PDK_NOT_FOUND);
	fake_call_free(call);
	assert_string_equal(fake_lost, "");
}

static void test_bad_fields(void **state)
{
	static uint8_t long_path[4096];
	struct rpc_call *call;

	memset(long_path, 'a', sizeof(long_path));
	for (int i = 0; i < 4; i++) {
		ProtobufCBinaryData paths[] = {
			PATH(""), PATH("a\0b"), {.len = 256, .data = long_path}, {.len = 4096, .data = long_path}};

		call = stat_file(paths[i], (char *)"");
		fake_finished(call, PDK_INVALID_ARGUMENT);
		assert_int_equal(strncmp(call->end.text, "path", 4), 0);
		fake_call_free(call);
	}
	call = stat_file(PATH("a"), (char *)"daemon");
	fake_finished(call, PDK_INVALID_ARGUMENT);
	fake_call_free(call);
	assert_true(fake_nothing());
}

static void test_cancelled_question(void **state)
{
	struct rpc_call *call = stat_file(PATH("a"), (char *)"");
	struct request asked = fake_next();

	fake_cancel(call, PDK_DEADLINE_EXCEEDED);
	assert_true(call->finished);
	fake_call_free(call);
	reply_file(asked.stream, NULL);
	fake_end(asked.stream);
	fake_settle();
	fake_request_free(&asked);
	assert_string_equal(fake_lost, "");
}

static void test_page_token(void **state)
{
	uint64_t check = file_token_check("i00", &PATH("/a"), "user", 1);
	uint8_t path[FILE_TOKEN_PATH_MAX], longest[FILE_TOKEN_PATH_MAX];
	char token[FILE_TOKEN_SIZE];
	struct pdk_error err;
	size_t length;

	memset(longest, 0xff, sizeof(longest));
	for (size_t n = 1; n <= sizeof(longest); n = n < 10 ? n + 1 : n * 2) {
		file_token_make(token, check, &(ProtobufCBinaryData){.len = n, .data = longest});
		assert_int_equal(file_token_parse(token, check, path, &length, &err), 0);
		assert_int_equal(length, n);
		assert_memory_equal(path, longest, n);
	}
	assert_int_equal(file_token_parse(token, check + 1, path, &length, &err), -EINVAL);
	assert_int_equal(err.code, PDK_INVALID_ARGUMENT);
	token[3] = '!';
	assert_int_equal(file_token_parse(token, check, path, &length, &err), -EINVAL);
	assert_int_equal(file_token_parse("", check, path, &length, &err), 0);
	assert_int_equal(length, 0);
	file_token_make(token, check, &PATH("a\0b"));
	assert_int_equal(file_token_parse(token, check, path, &length, &err), -EINVAL);
}

static void test_list_pages(void **state)
{
	Paddock__Internal__GuestFile file = PADDOCK__INTERNAL__GUEST_FILE__INIT, *files[] = {&file, &file};
	Paddock__Internal__GuestFiles page = PADDOCK__INTERNAL__GUEST_FILES__INIT;
	Paddock__Internal__GuestReply reply = PADDOCK__INTERNAL__GUEST_REPLY__INIT;
	Paddock__V1__ListFilesRequest request = PADDOCK__V1__LIST_FILES_REQUEST__INIT;
	Paddock__V1__ListFilesResponse *list;
	struct rpc_call *call = fake_call();
	struct request asked;

	request.sandbox_id = fake_sandbox.id;
	request.path = PATH("/tmp");
	files_list(call, &request.base);
	asked = fake_next();
	assert_int_equal(asked.message->list->depth, 1);
	assert_int_equal(asked.message->list->limit, 1000);
	file.path = PATH("/tmp/x");
	file.type = 2;
	page.file = files;
	page.n_file = 2;
	page.next = PATH("/tmp/x");
	reply.result_case = PADDOCK__INTERNAL__GUEST_REPLY__RESULT_FILES;
	reply.files = &page;
	fake_reply(asked.stream, LINK_REPLY, &reply, NULL, 0);
	fake_end(asked.stream);
	fake_request_free(&asked);
	fake_finished(call, PDK_OK);
	list = paddock__v1__list_files_response__unpack(NULL, call->reply.length, call->reply.bytes);
	assert_int_equal(list->n_files, 2);
	fake_call_free(call);

	call = fake_call();
	request.page_token = list->next_page_token;
	files_list(call, &request.base);
	asked = fake_next();
	assert_int_equal(asked.message->list->after.len, 6);
	assert_memory_equal(asked.message->list->after.data, "/tmp/x", 6);
	fake_error(asked.stream, PDK_NOT_FOUND, "gone");
	fake_request_free(&asked);
	fake_finished(call, PDK_NOT_FOUND);
	fake_call_free(call);

	call = fake_call();
	request.path = PATH("/other");
	files_list(call, &request.base);
	fake_finished(call, PDK_INVALID_ARGUMENT);
	fake_call_free(call);
	paddock__v1__list_files_response__free_unpacked(list, NULL);
}

static struct rpc_call *read_file(struct request *ret_asked)
{
	Paddock__V1__ReadFileRequest request = PADDOCK__V1__READ_FILE_REQUEST__INIT;
	struct rpc_call *call = fake_call();

	request.sandbox_id = fake_sandbox.id;
	request.path = PATH("a");
	files_read(call, &request.base);
	*ret_asked = fake_next();
	return call;
}

static uint64_t read_bytes(struct rpc_call *call)
{
	uint64_t total = 0;

	for (size_t i = 0; i < call->n_sent; i++) {
		Paddock__V1__FileChunk *chunk =
			paddock__v1__file_chunk__unpack(NULL, call->sent[i].length, call->sent[i].bytes);

		assert_int_equal(chunk->info != NULL, i == 0);
		assert_true(chunk->data.len <= 1 << 20);
		total += chunk->data.len;
		paddock__v1__file_chunk__free_unpacked(chunk, NULL);
	}
	return total;
}

static void test_read(void **state)
{
	struct request asked;
	struct rpc_call *call = read_file(&asked);
	int fd = give_pipe(asked.stream, true, true);
	uint64_t total = 0;

	while (total < 5 << 20) {
		ssize_t n = write(fd, megabyte, sizeof(megabyte));

		total += n > 0 ? (uint64_t)n : 0;
		fake_turn(0);
	}
	close(fd);
	reply_empty(asked.stream, NULL);
	fake_end(asked.stream);
	fake_request_free(&asked);
	fake_finished(call, PDK_OK);
	assert_int_equal(read_bytes(call), total);
	fake_call_free(call);
}

static void test_read_of_an_empty_file(void **state)
{
	struct request asked;
	struct rpc_call *call = read_file(&asked);

	close(give_pipe(asked.stream, true, true));
	reply_empty(asked.stream, NULL);
	fake_end(asked.stream);
	fake_request_free(&asked);
	fake_finished(call, PDK_OK);
	assert_int_equal(call->n_sent, 1);
	assert_int_equal(read_bytes(call), 0);
	fake_call_free(call);
}

static void test_slow_reader_holds_init(void **state)
{
	struct request asked;
	struct rpc_call *call = read_file(&asked);
	uint64_t total = 0;
	int fd;

	call->slow = true;
	fd = give_pipe(asked.stream, true, true);
	for (int i = 0; i < 50; i++) {
		ssize_t n = write(fd, megabyte, sizeof(megabyte));

		total += n > 0 ? (uint64_t)n : 0;
		fake_turn(0);
	}
	assert_true(total <= 3 << 20);
	fake_cancel(call, PDK_CANCELLED);
	fake_call_free(call);
	assert_true(write(fd, "x", 1) < 0 && errno == EPIPE);
	close(fd);
	fake_request_free(&asked);
}

static void test_read_that_fails_midway(void **state)
{
	struct request asked;
	struct rpc_call *call = read_file(&asked);
	int fd = give_pipe(asked.stream, true, true);

	assert_int_equal(write(fd, "half", 4), 4);
	fake_settle();
	fake_error(asked.stream, PDK_DATA_LOSS, "a: Input/output error");
	close(fd);
	fake_request_free(&asked);
	fake_finished(call, PDK_DATA_LOSS);
	assert_int_equal(read_bytes(call), 4);
	fake_call_free(call);
}

/* Writing */

static void write_header(struct rpc_call *call)
{
	Paddock__V1__WriteFileHeader header = PADDOCK__V1__WRITE_FILE_HEADER__INIT;
	Paddock__V1__WriteFileRequest request = PADDOCK__V1__WRITE_FILE_REQUEST__INIT;

	files_write(call, NULL);
	header.sandbox_id = fake_sandbox.id;
	header.path = PATH("a");
	request.message_case = PADDOCK__V1__WRITE_FILE_REQUEST__MESSAGE_HEADER;
	request.header = &header;
	fake_message(call, &request.base);
}

static void write_data(struct rpc_call *call, size_t length)
{
	Paddock__V1__WriteFileRequest request = PADDOCK__V1__WRITE_FILE_REQUEST__INIT;

	request.message_case = PADDOCK__V1__WRITE_FILE_REQUEST__MESSAGE_DATA;
	request.data = (ProtobufCBinaryData){.len = length, .data = megabyte};
	fake_message(call, &request.base);
}

static size_t drain(int fd)
{
	static uint8_t data[65536];
	size_t total = 0;
	ssize_t n;

	while ((n = read(fd, data, sizeof(data))) > 0)
		total += (size_t)n;
	return total;
}

static void expect_commit(struct request *asked, bool commit)
{
	struct request next = fake_next();

	assert_int_equal(next.stream, asked->stream);
	assert_int_equal(next.message->op_case, PADDOCK__INTERNAL__GUEST_REQUEST__OP_FORGET);
	assert_int_equal(next.message->forget->handle, commit);
	fake_request_free(&next);
}

static void test_write(void **state)
{
	struct rpc_call *call = fake_call();
	struct request asked;
	size_t total = 0;
	int fd;

	write_header(call);
	asked = fake_next();
	assert_int_equal(asked.message->write->mode, 0644);
	assert_false(call->want_read);
	fd = give_pipe(asked.stream, false, false);
	for (int i = 0; i < 4; i++) {
		for (int j = 0; j < 100 && !call->want_read; j++) {
			total += drain(fd);
			fake_turn(1);
		}
		write_data(call, sizeof(megabyte));
	}
	for (int j = 0; j < 100 && !call->want_read; j++) {
		total += drain(fd);
		fake_turn(1);
	}
	fake_half_close(call);
	expect_commit(&asked, true);
	total += drain(fd);
	assert_int_equal(total, 4 << 20);
	assert_int_equal(read(fd, megabyte, 1), 0);
	close(fd);
	reply_file(asked.stream, NULL);
	fake_end(asked.stream);
	fake_request_free(&asked);
	fake_finished(call, PDK_OK);
	fake_call_free(call);
	assert_string_equal(fake_lost, "");
}

static void test_write_aborts(void **state)
{
	struct rpc_call *call = fake_call();
	struct request asked;
	int fd;

	write_header(call);
	asked = fake_next();
	fd = give_pipe(asked.stream, false, false);
	write_data(call, 100);
	fake_cancel(call, PDK_CANCELLED);
	fake_call_free(call);
	expect_commit(&asked, false);
	/* An abort may be answered; nobody minds. */
	fake_ok(asked.stream);
	fake_settle();
	assert_string_equal(fake_lost, "");
	close(fd);
	fake_request_free(&asked);
}

static void test_write_that_init_ends(void **state)
{
	struct rpc_call *call = fake_call();
	struct request asked;
	int fd;

	write_header(call);
	asked = fake_next();
	fd = give_pipe(asked.stream, false, false);
	write_data(call, 100);
	close(fd);
	write_data(call, 100); /* into the broken pipe */
	fake_error(asked.stream, PDK_RESOURCE_EXHAUSTED, "a: No space left on device");
	fake_request_free(&asked);
	fake_finished(call, PDK_RESOURCE_EXHAUSTED);
	fake_call_free(call);
	/* Refused before it begins. */
	call = fake_call();
	write_header(call);
	asked = fake_next();
	fake_error(asked.stream, PDK_PERMISSION_DENIED, "a: Permission denied");
	fake_request_free(&asked);
	fake_finished(call, PDK_PERMISSION_DENIED);
	fake_call_free(call);
}

static void test_write_bad_messages(void **state)
{
	struct rpc_call *call = fake_call();

	files_write(call, NULL);
	write_data(call, 1);
	assert_int_equal(call->end.code, PDK_INVALID_ARGUMENT);
	fake_call_free(call);
	call = fake_call();
	files_write(call, NULL);
	fake_half_close(call);
	assert_int_equal(call->end.code, PDK_INVALID_ARGUMENT);
	fake_call_free(call);
	assert_true(fake_nothing());
}

/* Watching */

static void test_watch(void **state)
{
	Paddock__Internal__GuestWatchEvent watch = PADDOCK__INTERNAL__GUEST_WATCH_EVENT__INIT;
	Paddock__Internal__GuestReply reply = PADDOCK__INTERNAL__GUEST_REPLY__INIT;
	Paddock__V1__WatchRequest request = PADDOCK__V1__WATCH_REQUEST__INIT;
	struct rpc_call *call = fake_call();
	Paddock__V1__WatchEvent *event;
	uint32_t credit = 0, sent = 0;
	struct request asked, frame;

	request.sandbox_id = fake_sandbox.id;
	request.path = PATH("/tmp");
	files_watch(call, &request.base);
	asked = fake_next();
	reply.result_case = PADDOCK__INTERNAL__GUEST_REPLY__RESULT_WATCH;
	reply.watch = &watch;
	watch.type = 2;
	watch.path = PATH("x");
	/* Ten windows full, never beyond the credit. */
	while (sent < 2560) {
		while (credit == 0) {
			frame = fake_next_frame();
			assert_int_equal(frame.kind, LINK_CREDIT);
			credit += frame.credit;
		}
		fake_reply(asked.stream, LINK_EVENT, &reply, NULL, 0);
		credit--;
		sent++;
	}
	fake_settle();
	assert_int_equal(call->n_sent, sent);
	event = paddock__v1__watch_event__unpack(NULL, call->sent[7].length, call->sent[7].bytes);
	assert_int_equal(event->type, PADDOCK__V1__WATCH_EVENT__TYPE__TYPE_CREATED);
	paddock__v1__watch_event__free_unpacked(event, NULL);
	fake_advance(31000);
	fake_settle();
	assert_int_equal(call->n_sent, sent + 1);
	fake_cancel(call, PDK_CANCELLED);
	fake_call_free(call);
	do {
		frame = fake_next_frame();
	} while (frame.kind == LINK_CREDIT);
	assert_int_equal(frame.kind, LINK_END);
	assert_int_equal(frame.stream, asked.stream);
	fake_request_free(&asked);
	assert_string_equal(fake_lost, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_stat, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_bad_fields, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_cancelled_question, fake_setup, fake_teardown),
		cmocka_unit_test(test_page_token),
		cmocka_unit_test_setup_teardown(test_list_pages, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_read, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_read_of_an_empty_file, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_slow_reader_holds_init, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_read_that_fails_midway, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_write, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_write_aborts, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_write_that_init_ends, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_write_bad_messages, fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(test_watch, fake_setup, fake_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
