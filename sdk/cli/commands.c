#include "admin.h"
#include "cli.h"
#include "files.h"
#include "preview.h"
#include "process.h"
#include "sandbox.h"
#include "template.h"
#include <errno.h>
#include <stdio.h>

/* The only list of commands. Help, suggestions and shell completion are made from it. */

#define SANDBOX_OPTIONS                                                                                                \
	{"template", 't', "TEMPLATE", "name or id (default: base)"},                                                   \
		{"snapshot", 0, "SNAPSHOT", "a copy of what this snapshot holds, instead of a template"},              \
		{"lifetime", 0, "DURATION", "time until it is killed (default: 5m)"},                                  \
		{"idle-timeout", 0, "DURATION", "how long it may be idle (default: for ever)"},                        \
		{"on-timeout", 0, "ACTION", "what either of these does: kill (default) or pause"},                     \
		{"auto-resume", 0, NULL, "a call that needs its inside resumes it"},                                   \
		{"memory", 'm', "SIZE", "limit of memory"}, {"cpu", 0, "CORES", "limit of CPU: 0.5, 2"},               \
		{"pids", 0, "N", "limit of processes and threads"},                                                    \
		{"disk", 0, "SIZE", "limit of what it may add to its template"},                                       \
		{"inodes", 0, "N", "limit of files it may add"},                                                       \
		{"hostname", 0, "NAME", "its host name (default: paddock)"},                                           \
		{"label", 'l', "KEY=VALUE", "metadata; may be repeated"},                                              \
	{                                                                                                              \
		"env", 'e', "NAME[=VALUE]", "environment of all its processes; may be repeated"                        \
	}

static const struct option_spec timeout_options[] = {
	{"idle", 0, NULL, "set how long it may be idle instead; 0: for ever"},
	{},
};

static const struct option_spec create_options[] = {
	SANDBOX_OPTIONS,
	{"idempotency-key", 0, "KEY", "the same key and request give the same sandbox for a day"},
	{},
};

#define START_OPTIONS(tty_letter)                                                                                      \
	{"user", 'u', "USER", "user (default) or root"}, {"cwd", 'w', "DIR", "working directory (default: home)"},     \
		{"interactive", 'i', NULL, "pass standard input on"},                                                  \
		{"tty", tty_letter, NULL, "run it on a terminal"},                                                     \
		{"timeout", 0, "DURATION", "end it after this time: TERM, then KILL"},                                 \
		{"grace", 0, "DURATION", "time between TERM and KILL (default: 5s)"},                                  \
		{"tag", 0, "NAME", "a name for the process"},                                                          \
	{                                                                                                              \
		"detach", 'd', NULL, "do not wait; print the process's number"                                         \
	}

static const struct option_spec run_options[] = {
	SANDBOX_OPTIONS,
	START_OPTIONS(0),
	{"rm", 0, NULL, "kill the sandbox at the end (this is the default)"},
	{"keep", 0, NULL, "leave the sandbox running"},
	{},
};

static const struct option_spec exec_options[] = {
	START_OPTIONS('t'),
	{"env", 'e', "NAME[=VALUE]", "environment of the process; may be repeated"},
	{},
};

static const struct option_spec shell_options[] = {
	{"user", 'u', "USER", "user (default) or root"},
	{"cwd", 'w', "DIR", "working directory (default: home)"},
	{"env", 'e', "NAME[=VALUE]", "environment of the shell; may be repeated"},
	{},
};

static const struct option_spec list_options[] = {
	{"all", 'a', NULL, "also those that have ended"},
	{"state", 0, "STATE", "only in this state; may be repeated"},
	{"label", 'l', "KEY=VALUE", "only with this metadata; may be repeated"},
	{"template", 't', "TEMPLATE", "only made from this template"},
	{"all-tenants", 0, NULL, "of all tenants (operator only)"},
	{"quiet", 'q', NULL, "only ids"},
	{},
};

