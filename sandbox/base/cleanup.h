#ifndef PADDOCK_BASE_CLEANUP_H
#define PADDOCK_BASE_CLEANUP_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Scope-bound ownership: `_cleanup_fd_ int fd = -1;` closes when the scope ends, `STEAL_FD(fd)` hands it on. */

static inline void cleanup_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void cleanup_free(void *pointer)
{
	free(*(void **)pointer);
}

static inline void cleanup_file(FILE **file)
{
	if (*file)
		fclose(*file);
}

#define _cleanup_(function) __attribute__((cleanup(function)))
#define _cleanup_fd_ _cleanup_(cleanup_fd)
#define _cleanup_free_ _cleanup_(cleanup_free)
#define _cleanup_file_ _cleanup_(cleanup_file)

#define STEAL_FD(fd)                                                                                                   \
	({                                                                                                             \
		int stolen_ = (fd);                                                                                    \
		(fd) = -1;                                                                                             \
		stolen_;                                                                                               \
	})
#define STEAL_PTR(pointer)                                                                                             \
	({                                                                                                             \
		__typeof__(pointer) stolen_ = (pointer);                                                               \
		(pointer) = NULL;                                                                                      \
		stolen_;                                                                                               \
	})

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

#endif
