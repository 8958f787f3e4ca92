#ifndef PADDOCK_CLI_ADMIN_H
#define PADDOCK_CLI_ADMIN_H

#include "cli.h"

extern const struct command tenant_commands[];
extern const struct command key_commands[];
extern const struct command audit_commands[];

#define SERVER_PING_MS 5000
/* Connect, and ask who we are to the server, and its version. */
int server_who_am_i(struct cli *cli, Paddock__V1__WhoAmIResponse **ret_me);

int cmd_doctor(struct cli *cli, const struct args *args);
int cmd_status(struct cli *cli, const struct args *args);
int cmd_version(struct cli *cli, const struct args *args);
int cmd_completion(struct cli *cli, const struct args *args);
int cmd_help(struct cli *cli, const struct args *args);

#endif