static const struct option_spec kill_options[] = {{"all", 'a', NULL, "all living sandboxes"}, {}};
static const struct option_spec pause_options[] = {
	{"to-disk", 0, NULL, "processes and memory go to disk, memory is given back"},
	{},
};
static const struct option_spec snapshot_options[] = {
	{"name", 0, "NAME", "a name for the snapshot"},
	{"ttl", 0, "DURATION", "remove it after this time (default: never)"},
	{},
};
static const struct option_spec fork_options[] = {
	{"count", 'n', "N", "copies (default: 1)"},
	{"lifetime", 0, "DURATION", "time until each is killed (default: 5m)"},
	{},
};
static const struct option_spec resume_options[] = {
	{"lifetime", 0, "DURATION", "time until it is killed, from now (default: what was left)"},
	{},
};
static const struct option_spec reset_options[] = {
	{"lifetime", 0, "DURATION", "time until it is killed, from now (default: as it was asked for)"},
	{},
};
static const struct option_spec events_options[] = {
	{"after", 0, "N", "from the event behind this one (default: from now on)"},
	{},
};
static const struct option_spec ps_options[] = {
	{"all", 'a', NULL, "also those that have ended"},
	{"wide", 'w', NULL, "whole command lines"},
	{},
};
static const struct option_spec logs_options[] = {
	{"follow", 'f', NULL, "go on until it ends"},
	{"from", 0, "N", "from this byte of the output"},
	{},
};
static const struct option_spec signal_options[] = {
	{"process-only", 0, NULL, "not its whole process group"},
	{},
};
static const struct option_spec wait_options[] = {
	{"timeout", 0, "DURATION", "give up after this time, with status 124"},
	{},
};

#define USER_OPTION                                                                                                    \
	{                                                                                                              \
		"user", 'u', "USER", "as user (default) or root"                                                       \
	}
static const struct option_spec user_options[] = {USER_OPTION, {}};
static const struct option_spec ls_options[] = {
	USER_OPTION,
	{"long", 'l', NULL, "modes, owners, sizes, times"},
	{"recursive", 'R', NULL, "all that is below"},
	{"depth", 0, "N", "so many levels"},
	{},
};
static const struct option_spec cat_options[] = {
	USER_OPTION,
	{"offset", 0, "N", "from this byte"},
	{"length", 0, "N", "so many bytes"},
	{},
};
static const struct option_spec recursive_options[] = {
	USER_OPTION,
	{"recursive", 'r', NULL, "directories and all that is below"},
	{},
};
static const struct option_spec mkdir_options[] = {
	USER_OPTION,
	{"parents", 'p', NULL, "and those above it; no error if it is there"},
	{"mode", 'm', "MODE", "octal permissions (default: 0755)"},
	{},
};
static const struct option_spec mv_options[] = {
	USER_OPTION,
	{"no-replace", 'n', NULL, "fail if the target is there"},
	{},
};
static const struct option_spec version_options[] = {
	{"client", 0, NULL, "do not ask the server"},
	{},
};
static const struct option_spec metrics_options[] = {
	{"since", 's', "DURATION", "only of so long ago (default: all that is kept)"}, {}};
static const struct option_spec no_options[] = {{}};

#define STATUS_TEXT                                                                                                    \
	"The exit status is the command's; 128+N if signal N ended it, 124 if its time ran out, 125 if Paddock\n"      \
	"failed, 126 if the program cannot be run, 127 if there is none, 2 if this command line is wrong.\n"

