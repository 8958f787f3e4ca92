#include <stdlib.h>

#include "sandbox/warden/seccomp_policy.h"

/* The text of a seccomp policy. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct seccomp_policy policy;
	static const uint64_t args[6] = {1, 1ull << 32, 0, ~0ull, 2, 3};
	struct pdk_error err = {0};

	if (seccomp_policy_parse(&policy, (const char *)data, size, &err) >= 0)
		for (uint32_t nr = 0; nr < SECCOMP_NR_MAX; nr++)
			seccomp_policy_decide(&policy, nr, args);
	return 0;
}
