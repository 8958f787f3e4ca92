#include <stdlib.h>
#include <string.h>

#include "preview/guard_frames.h"

/* Two talkers in front of the guard: the first byte of each piece says whose it is and how long. The client's bytes
 * that are held back are given again with the next, as the owner does. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int client(struct guard_frames *frames, uint8_t *held, size_t *length, const uint8_t *data, size_t n,
		  uint64_t now)
{
	int64_t used;

	memcpy(held + *length, data, n);
	*length += n;
	for (int i = 0; i < 2; i++) {
		used = guard_client_bytes(frames, held, *length, now);
		if (used < 0)
			return -1;
		if ((size_t)used > *length)
			__builtin_trap();
		*length -= (size_t)used;
		memmove(held, held + used, *length);
		if (!frames->asked || frames->protocol)
			break;
		if (guard_choose(frames, frames->grpc_type ? GUARD_GRPC : GUARD_HTTP) < 0)
			return -1;
	}
	buffer_free(frames->answers);
	if (*length > GUARD_HOLD || frames->n_streams > GUARD_STREAMS_MAX)
		__builtin_trap();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct guard_frames frames;
	static uint8_t held[GUARD_HOLD + 128];
	struct buffer answers = BUFFER(4096);
	size_t length = 0;
	uint64_t now = 1;

	if (guard_frames_init(&frames, &answers) < 0)
		return 0;
	while (size > 1) {
		bool is_client = !(data[0] & 0x80);
		size_t n = data[0] & 0x7f;
		int rc;

		data++;
		size--;
		n = n < size ? n : size;
		now += 1000000;
		if (is_client) {
			rc = client(&frames, held, &length, data, n, now);
		} else {
			uint8_t copy[136];
			size_t kept = frames.server_head_length;
			int64_t whole;

			memcpy(copy, frames.server_head, kept);
			memcpy(copy + kept, data, n);
			whole = guard_server_bytes(&frames, copy, kept + n, now);
			if (whole >= 0 && (size_t)whole + frames.server_head_length != kept + n)
				__builtin_trap();
			rc = whole < 0 ? -1 : 0;
		}
		if (rc < 0)
			break;
		data += n;
		size -= n;
	}
	buffer_free(&answers);
	guard_frames_free(&frames);
	return 0;
}
