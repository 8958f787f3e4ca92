#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "client.h"
#include "core_test.pb-c.h"
#include "grpc/health/v1/health.pb-c.h"
#include "grpc/reflection/v1/reflection.pb-c.h"
#include "sandbox/base/cleanup.h"
#include "server/loop.h"
#include "server/rpc.h"
#include "server/rpc_internal.h"
#include "service.h"

/* A client on the wire against the engine: statuses, streams, back-pressure, ends of every sort. */

#define TEST "/paddock.test.Test/"

static struct client admin, user;

static void sleep_ms(int ms)
{
	const struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};

	nanosleep(&time, NULL);
}

#define EVENTUALLY(condition)                                                                                          \
	do {                                                                                                           \
		for (int i_ = 0; i_ < 1000 && !(condition); i_++)                                                      \
			sleep_ms(10);                                                                                  \
		assert_true(condition);                                                                                \
	} while (0)

static unsigned int active(void)
{
	unsigned int n;

	loop_lock();
	n = rpc_active();
	loop_unlock();
	return n;
}

static size_t pack_text(const char *text, uint8_t **ret)
{
	Paddock__Test__Text message = PADDOCK__TEST__TEXT__INIT;
	size_t length;

	message.text = (char *)(uintptr_t)text;
	length = paddock__test__text__get_packed_size(&message);
	*ret = malloc(length + 1);
	paddock__test__text__pack(&message, *ret);
	return length;
}

static int call_text(struct client *client, const char *path, const char *text, int timeout_ms, char ret_text[512])
{
	_cleanup_free_ uint8_t *request = NULL;
	_cleanup_free_ uint8_t *reply = NULL;
	size_t length = pack_text(text, &request), reply_length = 0;
	int status = client_unary(client, path, timeout_ms, request, length, &reply, &reply_length, ret_text);

	if (status == PDK_OK) {
		assert_int_equal(reply_length, length);
		assert_memory_equal(reply, request, length);
	}
	return status;
}

static void unary_returns_the_reply(void **state)
{
	int before = atomic_load(&events_recorded);

	assert_int_equal(call_text(&user, TEST "Echo", "hello", 0, NULL), PDK_OK);
	assert_int_equal(call_text(&admin, TEST "Echo", "", 0, NULL), PDK_OK);
	assert_int_equal(atomic_load(&events_recorded), before + 2);
}

static void failure_carries_the_text_as_it_is(void **state)
{
	char text[512];

	assert_int_equal(call_text(&user, TEST "Echo", "fail", 0, text), PDK_NOT_FOUND);
	assert_string_equal(text, "no such \xe2\x9c\x93 thing\n%");
	loop_lock();
	assert_string_equal(last_outcome, "NOT_FOUND");
	assert_string_equal(last_action, "paddock.test.Test/Echo");
	loop_unlock();
}

static void change_is_durable_before_the_reply(void **state)
{
	int commits = atomic_load(&store_commits), records = atomic_load(&store_records);
	int events = atomic_load(&events_recorded);
	char text[512];

	assert_int_equal(call_text(&user, TEST "Change", "x", 0, NULL), PDK_OK);
	assert_int_equal(atomic_load(&store_commits), commits + 1);
	assert_int_equal(atomic_load(&store_records), records + 1);
	assert_int_equal(call_text(&user, TEST "Change", "fail", 0, NULL), PDK_NOT_FOUND);
	assert_int_equal(atomic_load(&store_commits), commits + 1);
	assert_int_equal(atomic_load(&events_recorded), events + 1);
	atomic_store(&store_result, -EIO);
	assert_int_equal(call_text(&user, TEST "Change", "x", 0, text), PDK_UNAVAILABLE);
	assert_string_equal(text, "the change could not be stored");
	atomic_store(&store_result, 0);
}

