#include "preview.h"

#include "format.h"
#include "json.h"
#include "table.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Previews and ports. */

static int parse_port(struct cli *cli, const char *text, uint32_t *ret)
{
	size_t digits = strspn(text, "0123456789");

	/* What is too large is the server's to say. */
	if (!digits || digits > 9 || text[digits])
		return cli_usage(cli, "%s: not a port", text);
	*ret = (uint32_t)strtoul(text, NULL, 10);
	return 0;
}

/* Only the link on standard output: open $(paddock preview ID 3000). */
static void print_link(struct cli *cli, const Paddock__V1__Preview *preview)
{
	char text[FORMAT_SIZE];

	if (cli->json) {
		json_print_message(preview, false);
		return;
	}
	puts(preview->url);
	fprintf(stderr, "Preview %s of port %u, until %s.\n", preview->id, preview->port,
		format_time(text, preview->expires_unix_ms));
}

int cmd_preview(struct cli *cli, const struct args *args)
{
	Paddock__V1__GrantPreviewRequest request = PADDOCK__V1__GRANT_PREVIEW_REQUEST__INIT;
	const char *host = args_value(args, "host");
	Paddock__V1__Preview *preview = NULL;
	_cleanup_free_ char *id = NULL;
	int rc = parse_port(cli, args->argv[1], &request.port);

	if (rc == 0)
		rc = args_duration(cli, args, "ttl", &request.ttl_ms);
	if (rc == 0)
		rc = cli_sandbox(cli, args->argv[0], &id);
	if (rc < 0)
		return rc;
	request.sandbox_id = id;
	request.read_only = args_has(args, "read-only");
	request.one_visitor = args_has(args, "one-visitor");
	request.counts_as_activity = args_has(args, "keep-alive");
	request.resumes = args_has(args, "resume");
	request.host_header = (char *)(host ? host : "");
	rc = paddock_preview_grant(cli->client, &request, &preview, &cli->err);
	if (rc < 0)
		return rc;
	print_link(cli, preview);
	paddock_free(preview);
	return EXIT_OK;
}

static const char *state_name(Paddock__V1__PreviewState state)
{
	switch (state) {
	case PADDOCK__V1__PREVIEW_STATE__PREVIEW_STATE_ACTIVE:
		return "active";
	case PADDOCK__V1__PREVIEW_STATE__PREVIEW_STATE_EXPIRED:
		return "expired";
	case PADDOCK__V1__PREVIEW_STATE__PREVIEW_STATE_REVOKED:
		return "revoked";
	case PADDOCK__V1__PREVIEW_STATE__PREVIEW_STATE_UNSPECIFIED:
	case _PADDOCK__V1__PREVIEW_STATE_IS_INT_SIZE:
		break;
	}
	return "unknown";
}

static void preview_row(struct table *table, const Paddock__V1__Preview *preview)
{
	char text[FORMAT_SIZE];
	char kinds[64];

	snprintf(kinds, sizeof(kinds), "%s%s%s%s", preview->read_only ? "read-only " : "",
		 preview->one_visitor ? "one-visitor " : "", preview->counts_as_activity ? "keep-alive " : "",
		 preview->resumes ? "resume" : "");
	table_add(table, preview->id);
	table_add(table, preview->sandbox_id);
	table_addf(table, "%u", preview->port);
	table_add(table, state_name(preview->state));
	table_add(table, format_age(text, preview->expires_unix_ms));
	table_addf(table, "%llu", (unsigned long long)preview->visitors);
	table_add(table, format_age(text, preview->last_visit_unix_ms));
	table_add(table, kinds[0] ? kinds : "-");
}

static int cmd_list(struct cli *cli, const struct args *args)
{
	static const char *const heads[] = {"PREVIEW",   "SANDBOX",    ">PORT", "STATE", "EXPIRES",
					    ">VISITORS", "LAST VISIT", "KIND",  NULL};
	Paddock__V1__ListPreviewsRequest request = PADDOCK__V1__LIST_PREVIEWS_REQUEST__INIT;
	Paddock__V1__ListPreviewsResponse *reply = NULL;
	_cleanup_free_ char *id = NULL;
	struct table *table;
	int rc = args->argc ? cli_sandbox(cli, args->argv[0], &id) : cli_connect(cli);

	if (id)
		request.sandbox_id = id;
	request.active_only = !args_has(args, "all");
	if (rc == 0)
		rc = paddock_preview_list(cli->client, &request, &reply, &cli->err);
	if (rc < 0)
		return rc;
	if (cli->json) {
		json_t *object = json_of_message(&reply->base);

		json_print(json_incref(json_object_get(object, "previews")), false);
		json_decref(object);
	} else {
		table = table_create(heads, cli->color);
		for (size_t i = 0; i < reply->n_previews; i++)
			preview_row(table, reply->previews[i]);
		table_print(table);
	}
	paddock_free(reply);
	return EXIT_OK;
}

