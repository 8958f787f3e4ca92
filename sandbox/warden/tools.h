#ifndef PADDOCK_WARDEN_TOOLS_H
#define PADDOCK_WARDEN_TOOLS_H

#include "sandbox/base/error.h"

/* The layer that lies above every template: /usr/bin/sudo, our client of init. Named by its content, so that sandboxes
 * of an older version keep theirs. */
int tools_setup(struct pdk_error *err);
/* Its directory name below tools/, or NULL when no sudo client is installed. */
const char *tools_layer(void);

#endif
