#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ID_LENGTH 21

static bool looks_like_id(const char *text)
{
	return *text == 'i' && strlen(text) == ID_LENGTH &&
	       strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789") == ID_LENGTH;
}

/* Go through the pages of List; stops with -EBUSY when a second sandbox fits. */
static int find_prefix(struct cli *cli, const char *prefix, char **ret_id)
{
	Paddock__V1__ListSandboxesRequest request = PADDOCK__V1__LIST_SANDBOXES_REQUEST__INIT;
	Paddock__V1__ListSandboxesResponse *page = NULL;
	_cleanup_free_ char *token = NULL, *found = NULL;
	int rc = 0;
	size_t i;

	request.page_size = 1000;
	do {
		request.page_token = token ? token : (char *)"";
		rc = paddock_sandbox_list(cli->client, &request, &page, &cli->err);
		if (rc < 0)
			return rc;
		for (i = 0; i < page->n_sandboxes && rc == 0; i++) {
			if (strncmp(page->sandboxes[i]->id, prefix, strlen(prefix)) != 0)
				continue;
			if (found)
				rc = pdk_fail(&cli->err, -EBUSY, PDK_INVALID_ARGUMENT,
					      "more than one sandbox starts with '%s'", prefix);
			else
				found = strdup(page->sandboxes[i]->id);
		}
		free(token);
		token = strdup(page->next_page_token);
		paddock_free(page);
	} while (rc == 0 && token && *token);
	if (rc < 0)
		return rc;
	if (!found)
		return pdk_fail(&cli->err, -ENOENT, PDK_NOT_FOUND, "sandbox not found");
	*ret_id = STEAL_PTR(found);
	return 0;
}

int cli_sandbox(struct cli *cli, const char *text, char **ret_id)
{
	int rc = cli_connect(cli);

	if (rc < 0)
		return rc;
	if (!*text || strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789") != strlen(text) || strlen(text) > ID_LENGTH)
		return pdk_fail(&cli->err, -ENOENT, PDK_NOT_FOUND, "sandbox not found");
	if (!looks_like_id(text))
		return find_prefix(cli, text, ret_id);
	*ret_id = strdup(text);
	return *ret_id ? 0 : pdk_fail_errno(&cli->err, -ENOMEM, "sandbox");
}

int cli_process(struct cli *cli, const char *text, uint64_t *ret_id)
{
	char *end;

	errno = 0;
	*ret_id = strtoull(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || *ret_id == 0)
		return cli_usage(cli, "'%s' is not the number of a process", text);
	return 0;
}

int pairs_parse(struct cli *cli, const struct args *args, const char *option, bool inherit, struct pair_list *pairs)
{
	const char *text;
	int index = 0;

	while ((text = args_next(args, option, &index))) {
		const char *equals = strchr(text, '=');
		const char *value = equals ? equals + 1 : inherit ? getenv(text) : NULL;

		if (!value || equals == text)
			return cli_usage(cli,
					 equals || !inherit ? "--%s: write NAME=VALUE, not '%s'"
							    : "--%s: '%s' is not set here; write NAME=VALUE",
					 option, text);
		if (pairs->count == PAIRS_MAX)
			return cli_usage(cli, "--%s: more than %d times", option, PAIRS_MAX);
		pairs->names[pairs->count] = equals ? strndup(text, (size_t)(equals - text)) : strdup(text);
		pairs->values[pairs->count] = strdup(value);
		if (!pairs->names[pairs->count] || !pairs->values[pairs->count])
			abort();
		pairs->count++;
	}
	return 0;
}

void pairs_clear(struct pair_list *pairs)
{
	while (pairs->count) {
		pairs->count--;
		free(pairs->names[pairs->count]);
		free(pairs->values[pairs->count]);
	}
}
