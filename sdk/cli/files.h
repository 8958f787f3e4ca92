#ifndef PADDOCK_CLI_FILES_H
#define PADDOCK_CLI_FILES_H

#include "cli.h"

/* "SANDBOX:PATH", or SANDBOX and PATH apart. An empty path is the user's home. */
struct remote {
	char *sandbox_id;
	const char *path;
	const char *user;
};
/* True if the text names a file in a sandbox: a colon before any slash. */
bool remote_is(const char *text);
int remote_parse(struct cli *cli, const struct args *args, const char *text, struct remote *ret_remote);
/* From the operands: either "SANDBOX:PATH" or "SANDBOX" and "PATH" (default: home). */
int remote_operands(struct cli *cli, const struct args *args, struct remote *ret_remote);
void remote_clear(struct remote *remote);
/* A path as the messages want it; "." for an empty one. */
ProtobufCBinaryData path_data(const char *path);

int cmd_ls(struct cli *cli, const struct args *args);
int cmd_cat(struct cli *cli, const struct args *args);
int cmd_watch(struct cli *cli, const struct args *args);
int cmd_rm(struct cli *cli, const struct args *args);
int cmd_mkdir(struct cli *cli, const struct args *args);
int cmd_mv(struct cli *cli, const struct args *args);
int cmd_cp(struct cli *cli, const struct args *args);

#endif
