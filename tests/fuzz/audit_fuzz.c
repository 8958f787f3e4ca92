#include "server/audit.h"

/* A record of the audit log as it lies in the store: the first 8 bytes are its key. What is shown of it lies in it. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must_lie_in(const void *part, size_t length, const uint8_t *whole, size_t size)
{
	const uint8_t *at = part;

	if (length && (at < whole || length > size || at > whole + size - length))
		__builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct audit_view view;
	const uint8_t *value = data + 8;

	if (size < 8)
		return 0;
	size -= 8;
	if (audit_view(data, 8, value, size, &view) < 0)
		return 0;
	must_lie_in(view.hash, AUDIT_HASH_SIZE, value, size);
	must_lie_in(view.previous, AUDIT_HASH_SIZE, value, size);
	must_lie_in(view.stored, view.stored_length, value, size);
	must_lie_in(view.tenant.data, view.tenant.length, value, size);
	must_lie_in(view.action.data, view.action.length, value, size);
	must_lie_in(view.sandbox_id.data, view.sandbox_id.length, value, size);
	return 0;
}
