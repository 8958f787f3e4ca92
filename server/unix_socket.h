#ifndef PADDOCK_SERVER_UNIX_SOCKET_H
#define PADDOCK_SERVER_UNIX_SOCKET_H

#include "sandbox/base/error.h"
#include <stddef.h>

/* The files of listening sockets. */

/* Remove a socket file that nobody answers on (left over from a crash). -EADDRINUSE: one does; -EEXIST: not a socket.
 */
int unix_socket_remove_stale(const char *path, struct pdk_error *err);

/* Listen on FOLDER/NAME, mode 0600, non-blocking. Returns the fd; `ret_path` is empty on failure. */
int unix_socket_listen(const char *folder, const char *name, int backlog, char *ret_path, size_t size,
		       struct pdk_error *err);

#endif
