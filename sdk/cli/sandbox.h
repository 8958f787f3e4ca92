#ifndef PADDOCK_CLI_SANDBOX_H
#define PADDOCK_CLI_SANDBOX_H

#include "cli.h"

/* Create a sandbox as the options of `create` say. */
int sandbox_create_from_args(struct cli *cli, const struct args *args, Paddock__V1__Sandbox **ret_sandbox);

/* --memory, --disk, --cpu, --pids, --inodes, as far as they are given. */
int resources_from_args(struct cli *cli, const struct args *args, Paddock__V1__Resources *resources);

int cmd_create(struct cli *cli, const struct args *args);
int cmd_list(struct cli *cli, const struct args *args);
int cmd_info(struct cli *cli, const struct args *args);
int cmd_pause(struct cli *cli, const struct args *args);
int cmd_resume(struct cli *cli, const struct args *args);
int cmd_reset(struct cli *cli, const struct args *args);
int cmd_quota(struct cli *cli, const struct args *args);
int cmd_snapshot(struct cli *cli, const struct args *args);
int cmd_fork(struct cli *cli, const struct args *args);
extern const struct command snapshot_commands[];
int cmd_kill(struct cli *cli, const struct args *args);
int cmd_timeout(struct cli *cli, const struct args *args);
int cmd_access(struct cli *cli, const struct args *args);
int cmd_usage(struct cli *cli, const struct args *args);
int cmd_metrics(struct cli *cli, const struct args *args);
int cmd_events(struct cli *cli, const struct args *args);

#endif