/* In the journal it is as good as stored, as long as the machine runs; else the store is waited for, and believed. */
static void what_is_kept_is_not_waited_for(void **state)
{
	int commits = atomic_load(&store_commits), records = atomic_load(&store_records);

	atomic_store(&store_keeps, 1);
	atomic_store(&store_result, -EIO);
	assert_int_equal(call_text(&user, TEST "Change", "kept", 0, NULL), PDK_OK);
	assert_int_equal(atomic_load(&store_commits), commits);
	assert_int_equal(atomic_load(&store_records), records + 1);
	atomic_store(&store_keeps, 0);
	assert_int_equal(call_text(&user, TEST "Change", "kept", 0, NULL), PDK_UNAVAILABLE);
	atomic_store(&store_result, 0);
	assert_int_equal(call_text(&user, TEST "Change", "kept", 0, NULL), PDK_OK);
	assert_int_equal(atomic_load(&store_commits), commits + 2);
	assert_int_equal(atomic_load(&store_records), records + 3);
}

static void keys_are_checked_before_anything(void **state)
{
	static const char *const wrong[] = {NULL, "", "Bearer pdk_bad", "pdk_good", "Bearer pdk_goodbutmuchlonger"};
	struct client client;
	char text[512];

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		client_open(&client, service_address("paddock.sock"), wrong[i]);
		assert_int_equal(call_text(&client, TEST "Echo", "x", 0, text), PDK_UNAUTHENTICATED);
		assert_string_equal(text, "a valid API key is needed");
		client_close(&client);
	}
	client_open(&client, service_address("paddock.sock"), READ_KEY);
	assert_int_equal(call_text(&client, TEST "Echo", "x", 0, NULL), PDK_PERMISSION_DENIED);
	client_close(&client);
	assert_int_equal(call_text(&user, TEST "Admin", "x", 0, NULL), PDK_PERMISSION_DENIED);
	assert_int_equal(call_text(&admin, TEST "Admin", "x", 0, NULL), PDK_OK);
	/* A key on the admin socket is used instead of the socket's authority. */
	client_open(&client, service_address("admin.sock"), GOOD_KEY);
	assert_int_equal(call_text(&client, TEST "Admin", "x", 0, NULL), PDK_PERMISSION_DENIED);
	client_close(&client);
	client_open(&client, service_address("admin.sock"), "Bearer no");
	assert_int_equal(call_text(&client, TEST "Echo", "x", 0, NULL), PDK_UNAUTHENTICATED);
	client_close(&client);
}

static void unknown_methods_are_unimplemented(void **state)
{
	static const char *const paths[] = {TEST "Ech", TEST "Echoo", "/", "/x", "/paddock.test.Test", TEST "echo"};

	for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
		assert_int_equal(call_text(&user, paths[i], "x", 0, NULL), PDK_UNIMPLEMENTED);
}

static void bad_messages_are_refused(void **state)
{
	static const uint8_t malformed[] = {0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f};
	_cleanup_free_ uint8_t *large = calloc(1, 8 << 20);
	char text[512];

	assert_int_equal(client_unary(&user, TEST "Echo", 0, malformed, sizeof(malformed), NULL, NULL, text),
			 PDK_INVALID_ARGUMENT);
	assert_string_equal(text, "malformed Text");
	/* Above the row's limit, and above what gRPC itself takes. */
	assert_int_equal(client_unary(&user, TEST "Echo", 0, large, (64 << 10) + 1, NULL, NULL, text),
			 PDK_RESOURCE_EXHAUSTED);
	assert_string_equal(text, "message is larger than 65536 bytes");
	assert_int_equal(client_unary(&user, TEST "Echo", 0, large, 8 << 20, NULL, NULL, text), PDK_RESOURCE_EXHAUSTED);
	assert_int_equal(call_text(&user, TEST "Echo", "still there", 0, NULL), PDK_OK);
}

static void unary_without_a_message(void **state)
{
	struct client_call call;

	client_begin(&call, &user, TEST "Echo", 0);
	client_half_close(&call);
	assert_int_equal(client_finish(&call), PDK_INVALID_ARGUMENT);
	assert_string_equal(call.text, "the request message is missing");
}

static void begin_number(struct client_call *call, const char *path, int64_t value)
{
	Paddock__Test__Number number = PADDOCK__TEST__NUMBER__INIT;

	number.value = value;
	client_begin(call, &user, path, 0);
	client_send_message(call, &number.base);
}

static bool receive_number(struct client_call *call, int64_t *ret)
{
	size_t length;
	_cleanup_free_ uint8_t *bytes = client_receive(call, &length);
	Paddock__Test__Number *number;

	if (!bytes)
		return false;
	number = paddock__test__number__unpack(NULL, length, bytes);
	*ret = number->value;
	paddock__test__number__free_unpacked(number, NULL);
	return true;
}

