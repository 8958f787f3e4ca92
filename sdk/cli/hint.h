#ifndef PADDOCK_CLI_HINT_H
#define PADDOCK_CLI_HINT_H

#include "sandbox/base/error.h"

#define HINT_SIZE 160

/* What to do next about an error of the server, or NULL; may be made in `buffer`. */
const char *error_hint(const struct pdk_error *err, char buffer[HINT_SIZE]);

#endif
