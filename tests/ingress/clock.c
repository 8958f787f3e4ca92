#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Preloaded: the wall clock is off by the milliseconds in the file that CLOCK_OFFSET names, whatever they are now. */

static const volatile int64_t *offset_ms;

static __attribute__((constructor)) void open_offset(void)
{
	const char *path = getenv("CLOCK_OFFSET");
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *map = fd >= 0 ? mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;

	if (map == MAP_FAILED)
		abort();
	offset_ms = map;
	close(fd);
}

__attribute__((visibility("default"))) int clock_gettime(clockid_t clock, struct timespec *ret);

int clock_gettime(clockid_t clock, struct timespec *ret)
{
	int rc = (int)syscall(SYS_clock_gettime, clock, ret);

	if (rc == 0 && clock == CLOCK_REALTIME && offset_ms) {
		int64_t ms = ret->tv_sec * 1000 + ret->tv_nsec / 1000000 + *offset_ms;

		ret->tv_sec = ms / 1000;
		ret->tv_nsec = ms % 1000 * 1000000;
	}
	return rc;
}
