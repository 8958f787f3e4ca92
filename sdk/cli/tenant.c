#include "admin.h"

#include "format.h"
#include "json.h"
#include "table.h"
#include <errno.h>
#include <stdio.h>

static int read_quota(struct cli *cli, const struct args *args, Paddock__V1__Quota *quota)
{
	uint64_t sandboxes = 0, rate = 0, templates = 0, snapshots = 0;
	int rc = args_number(cli, args, "max-sandboxes", UINT32_MAX, &sandboxes);

	if (rc == 0)
		rc = args_number(cli, args, "creates-per-minute", UINT32_MAX, &rate);
	if (rc == 0)
		rc = args_number(cli, args, "max-templates", UINT32_MAX, &templates);
	if (rc == 0)
		rc = args_number(cli, args, "max-snapshots", UINT32_MAX, &snapshots);
	if (rc == 0)
		rc = args_size(cli, args, "max-memory", &quota->max_memory_bytes);
	if (rc == 0)
		rc = args_size(cli, args, "total-memory", &quota->total_memory_bytes);
	if (rc == 0)
		rc = args_size(cli, args, "max-disk", &quota->max_disk_bytes);
	if (rc == 0)
		rc = args_size(cli, args, "total-disk", &quota->total_disk_bytes);
	quota->max_sandboxes = (uint32_t)sandboxes;
	quota->creates_per_minute = (uint32_t)rate;
	quota->max_templates = (uint32_t)templates;
	quota->max_snapshots = (uint32_t)snapshots;
	return rc;
}

static void add_size(struct table *table, uint64_t bytes)
{
	char text[FORMAT_SIZE];

	table_add(table, bytes ? format_size(text, bytes) : "-");
}

static void tenant_rows(const struct cli *cli, Paddock__V1__Tenant *const *tenants, size_t count)
{
	static const char *const heads[] = {"TENANT",       ">SANDBOXES",   ">MAX",
					    ">MEMORY EACH", ">MEMORY ALL",  ">DISK EACH",
					    ">DISK ALL",    ">CREATES/MIN", NULL};
	struct table *table = table_create(heads, cli->color);
	size_t i;

	for (i = 0; i < count; i++) {
		const Paddock__V1__Quota *quota = tenants[i]->quota;
		Paddock__V1__Quota none = PADDOCK__V1__QUOTA__INIT;

		quota = quota ? quota : &none;
		table_add(table, tenants[i]->name);
		table_addf(table, "%u", tenants[i]->sandboxes);
		table_addf(table, "%u", quota->max_sandboxes);
		add_size(table, quota->max_memory_bytes);
		add_size(table, quota->total_memory_bytes);
		add_size(table, quota->max_disk_bytes);
		add_size(table, quota->total_disk_bytes);
		table_addf(table, "%u", quota->creates_per_minute);
	}
	table_print(table);
}

static int show_tenant(struct cli *cli, int rc, Paddock__V1__Tenant *tenant)
{
	if (rc < 0)
		return rc;
	if (cli->json)
		json_print_message(tenant, false);
	else
		tenant_rows(cli, &tenant, 1);
	paddock_free(tenant);
	return EXIT_OK;
}

static int cmd_tenant_create(struct cli *cli, const struct args *args)
{
	Paddock__V1__CreateTenantRequest request = PADDOCK__V1__CREATE_TENANT_REQUEST__INIT;
	Paddock__V1__Quota quota = PADDOCK__V1__QUOTA__INIT;
	Paddock__V1__Tenant *tenant = NULL;
	int rc = read_quota(cli, args, &quota);

	request.name = (char *)args->argv[0];
	request.quota = &quota;
	if (rc == 0)
		rc = cli_connect(cli);
	if (rc == 0)
		rc = paddock_tenant_create(cli->client, &request, &tenant, &cli->err);
	return show_tenant(cli, rc, tenant);
}