static void server_streams_in_order(void **state)
{
	static const int64_t lengths[] = {0, 1, 2, 1000};

	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		struct client_call call;
		int64_t value, next = 0;

		begin_number(&call, TEST "Count", lengths[i]);
		client_half_close(&call);
		while (receive_number(&call, &value))
			assert_int_equal(value, next++);
		assert_int_equal(next, lengths[i]);
		assert_int_equal(client_finish(&call), PDK_OK);
	}
}

static void client_streams(void **state)
{
	Paddock__Test__Number number = PADDOCK__TEST__NUMBER__INIT;
	int commits = atomic_load(&store_commits);
	struct client_call call;
	int64_t value;

	client_begin(&call, &user, TEST "Sum", 0);
	for (number.value = 1; number.value <= 100; number.value++)
		client_send_message(&call, &number.base);
	client_half_close(&call);
	assert_true(receive_number(&call, &value));
	assert_int_equal(value, 5050);
	assert_int_equal(client_finish(&call), PDK_OK);
	assert_int_equal(atomic_load(&store_commits), commits + 1);
}

static void bad_message_in_a_stream_ends_it(void **state)
{
	struct client_call call;

	client_begin(&call, &user, TEST "Sum", 0);
	client_send(&call, "\xff", 1);
	assert_int_equal(client_finish(&call), PDK_INVALID_ARGUMENT);
	assert_string_equal(call.text, "malformed Number");
}

static void both_stream(void **state)
{
	struct client_call call;

	client_begin(&call, &user, TEST "Chat", 0);
	for (int i = 0; i < 50; i++) {
		_cleanup_free_ uint8_t *bytes = NULL, *reply = NULL;
		size_t length = pack_text("well", &bytes), reply_length;

		assert_true(client_send(&call, bytes, length));
		reply = client_receive(&call, &reply_length);
		assert_non_null(reply);
		assert_int_equal(reply_length, length);
	}
	client_half_close(&call);
	assert_int_equal(client_finish(&call), PDK_OK);
}

static void bytes_arrive_whole(void **state)
{
	const int64_t total = 16 << 20;
	int before = atomic_load(&releases);
	struct client_call call;
	int64_t offset = 0;
	uint8_t *bytes;
	size_t length;

	begin_number(&call, TEST "Bytes", total);
	client_half_close(&call);
	while ((bytes = client_receive(&call, &length))) {
		Paddock__Test__Block *block = paddock__test__block__unpack(NULL, length, bytes);

		assert_non_null(block);
		assert_int_equal(block->offset, offset);
		assert_int_equal(block->data.data[0], (uint8_t)(offset / (256 << 10)));
		assert_int_equal(block->data.data[block->data.len - 1], block->data.data[0]);
		offset += (int64_t)block->data.len;
		paddock__test__block__free_unpacked(block, NULL);
		free(bytes);
	}
	assert_int_equal(offset, total);
	assert_int_equal(client_finish(&call), PDK_OK);
	EVENTUALLY(atomic_load(&releases) == before + (int)(total / (256 << 10)));
}

static void slow_reader_stops_the_producer(void **state)
{
	struct client_call call;
	long long produced;

	begin_number(&call, TEST "Bytes", (int64_t)1 << 40);
	sleep_ms(300);
	produced = atomic_load(&bytes_produced);
	sleep_ms(300);
	assert_int_equal(atomic_load(&bytes_produced), produced);
	assert_true(produced < 8 << 20);
	grpc_call_cancel(call.grpc, NULL);
	assert_int_equal(client_finish(&call), PDK_CANCELLED);
	EVENTUALLY(active() == 0);
}

static void cancellation_reaches_the_handler(void **state)
{
	_cleanup_free_ uint8_t *bytes = NULL;
	size_t length = pack_text("", &bytes);
	struct client_call call;

	atomic_store(&hang_cancelled, 0);
	client_begin(&call, &user, TEST "Hang", 0);
	client_send(&call, bytes, length);
	EVENTUALLY(active() == 1);
	sleep_ms(20);
	grpc_call_cancel(call.grpc, NULL);
	assert_int_equal(client_finish(&call), PDK_CANCELLED);
	EVENTUALLY(atomic_load(&hang_cancelled) == PDK_CANCELLED);
	EVENTUALLY(active() == 0);
}

