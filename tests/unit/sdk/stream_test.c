#include "test.h"

#include "fake_server.h"
#include "paddock.h"
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char socket_path[64];

static struct paddock_client *connect_to(const char *key)
{
	struct pdk_error err = {0};
	struct paddock_client *client;
	char address[80];

	snprintf(address, sizeof(address), "unix:%s", socket_path);
	client = paddock_connect(address, key, &err);
	assert_non_null(client);
	return client;
}

static void a_call_carries_the_key(void **state)
{
	Paddock__V1__CreateSandboxRequest request = PADDOCK__V1__CREATE_SANDBOX_REQUEST__INIT;
	Paddock__V1__Sandbox *sandbox = NULL;
	struct pdk_error err = {0};
	struct paddock_client *client = connect_to("pdk_a_b");

	assert_int_equal(paddock_sandbox_create(client, &request, &sandbox, &err), 0);
	assert_string_equal(sandbox->id, "Bearer pdk_a_b");
	paddock_free(sandbox);
	paddock_close(client);
	client = connect_to(NULL);
	assert_int_equal(paddock_sandbox_create(client, &request, &sandbox, &err), 0);
	assert_string_equal(sandbox->id, "none");
	paddock_free(sandbox);
	paddock_close(client);
}

static void a_refusal_has_code_and_text(void **state)
{
	Paddock__V1__GetSandboxRequest request = PADDOCK__V1__GET_SANDBOX_REQUEST__INIT;
	Paddock__V1__Sandbox *sandbox = NULL;
	struct pdk_error err = {0};
	struct paddock_client *client = connect_to(NULL);

	assert_int_equal(paddock_sandbox_get(client, &request, &sandbox, &err), -ENOENT);
	assert_int_equal(err.code, PDK_NOT_FOUND);
	assert_string_equal(err.text, "sandbox not found");
	assert_null(sandbox);
	assert_int_equal(paddock_sandbox_get(client, &request, &sandbox, NULL), -ENOENT);
	paddock_close(client);
}

static void an_answer_that_is_no_message(void **state)
{
	Paddock__V1__ListSandboxesRequest request = PADDOCK__V1__LIST_SANDBOXES_REQUEST__INIT;
	Paddock__V1__ListSandboxesResponse *reply = NULL;
	struct pdk_error err = {0};
	struct paddock_client *client = connect_to(NULL);

	assert_int_equal(paddock_sandbox_list(client, &request, &reply, &err), -EBADMSG);
	assert_int_equal(err.code, PDK_DATA_LOSS);
	paddock_close(client);
}

static void a_stream_brings_all_and_ends(void **state)
{
	Paddock__V1__WatchEventsRequest request = PADDOCK__V1__WATCH_EVENTS_REQUEST__INIT;
	Paddock__V1__SandboxEvent *event;
	struct pdk_error err = {0};
	struct paddock_client *client = connect_to(NULL);
	struct paddock_stream *stream = paddock_sandbox_events(client, &request, &err);
	uint64_t expected = 1;

	assert_non_null(stream);
	while (paddock_stream_next(stream, PADDOCK_NO_TIMEOUT, &event, &err) == 1) {
		assert_true(event->sequence == expected++);
		paddock_free(event);
	}
	assert_int_equal(expected, 101);
	assert_int_equal(paddock_stream_next(stream, PADDOCK_NO_TIMEOUT, &event, &err), 0);
	paddock_stream_free(stream);
	paddock_close(client);
}

static void silence_is_not_the_end(void **state)
{
	Paddock__V1__AttachRequest request = PADDOCK__V1__ATTACH_REQUEST__INIT;
	Paddock__V1__ProcessEvent *event = NULL;
	struct pdk_error err = {0};
	struct paddock_client *client = connect_to(NULL);
	struct paddock_stream *stream = paddock_process_attach(client, &request, &err);

	assert_int_equal(paddock_stream_next(stream, 5000, &event, &err), 1);
	paddock_free(event);
	assert_int_equal(paddock_stream_next(stream, 0, &event, &err), -EAGAIN);
	assert_int_equal(paddock_stream_next(stream, 20, &event, &err), -EAGAIN);
	paddock_stream_cancel(stream);
	assert_int_equal(paddock_stream_next(stream, PADDOCK_NO_TIMEOUT, &event, &err), -ECANCELED);
	paddock_stream_free(stream);
	/* And freed in the middle of a read that waits. */
	stream = paddock_process_attach(client, &request, &err);
	assert_int_equal(paddock_stream_next(stream, 5000, &event, &err), 1);
	paddock_free(event);
	assert_int_equal(paddock_stream_next(stream, 1, &event, &err), -EAGAIN);
	paddock_stream_free(stream);
	paddock_close(client);
}

