#include "sandbox.h"

#include "json.h"
#include <stdio.h>

/* pause, resume and reset: the same for each sandbox that is named. */

static int pause_one(struct cli *cli, char *id, uint64_t to_disk, Paddock__V1__Sandbox **ret_sandbox)
{
	Paddock__V1__PauseSandboxRequest request = PADDOCK__V1__PAUSE_SANDBOX_REQUEST__INIT;

	request.sandbox_id = id;
	request.mode =
		to_disk ? PADDOCK__V1__PAUSE_MODE__PAUSE_MODE_CHECKPOINT : PADDOCK__V1__PAUSE_MODE__PAUSE_MODE_FREEZE;
	return paddock_sandbox_pause(cli->client, &request, ret_sandbox, &cli->err);
}

static int resume_one(struct cli *cli, char *id, uint64_t timeout_ms, Paddock__V1__Sandbox **ret_sandbox)
{
	Paddock__V1__ResumeSandboxRequest request = PADDOCK__V1__RESUME_SANDBOX_REQUEST__INIT;

	request.sandbox_id = id;
	request.timeout_ms = timeout_ms;
	return paddock_sandbox_resume(cli->client, &request, ret_sandbox, &cli->err);
}

static int reset_one(struct cli *cli, char *id, uint64_t timeout_ms, Paddock__V1__Sandbox **ret_sandbox)
{
	Paddock__V1__ResetSandboxRequest request = PADDOCK__V1__RESET_SANDBOX_REQUEST__INIT;

	request.sandbox_id = id;
	request.timeout_ms = timeout_ms;
	return paddock_sandbox_reset(cli->client, &request, ret_sandbox, &cli->err);
}

typedef int (*one_function)(struct cli *cli, char *id, uint64_t value, Paddock__V1__Sandbox **ret_sandbox);

static int named(struct cli *cli, const char *name, one_function one, uint64_t value, json_t *array)
{
	Paddock__V1__Sandbox *sandbox = NULL;
	_cleanup_free_ char *id = NULL;
	int rc = cli_sandbox(cli, name, &id);

	if (rc == 0)
		rc = one(cli, id, value, &sandbox);
	if (rc < 0)
		return pdk_wrap(&cli->err, rc, "%s", name);
	if (array)
		json_array_append_new(array, json_of_message(&sandbox->base));
	else
		puts(sandbox->id);
	paddock_free(sandbox);
	return 0;
}

/* Goes on after a failure, and tells of each but the last at once; the last is told by the caller. */
static int each(struct cli *cli, const struct args *args, one_function one, uint64_t value)
{
	json_t *array = cli->json ? json_array() : NULL;
	int rc = 0, first = 0;

	for (int i = 0; i < args->argc; i++) {
		rc = named(cli, args->argv[i], one, value, array);
		if (rc < 0 && i + 1 < args->argc)
			cli_print_error(cli, &cli->err);
		first = first < 0 ? first : rc;
	}
	if (array)
		json_print(array, false);
	return rc < 0 ? rc : first < 0 ? EXIT_ERROR : EXIT_OK;
}

int cmd_pause(struct cli *cli, const struct args *args)
{
	return each(cli, args, pause_one, args_has(args, "to-disk"));
}

int cmd_resume(struct cli *cli, const struct args *args)
{
	uint64_t timeout_ms = 0;
	int rc = args_duration(cli, args, "lifetime", &timeout_ms);

	return rc < 0 ? rc : each(cli, args, resume_one, timeout_ms);
}

int cmd_reset(struct cli *cli, const struct args *args)
{
	uint64_t timeout_ms = 0;
	int rc = args_duration(cli, args, "lifetime", &timeout_ms);

	return rc < 0 ? rc : each(cli, args, reset_one, timeout_ms);
}