static void deadline_reaches_the_handler(void **state)
{
	atomic_store(&hang_cancelled, 0);
	assert_int_equal(call_text(&user, TEST "Hang", "", 100, NULL), PDK_DEADLINE_EXCEEDED);
	EVENTUALLY(atomic_load(&hang_cancelled) == PDK_DEADLINE_EXCEEDED);
	assert_int_equal(call_text(&user, TEST "Echo", "", 1, NULL) & ~PDK_DEADLINE_EXCEEDED, 0);
	EVENTUALLY(active() == 0);
}

struct background {
	struct client_call call;
	const char *text;
};

static void begin_hang(struct background *background)
{
	_cleanup_free_ uint8_t *bytes = NULL;
	size_t length = pack_text(background->text, &bytes);

	client_begin(&background->call, &user, TEST "Hang", 0);
	client_send(&background->call, bytes, length);
}

static void revoked_key_ends_its_calls(void **state)
{
	struct background hangs[3] = {{.text = "a"}, {.text = "b"}, {.text = "c"}};
	struct client_call stream;

	for (size_t i = 0; i < ARRAY_SIZE(hangs); i++)
		begin_hang(&hangs[i]);
	/* One whose client does not read: nothing more can be sent to it. */
	begin_number(&stream, TEST "Bytes", (int64_t)1 << 40);
	EVENTUALLY(active() == 4);
	sleep_ms(100);
	loop_lock();
	rpc_cancel_key("other");
	rpc_cancel_key("good");
	loop_unlock();
	for (size_t i = 0; i < ARRAY_SIZE(hangs); i++)
		assert_int_equal(client_finish(&hangs[i].call), PDK_UNAUTHENTICATED);
	EVENTUALLY(active() == 0);
	grpc_call_cancel(stream.grpc, NULL);
	client_finish(&stream);
}

static void ended_sandbox_ends_its_calls(void **state)
{
	struct background one = {.text = "iaaaaaaaaaaaaaaaaaaaa"}, two = {.text = "ibbbbbbbbbbbbbbbbbbbb"};
	struct pdk_error why;

	pdk_fail(&why, 0, PDK_FAILED_PRECONDITION, "sandbox has ended");
	begin_hang(&one);
	begin_hang(&two);
	EVENTUALLY(active() == 2);
	sleep_ms(50);
	loop_lock();
	rpc_cancel_sandbox(one.text, &why);
	loop_unlock();
	assert_int_equal(client_finish(&one.call), PDK_FAILED_PRECONDITION);
	assert_string_equal(one.call.text, "sandbox has ended");
	EVENTUALLY(active() == 1);
	grpc_call_cancel(two.call.grpc, NULL);
	client_finish(&two.call);
	EVENTUALLY(active() == 0);
}

static void health_is_open(void **state)
{
	Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
	static const char *const services[] = {"", "paddock.test.Test", "nobody"};
	static const int expected[] = {PDK_OK, PDK_OK, PDK_NOT_FOUND};
	struct client client;

	client_open(&client, service_address("paddock.sock"), NULL);
	for (size_t i = 0; i < ARRAY_SIZE(services); i++) {
		uint8_t bytes[64];

		request.service = (char *)(uintptr_t)services[i];
		assert_int_equal(client_unary(&client, "/grpc.health.v1.Health/Check", 0, bytes,
					      grpc__health__v1__health_check_request__pack(&request, bytes), NULL, NULL,
					      NULL),
				 expected[i]);
	}
	client_close(&client);
}

static void ask_reflection(struct client_call *call, int which, const char *value, size_t *ret_files,
			   size_t *ret_services)
{
	Grpc__Reflection__V1__ServerReflectionRequest request = GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__INIT;
	Grpc__Reflection__V1__ServerReflectionResponse *response;
	_cleanup_free_ uint8_t *bytes = NULL;
	size_t length;

	request.message_request_case = which;
	request.list_services = (char *)(uintptr_t)value;
	assert_true(client_send_message(call, &request.base));
	bytes = client_receive(call, &length);
	assert_non_null(bytes);
	response = grpc__reflection__v1__server_reflection_response__unpack(NULL, length, bytes);
	assert_non_null(response);
	*ret_files = *ret_services = 0;
	if (response->message_response_case ==
	    GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE)
		*ret_files = response->file_descriptor_response->n_file_descriptor_proto;
	if (response->message_response_case ==
	    GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE)
		*ret_services = response->list_services_response->n_service;
	grpc__reflection__v1__server_reflection_response__free_unpacked(response, NULL);
}