static int cmd_revoke(struct cli *cli, const struct args *args)
{
	int rc = cli_connect(cli);

	for (int i = 0; rc == 0 && i < args->argc; i++) {
		Paddock__V1__RevokePreviewRequest request = PADDOCK__V1__REVOKE_PREVIEW_REQUEST__INIT;
		Paddock__V1__Preview *preview = NULL;

		request.preview_id = (char *)args->argv[i];
		rc = paddock_preview_revoke(cli->client, &request, &preview, &cli->err);
		if (rc < 0)
			return pdk_wrap(&cli->err, rc, "%s", args->argv[i]);
		if (cli->json)
			json_print_message(preview, false);
		else
			printf("%s is %s\n", preview->id, state_name(preview->state));
		paddock_free(preview);
	}
	return rc < 0 ? rc : EXIT_OK;
}

static int cmd_extend(struct cli *cli, const struct args *args)
{
	Paddock__V1__ExtendPreviewRequest request = PADDOCK__V1__EXTEND_PREVIEW_REQUEST__INIT;
	Paddock__V1__Preview *preview = NULL;
	int rc;

	request.preview_id = (char *)args->argv[0];
	if (parse_duration(args->argv[1], &request.ttl_ms) < 0)
		return cli_usage(cli, "%s: not a duration such as 30m or 2h", args->argv[1]);
	rc = cli_connect(cli);
	if (rc == 0)
		rc = paddock_preview_extend(cli->client, &request, &preview, &cli->err);
	if (rc < 0)
		return rc;
	print_link(cli, preview);
	paddock_free(preview);
	return EXIT_OK;
}

int cmd_ports(struct cli *cli, const struct args *args)
{
	static const char *const heads[] = {">PORT", "ADDRESS", "FAMILY", ">UID", NULL};
	Paddock__V1__ListPortsRequest request = PADDOCK__V1__LIST_PORTS_REQUEST__INIT;
	Paddock__V1__ListPortsResponse *reply = NULL;
	_cleanup_free_ char *id = NULL;
	struct table *table;
	int rc = cli_sandbox(cli, args->argv[0], &id);

	request.sandbox_id = id;
	if (rc == 0)
		rc = paddock_preview_ports(cli->client, &request, &reply, &cli->err);
	if (rc < 0)
		return rc;
	if (cli->json) {
		json_t *object = json_of_message(&reply->base);

		json_print(json_incref(json_object_get(object, "ports")), false);
		json_decref(object);
	} else {
		table = table_create(heads, cli->color);
		for (size_t i = 0; i < reply->n_ports; i++) {
			const Paddock__V1__ListeningPort *port = reply->ports[i];

			table_addf(table, "%u", port->port);
			table_add(table, port->loopback ? "loopback" : "any");
			table_add(table, port->ipv4 && port->ipv6 ? "IPv4, IPv6" : port->ipv6 ? "IPv6" : "IPv4");
			table_addf(table, "%u", port->uid);
		}
		table_print(table);
	}
	paddock_free(reply);
	return EXIT_OK;
}

const struct option_spec preview_options[] = {
	{"ttl", 0, "DURATION", "how long the link opens it (default: 1h)"},
	{"one-visitor", 0, NULL, "the link works once: who comes first is the only one"},
	{"read-only", 0, NULL, "only GET, HEAD and OPTIONS, and no websockets"},
	{"keep-alive", 0, NULL, "while somebody visits, the sandbox's timeout starts again"},
	{"resume", 0, NULL, "a visit resumes the sandbox when it is paused"},
	{"host", 0, "HOST", "the Host that the application sees; ${PORT} stands for the port"},
	{},
};

static const struct option_spec list_options[] = {{"all", 'a', NULL, "also those that have ended"}, {}};
static const struct option_spec no_options[] = {{}};

const struct command preview_commands[] = {
	{.name = "list",
	 .group = "",
	 .summary = "List previews",
	 .synopsis = "[SANDBOX]",
	 .options = list_options,
	 .run = cmd_list,
	 .max_operands = 1,
	 .operand = OPERAND_SANDBOX},
	{.name = "revoke",
	 .group = "",
	 .summary = "End previews now; connections through them are cut",
	 .synopsis = "PREVIEW...",
	 .options = no_options,
	 .run = cmd_revoke,
	 .min_operands = 1,
	 .max_operands = -1},
	{.name = "extend",
	 .group = "",
	 .summary = "Set the time left of a preview, and print its link",
	 .synopsis = "PREVIEW DURATION",
	 .options = no_options,
	 .run = cmd_extend,
	 .min_operands = 2,
	 .max_operands = 2},
	{.name = NULL},
};
