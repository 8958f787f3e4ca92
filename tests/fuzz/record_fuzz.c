/* The state file of a sandbox, as a warden that starts may find it: whatever it holds, only a record that names its own
 * sandbox is taken, with strings that end. */
#include "sandbox/warden/record.c"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct options options;
static const char id[] = "iaaaaaaaaaaaaaaaaaaaa";

static void setup(void)
{
	static char path[] = "/dev/shm/record-fuzz-XXXXXX";
	int dir;

	if (!mkdtemp(path))
		__builtin_trap();
	sandboxes = open(path, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	if (mkdirat(sandboxes, id, 0700) < 0 || (dir = directory(id)) < 0)
		__builtin_trap();
	close(dir);
}

static void teardown(void)
{
	char path[64], real[200];
	ssize_t length;

	record_remove(id);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", sandboxes);
	length = readlink(path, real, sizeof(real) - 1);
	if (length > 0) {
		real[length] = '\0';
		rmdir(real);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_fd_ int dir = -1;
	_cleanup_fd_ int fd = -1;
	struct record record;

	if (sandboxes < 0) {
		setup();
		atexit(teardown);
	}
	dir = directory(id);
	fd = openat(dir, "state", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || (size && write(fd, data, size) != (ssize_t)size))
		__builtin_trap();
	if (record_load(id, &record) < 0)
		return 0;
	if (size < sizeof(record) || strcmp(record.id, id) != 0 ||
	    strnlen(record.template_id, sizeof(record.template_id)) == sizeof(record.template_id))
		__builtin_trap();
	return 0;
}