static void set_reflection(bool on)
{
	loop_lock();
	server_config.reflection = on;
	loop_unlock();
}

static void reflection_answers(void **state)
{
	static const char *const paths[] = {"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
					    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"};

	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		struct client_call call;
		size_t n_files, services;

		client_begin(&call, &user, paths[i], 0);
		ask_reflection(&call, 7, "", &n_files, &services);
		assert_int_equal(services, 4);
		ask_reflection(&call, 4, "paddock.test.Test.Echo", &n_files, &services);
		assert_int_equal(n_files, 1);
		ask_reflection(&call, 4, "paddock.test.Text", &n_files, &services);
		assert_int_equal(n_files, 1);
		ask_reflection(&call, 3, "core_test.proto", &n_files, &services);
		assert_int_equal(n_files, 1);
		ask_reflection(&call, 4, "paddock.test.Tex", &n_files, &services);
		assert_int_equal(n_files, 0);
		client_half_close(&call);
		assert_int_equal(client_finish(&call), PDK_OK);
	}
	set_reflection(false);
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		struct client_call call;

		client_begin(&call, &user, paths[i], 0);
		assert_int_equal(client_finish(&call), PDK_UNIMPLEMENTED);
	}
	set_reflection(true);
}

/* Calls of every kind, given up at any moment, from several connections: nothing may be left over. */
static void give_up(struct client *client, unsigned int *seed)
{
	static const char *const paths[] = {"Echo", "Change", "Hang", "Count", "Bytes", "Sum", "Chat"};
	_cleanup_free_ uint8_t *text = NULL;
	size_t length = pack_text("x", &text);
	struct client_call call;
	char path[64];

	snprintf(path, sizeof(path), TEST "%s", paths[rand_r(seed) % ARRAY_SIZE(paths)]);
	client_begin(&call, client, path, rand_r(seed) % 4 ? 0 : 1 + rand_r(seed) % 20);
	if (rand_r(seed) % 4) {
		/* A Text or a Number, or nonsense for the method. */
		client_send(&call, rand_r(seed) % 2 ? (const void *)text : "\x08\x7f", rand_r(seed) % 2 ? length : 2);
	}
	if (rand_r(seed) % 2)
		usleep(rand_r(seed) % 2000);
	if (rand_r(seed) % 2)
		client_half_close(&call);
	grpc_call_cancel(call.grpc, NULL);
	client_finish(&call);
}

static void *give_up_often(void *arg)
{
	unsigned int seed = (unsigned int)(uintptr_t)arg;
	struct client client;

	client_open(&client, service_address(arg ? "paddock.sock" : "admin.sock"), GOOD_KEY);
	for (int i = 0; i < 300; i++)
		give_up(&client, &seed);
	client_close(&client);
	return NULL;
}

static void random_cancellations_leave_nothing(void **state)
{
	pthread_t threads[4];
	struct pdk_error why;

	pdk_fail(&why, 0, PDK_ABORTED, "swept");
	for (uintptr_t i = 0; i < ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, give_up_often, (void *)i), 0);
	for (int i = 0; i < 50; i++) {
		sleep_ms(10);
		loop_lock();
		rpc_cancel_all(&why);
		loop_unlock();
	}
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	EVENTUALLY(active() == 0);
	assert_int_equal(call_text(&user, TEST "Echo", "still there", 0, NULL), PDK_OK);
}

static void sockets_have_their_modes(void **state)
{
	char path[128];
	struct stat st;

	snprintf(path, sizeof(path), "%s/admin.sock", service_folder());
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	snprintf(path, sizeof(path), "%s/paddock.sock", service_folder());
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0666);
}

static int setup(void **state)
{
	service_start(NULL);
	client_open(&admin, service_address("admin.sock"), NULL);
	client_open(&user, service_address("paddock.sock"), GOOD_KEY);
	return 0;
}

