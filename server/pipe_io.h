#ifndef PADDOCK_SERVER_PIPE_IO_H
#define PADDOCK_SERVER_PIPE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/*
 * Reading and writing pipes whose other end, and whose O_NONBLOCK flag, a hostile peer holds: no call here
 * ever waits. The process must ignore SIGPIPE.
 */

/* True for a FIFO. */
bool pipe_check(int fd);
/* Give the pipe up to 1 MiB; best effort. Its size now. */
size_t pipe_grow(int fd);
/* Bytes read, 0 at the end, -EAGAIN when it is empty. */
ssize_t pipe_read(int fd, void *data, size_t length);
/* Bytes written, -EAGAIN when it is full, -EPIPE when nobody reads. */
ssize_t pipe_write(int fd, const void *data, size_t length);

#endif