const struct command commands[] = {
	{.name = "create",
	 .group = "Sandboxes",
	 .summary = "Create a sandbox and print its id",
	 .synopsis = "[OPTIONS]",
	 .options = create_options,
	 .run = cmd_create,
	 .details = "Examples\n  id=$(paddock create --lifetime 1h --memory 1G)\n"
		    "  paddock create -t trixie -l task=1234 -e CI=1\n"},
	{.name = "list",
	 .group = "Sandboxes",
	 .summary = "List sandboxes",
	 .synopsis = "[OPTIONS]",
	 .options = list_options,
	 .run = cmd_list,
	 .details = "Examples\n  paddock list -l task=1234\n  paddock list --all -o json | jq -r '.[].end_text'\n"},
	{.name = "info",
	 .group = "Sandboxes",
	 .summary = "Show one sandbox",
	 .synopsis = "SANDBOX",
	 .options = no_options,
	 .run = cmd_info,
	 .min_operands = 1,
	 .max_operands = 1,
	 .operand = OPERAND_SANDBOX,
	 .details = "The beginning of an id is enough where it is unique.\n"},
	{.name = "access",
	 .group = "Sandboxes",
	 .summary = "Print the token that opens one sandbox",
	 .synopsis = "SANDBOX",
	 .options = no_options,
	 .run = cmd_access,
	 .min_operands = 1,
	 .max_operands = 1,
	 .operand = OPERAND_SANDBOX,
	 .details = "It stands for an API key in calls to this sandbox's processes and files.\n"},
	{.name = "usage",
	 .group = "Sandboxes",
	 .summary = "Show what a sandbox uses now",
	 .synopsis = "SANDBOX",
	 .options = no_options,
	 .run = cmd_usage,
	 .min_operands = 1,
	 .max_operands = 1,
	 .operand = OPERAND_SANDBOX},
	{.name = "metrics",
	 .group = "Sandboxes",
	 .summary = "Show what a sandbox has used over time",
	 .synopsis = "[--since DURATION] SANDBOX",
	 .options = metrics_options,
	 .run = cmd_metrics,
	 .min_operands = 1,
	 .max_operands = 1,
	 .operand = OPERAND_SANDBOX,
	 .details =
		 "A line for each 5 s of the last minutes, and one a minute of the two hours before, as long as the\n"
		 "server runs. CPU is the mean since the line above; 100 % is one core.\n\nExamples\n"
		 "  paddock metrics i4k --since 10m\n"
		 "  paddock metrics i4k -o json | jq '.samples[].memory_bytes'\n"},
	{.name = "timeout",
	 .group = "Sandboxes",
	 .summary = "Set the time until a sandbox is killed",
	 .synopsis = "SANDBOX DURATION",
	 .options = timeout_options,
	 .run = cmd_timeout,
	 .min_operands = 2,
	 .max_operands = 2,
	 .operand = OPERAND_SANDBOX,
	 .details = "Counted from now; longer or shorter than what was left.\n\nExamples\n"
		    "  paddock timeout i4k 2h\n"
		    "  paddock timeout i4k 15m --idle\n"},
	{.name = "pause",
	 .group = "Sandboxes",
	 .summary = "Stop everything in sandboxes until they are resumed",
	 .synopsis = "SANDBOX...",
	 .options = pause_options,
	 .run = cmd_pause,
	 .min_operands = 1,
	 .max_operands = -1,
	 .operand = OPERAND_SANDBOX,
	 .details =
		 "Memory stays, unless --to-disk is given. The time until they are killed goes on; the time limits of\n"
		 "processes stand still.\n"},
	{.name = "resume",
	 .group = "Sandboxes",
	 .summary = "Let paused sandboxes go on where they were",
	 .synopsis = "SANDBOX...",
	 .options = resume_options,
	 .run = cmd_resume,
	 .min_operands = 1,
	 .max_operands = -1,
	 .operand = OPERAND_SANDBOX},
	{.name = "reset",
	 .group = "Sandboxes",
	 .summary = "Make sandboxes what they were when they were created",
	 .synopsis = "SANDBOX...",
	 .options = reset_options,
	 .run = cmd_reset,
	 .min_operands = 1,
	 .max_operands = -1,
	 .operand = OPERAND_SANDBOX,
	 .details = "Files, and processes with their memory, are those of the template or snapshot again; the id, "
		    "metadata,\n"
		    "environment and access token stay. What ran ends, and previews are revoked.\n"},
	{.name = "quota",
	 .group = "Sandboxes",
	 .summary = "Show what may be had, and what of it is taken",
	 .synopsis = "",
	 .options = no_options,
	 .run = cmd_quota},
	{.name = "ports",
	 .group = "Sandboxes",
	 .summary = "List the TCP ports that something listens on",
	 .synopsis = "SANDBOX",
	 .options = no_options,
	 .run = cmd_ports,
	 .min_operands = 1,
	 .max_operands = 1,
	 .operand = OPERAND_SANDBOX},
	{.name = "preview",
	 .group = "Sandboxes",
	 .summary = "Open one port of a sandbox to a browser; prints the link",
	 .synopsis = "SANDBOX PORT",
	 .options = preview_options,
	 .run = cmd_preview,
	 .min_operands = 2,
	 .max_operands = 2,
	 .operand = OPERAND_SANDBOX,
	 .details = "Whoever has the link may visit, until it expires or is revoked. paddock-ingress serves it.\n\n"
		    "Examples\n  paddock preview i4k 3000\n  paddock preview i4k 8080 --ttl 15m --one-visitor "
		    "--read-only\n"},
	{.name = "previews",
	 .group = "Sandboxes",
	 .summary = "Previews: list, revoke, extend",
	 .synopsis = "COMMAND",
	 .options = no_options,
	 .subcommands = preview_commands},
	{.name = "snapshot",
	 .group = "Sandboxes",
	 .summary = "Keep what a running sandbox is now, to make others from",
	 .synopsis = "SANDBOX",
	 .options = snapshot_options,
	 .run = cmd_snapshot,
	 .min_operands = 1,
	 .max_operands = 1,
	 .operand = OPERAND_SANDBOX,
	 .details = "Processes, memory and files. The sandbox goes on. Prints the snapshot's id.\n\n"
		    "Examples\n  paddock snapshot i1 --name warm\n  paddock create --snapshot warm\n"},
	{.name = "fork",
	 .group = "Sandboxes",
	 .summary = "Make copies of a running sandbox",
	 .synopsis = "SANDBOX",
	 .options = fork_options,
	 .run = cmd_fork,
	 .min_operands = 1,
	 .max_operands = 1,
	 .operand = OPERAND_SANDBOX,
	 .details = "Each goes on where the sandbox is, under an id of its own. Prints the ids.\n"},
	{.name = "snapshots",
	 .group = "Sandboxes",
	 .summary = "Snapshots: list, remove",
	 .synopsis = "COMMAND",
	 .options = no_options,
	 .subcommands = snapshot_commands},
	{.name = "kill",
	 .group = "Sandboxes",
	 .summary = "Kill sandboxes",
	 .synopsis = "SANDBOX...|--all",
	 .options = kill_options,
	 .run = cmd_kill,
	 .max_operands = -1,
	 .operand = OPERAND_SANDBOX,
	 .details = "Returns when nothing is left of them.\n"},
	{.name = "events",
	 .group = "Sandboxes",
	 .summary = "Follow what happens to sandboxes",
	 .synopsis = "[SANDBOX]",
	 .options = events_options,
	 .run = cmd_events,
	 .max_operands = 1,
	 .operand = OPERAND_SANDBOX},

	{.name = "run",
	 .group = "Processes",
	 .summary = "Run one command in a sandbox of its own",
	 .synopsis = "[OPTIONS] [--] COMMAND [ARG...]",
	 .options = run_options,
	 .run = cmd_run,
	 .min_operands = 1,
	 .max_operands = -1,
	 .leading = -1,
	 .error_status = EXIT_PADDOCK,
	 .details = STATUS_TEXT "\nExamples\n  paddock run -- python3 -c 'print(6 * 7)'\n"
				"  tar c . | paddock run -i --memory 2G -- sh -c 'tar x && make test'\n"},
	{.name = "exec",
	 .group = "Processes",
	 .summary = "Run a command in a sandbox",
	 .synopsis = "[OPTIONS] SANDBOX [--] COMMAND [ARG...]",
	 .options = exec_options,
	 .run = cmd_exec,
	 .min_operands = 2,
	 .max_operands = -1,
	 .leading = 1,
	 .error_status = EXIT_PADDOCK,
	 .operand = OPERAND_SANDBOX,
	 .details = STATUS_TEXT "Ctrl-C is passed on; three times leaves the command alone. A connection that breaks\n"
				"is made again, and output goes on where it stopped.\n\nExamples\n"
				"  paddock exec i4k -- make -j4\n"
				"  paddock exec i4k --user root --timeout 30s -- apt-get update\n"
				"  echo hello | paddock exec i4k -i -- tee greeting\n"},
	{.name = "shell",
	 .group = "Processes",
	 .summary = "Open a terminal in a sandbox",
	 .synopsis = "[OPTIONS] SANDBOX [COMMAND [ARG...]]",
	 .options = shell_options,
	 .run = cmd_shell,
	 .min_operands = 1,
	 .max_operands = -1,
	 .leading = 1,
	 .error_status = EXIT_PADDOCK,
	 .operand = OPERAND_SANDBOX,
	 .details = "Runs `bash -l`, or the command.\n" STATUS_TEXT},
	{.name = "ps",
	 .group = "Processes",
	 .summary = "List a sandbox's processes",
	 .synopsis = "SANDBOX",
	 .options = ps_options,
	 .run = cmd_ps,
	 .min_operands = 1,
	 .max_operands = 1,
	 .operand = OPERAND_SANDBOX},
	{.name = "logs",
	 .group = "Processes",
	 .summary = "Print the output of a process",
	 .synopsis = "SANDBOX PROCESS",
	 .options = logs_options,
	 .run = cmd_logs,
	 .min_operands = 2,
	 .max_operands = 2,
	 .operand = OPERAND_SANDBOX,
	 .details = "PROCESS is the number that `exec -d` and `ps` print.\n\nExamples\n  paddock logs -f i4k 3\n"},
	{.name = "signal",
	 .group = "Processes",
	 .summary = "Send a signal to a process",
	 .synopsis = "SANDBOX PROCESS [SIGNAL]",
	 .options = signal_options,
	 .run = cmd_signal,
	 .min_operands = 2,
	 .max_operands = 3,
	 .operand = OPERAND_SANDBOX,
	 .details = "To its process group, TERM if no signal is named.\n\nExamples\n  paddock signal i4k 3 HUP\n"},
	{.name = "wait",
	 .group = "Processes",
	 .summary = "Wait for a process to end",
	 .synopsis = "SANDBOX PROCESS",
	 .options = wait_options,
	 .run = cmd_wait,
	 .min_operands = 2,
	 .max_operands = 2,
	 .error_status = EXIT_PADDOCK,
	 .operand = OPERAND_SANDBOX,
	 .details = STATUS_TEXT},

	{.name = "cp",
	 .group = "Files",
	 .summary = "Copy files and directories in or out",
	 .synopsis = "FROM TO",
	 .options = user_options,
	 .run = cmd_cp,
	 .min_operands = 2,
	 .max_operands = 2,
	 .operand = OPERAND_FILE,
	 .details = "One of the two is SANDBOX:PATH, relative to the user's home; the other a local path, or - for\n"
		    "standard input or output.\n\nExamples\n  paddock cp src i4k:project\n"
		    "  paddock cp i4k:project/report.html .\n  paddock cp i4k:/etc/os-release -\n"},
	{.name = "ls",
	 .group = "Files",
	 .summary = "List files",
	 .synopsis = "SANDBOX[:PATH] [PATH]",
	 .options = ls_options,
	 .run = cmd_ls,
	 .min_operands = 1,
	 .max_operands = 2,
	 .operand = OPERAND_SANDBOX},
	{.name = "cat",
	 .group = "Files",
	 .summary = "Print a file",
	 .synopsis = "SANDBOX:PATH",
	 .options = cat_options,
	 .run = cmd_cat,
	 .min_operands = 1,
	 .max_operands = 2,
	 .operand = OPERAND_SANDBOX},
	{.name = "watch",
	 .group = "Files",
	 .summary = "Follow changes below a directory",
	 .synopsis = "SANDBOX[:PATH] [PATH]",
	 .options = recursive_options,
	 .run = cmd_watch,
	 .min_operands = 1,
	 .max_operands = 2,
	 .operand = OPERAND_SANDBOX},
	{.name = "mkdir",
	 .group = "Files",
	 .summary = "Make a directory",
	 .synopsis = "SANDBOX:PATH",
	 .options = mkdir_options,
	 .run = cmd_mkdir,
	 .min_operands = 1,
	 .max_operands = 2,
	 .operand = OPERAND_SANDBOX},
	{.name = "mv",
	 .group = "Files",
	 .summary = "Move or rename a file",
	 .synopsis = "SANDBOX:FROM TO",
	 .options = mv_options,
	 .run = cmd_mv,
	 .min_operands = 2,
	 .max_operands = 2,
	 .operand = OPERAND_SANDBOX},
	{.name = "rm",
	 .group = "Files",
	 .summary = "Remove a file or directory",
	 .synopsis = "SANDBOX:PATH",
	 .options = recursive_options,
	 .run = cmd_rm,
	 .min_operands = 1,
	 .max_operands = 2,
	 .operand = OPERAND_SANDBOX},

	{.name = "template",
	 .group = "Server",
	 .summary = "Templates: list, get, build, import, remove",
	 .synopsis = "COMMAND",
	 .options = no_options,
	 .subcommands = template_commands},
	{.name = "tenant",
	 .group = "Server",
	 .summary = "Tenants: create, list, quota, remove",
	 .synopsis = "COMMAND",
	 .options = no_options,
	 .subcommands = tenant_commands},
	{.name = "key",
	 .group = "Server",
	 .summary = "API keys: create, list, revoke",
	 .synopsis = "COMMAND",
	 .options = no_options,
	 .subcommands = key_commands},
	{.name = "audit",
	 .group = "Server",
	 .summary = "The audit log: list, verify, key, export",
	 .synopsis = "COMMAND",
	 .options = no_options,
	 .subcommands = audit_commands},
	{.name = "status",
	 .group = "Server",
	 .summary = "Show what the server does and holds",
	 .synopsis = "",
	 .options = no_options,
	 .run = cmd_status},
	{.name = "doctor",
	 .group = "Server",
	 .summary = "Check this machine and the server",
	 .synopsis = "",
	 .options = no_options,
	 .run = cmd_doctor,
	 .details = "Prints what is missing and how to mend it. As root it also checks the kernel's features.\n"
		    "With a key that may create sandboxes it tries a pause to disk and back.\n"
		    "Exit status 1 if anything is missing.\n"},
	{.name = "version",
	 .group = "Server",
	 .summary = "Show versions",
	 .synopsis = "",
	 .options = version_options,
	 .run = cmd_version},
	{.name = "completion",
	 .group = "Server",
	 .summary = "Print completion for bash, zsh or fish",
	 .synopsis = "bash|zsh|fish",
	 .options = no_options,
	 .run = cmd_completion,
	 .min_operands = 1,
	 .max_operands = 1,
	 .details = "Examples\n  source <(paddock completion bash)\n"},
	{.name = "help",
	 .group = "Server",
	 .summary = "Show help for a command",
	 .synopsis = "[COMMAND [COMMAND]]",
	 .options = no_options,
	 .run = cmd_help,
	 .max_operands = 2,
	 .operand = OPERAND_COMMAND},
	{.name = NULL},
};

