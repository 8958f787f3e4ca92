#ifndef PADDOCK_CLI_PROCESS_H
#define PADDOCK_CLI_PROCESS_H

#include "cli.h"

int cmd_run(struct cli *cli, const struct args *args);
int cmd_exec(struct cli *cli, const struct args *args);
int cmd_shell(struct cli *cli, const struct args *args);
int cmd_ps(struct cli *cli, const struct args *args);
int cmd_logs(struct cli *cli, const struct args *args);
int cmd_signal(struct cli *cli, const struct args *args);
int cmd_wait(struct cli *cli, const struct args *args);

#endif