static void a_stream_that_breaks_says_why(void **state)
{
	Paddock__V1__StartProcessRequest request = PADDOCK__V1__START_PROCESS_REQUEST__INIT;
	struct pdk_error err = {0};
	struct paddock_client *client = connect_to(NULL);
	struct paddock_result result = {0};

	assert_int_equal(paddock_run(client, &request, 1000, &result, &err), -ECONNREFUSED);
	assert_string_equal(err.text, "going down");
	assert_null(result.out);
	paddock_close(client);
}

static void a_large_file_is_cut_into_chunks(void **state)
{
	size_t length = (3u << 20) + 5;
	char *data = calloc(1, length);
	struct pdk_error err = {0};
	struct paddock_client *client = connect_to(NULL);

	assert_int_equal(paddock_file_put(client, "i", "path", NULL, data, length, 0644, &err), 0);
	assert_int_equal(paddock_file_put(client, "i", "path", NULL, NULL, 0, 0644, &err), 0);
	free(data);
	paddock_close(client);
}

static void a_send_ends_when_the_server_refuses(void **state)
{
	Paddock__V1__UnpackArchiveRequest message = PADDOCK__V1__UNPACK_ARCHIVE_REQUEST__INIT;
	Paddock__V1__UnpackArchiveResponse *reply = NULL;
	uint8_t *data = calloc(1, PADDOCK_CHUNK_MAX);
	struct pdk_error err = {0};
	struct paddock_client *client = connect_to(NULL);
	struct paddock_stream *stream = paddock_file_unpack_archive(client, &err);
	int i, rc = 0;

	message.message_case = PADDOCK__V1__UNPACK_ARCHIVE_REQUEST__MESSAGE_DATA;
	message.data = (ProtobufCBinaryData){.len = PADDOCK_CHUNK_MAX, .data = data};
	/* More than any window holds: it can only end because the call has. */
	for (i = 0; i < 256 && rc == 0; i++)
		rc = paddock_stream_send(stream, &message, &err);
	assert_int_equal(rc, -EPIPE);
	assert_int_equal(paddock_stream_finish(stream, &reply, &err), -ENOSPC);
	assert_string_equal(err.text, "disk quota");
	paddock_stream_free(stream);
	free(data);
	paddock_close(client);
}

static void a_message_that_is_too_large_is_not_sent(void **state)
{
	Paddock__V1__SendInputRequest request = PADDOCK__V1__SEND_INPUT_REQUEST__INIT;
	Paddock__V1__SendInputResponse *reply = NULL;
	struct pdk_error err = {0};
	struct paddock_client *client = connect_to(NULL);

	request.data.len = PADDOCK_MESSAGE_MAX + 1;
	request.data.data = calloc(1, request.data.len);
	assert_int_equal(paddock_process_send_input(client, &request, &reply, &err), -EINVAL);
	free(request.data.data);
	paddock_close(client);
}

static void *call_often(void *arg)
{
	Paddock__V1__CreateSandboxRequest request = PADDOCK__V1__CREATE_SANDBOX_REQUEST__INIT;
	Paddock__V1__Sandbox *sandbox = NULL;
	intptr_t failures = 0;
	int i;

	for (i = 0; i < 200; i++) {
		if (paddock_sandbox_create(arg, &request, &sandbox, NULL) < 0)
			failures++;
		else
			paddock_free(sandbox);
	}
	return (void *)failures;
}

static void threads_share_a_client(void **state)
{
	struct paddock_client *client = connect_to("pdk_a_b");
	pthread_t threads[4];
	void *failures;
	int i;

	for (i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, call_often, client), 0);
	for (i = 0; i < 4; i++) {
		pthread_join(threads[i], &failures);
		assert_null(failures);
	}
	paddock_close(client);
}

static int start(void **state)
{
	snprintf(socket_path, sizeof(socket_path), "/tmp/paddock-sdk-test-%d.sock", getpid());
	unsetenv("PADDOCK_API_KEY");
	fake_server_start(socket_path);
	return 0;
}

static int stop(void **state)
{
	fake_server_stop();
	unlink(socket_path);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_call_carries_the_key),
		cmocka_unit_test(a_refusal_has_code_and_text),
		cmocka_unit_test(an_answer_that_is_no_message),
		cmocka_unit_test(a_stream_brings_all_and_ends),
		cmocka_unit_test(silence_is_not_the_end),
		cmocka_unit_test(a_stream_that_breaks_says_why),
		cmocka_unit_test(a_large_file_is_cut_into_chunks),
		cmocka_unit_test(a_send_ends_when_the_server_refuses),
		cmocka_unit_test(a_message_that_is_too_large_is_not_sent),
		cmocka_unit_test(threads_share_a_client),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
