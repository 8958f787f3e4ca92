#include "test.h"

#include "paddock/v1/files.pb-c.h"
#include "paddock/v1/processes.pb-c.h"
#include "sandbox/base/cleanup.h"
#include "sdk/lib/private.h"
#include <stdlib.h>
#include <string.h>

/* A message with a large field at its end is put together without protobuf-c: it must come out the same. */

#define LARGE 100000u

struct bytes {
	uint8_t data[3 * LARGE];
	size_t length;
};

static void add_varint(struct bytes *bytes, uint64_t value)
{
	for (; value >= 0x80; value >>= 7)
		bytes->data[bytes->length++] = (uint8_t)(value | 0x80);
	bytes->data[bytes->length++] = (uint8_t)value;
}

static void add_info(struct bytes *bytes, const char *user)
{
	Paddock__V1__FileInfo info = PADDOCK__V1__FILE_INFO__INIT;
	Paddock__V1__FileChunk chunk = PADDOCK__V1__FILE_CHUNK__INIT;

	info.user = (char *)user;
	chunk.info = &info;
	bytes->length += paddock__v1__file_chunk__pack(&chunk, bytes->data + bytes->length);
}

static void add_data(struct bytes *bytes, uint8_t first, size_t length)
{
	add_varint(bytes, 1 << 3 | 2);
	add_varint(bytes, length);
	for (size_t i = 0; i < length; i++)
		bytes->data[bytes->length++] = (uint8_t)(first + i * 7);
}

/* As gRPC delivers it: in pieces of `piece` bytes. */
static ProtobufCMessage *unpack_as(const ProtobufCMessageDescriptor *type, const struct bytes *bytes, size_t piece)
{
	size_t count = (bytes->length + piece - 1) / piece;
	grpc_slice *slices = calloc(count, sizeof(*slices));
	struct scratch scratch = {0};
	grpc_byte_buffer *buffer;
	ProtobufCMessage *message;

	for (size_t i = 0; i < count; i++) {
		size_t left = bytes->length - i * piece;

		slices[i] = grpc_slice_from_copied_buffer((const char *)bytes->data + i * piece,
							  left < piece ? left : piece);
	}
	buffer = grpc_raw_byte_buffer_create(slices, count);
	message = message_unpack(buffer, type, &scratch);
	grpc_byte_buffer_destroy(buffer);
	for (size_t i = 0; i < count; i++)
		grpc_slice_unref(slices[i]);
	free(slices);
	free(scratch.data);
	return message;
}

static Paddock__V1__FileChunk *unpack(const struct bytes *bytes, size_t piece)
{
	return (Paddock__V1__FileChunk *)unpack_as(&paddock__v1__file_chunk__descriptor, bytes, piece);
}

static void assert_same(const struct bytes *bytes, size_t piece)
{
	Paddock__V1__FileChunk *chunk = unpack(bytes, piece);
	Paddock__V1__FileChunk *wanted = paddock__v1__file_chunk__unpack(NULL, bytes->length, bytes->data);

	assert_int_equal(chunk != NULL, wanted != NULL);
	if (wanted) {
		assert_int_equal(chunk->data.len, wanted->data.len);
		assert_true(!wanted->data.len || !memcmp(chunk->data.data, wanted->data.data, wanted->data.len));
		assert_int_equal(chunk->info != NULL, wanted->info != NULL);
		if (wanted->info)
			assert_string_equal(chunk->info->user, wanted->info->user);
	}
	paddock_free(chunk);
	paddock_free(wanted);
}

static void assert_same_in_pieces(const struct bytes *bytes)
{
	static const size_t pieces[] = {1, 3, 4096, 8192, 65537, 3 * LARGE};

	for (size_t i = 0; i < ARRAY_SIZE(pieces); i++)
		assert_same(bytes, pieces[i]);
}

static void large_content_arrives(void **state)
{
	_cleanup_free_ struct bytes *bytes = calloc(1, sizeof(*bytes));
	static char long_name[6000];

	add_data(bytes, 5, LARGE);
	assert_same_in_pieces(bytes);
	bytes->length = 0;
	add_info(bytes, "somebody");
	add_data(bytes, 5, LARGE);
	assert_same_in_pieces(bytes);
	/* the head does not fit in what is looked at */
	memset(long_name, 'n', sizeof(long_name) - 1);
	bytes->length = 0;
	add_info(bytes, long_name);
	add_data(bytes, 5, LARGE);
	assert_same_in_pieces(bytes);
}

