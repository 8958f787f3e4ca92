#ifndef PADDOCK_CLI_TEMPLATE_PRIVATE_H
#define PADDOCK_CLI_TEMPLATE_PRIVATE_H

#include "template.h"

/* What template.c, template_tags.c and template_steps.c share. */

void template_print(const struct cli *cli, const Paddock__V1__Template *template);

int cmd_template_from_snapshot(struct cli *cli, const struct args *args);
int cmd_template_tag(struct cli *cli, const struct args *args);
int cmd_template_untag(struct cli *cli, const struct args *args);

/* `template build NAME DIR` */
int template_build_steps(struct cli *cli, const struct args *args);
int cmd_template_builds(struct cli *cli, const struct args *args);
int cmd_template_logs(struct cli *cli, const struct args *args);
int cmd_template_stop(struct cli *cli, const struct args *args);

#endif
