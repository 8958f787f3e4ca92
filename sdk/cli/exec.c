#include "process.h"

#include "follow.h"
#include "json.h"
#include "pump.h"
#include "sandbox.h"
#include "terminal.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JSON_OUTPUT_MAX (16u << 20)

struct start {
	Paddock__V1__StartProcessRequest request;
	Paddock__V1__TerminalSize size;
	struct pair_list env;
	Paddock__V1__StartProcessRequest__EnvEntry entries[PAIRS_MAX];
	Paddock__V1__StartProcessRequest__EnvEntry *list[PAIRS_MAX];
	bool input;
	bool terminal;
};

static const char *value_or_empty(const struct args *args, const char *name)
{
	const char *value = args_value(args, name);

	return value ? value : "";
}

static int start_fill(struct cli *cli, const struct args *args, struct start *start, const char **argv, int argc)
{
	size_t i;
	int rc;

	paddock__v1__start_process_request__init(&start->request);
	paddock__v1__terminal_size__init(&start->size);
	start->request.argv = (char **)argv;
	start->request.n_argv = (size_t)argc;
	start->request.user = (char *)value_or_empty(args, "user");
	start->request.cwd = (char *)value_or_empty(args, "cwd");
	start->request.tag = (char *)value_or_empty(args, "tag");
	start->request.detach = args_has(args, "detach");
	start->terminal = args_has(args, "tty");
	start->input = args_has(args, "interactive") || start->terminal;
	start->request.open_stdin = start->input;
	rc = args_duration(cli, args, "timeout", &start->request.timeout_ms);
	if (rc == 0)
		rc = args_duration(cli, args, "grace", &start->request.grace_ms);
	/* `run` gives --env to the sandbox when it is created. */
	if (rc == 0 && strcmp(args->command->name, "run") != 0)
		rc = pairs_parse(cli, args, "env", true, &start->env);
	for (i = 0; i < start->env.count; i++) {
		paddock__v1__start_process_request__env_entry__init(&start->entries[i]);
		start->entries[i].key = start->env.names[i];
		start->entries[i].value = start->env.values[i];
		start->list[i] = &start->entries[i];
	}
	start->request.env = start->list;
	start->request.n_env = start->env.count;
	if (start->terminal) {
		terminal_size(&start->size.columns, &start->size.rows);
		start->request.terminal = &start->size;
	}
	return rc;
}

/* Give the program inside the kind of terminal that is outside. */
static void start_pass_term(struct start *start)
{
	const char *term = getenv("TERM");
	size_t n = start->env.count;

	if (!start->terminal || !term || n == PAIRS_MAX)
		return;
	paddock__v1__start_process_request__env_entry__init(&start->entries[n]);
	start->entries[n].key = (char *)"TERM";
	start->entries[n].value = (char *)term;
	start->list[n] = &start->entries[n];
	start->request.n_env = n + 1;
}

/* Nobody takes its output any more: a command here would get SIGPIPE for that, so it gets it there. */
static void end_unread(const struct follow *follow)
{
	Paddock__V1__SignalRequest request = PADDOCK__V1__SIGNAL_REQUEST__INIT;
	Paddock__V1__SignalResponse *reply = NULL;

	request.sandbox_id = (char *)follow->sandbox_id;
	request.process_id = follow->process_id;
	request.signal = follow->unwritable == EPIPE ? SIGPIPE : SIGTERM;
	if (paddock_process_signal(follow->cli->client, &request, &reply, NULL) == 0)
		paddock_free(reply);
}

static int follow_command(struct cli *cli, const char *id, struct start *start)
{
	struct follow follow = {.cli = cli, .sandbox_id = id, .interact = start->input};
	struct pump_options options = {.input = start->input, .terminal = start->terminal};
	int rc = 0;

	follow.pump = pump_start(cli->client, id, options, &cli->err);
	if (!follow.pump)
		return -EAGAIN;
	if (start->terminal && isatty(STDIN_FILENO))
		rc = terminal_raw();
	if (rc < 0)
		pdk_fail_errno(&cli->err, rc, "terminal");
	if (rc == 0)
		rc = follow_start(&follow, &start->request);
	if (rc == 0)
		rc = follow_to_end(&follow);
	terminal_restore();
	if (follow.unwritable)
		end_unread(&follow);
	follow_clear(&follow);
	if (follow.unwritable == EPIPE)
		return 128 + SIGPIPE;
	if (rc == -EINTR)
		cli_print_error(cli, &cli->err);
	if (rc < 0)
		return rc == -EINTR ? 128 + SIGINT : rc;
	if (follow.timed_out)
		fprintf(stderr, "paddock: the command's time ran out\n");
	if (follow.sandbox_ended)
		fprintf(stderr, "paddock: the sandbox ended before the command did\n");
	return follow_status(&follow);
}

static int start_detached(struct cli *cli, struct start *start)
{
	Paddock__V1__ProcessEvent *event = NULL;
	struct paddock_stream *stream = paddock_process_start(cli->client, &start->request, &cli->err);
	int rc;

	if (!stream)
		return -EIO;
	rc = paddock_stream_next(stream, PADDOCK_NO_TIMEOUT, &event, &cli->err);
	if (rc > 0 && event->event_case == PADDOCK__V1__PROCESS_EVENT__EVENT_STARTED) {
		if (cli->json)
			json_print_message(event->started, false);
		else
			printf("%llu\n", (unsigned long long)event->started->process_id);
	} else if (rc >= 0) {
		rc = pdk_fail(&cli->err, -EBADMSG, PDK_DATA_LOSS, "the server did not start it");
	}
	if (event)
		paddock_free(event);
	paddock_stream_free(stream);
	return rc < 0 ? rc : EXIT_OK;
}

