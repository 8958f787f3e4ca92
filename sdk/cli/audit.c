#include "admin.h"

#include "format.h"
#include "json.h"
#include "table.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void audit_row(struct table *table, const Paddock__V1__AuditRecord *record)
{
	char time[FORMAT_SIZE];

	table_addf(table, "%llu", (unsigned long long)record->sequence);
	table_add(table, format_time(time, record->time_unix_ms));
	table_add(table, record->tenant);
	table_add(table, record->actor);
	table_add(table, record->action);
	table_add(table, record->outcome);
	table_add(table, record->sandbox_id);
	table_add(table, record->object);
}

static int audit_pages(struct cli *cli, Paddock__V1__ListAuditRequest *request, uint64_t limit, struct table *table,
		       json_t *array)
{
	Paddock__V1__ListAuditResponse *page = NULL;
	uint64_t next;
	size_t i;
	int rc;

	do {
		request->page_size = limit < 1000 ? (uint32_t)limit : 1000;
		rc = paddock_audit_list(cli->client, request, &page, &cli->err);
		if (rc < 0)
			return rc;
		for (i = 0; i < page->n_records && limit > 0; i++, limit--) {
			if (array)
				json_array_append_new(array, json_of_message(&page->records[i]->base));
			else
				audit_row(table, page->records[i]);
		}
		next = page->next_after_sequence;
		request->after_sequence = next;
		paddock_free(page);
	} while (next && limit > 0);
	return 0;
}

static int cmd_audit_list(struct cli *cli, const struct args *args)
{
	static const char *const heads[] = {">#",      "TIME",    "TENANT", "ACTOR", "ACTION",
					    "OUTCOME", "SANDBOX", "OBJECT", NULL};
	Paddock__V1__ListAuditRequest request = PADDOCK__V1__LIST_AUDIT_REQUEST__INIT;
	const char *action = args_value(args, "action");
	_cleanup_free_ char *id = NULL;
	uint64_t limit = 50;
	struct table *table;
	json_t *array;
	int rc = args_number(cli, args, "limit", UINT32_MAX, &limit);

	if (rc == 0)
		rc = args_number(cli, args, "after", UINT64_MAX, &request.after_sequence);
	if (rc == 0)
		rc = args_has(args, "sandbox") ? cli_sandbox(cli, args_value(args, "sandbox"), &id) : cli_connect(cli);
	if (rc < 0)
		return rc;
	request.sandbox_id = id ? id : (char *)"";
	request.action_prefix = (char *)(action ? action : "");
	request.newest_first = !args_has(args, "after");
	table = table_create(heads, cli->color);
	array = cli->json ? json_array() : NULL;
	rc = limit ? audit_pages(cli, &request, limit, table, array) : 0;
	if (rc < 0)
		return rc;
	if (array)
		json_print(array, false);
	else
		table_print(table);
	return EXIT_OK;
}

static int cmd_audit_verify(struct cli *cli, const struct args *args)
{
	Paddock__V1__VerifyAuditRequest request = PADDOCK__V1__VERIFY_AUDIT_REQUEST__INIT;
	Paddock__V1__VerifyAuditResponse *reply = NULL;
	size_t i;
	int rc = cli_connect(cli);

	if (rc == 0)
		rc = paddock_audit_verify(cli->client, &request, &reply, &cli->err);
	if (rc < 0)
		return rc;
	rc = reply->ok ? EXIT_OK : EXIT_ERROR;
	if (cli->json) {
		json_print_message(reply, false);
	} else if (reply->ok) {
		printf("%llu records, the chain is whole; head ", (unsigned long long)reply->records);
		for (i = 0; i < reply->head_hash.len; i++)
			printf("%02x", reply->head_hash.data[i]);
		putchar('\n');
	} else {
		printf("broken at record %llu: ", (unsigned long long)reply->first_bad_sequence);
		text_print(stdout, reply->text);
		putchar('\n');
	}
	paddock_free(reply);
	return rc;
}

static int cmd_audit_export(struct cli *cli, const struct args *args)
{
	Paddock__V1__ExportAuditRequest request = PADDOCK__V1__EXPORT_AUDIT_REQUEST__INIT;
	Paddock__V1__AuditRecord *record = NULL;
	struct paddock_stream *stream;
	int rc = args_number(cli, args, "after", UINT64_MAX, &request.after_sequence);

	if (rc == 0)
		rc = cli_connect(cli);
	if (rc < 0)
		return rc;
	stream = paddock_audit_export(cli->client, &request, &cli->err);
	if (!stream)
		return -EIO;
	while ((rc = paddock_stream_next(stream, PADDOCK_NO_TIMEOUT, &record, &cli->err)) > 0) {
		json_print_message(record, true);
		paddock_free(record);
	}
	paddock_stream_free(stream);
	return rc;
}

static const struct option_spec list_options[] = {
	{"sandbox", 0, "SANDBOX", "only about this one"},
	{"action", 0, "PREFIX", "only actions that start so: sandbox., /paddock.v1.Files/"},
	{"after", 0, "N", "from the record behind this one, oldest first (default: newest first)"},
	{"limit", 'n', "N", "how many (default: 50)"},
	{},
};

static const struct option_spec export_options[] = {
	{"after", 0, "N", "from the record behind this one"},
	{},
};

static const struct option_spec no_options[] = {{}};

const struct command audit_commands[] = {
	{.name = "list",
	 .group = "",
	 .summary = "Show records of the audit log",
	 .synopsis = "",
	 .options = list_options,
	 .run = cmd_audit_list},
	{.name = "verify",
	 .group = "",
	 .summary = "Recompute the chain of hashes",
	 .synopsis = "",
	 .options = no_options,
	 .run = cmd_audit_verify,
	 .details = "Exit status 1 if it is broken.\n"},
	{.name = "export",
	 .group = "",
	 .summary = "Write all records, one JSON object a line",
	 .synopsis = "",
	 .options = export_options,
	 .run = cmd_audit_export,
	 .details = "`stored` holds the bytes that were hashed: hash = SHA-256(previous_hash || stored).\n"},
	{.name = NULL},
};
