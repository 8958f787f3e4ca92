#include "sandbox.h"

#include "format.h"
#include "json.h"
#include "table.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* snapshot, fork, and the commands below `snapshots`. */

int cmd_snapshot(struct cli *cli, const struct args *args)
{
	Paddock__V1__CreateSnapshotRequest request = PADDOCK__V1__CREATE_SNAPSHOT_REQUEST__INIT;
	const char *name = args_value(args, "name");
	Paddock__V1__Snapshot *snapshot = NULL;
	_cleanup_free_ char *id = NULL;
	int rc = args_duration(cli, args, "ttl", &request.ttl_ms);

	if (rc == 0)
		rc = cli_sandbox(cli, args->argv[0], &id);
	request.sandbox_id = id;
	request.name = (char *)(name ? name : "");
	if (rc == 0)
		rc = paddock_snapshot_create(cli->client, &request, &snapshot, &cli->err);
	if (rc < 0)
		return rc;
	if (cli->json)
		json_print_message(snapshot, false);
	else
		puts(snapshot->id);
	paddock_free(snapshot);
	return EXIT_OK;
}

/* The ids of the copies, one a line. A copy that failed is told, and the others stay. */
static int print_copies(struct cli *cli, const Paddock__V1__ForkResponse *reply)
{
	int rc = EXIT_OK;

	for (size_t i = 0; i < reply->n_results; i++) {
		const Paddock__V1__ForkResult *result = reply->results[i];

		if (result->sandbox) {
			if (!cli->json)
				puts(result->sandbox->id);
			continue;
		}
		pdk_fail(&cli->err, -EIO, (enum pdk_code)result->code, "copy %zu: %s", i + 1, result->message);
		cli_print_error(cli, &cli->err);
		rc = EXIT_ERROR;
	}
	return rc;
}

int cmd_fork(struct cli *cli, const struct args *args)
{
	Paddock__V1__ForkRequest request = PADDOCK__V1__FORK_REQUEST__INIT;
	Paddock__V1__ForkResponse *reply = NULL;
	_cleanup_free_ char *id = NULL;
	uint64_t count = 0;
	int rc = args_number(cli, args, "count", 100, &count);

	if (rc == 0)
		rc = args_duration(cli, args, "lifetime", &request.timeout_ms);
	if (rc == 0)
		rc = cli_sandbox(cli, args->argv[0], &id);
	request.sandbox_id = id;
	request.count = (uint32_t)count;
	if (rc == 0)
		rc = paddock_sandbox_fork(cli->client, &request, &reply, &cli->err);
	if (rc < 0)
		return rc;
	if (cli->json)
		json_print_message(reply, false);
	rc = print_copies(cli, reply);
	paddock_free(reply);
	return rc;
}

/* --- snapshots --- */

static void list_row(struct table *table, const Paddock__V1__Snapshot *snapshot)
{
	char size[FORMAT_SIZE], age[FORMAT_SIZE];

	table_add(table, snapshot->id);
	table_add(table, *snapshot->name ? snapshot->name : "-");
	table_add(table, snapshot->sandbox_id);
	table_add(table, *snapshot->template_name ? snapshot->template_name : snapshot->template_);
	table_add(table, format_size(size, snapshot->memory_bytes));
	table_add(table, snapshot->stored_bytes ? format_size(size, snapshot->stored_bytes) : "-");
	table_add(table, format_size(size, snapshot->disk_bytes));
	table_addf(table, "%.1f ms", (double)snapshot->stopped_us / 1000);
	table_add(table, format_age(age, snapshot->created_unix_ms));
	table_add(table, format_age(age, snapshot->expires_unix_ms));
}

static int list_pages(struct cli *cli, Paddock__V1__ListSnapshotsRequest *request, struct table *table, json_t *array,
		      bool quiet)
{
	Paddock__V1__ListSnapshotsResponse *page = NULL;
	_cleanup_free_ char *token = NULL;

	do {
		int rc;

		request->page_token = token ? token : (char *)"";
		rc = paddock_snapshot_list(cli->client, request, &page, &cli->err);
		if (rc < 0)
			return rc;
		for (size_t i = 0; i < page->n_snapshots; i++) {
			if (array)
				json_array_append_new(array, json_of_message(&page->snapshots[i]->base));
			else if (quiet)
				puts(page->snapshots[i]->id);
			else
				list_row(table, page->snapshots[i]);
		}
		free(token);
		token = strdup(page->next_page_token);
		paddock_free(page);
	} while (token && *token);
	return 0;
}

static int cmd_list_snapshots(struct cli *cli, const struct args *args)
{
	static const char *const heads[] = {"ID",    "NAME",     "SANDBOX", "TEMPLATE", ">MEMORY", ">STORED",
					    ">DISK", ">STOPPED", "CREATED", "EXPIRES",  NULL};
	Paddock__V1__ListSnapshotsRequest request = PADDOCK__V1__LIST_SNAPSHOTS_REQUEST__INIT;
	const char *sandbox = args_value(args, "sandbox");
	bool quiet = args_has(args, "quiet");
	_cleanup_free_ char *id = NULL;
	struct table *table;
	json_t *array;
	int rc = sandbox ? cli_sandbox(cli, sandbox, &id) : cli_connect(cli);

	if (rc < 0)
		return rc;
	request.sandbox_id = id ? id : (char *)"";
	request.page_size = 1000;
	array = cli->json ? json_array() : NULL;
	table = table_create(heads, cli->color);
	rc = list_pages(cli, &request, table, array, quiet);
	if (rc == 0 && array)
		json_print(array, false);
	if (rc == 0 && !array && !quiet)
		table_print(table);
	return rc;
}

static int cmd_remove_snapshots(struct cli *cli, const struct args *args)
{
	int rc = cli_connect(cli);

	for (int i = 0; rc == 0 && i < args->argc; i++) {
		Paddock__V1__RemoveSnapshotRequest request = PADDOCK__V1__REMOVE_SNAPSHOT_REQUEST__INIT;
		Paddock__V1__RemoveSnapshotResponse *reply = NULL;

		request.snapshot = (char *)(uintptr_t)args->argv[i];
		rc = paddock_snapshot_remove(cli->client, &request, &reply, &cli->err);
		if (rc < 0)
			return pdk_wrap(&cli->err, rc, "%s", args->argv[i]);
		paddock_free(reply);
	}
	return rc;
}

static const struct option_spec list_options[] = {
	{"sandbox", 0, "SANDBOX", "only those that were taken of it"},
	{"quiet", 'q', NULL, "only ids"},
	{},
};
static const struct option_spec remove_options[] = {{}};

const struct command snapshot_commands[] = {
	{.name = "list",
	 .group = "",
	 .summary = "List snapshots",
	 .synopsis = "",
	 .options = list_options,
	 .run = cmd_list_snapshots},
	{.name = "remove",
	 .group = "",
	 .summary = "Remove snapshots; sandboxes that were made from them stay",
	 .synopsis = "SNAPSHOT...",
	 .options = remove_options,
	 .run = cmd_remove_snapshots,
	 .min_operands = 1,
	 .max_operands = -1,
	 .operand = OPERAND_SNAPSHOT},
	{.name = NULL},
};
