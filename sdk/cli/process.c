#include "process.h"

#include "follow.h"
#include "format.h"
#include "json.h"
#include "pump.h"
#include "table.h"
#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *exit_text(char out[FORMAT_SIZE], const Paddock__V1__ProcessInfo *info)
{
	const Paddock__V1__ProcessExit *end = info->exit;

	if (info->running || !end)
		return "running";
	if (end->timed_out)
		return "timed out";
	if (end->sandbox_ended)
		return "sandbox ended";
	if (end->signal)
		snprintf(out, FORMAT_SIZE, "signal %u%s", end->signal, end->core_dumped ? " (core)" : "");
	else
		snprintf(out, FORMAT_SIZE, "exit %u", end->exit_code);
	return out;
}

static void ps_row(struct table *table, const Paddock__V1__ProcessInfo *info, bool wide)
{
	char state[FORMAT_SIZE], age[FORMAT_SIZE], command[4096];
	size_t i, length = 0;

	for (i = 0; i < info->n_argv && length < sizeof(command) - 1; i++)
		length += (size_t)snprintf(command + length, sizeof(command) - length, "%s%s", i ? " " : "",
					   info->argv[i]);
	if (!wide && length > 60)
		snprintf(command + 57, sizeof(command) - 57, "...");
	table_addf(table, "%llu", (unsigned long long)info->process_id);
	table_addf(table, "%u", info->pid);
	table_add(table, info->user);
	table_add(table, exit_text(state, info));
	table_add(table, format_age(age, info->started_unix_ms));
	table_add(table, info->tag);
	table_add(table, command);
}

int cmd_ps(struct cli *cli, const struct args *args)
{
	static const char *const heads[] = {">ID", ">PID", "USER", "STATE", "STARTED", "TAG", "COMMAND", NULL};
	Paddock__V1__ListProcessesRequest request = PADDOCK__V1__LIST_PROCESSES_REQUEST__INIT;
	Paddock__V1__ListProcessesResponse *reply = NULL;
	_cleanup_free_ char *id = NULL;
	struct table *table;
	size_t i;
	int rc = cli_sandbox(cli, args->argv[0], &id);

	request.sandbox_id = id;
	request.include_ended = args_has(args, "all");
	if (rc == 0)
		rc = paddock_process_list(cli->client, &request, &reply, &cli->err);
	if (rc < 0)
		return rc;
	if (cli->json) {
		json_t *object = json_of_message(&reply->base);

		json_print(json_incref(json_object_get(object, "processes")), false);
		json_decref(object);
	} else {
		table = table_create(heads, cli->color);
		for (i = 0; i < reply->n_processes; i++)
			ps_row(table, reply->processes[i], args_has(args, "wide"));
		table_print(table);
	}
	paddock_free(reply);
	return EXIT_OK;
}

/* How much output the process has made so far. */
static int output_so_far(struct cli *cli, char *id, uint64_t process_id, uint64_t *ret_bytes)
{
	Paddock__V1__ListProcessesRequest request = PADDOCK__V1__LIST_PROCESSES_REQUEST__INIT;
	Paddock__V1__ListProcessesResponse *reply = NULL;
	size_t i;
	int rc;

	request.sandbox_id = id;
	request.include_ended = true;
	rc = paddock_process_list(cli->client, &request, &reply, &cli->err);
	if (rc < 0)
		return rc;
	rc = -ENOENT;
	for (i = 0; i < reply->n_processes && rc < 0; i++) {
		if (reply->processes[i]->process_id != process_id)
			continue;
		*ret_bytes = reply->processes[i]->output_bytes;
		rc = 0;
	}
	paddock_free(reply);
	return rc < 0 ? pdk_fail(&cli->err, rc, PDK_NOT_FOUND, "process not found") : 0;
}

int cmd_logs(struct cli *cli, const struct args *args)
{
	struct follow follow = {.cli = cli, .bounded = !args_has(args, "follow")};
	_cleanup_free_ char *id = NULL;
	int rc = cli_process(cli, args->argv[1], &follow.process_id);

	if (rc == 0)
		rc = args_number(cli, args, "from", UINT64_MAX, &follow.next);
	if (rc == 0)
		rc = cli_sandbox(cli, args->argv[0], &id);
	if (rc < 0)
		return rc;
	follow.sandbox_id = id;
	if (follow.bounded)
		rc = output_so_far(cli, id, follow.process_id, &follow.until);
	if (rc == 0)
		rc = follow_attach(&follow);
	if (rc == 0)
		rc = follow_to_end(&follow);
	follow_clear(&follow);
	return rc < 0 ? rc : EXIT_OK;
}

/* "TERM", "SIGTERM", "15". 0 when it is none. */
static uint32_t signal_number(const char *text)
{
	char *end;
	unsigned long number = strtoul(text, &end, 10);
	int i;

	if (isdigit((unsigned char)*text))
		return !*end && number <= 64 ? (uint32_t)number : 0;
	if (!strncasecmp(text, "SIG", 3))
		text += 3;
	for (i = 1; i < 32; i++) {
		const char *name = sigabbrev_np(i);

		if (name && !strcasecmp(name, text))
			return (uint32_t)i;
	}
	return 0;
}

int cmd_signal(struct cli *cli, const struct args *args)
{
	Paddock__V1__SignalRequest request = PADDOCK__V1__SIGNAL_REQUEST__INIT;
	Paddock__V1__SignalResponse *reply = NULL;
	_cleanup_free_ char *id = NULL;
	const char *name = args->argc > 2 ? args->argv[2] : "TERM";
	int rc = cli_process(cli, args->argv[1], &request.process_id);

	if (rc < 0)
		return rc;
	request.signal = signal_number(name);
	request.process_only = args_has(args, "process-only");
	if (!request.signal)
		return cli_usage(cli, "signal: '%s' is not a signal; write TERM, KILL, INT or a number", name);
	rc = cli_sandbox(cli, args->argv[0], &id);
	request.sandbox_id = id;
	if (rc == 0)
		rc = paddock_process_signal(cli->client, &request, &reply, &cli->err);
	if (rc == 0 && cli->json)
		json_print_message(reply, false);
	paddock_free(reply);
	return rc;
}

int cmd_wait(struct cli *cli, const struct args *args)
{
	Paddock__V1__WaitRequest request = PADDOCK__V1__WAIT_REQUEST__INIT;
	Paddock__V1__ProcessExit *end = NULL;
	struct follow how = {.cli = cli};
	_cleanup_free_ char *id = NULL;
	uint64_t limit = 0;
	int rc = cli_process(cli, args->argv[1], &request.process_id);

	if (rc == 0)
		rc = args_duration(cli, args, "timeout", &limit);
	if (rc == 0)
		rc = cli_sandbox(cli, args->argv[0], &id);
	if (rc < 0)
		return rc;
	request.sandbox_id = id;
	if (limit)
		paddock_set_timeout(cli->client, (int64_t)limit);
	rc = paddock_process_wait(cli->client, &request, &end, &cli->err);
	if (rc == -ETIMEDOUT && limit) {
		fprintf(stderr, "paddock: it has not ended yet\n");
		return EXIT_TIMED_OUT;
	}
	if (rc < 0)
		return rc;
	if (cli->json)
		json_print_message(end, false);
	how.exit_code = end->exit_code;
	how.signal = end->signal;
	how.timed_out = end->timed_out;
	how.sandbox_ended = end->sandbox_ended;
	paddock_free(end);
	return follow_status(&how);
}
