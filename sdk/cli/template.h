#ifndef PADDOCK_CLI_TEMPLATE_H
#define PADDOCK_CLI_TEMPLATE_H

#include "cli.h"

extern const struct command template_commands[];

#endif
