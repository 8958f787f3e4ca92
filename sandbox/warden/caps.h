#ifndef PADDOCK_WARDEN_CAPS_H
#define PADDOCK_WARDEN_CAPS_H

#include <stdint.h>
#include <sys/types.h>

/* The capabilities that a process in a sandbox may ever have, over its own user namespace. */
/* Drop everything else from the bounding set. */
int caps_bound(void);
/* The capabilities that any process of a sandbox may have, as a bit mask. */
uint64_t caps_allowed(void);
/* Become `id` (in the current user namespace), and hold exactly the bounded set: permitted, effective, and,
 * if `ambient`, inheritable and ambient too, so that it outlives the execve of a non-root id. */
int caps_become(uid_t id, int ambient);

#endif
