#include "admin.h"

#include "format.h"
#include "json.h"
#include "table.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int cmd_status(struct cli *cli, const struct args *args)
{
	Paddock__V1__GetStatusRequest request = PADDOCK__V1__GET_STATUS_REQUEST__INIT;
	Paddock__V1__ServerStatus *status = NULL;
	char a[FORMAT_SIZE], b[FORMAT_SIZE], line[192];
	int rc = cli_connect(cli);

	if (rc == 0)
		rc = paddock_status(cli->client, &request, &status, &cli->err);
	if (rc < 0)
		return rc;
	if (cli->json) {
		json_print_message(status, false);
		paddock_free(status);
		return EXIT_OK;
	}
	field_print(cli->color, "Server", paddock_address(cli->client));
	field_print(cli->color, "Version", status->version);
	field_print(cli->color, "Kernel", status->kernel);
	snprintf(line, sizeof(line), "%s (%s)", format_time(a, status->started_unix_ms),
		 format_age(b, status->started_unix_ms));
	field_print(cli->color, "Started", line);
	snprintf(line, sizeof(line), "%u, and %u ready to be claimed", status->sandboxes, status->pooled);
	field_print(cli->color, "Sandboxes", line);
	snprintf(line, sizeof(line), "%s of %s reserved", format_size(a, status->reserved_memory_bytes),
		 format_size(b, status->reservable_memory_bytes));
	field_print(cli->color, "Memory", line);
	snprintf(line, sizeof(line), "%s of %s reserved", format_size(a, status->reserved_disk_bytes),
		 format_size(b, status->reservable_disk_bytes));
	field_print(cli->color, "Disk", line);
	snprintf(line, sizeof(line), "%llu", (unsigned long long)status->audit_records);
	field_print(cli->color, "Audit records", line);
	paddock_free(status);
	return EXIT_OK;
}

int server_who_am_i(struct cli *cli, Paddock__V1__WhoAmIResponse **ret_me)
{
	Paddock__V1__WhoAmIRequest request = PADDOCK__V1__WHO_AM_IREQUEST__INIT;
	int rc = cli_connect(cli);

	if (rc < 0)
		return rc;
	paddock_set_timeout(cli->client, SERVER_PING_MS);
	return paddock_who_am_i(cli->client, &request, ret_me, &cli->err);
}

int cmd_version(struct cli *cli, const struct args *args)
{
	Paddock__V1__WhoAmIResponse *me = NULL;
	int rc = args_has(args, "client") ? -ENOENT : server_who_am_i(cli, &me);

	if (cli->json) {
		json_print(json_pack("{s:s, s:s?}", "client", paddock_version(), "server",
				     rc == 0 ? me->server_version : NULL),
			   false);
	} else {
		printf("paddock %s\n", paddock_version());
		if (rc == 0) {
			fputs("server ", stdout);
			text_print(stdout, me->server_version);
			printf(" at %s\n", paddock_address(cli->client));
		}
	}
	paddock_free(me);
	return EXIT_OK;
}
