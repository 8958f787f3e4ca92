#include <stdint.h>

#include "cli.h"
#include "template_private.h"

/* Templates that are made of snapshots, and tags. */

int cmd_template_from_snapshot(struct cli *cli, const struct args *args)
{
	Paddock__V1__CreateTemplateFromSnapshotRequest request =
		PADDOCK__V1__CREATE_TEMPLATE_FROM_SNAPSHOT_REQUEST__INIT;
	Paddock__V1__Template *template = NULL;
	int rc = cli_connect(cli);

	request.snapshot = (char *)(uintptr_t)args->argv[0];
	request.name = (char *)(uintptr_t)args->argv[1];
	request.replace = args_has(args, "replace");
	if (rc == 0)
		rc = paddock_template_create_from_snapshot(cli->client, &request, &template, &cli->err);
	if (rc < 0)
		return rc;
	template_print(cli, template);
	paddock_free(template);
	return EXIT_OK;
}

int cmd_template_tag(struct cli *cli, const struct args *args)
{
	Paddock__V1__SetTemplateTagsRequest request = PADDOCK__V1__SET_TEMPLATE_TAGS_REQUEST__INIT;
	Paddock__V1__SetTemplateTagsResponse *reply = NULL;
	int rc = cli_connect(cli);

	request.target = (char *)(uintptr_t)args->argv[0];
	request.tags = (char **)(uintptr_t)args->argv + 1;
	request.n_tags = (size_t)args->argc - 1;
	if (rc == 0)
		rc = paddock_template_set_tags(cli->client, &request, &reply, &cli->err);
	paddock_free(reply);
	return rc;
}

int cmd_template_untag(struct cli *cli, const struct args *args)
{
	Paddock__V1__RemoveTemplateTagsRequest request = PADDOCK__V1__REMOVE_TEMPLATE_TAGS_REQUEST__INIT;
	Paddock__V1__RemoveTemplateTagsResponse *reply = NULL;
	int rc = cli_connect(cli);

	request.name = (char *)(uintptr_t)args->argv[0];
	request.tags = (char **)(uintptr_t)args->argv + 1;
	request.n_tags = (size_t)args->argc - 1;
	if (rc == 0)
		rc = paddock_template_remove_tags(cli->client, &request, &reply, &cli->err);
	paddock_free(reply);
	return rc;
}
