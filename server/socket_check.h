#ifndef PADDOCK_SERVER_SOCKET_CHECK_H
#define PADDOCK_SERVER_SOCKET_CHECK_H

#include <stdbool.h>

/* Is this a TCP socket of another network namespace than ours? A sandbox's init can hand over such a one only: a socket
 * of the host's network would lead out of it. */
bool socket_is_of_sandbox(int fd);

#endif