static int cmd_tenant_quota(struct cli *cli, const struct args *args)
{
	Paddock__V1__SetQuotaRequest request = PADDOCK__V1__SET_QUOTA_REQUEST__INIT;
	Paddock__V1__Quota quota = PADDOCK__V1__QUOTA__INIT;
	Paddock__V1__Tenant *tenant = NULL;
	int rc = read_quota(cli, args, &quota);

	request.tenant = (char *)args->argv[0];
	request.quota = &quota;
	if (rc == 0)
		rc = cli_connect(cli);
	if (rc == 0)
		rc = paddock_tenant_set_quota(cli->client, &request, &tenant, &cli->err);
	return show_tenant(cli, rc, tenant);
}

static int cmd_tenant_list(struct cli *cli, const struct args *args)
{
	Paddock__V1__ListTenantsRequest request = PADDOCK__V1__LIST_TENANTS_REQUEST__INIT;
	Paddock__V1__ListTenantsResponse *reply = NULL;
	int rc = cli_connect(cli);

	if (rc == 0)
		rc = paddock_tenant_list(cli->client, &request, &reply, &cli->err);
	if (rc < 0)
		return rc;
	if (cli->json) {
		json_t *object = json_of_message(&reply->base);

		json_print(json_incref(json_object_get(object, "tenants")), false);
		json_decref(object);
	} else {
		tenant_rows(cli, reply->tenants, reply->n_tenants);
	}
	paddock_free(reply);
	return EXIT_OK;
}

static int cmd_tenant_remove(struct cli *cli, const struct args *args)
{
	Paddock__V1__RemoveTenantRequest request = PADDOCK__V1__REMOVE_TENANT_REQUEST__INIT;
	Paddock__V1__RemoveTenantResponse *reply = NULL;
	int rc = cli_connect(cli);

	request.tenant = (char *)args->argv[0];
	request.force = args_has(args, "force");
	if (rc == 0)
		rc = paddock_tenant_remove(cli->client, &request, &reply, &cli->err);
	paddock_free(reply);
	if (rc == -EBUSY)
		snprintf(cli->hint, sizeof(cli->hint), "--force kills its sandboxes");
	return rc;
}

static const struct option_spec no_options[] = {{}};

static const struct option_spec quota_options[] = {
	{"max-sandboxes", 0, "N", "living at once"},
	{"max-memory", 0, "SIZE", "of one sandbox"},
	{"total-memory", 0, "SIZE", "of all its sandboxes"},
	{"max-disk", 0, "SIZE", "of one sandbox"},
	{"total-disk", 0, "SIZE", "of all its sandboxes and snapshots"},
	{"creates-per-minute", 0, "N", "how fast sandboxes may be created"},
	{"max-templates", 0, "N", "templates of its own"},
	{"max-snapshots", 0, "N", "snapshots of its sandboxes"},
	{},
};

static const struct option_spec remove_options[] = {
	{"force", 'f', NULL, "kill its living sandboxes"},
	{},
};

const struct command tenant_commands[] = {
	{.name = "create",
	 .group = "",
	 .summary = "Create a tenant",
	 .synopsis = "NAME [QUOTA OPTIONS]",
	 .options = quota_options,
	 .run = cmd_tenant_create,
	 .min_operands = 1,
	 .max_operands = 1,
	 .details = "Examples\n  paddock tenant create research --max-sandboxes 50 --total-memory 32G\n"},
	{.name = "list",
	 .group = "",
	 .summary = "List tenants and their quotas",
	 .synopsis = "",
	 .options = no_options,
	 .run = cmd_tenant_list},
	{.name = "quota",
	 .group = "",
	 .summary = "Change a tenant's quota",
	 .synopsis = "NAME QUOTA OPTIONS",
	 .options = quota_options,
	 .run = cmd_tenant_quota,
	 .min_operands = 1,
	 .max_operands = 1,
	 .details = "What is not given keeps its value.\n"},
	{.name = "remove",
	 .group = "",
	 .summary = "Remove a tenant, its keys and templates",
	 .synopsis = "NAME",
	 .options = remove_options,
	 .run = cmd_tenant_remove,
	 .min_operands = 1,
	 .max_operands = 1},
	{.name = NULL},
};
