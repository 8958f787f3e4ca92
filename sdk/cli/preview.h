#ifndef PADDOCK_CLI_PREVIEW_H
#define PADDOCK_CLI_PREVIEW_H

#include "cli.h"

extern const struct command preview_commands[];
extern const struct option_spec preview_options[];

int cmd_preview(struct cli *cli, const struct args *args);
int cmd_ports(struct cli *cli, const struct args *args);

#endif
