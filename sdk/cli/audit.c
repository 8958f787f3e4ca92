#include "admin.h"

#include "audit_verify.h"
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

static int verify_server(struct cli *cli)
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
		text_print(stdout, reply->text);
		printf("; head ");
		for (i = 0; i < reply->head_hash.len; i++)
			printf("%02x", reply->head_hash.data[i]);
		putchar('\n');
	} else {
		if (reply->first_bad_sequence)
			printf("broken at record %llu: ", (unsigned long long)reply->first_bad_sequence);
		else
			printf("broken: ");
		text_print(stdout, reply->text);
		putchar('\n');
	}
	paddock_free(reply);
	return rc;
}

static void print_report(const struct cli *cli, const struct audit_export_report *report)
{
	if (cli->json)
		json_print(json_pack("{s:b,s:I,s:I,s:I,s:I,s:s}", "ok", report->ok, "first_sequence",
				     (json_int_t)report->first, "last_sequence", (json_int_t)report->last,
				     "checkpoints", (json_int_t)report->checkpoints, "first_bad_sequence",
				     (json_int_t)report->bad_sequence, "text", report->text),
			   false);
	else if (report->ok)
		printf("records %llu to %llu, the chain is whole and agrees with %llu signed checkpoints\n",
		       (unsigned long long)report->first, (unsigned long long)report->last,
		       (unsigned long long)report->checkpoints);
	else if (report->bad_sequence)
		printf("broken at record %llu: %s\n", (unsigned long long)report->bad_sequence, report->text);
	else
		printf("broken: %s\n", report->text);
}

static FILE *open_input(struct cli *cli, const char *path)
{
	FILE *file = fopen(path, "re");

	if (!file)
		pdk_fail_errno(&cli->err, -errno, "opening %s", path);
	return file;
}

/* Offline: nothing is asked of the server. */
static int verify_export(struct cli *cli, const char *path, const struct args *args)
{
	const char *key_path = args_value(args, "key"), *kept_path = args_value(args, "checkpoints");
	_cleanup_file_ FILE *in = NULL, *key = NULL, *kept = NULL;
	struct audit_export_report report;
	int rc;

	if (!key_path)
		return cli_usage(cli, "a file is checked with --key, the public key that `paddock audit key` prints");
	in = open_input(cli, path);
	key = in ? open_input(cli, key_path) : NULL;
	kept = key && kept_path ? open_input(cli, kept_path) : NULL;
	if (!in || !key || (kept_path && !kept))
		return -EIO;
	rc = audit_verify_export(in, key, kept, &report);
	if (rc == -EKEYREJECTED)
		return pdk_fail(&cli->err, rc, PDK_INVALID_ARGUMENT, "%s holds no Ed25519 public key", key_path);
	if (rc < 0)
		return pdk_fail_errno(&cli->err, rc, "reading %s", path);
	print_report(cli, &report);
	return report.ok ? EXIT_OK : EXIT_ERROR;
}

static int cmd_audit_verify(struct cli *cli, const struct args *args)
{
	if (args->argc)
		return verify_export(cli, args->argv[0], args);
	if (args_has(args, "key") || args_has(args, "checkpoints"))
		return cli_usage(cli, "--key and --checkpoints are for a FILE");
	return verify_server(cli);
}

static int cmd_audit_key(struct cli *cli, const struct args *args)
{
	Paddock__V1__GetAuditKeyRequest request = PADDOCK__V1__GET_AUDIT_KEY_REQUEST__INIT;
	Paddock__V1__AuditKey *reply = NULL;
	int rc = cli_connect(cli);

	if (rc == 0)
		rc = paddock_audit_get_key(cli->client, &request, &reply, &cli->err);
	if (rc < 0)
		return rc;
	if (cli->json)
		json_print_message(reply, false);
	else
		fputs(reply->public_key, stdout);
	paddock_free(reply);
	return EXIT_OK;
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

static const struct option_spec verify_options[] = {
	{"key", 0, "PEM", "the public key of the server that wrote FILE"},
	{"checkpoints", 0, "PATH", "checkpoints that were kept elsewhere: all of them must be met"},
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
	 .summary = "Recompute the chain of hashes and check the signed checkpoints",
	 .synopsis = "[FILE]",
	 .options = verify_options,
	 .run = cmd_audit_verify,
	 .max_operands = 1,
	 .operand = OPERAND_FILE,
	 .details =
		 "The server checks its log; with FILE, what `paddock audit export` wrote is checked here, without a\n"
		 "server. Exit status 1 if it is broken.\n\n"
		 "  paddock audit key >audit.pub\n"
		 "  paddock audit export >log; paddock audit verify log --key audit.pub\n"},
	{.name = "key",
	 .group = "",
	 .summary = "Print the public key that checkpoints are signed for",
	 .synopsis = "",
	 .options = no_options,
	 .run = cmd_audit_key,
	 .details = "Keep it elsewhere: it tells a log that was replaced as a whole from the real one.\n"},
	{.name = "export",
	 .group = "",
	 .summary = "Write all records, one JSON object a line",
	 .synopsis = "",
	 .options = export_options,
	 .run = cmd_audit_export,
	 .details = "`stored` holds the bytes that were hashed: hash = SHA-256(previous_hash || stored).\n"
		    "`checkpoint` holds the signed ones; the last record always has one.\n"},
	{.name = NULL},
};
