#include <string.h>

#include "codec_test.pb-c.h"
#include "preview/json.h"

/* Any text as the message that has every shape. What was understood is written, read again and written again: the two
 * texts are equal. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int round_trip(const ProtobufCMessage *message, struct buffer *first, struct buffer *second)
{
	struct arena arena;
	struct pdk_error err;
	ProtobufCMessage *again;

	if (json_encode(message, first) < 0)
		return 0;
	arena_init(&arena, 16 << 20);
	if (json_decode(&codec_test__all__descriptor, buffer_data(first), buffer_length(first), &arena, &again, &err) <
		    0 ||
	    json_encode(again, second) < 0 || buffer_length(first) != buffer_length(second) ||
	    memcmp(buffer_data(first), buffer_data(second), buffer_length(first)) != 0)
		__builtin_trap();
	arena_clear(&arena);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buffer first = BUFFER(4 << 20), second = BUFFER(4 << 20);
	struct arena arena;
	struct pdk_error err;
	ProtobufCMessage *message;

	json_start();
	arena_init(&arena, 4 << 20);
	if (json_decode(&codec_test__all__descriptor, data, size, &arena, &message, &err) == 0)
		round_trip(message, &first, &second);
	buffer_free(&first);
	buffer_free(&second);
	arena_clear(&arena);
	return 0;
}
