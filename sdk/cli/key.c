#include "admin.h"

#include "format.h"
#include "json.h"
#include "table.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SCOPES_MAX 8

static int cmd_key_create(struct cli *cli, const struct args *args)
{
	Paddock__V1__CreateKeyRequest request = PADDOCK__V1__CREATE_KEY_REQUEST__INIT;
	Paddock__V1__CreateKeyResponse *reply = NULL;
	const char *tenant = args_value(args, "tenant"), *text;
	char *scopes[SCOPES_MAX];
	int index = 0, rc;

	while ((text = args_next(args, "scope", &index))) {
		if (request.n_scopes == SCOPES_MAX)
			return cli_usage(cli, "--scope: more than %d times", SCOPES_MAX);
		scopes[request.n_scopes++] = (char *)text;
	}
	request.scopes = scopes;
	request.tenant = (char *)(tenant ? tenant : "");
	request.name = (char *)(args->argc ? args->argv[0] : "");
	rc = args_duration(cli, args, "expires", &request.ttl_ms);
	if (rc == 0)
		rc = cli_connect(cli);
	if (rc == 0)
		rc = paddock_key_create(cli->client, &request, &reply, &cli->err);
	if (rc < 0)
		return rc;
	if (cli->json) {
		json_print_message(reply, false);
	} else {
		/* Only the secret on standard output: KEY=$(paddock key create). */
		puts(args_has(args, "sdk") ? reply->sdk_secret : reply->secret);
		fprintf(stderr, "Key %s of tenant %s. It is shown only now; keep it in PADDOCK_API_KEY.\n",
			reply->key ? reply->key->id : "", reply->key ? reply->key->tenant : "");
	}
	explicit_bzero(reply->secret, strlen(reply->secret));
	explicit_bzero(reply->sdk_secret, strlen(reply->sdk_secret));
	paddock_free(reply);
	return EXIT_OK;
}

static void key_row(struct table *table, const Paddock__V1__Key *key)
{
	char text[FORMAT_SIZE], scopes[128] = "";
	size_t i, length = 0;

	for (i = 0; i < key->n_scopes && length < sizeof(scopes); i++)
		length += (size_t)snprintf(scopes + length, sizeof(scopes) - length, "%s%s", i ? "," : "",
					   key->scopes[i]);
	table_add(table, key->id);
	table_add(table, key->tenant);
	table_add(table, key->name);
	table_add(table, scopes);
	table_add(table, format_age(text, key->created_unix_ms));
	if (key->revoked_unix_ms)
		table_add(table, "revoked");
	else
		table_add(table, key->expires_unix_ms ? format_age(text, key->expires_unix_ms) : "never");
	table_add(table, format_age(text, key->last_used_unix_ms));
}

static int cmd_key_list(struct cli *cli, const struct args *args)
{
	static const char *const heads[] = {"KEY", "TENANT", "NAME", "SCOPES", "CREATED", "EXPIRES", "USED", NULL};
	Paddock__V1__ListKeysRequest request = PADDOCK__V1__LIST_KEYS_REQUEST__INIT;
	Paddock__V1__ListKeysResponse *reply = NULL;
	const char *tenant = args_value(args, "tenant");
	struct table *table;
	size_t i;
	int rc = cli_connect(cli);

	request.tenant = (char *)(tenant ? tenant : "");
	if (rc == 0)
		rc = paddock_key_list(cli->client, &request, &reply, &cli->err);
	if (rc < 0)
		return rc;
	if (cli->json) {
		json_t *object = json_of_message(&reply->base);

		json_print(json_incref(json_object_get(object, "keys")), false);
		json_decref(object);
	} else {
		table = table_create(heads, cli->color);
		for (i = 0; i < reply->n_keys; i++)
			key_row(table, reply->keys[i]);
		table_print(table);
	}
	paddock_free(reply);
	return EXIT_OK;
}

static int cmd_key_revoke(struct cli *cli, const struct args *args)
{
	Paddock__V1__RevokeKeyRequest request = PADDOCK__V1__REVOKE_KEY_REQUEST__INIT;
	Paddock__V1__Key *key = NULL;
	int rc = cli_connect(cli);

	request.key_id = (char *)args->argv[0];
	if (rc == 0)
		rc = paddock_key_revoke(cli->client, &request, &key, &cli->err);
	if (rc < 0)
		return rc;
	if (cli->json)
		json_print_message(key, false);
	else
		printf("%s is revoked\n", key->id);
	paddock_free(key);
	return EXIT_OK;
}

static const struct option_spec create_options_[] = {
	{"tenant", 0, "TENANT", "whose key (default: default)"},
	{"scope", 0, "SCOPE", "read, sandbox, template or admin; may be repeated (default: read, sandbox)"},
	{"expires", 0, "DURATION", "time until it ends (default: never)"},
	{"sdk", 0, NULL, "print it as e2b_ and hexadecimal digits, for the SDKs that accept nothing else"},
	{},
};

static const struct option_spec list_options[] = {
	{"tenant", 0, "TENANT", "only of this one"},
	{},
};

static const struct option_spec no_options[] = {{}};

const struct command key_commands[] = {
	{.name = "create",
	 .group = "",
	 .summary = "Create an API key; its secret is shown once",
	 .synopsis = "[NAME]",
	 .options = create_options_,
	 .run = cmd_key_create,
	 .max_operands = 1,
	 .details = "Examples\n  export PADDOCK_API_KEY=$(sudo paddock key create laptop)\n"
		    "  paddock key create ci --tenant research --scope sandbox --scope template --expires 30d\n"},
	{.name = "list",
	 .group = "",
	 .summary = "List keys",
	 .synopsis = "",
	 .options = list_options,
	 .run = cmd_key_list},
	{.name = "revoke",
	 .group = "",
	 .summary = "Make a key open nothing from now on",
	 .synopsis = "KEY",
	 .options = no_options,
	 .run = cmd_key_revoke,
	 .min_operands = 1,
	 .max_operands = 1},
	{.name = NULL},
};