/* ProcessEvent.output: two numbers and the data in a message within a message. */
static void add_output(struct bytes *bytes, uint64_t sequence, uint8_t first, size_t length)
{
	Paddock__V1__ProcessEvent event = PADDOCK__V1__PROCESS_EVENT__INIT;
	Paddock__V1__ProcessOutput output = PADDOCK__V1__PROCESS_OUTPUT__INIT;
	_cleanup_free_ uint8_t *data = malloc(length);

	for (size_t i = 0; i < length; i++)
		data[i] = (uint8_t)(first + i * 7);
	output.sequence = sequence;
	output.stream = PADDOCK__V1__STREAM__STREAM_STDERR;
	output.data = (ProtobufCBinaryData){length, data};
	event.event_case = PADDOCK__V1__PROCESS_EVENT__EVENT_OUTPUT;
	event.output = &output;
	bytes->length += paddock__v1__process_event__pack(&event, bytes->data + bytes->length);
}

static void assert_same_event(const struct bytes *bytes)
{
	static const size_t pieces[] = {1, 3, 8192, 3 * LARGE};
	Paddock__V1__ProcessEvent *wanted = paddock__v1__process_event__unpack(NULL, bytes->length, bytes->data);

	for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
		Paddock__V1__ProcessEvent *event = (Paddock__V1__ProcessEvent *)unpack_as(
			&paddock__v1__process_event__descriptor, bytes, pieces[i]);

		assert_int_equal(event != NULL, wanted != NULL);
		if (!wanted)
			continue;
		assert_int_equal(event->event_case, PADDOCK__V1__PROCESS_EVENT__EVENT_OUTPUT);
		assert_int_equal(event->output->sequence, wanted->output->sequence);
		assert_int_equal(event->output->stream, wanted->output->stream);
		assert_int_equal(event->output->data.len, wanted->output->data.len);
		assert_memory_equal(event->output->data.data, wanted->output->data.data, wanted->output->data.len);
		paddock_free(event);
	}
	paddock_free(wanted);
}

static void large_output_arrives(void **state)
{
	_cleanup_free_ struct bytes *bytes = calloc(1, sizeof(*bytes));
	Paddock__V1__ProcessEvent started = PADDOCK__V1__PROCESS_EVENT__INIT;
	Paddock__V1__ProcessStarted start = PADDOCK__V1__PROCESS_STARTED__INIT;

	add_output(bytes, UINT64_MAX, 5, LARGE);
	assert_same_event(bytes);
	bytes->length = 0;
	add_output(bytes, 0, 5, LARGE);
	assert_same_event(bytes);
	/* twice: merged, the last counts */
	bytes->length = 0;
	add_output(bytes, 7, 1, 10);
	add_output(bytes, 0, 5, LARGE);
	assert_same_event(bytes);
	/* another case before it */
	bytes->length = 0;
	start.tag = (char *)"somebody";
	started.event_case = PADDOCK__V1__PROCESS_EVENT__EVENT_STARTED;
	started.started = &start;
	bytes->length = paddock__v1__process_event__pack(&started, bytes->data);
	add_output(bytes, 9, 5, LARGE);
	assert_same_event(bytes);
	/* a number behind the data, and a length that is too long */
	bytes->length = 0;
	add_output(bytes, 9, 5, LARGE);
	bytes->data[bytes->length++] = 1 << 3;
	bytes->data[bytes->length++] = 1;
	bytes->data[1] += 2;
	assert_same_event(bytes);
	bytes->data[1]++;
	assert_same_event(bytes);
}

static void odd_messages_are_the_same(void **state)
{
	_cleanup_free_ struct bytes *bytes = calloc(1, sizeof(*bytes));

	/* twice: the last counts */
	add_data(bytes, 1, 10);
	add_data(bytes, 2, LARGE);
	assert_same_in_pieces(bytes);
	/* not at the end */
	bytes->length = 0;
	add_data(bytes, 3, LARGE);
	add_info(bytes, "behind");
	assert_same_in_pieces(bytes);
	/* a field that nobody knows, at the end */
	bytes->length = 0;
	add_info(bytes, "somebody");
	add_data(bytes, 3, LARGE);
	bytes->data[0] = 9 << 3 | 2;
	assert_same_in_pieces(bytes);
}

static void damaged_messages_are_refused(void **state)
{
	_cleanup_free_ struct bytes *bytes = calloc(1, sizeof(*bytes));

	add_data(bytes, 5, LARGE);
	assert_same(bytes, 8192);
	bytes->length--;
	assert_null(unpack(bytes, 8192));
	bytes->length = 0;
	add_varint(bytes, 1 << 3 | 2);
	add_varint(bytes, UINT64_MAX);
	bytes->length = LARGE;
	assert_null(unpack(bytes, 8192));
	bytes->length = 0;
	add_info(bytes, "bad \xff");
	bytes->data[1] = 0x7f; /* longer than it is */
	add_data(bytes, 5, LARGE);
	assert_same(bytes, 8192);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(large_content_arrives),
		cmocka_unit_test(large_output_arrives),
		cmocka_unit_test(odd_messages_are_the_same),
		cmocka_unit_test(damaged_messages_are_refused),
	};
	int failed;

	grpc_init();
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	grpc_shutdown();
	return failed;
}
