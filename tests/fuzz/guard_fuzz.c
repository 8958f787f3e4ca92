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
	used = guard_client_bytes(frames, held, *length, now);
	if (used < 0)
		return -1;
	if ((size_t)used > *length)
		__builtin_trap();
	*length -= (size_t)used;
	memmove(held, held + used, *length);
	if (*length > GUARD_HOLD || frames->n_streams > GUARD_STREAMS_MAX)
		__builtin_trap();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct guard_frames frames;
	static uint8_t held[GUARD_HOLD + 128];
	size_t length = 0;
	uint64_t now = 1;

	if (guard_frames_init(&frames) < 0)
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
			uint8_t copy[128];

			memcpy(copy, data, n);
			rc = guard_server_bytes(&frames, copy, n, now);
		}
		if (rc < 0)
			break;
		data += n;
		size -= n;
	}
	guard_frames_free(&frames);
	return 0;
}