/* NULL: no such command, and the error says which was meant. */
static const struct command *find_for_help(struct cli *cli, const struct command *table, const char *above,
					   const char *name)
{
	const struct command *found = command_find(table, name);
	const char *nearest = found ? NULL : command_suggest(table, name);

	if (nearest)
		snprintf(cli->hint, sizeof(cli->hint), "did you mean `paddock help %s%s`?", above, nearest);
	else if (!found)
		snprintf(cli->hint, sizeof(cli->hint), "`paddock help` shows the commands");
	if (!found)
		cli_usage(cli, "there is no command '%s%s'", above, name);
	return found;
}

int cmd_help(struct cli *cli, const struct args *args)
{
	const struct command *command, *sub = NULL;
	char above[40];

	if (args->argc == 0) {
		help_overview(cli->color);
		return EXIT_OK;
	}
	command = find_for_help(cli, commands, "", args->argv[0]);
	if (!command)
		return -EDOM;
	if (args->argc > 1) {
		snprintf(above, sizeof(above), "%s ", command->name);
		sub = find_for_help(cli, command->subcommands, above, args->argv[1]);
		if (!sub)
			return -EDOM;
	}
	help_command(sub ? sub : command, sub ? command->name : NULL, cli->color);
	return EXIT_OK;
}
