/* What the confined helper, which has looked at hostile bytes, prints: the digest of a template or a reason. */
#include "sandbox/warden/import.c"

#include "sandbox/warden/options.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct options options;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char digest[80];
	uint64_t files, bytes;
	struct pdk_error err;

	if (size >= sizeof(job.output))
		size = sizeof(job.output) - 1;
	memcpy(job.output, data, size);
	job.output[size] = '\0';
	job.output_length = size;
	if (parse_digest(digest, &files, &bytes, &err) >= 0 &&
	    (strlen(digest) != 71 || memcmp(digest, "sha256:", 7) != 0 || strpbrk(digest, "/.\n ")))
		__builtin_trap();
	for (const char *at = job_reason(); *at; at++)
		if ((unsigned char)*at < ' ' || *at == 0x7f)
			__builtin_trap();
	return 0;
}
