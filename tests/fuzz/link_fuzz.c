#include <stdint.h>
#include <sys/socket.h>

#include "sandbox/base/cleanup.h"
#include "sandbox/base/link.h"

/* Frames of a peer, in one piece and cut at an arbitrary place. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int count_frame(struct link *link, struct link_frame *frame, void *arg)
{
	uint64_t *sum = arg;

	for (size_t i = 0; i < frame->length; i++)
		*sum += frame->payload[i];
	return frame->kind == LINK_END && frame->stream == 0xdead ? -1 : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t sum = 0;
	int pair[2];
	struct link *link;
	size_t cut = size ? data[0] % (size + 1) : 0;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return 0;
	link = link_create(pair[0], 65536, count_frame, &sum);
	if (link && link_feed(link, data, cut) >= 0)
		link_feed(link, data + cut, size - cut);
	if (link)
		link_free(link);
	else
		close(pair[0]);
	close(pair[1]);
	return 0;
}