static int result_status(const struct paddock_result *result)
{
	if (result->timed_out)
		return EXIT_TIMED_OUT;
	return result->signal ? 128 + (int)result->signal : (int)result->exit_code;
}

/* Output is text here; bytes that are not UTF-8 are replaced, and that is said. */
static json_t *output_text(const char *data, size_t length, bool *lossy)
{
	json_t *text = json_stringn(data, length);
	char *copy;
	size_t i;

	if (text)
		return text;
	*lossy = true;
	copy = malloc(length + 1);
	if (!copy)
		abort();
	for (i = 0; i < length; i++)
		copy[i] = (unsigned char)data[i] < 0x80 ? data[i] : '?';
	text = json_stringn(copy, length);
	free(copy);
	return text;
}

static int collect_json(struct cli *cli, struct start *start)
{
	struct paddock_result result = {0};
	bool lossy = false;
	json_t *object, *out, *errors;
	int rc = paddock_run(cli->client, &start->request, JSON_OUTPUT_MAX, &result, &cli->err);

	if (rc < 0)
		return rc;
	out = output_text(result.out, result.out_length, &lossy);
	errors = output_text(result.err, result.err_length, &lossy);
	object = json_pack("{s:I, s:i, s:i, s:b, s:o, s:o, s:I, s:b}", "process_id", (json_int_t)result.process_id,
			   "exit_code", (int)result.exit_code, "signal", (int)result.signal, "timed_out",
			   result.timed_out, "stdout", out, "stderr", errors, "dropped_bytes",
			   (json_int_t)result.dropped_bytes, "lossy", lossy);
	json_print(object, false);
	rc = result_status(&result);
	paddock_result_clear(&result);
	return rc;
}

static int start_in(struct cli *cli, const char *id, struct start *start)
{
	start->request.sandbox_id = (char *)id;
	start_pass_term(start);
	if (start->request.detach)
		return start_detached(cli, start);
	if (cli->json && !start->input)
		return collect_json(cli, start);
	return follow_command(cli, id, start);
}

int cmd_exec(struct cli *cli, const struct args *args)
{
	struct start start = {.input = false};
	_cleanup_free_ char *id = NULL;
	int rc = start_fill(cli, args, &start, args->argv + 1, args->argc - 1);

	if (rc == 0)
		rc = cli_sandbox(cli, args->argv[0], &id);
	if (rc == 0)
		rc = start_in(cli, id, &start);
	pairs_clear(&start.env);
	return rc;
}

int cmd_shell(struct cli *cli, const struct args *args)
{
	static const char *const login[] = {"/bin/bash", "-l", NULL};
	struct start start = {.input = false};
	_cleanup_free_ char *id = NULL;
	const char **argv = args->argc > 1 ? args->argv + 1 : (const char **)login;
	int rc = start_fill(cli, args, &start, argv, args->argc > 1 ? args->argc - 1 : 2);

	start.terminal = start.input = true;
	start.request.open_stdin = true;
	start.request.terminal = &start.size;
	terminal_size(&start.size.columns, &start.size.rows);
	if (rc == 0 && cli->json)
		rc = cli_usage(cli, "shell: a terminal is not JSON");
	if (rc == 0)
		rc = cli_sandbox(cli, args->argv[0], &id);
	if (rc == 0)
		rc = start_in(cli, id, &start);
	pairs_clear(&start.env);
	return rc;
}

static int end_sandbox(struct cli *cli, const char *id)
{
	Paddock__V1__KillSandboxRequest request = PADDOCK__V1__KILL_SANDBOX_REQUEST__INIT;
	Paddock__V1__Sandbox *sandbox = NULL;
	struct pdk_error err = {0};
	int rc;

	request.sandbox_id = (char *)id;
	rc = paddock_sandbox_kill(cli->client, &request, &sandbox, &err);
	paddock_free(sandbox);
	if (rc < 0)
		fprintf(stderr, "paddock: sandbox %s could not be killed: %s\n", id, err.text);
	return rc;
}

int cmd_run(struct cli *cli, const struct args *args)
{
	bool keep = args_has(args, "keep") || args_has(args, "detach");
	struct start start = {.input = false};
	Paddock__V1__Sandbox *sandbox = NULL;
	int rc;

	if (args_has(args, "rm") && keep)
		return cli_usage(cli, "run: --rm together with --keep or --detach");
	rc = start_fill(cli, args, &start, args->argv, args->argc);
	if (rc == 0)
		rc = sandbox_create_from_args(cli, args, &sandbox);
	if (rc < 0)
		return rc;
	if (keep)
		fprintf(stderr, "paddock: sandbox %s\n", sandbox->id);
	rc = start_in(cli, sandbox->id, &start);
	if (!keep)
		end_sandbox(cli, sandbox->id);
	paddock_free(sandbox);
	pairs_clear(&start.env);
	return rc;
}