static int teardown(void **state)
{
	client_close(&admin);
	client_close(&user);
	service_stop(1000);
	return 0;
}

/* Stops and restarts */

static void watch_health(struct client_call *call, struct client *client)
{
	client_begin(call, client, "/grpc.health.v1.Health/Watch", 0);
	client_send(call, "", 0);
	client_half_close(call);
}

static int receive_health(struct client_call *call)
{
	size_t length;
	_cleanup_free_ uint8_t *bytes = client_receive(call, &length);
	Grpc__Health__V1__HealthCheckResponse *response;
	int status;

	assert_non_null(bytes);
	response = grpc__health__v1__health_check_response__unpack(NULL, length, bytes);
	status = (int)response->status;
	grpc__health__v1__health_check_response__free_unpacked(response, NULL);
	return status;
}

static void stop_cancels_what_hangs(void **state)
{
	struct background one = {.text = "x"};
	struct client_call watch;
	struct client client;

	service_start(NULL);
	client_open(&client, service_address("paddock.sock"), NULL);
	client_open(&user, service_address("paddock.sock"), GOOD_KEY);
	watch_health(&watch, &client);
	assert_int_equal(receive_health(&watch), 1);
	begin_hang(&one);
	EVENTUALLY(active() == 2);
	service_stop(200);
	assert_int_equal(receive_health(&watch), 2);
	assert_int_equal(client_finish(&watch), PDK_UNAVAILABLE);
	assert_int_equal(client_finish(&one.call), PDK_UNAVAILABLE);
	assert_string_equal(one.call.text, "the server is stopping");
	client_close(&client);
	client_close(&user);
}

static void stale_sockets_are_replaced_live_ones_are_not(void **state)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct config config;
	struct pdk_error err = {};
	char dir[] = "/tmp/paddock-core.XXXXXX";
	_cleanup_fd_ int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	assert_non_null(mkdtemp(dir));
	config_defaults(&config);
	snprintf(config.runtime_dir, sizeof(config.runtime_dir), "%s", dir);
	config.listen[0] = '\0';
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/admin.sock", dir);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(loop_init(), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_true(rpc_start(&config, &err) < 0);
	assert_non_null(strstr(err.text, "another daemon"));
	assert_int_equal(access(address.sun_path, F_OK), 0);
	close(STEAL_FD(fd));
	assert_int_equal(rpc_start(&config, &err), 0);
	rpc_stop(100);
	assert_int_not_equal(access(address.sun_path, F_OK), 0);
	loop_destroy();
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest calls[] = {
		cmocka_unit_test(unary_returns_the_reply),
		cmocka_unit_test(failure_carries_the_text_as_it_is),
		cmocka_unit_test(change_is_durable_before_the_reply),
		cmocka_unit_test(what_is_kept_is_not_waited_for),
		cmocka_unit_test(keys_are_checked_before_anything),
		cmocka_unit_test(unknown_methods_are_unimplemented),
		cmocka_unit_test(bad_messages_are_refused),
		cmocka_unit_test(unary_without_a_message),
		cmocka_unit_test(server_streams_in_order),
		cmocka_unit_test(client_streams),
		cmocka_unit_test(bad_message_in_a_stream_ends_it),
		cmocka_unit_test(both_stream),
		cmocka_unit_test(bytes_arrive_whole),
		cmocka_unit_test(slow_reader_stops_the_producer),
		cmocka_unit_test(cancellation_reaches_the_handler),
		cmocka_unit_test(deadline_reaches_the_handler),
		cmocka_unit_test(revoked_key_ends_its_calls),
		cmocka_unit_test(ended_sandbox_ends_its_calls),
		cmocka_unit_test(health_is_open),
		cmocka_unit_test(reflection_answers),
		cmocka_unit_test(random_cancellations_leave_nothing),
		cmocka_unit_test(sockets_have_their_modes),
	};
	const struct CMUnitTest stops[] = {
		cmocka_unit_test(stop_cancels_what_hangs),
		cmocka_unit_test(stale_sockets_are_replaced_live_ones_are_not),
	};

	return cmocka_run_group_tests(calls, setup, teardown) + cmocka_run_group_tests(stops, NULL, NULL);
}
