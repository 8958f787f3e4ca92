#include "server/guest_check.h"
#include "server/guest_unpack.h"

/* Replies of a hostile init: first byte = the operation they answer, second = which reply, third = descriptors. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct guest_arena arena;
	struct pdk_error err = {0};
	Paddock__Internal__GuestReply *reply;
	char shown[64];

	if (size < 3)
		return 0;
	guest_arena_init(&arena);
	reply = guest_unpack_reply(&arena, data + 3, size - 3);
	if (reply) {
		guest_check_reply(reply, (guest_op)(data[0] % 18), data[1] % 4, 1, data[2] % 5, &err);
		guest_check_event(reply, (guest_op)(data[0] % 18), data[2] % 5, &err);
		guest_check_notice(reply, data[2] % 5, &err);
		guest_clean_text(shown, sizeof(shown), reply->text);
	}
	guest_arena_free(&arena);
	return 0;
}
