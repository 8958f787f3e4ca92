#ifndef PADDOCK_CLI_H
#define PADDOCK_CLI_H

#include "paddock.h"
#include "sandbox/base/cleanup.h"
#include <stdbool.h>
#include <stdint.h>

/*
 * The paddock command. main.c finds the command in the table of commands.c, options.c parses its options, its
 * run() does the work and returns an exit status, or a negative errno with cli->err set, which
 * main.c prints with what to do next. Nothing else prints errors.
 */

enum exit_status {
	EXIT_OK = 0,
	EXIT_ERROR = 1,
	EXIT_USAGE = 2,
	EXIT_TIMED_OUT = 124, /* run, exec, shell, wait: the command's time ran out */
	EXIT_PADDOCK = 125,   /* run, exec, shell, wait: Paddock failed, not the command */
	EXIT_CANNOT_RUN = 126,
	EXIT_NO_PROGRAM = 127, /* as shells and container tools say it */
};

struct cli {
	struct paddock_client *client; /* use cli_connect() */
	const char *address;           /* --addr, or NULL */
	bool json;
	bool color; /* stdout is a terminal that may be coloured */
	struct pdk_error err;
	char hint[160]; /* what to do next; empty: chosen by the error's code */
};

struct args;

struct option_spec {
	const char *name;
	char letter;       /* 0: none */
	const char *value; /* name of the value, or NULL for a flag */
	const char *help;
};

enum operand_kind {
	OPERAND_NONE,
	OPERAND_SANDBOX,
	OPERAND_TEMPLATE,
	OPERAND_SNAPSHOT,
	OPERAND_FILE,
	OPERAND_COMMAND, /* name of a paddock command */
};

struct command {
	const char *name;
	const char *group;
	const char *summary;
	const char *synopsis; /* what stands behind the name */
	const struct option_spec *options;
	const char *details; /* prose and examples */
	int (*run)(struct cli *cli, const struct args *args);
	const struct command *subcommands;
	int min_operands;
	int max_operands; /* -1: any number */
	int leading;      /* operands before a command line that is not ours to parse; 0: there is none */
	int error_status; /* 0: EXIT_ERROR */
	enum operand_kind operand;
};

extern const struct command commands[]; /* ends with a NULL name */
extern const struct option_spec global_options[];

/* options.c */
#define ARGS_MAX 512
struct args {
	const struct command *command;
	int argc; /* operands */
	const char **argv;
	struct {
		const struct option_spec *spec;
		const char *value;
	} given[ARGS_MAX];
	int n_given;
};
/* 0, or -EINVAL with err set. argv[0] is the command's name. */
int args_parse(struct args *args, const struct command *command, int argc, char **argv, struct pdk_error *err);
void args_clear(struct args *args);
bool args_has(const struct args *args, const char *name);
/* The last one given, or NULL. */
const char *args_value(const struct args *args, const char *name);
/* Each in turn: start with *index = 0; NULL when there are no more. */
const char *args_next(const struct args *args, const char *name, int *index);
/* Numbers. Not given: *ret stays as it is. */
int args_size(struct cli *cli, const struct args *args, const char *name, uint64_t *ret_bytes);
int args_duration(struct cli *cli, const struct args *args, const char *name, uint64_t *ret_ms);
int args_number(struct cli *cli, const struct args *args, const char *name, uint64_t max, uint64_t *ret_number);

/* context.c */
int cli_connect(struct cli *cli);
/* -EINVAL with a text: a usage error. */
int cli_usage(struct cli *cli, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void cli_print_error(const struct cli *cli, const struct pdk_error *err);

/* help.c */
const struct command *command_find(const struct command *table, const char *name);
/* The known name nearest to `name`, or NULL if none is near. */
const char *command_suggest(const struct command *table, const char *name);
/* Levenshtein distance of two short names. */
int name_distance(const char *a, const char *b);
void help_overview(bool color);
void help_command(const struct command *command, const char *parent, bool color);

/* resolve.c: a whole id as it is, else the one sandbox whose id starts with `text`. Allocated. */
int cli_sandbox(struct cli *cli, const char *text, char **ret_id);
/* The decimal number of a process. */
int cli_process(struct cli *cli, const char *text, uint64_t *ret_id);

/* NAME=VALUE options to map entries. */
#define PAIRS_MAX 256
struct pair_list {
	char *names[PAIRS_MAX];
	char *values[PAIRS_MAX];
	size_t count;
};
int pairs_parse(struct cli *cli, const struct args *args, const char *option, bool inherit, struct pair_list *pairs);
void pairs_clear(struct pair_list *pairs);

#endif
