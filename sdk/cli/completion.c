#include "admin.h"

#include <stdio.h>
#include <string.h>

/*
 * Completion scripts, written from the table of commands, so that they cannot differ from it. They complete commands,
 * options, ids of sandboxes and names of templates; the latter two by asking the server, quietly.
 */

static void print_words(const struct command *table)
{
	for (; table->name; table++)
		printf("%s%s", table->name, table[1].name ? " " : "");
}

static void print_options(const struct option_spec *options)
{
	for (; options && options->name; options++) {
		printf(" --%s", options->name);
		if (options->letter)
			printf(" -%c", options->letter);
	}
}

static const char *bash_operand(enum operand_kind kind)
{
	switch (kind) {
	case OPERAND_SANDBOX:
		return "words=\"$(paddock list -q 2>/dev/null)\"";
	case OPERAND_TEMPLATE:
		return "words=\"$(paddock template list 2>/dev/null | awk 'NR > 1 { print $1 }')\"";
	case OPERAND_SNAPSHOT:
		return "words=\"$(paddock snapshots list -q 2>/dev/null)\"";
	case OPERAND_COMMAND:
		return "words=\"$commands\"";
	case OPERAND_FILE:
		return "words=\"$(paddock list -q 2>/dev/null | sed 's/$/:/')\"; files=1";
	case OPERAND_NONE:
		return "words=; files=1";
	}
	return "";
}

static void bash_case(const char *pattern, const struct command *command)
{
	printf("\t%s)\n\t\toptions=\"", pattern);
	print_options(command->options);
	print_options(global_options);
	printf("\"\n\t\t%s ;;\n", bash_operand(command->operand));
}

static void print_bash(void)
{
	const struct command *command, *sub;
	char pattern[64];

	printf("# bash completion for paddock; `paddock completion bash` writes it\n"
	       "_paddock() {\n\tlocal cur=${COMP_WORDS[COMP_CWORD]} options= words= files= commands=\"");
	print_words(commands);
	printf("\"\n\tCOMPREPLY=()\n\tif [ \"$COMP_CWORD\" -eq 1 ]; then\n"
	       "\t\tCOMPREPLY=($(compgen -W \"$commands\" -- \"$cur\"))\n\t\treturn\n\tfi\n"
	       "\tcase \"${COMP_WORDS[COMP_CWORD-1]}\" in\n"
	       "\t-t|--template) COMPREPLY=($(compgen -W \"$(paddock template list 2>/dev/null |"
	       " awk 'NR > 1 { print $1 }')\" -- \"$cur\")); return ;;\n"
	       "\t-o|--output) COMPREPLY=($(compgen -W \"text json\" -- \"$cur\")); return ;;\n"
	       "\t-u|--user) COMPREPLY=($(compgen -W \"user root\" -- \"$cur\")); return ;;\n\tesac\n"
	       "\tcase \"${COMP_WORDS[1]} ${COMP_WORDS[2]}\" in\n");
	for (command = commands; command->name; command++) {
		for (sub = command->subcommands; sub && sub->name; sub++) {
			snprintf(pattern, sizeof(pattern), "\"%s %s\"", command->name, sub->name);
			bash_case(pattern, sub);
		}
		snprintf(pattern, sizeof(pattern), "\"%s \"*", command->name);
		if (!command->subcommands) {
			bash_case(pattern, command);
			continue;
		}
		printf("\t%s)\n\t\toptions=\"", pattern);
		print_options(global_options);
		printf("\"\n\t\twords=\"");
		print_words(command->subcommands);
		printf("\" ;;\n");
	}
	printf("\tesac\n\tcase \"$cur\" in\n\t-*) COMPREPLY=($(compgen -W \"$options\" -- \"$cur\")) ;;\n"
	       "\t*)\n\t\tCOMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
	       "\t\t[ -z \"$files\" ] || COMPREPLY+=($(compgen -f -- \"$cur\")) ;;\n\tesac\n}\n"
	       "complete -o default -F _paddock paddock\n");
}

/* Text in single quotes, in which zsh also wants its own signs escaped. */
static void print_quoted(const char *text, const char *escaped)
{
	for (; *text; text++) {
		if (*text == '\'')
			fputs("'\\'", stdout);
		else if (strchr(escaped, *text))
			putchar('\\');
		putchar(*text);
	}
}

static void zsh_options(const struct option_spec *options)
{
	for (; options && options->name; options++) {
		int both;

		for (both = options->letter ? 0 : 1; both < 2; both++) {
			printf(" \\\n\t\t\t'*");
			if (both)
				printf("--%s%s", options->name, options->value ? "=" : "");
			else
				printf("-%c%s", options->letter, options->value ? "+" : "");
			printf("[");
			print_quoted(options->help, "[]:");
			printf("]");
			if (options->value) {
				printf(":");
				print_quoted(options->value, "[]:");
				printf(":%s", !strcmp(options->name, "template") ? "_paddock_templates" : "");
			}
			printf("'");
		}
	}
}

static const char *zsh_operand(enum operand_kind kind)
{
	switch (kind) {
	case OPERAND_SANDBOX:
		return "_paddock_sandboxes";
	case OPERAND_TEMPLATE:
		return "_paddock_templates";
	case OPERAND_SNAPSHOT:
		return "_paddock_snapshots";
	case OPERAND_COMMAND:
		return "_paddock_commands";
	case OPERAND_FILE:
	case OPERAND_NONE:
		return "_files";
	}
	return "_files";
}

static void zsh_case(const struct command *command)
{
	printf("\t\t%s)\n\t\t_arguments -S", command->name);
	zsh_options(command->options);
	zsh_options(global_options);
	printf(" \\\n\t\t\t'*:argument:%s' ;;\n", zsh_operand(command->operand));
}

static void zsh_describe(const struct command *table)
{
	for (; table->name; table++) {
		printf("\t\t'%s:", table->name);
		print_quoted(table->summary, ":");
		printf("'\n");
	}
}

static void print_zsh(void)
{
	const struct command *command, *sub;

	printf("#compdef paddock\n# zsh completion for paddock; `paddock completion zsh` writes it\n\n"
	       "_paddock_sandboxes() { compadd -- ${(f)\"$(paddock list -q 2>/dev/null)\"} }\n"
	       "_paddock_templates() { compadd -- ${(f)\"$(paddock template list 2>/dev/null |"
	       " awk 'NR > 1 { print $1 }')\"} }\n"
	       "_paddock_snapshots() { compadd -- ${(f)\"$(paddock snapshots list -q 2>/dev/null)\"} }\n"
	       "_paddock_commands() {\n\tlocal -a list=(\n");
	zsh_describe(commands);
	printf("\t)\n\t_describe command list\n}\n\n");
	for (command = commands; command->name; command++) {
		if (!command->subcommands)
			continue;
		printf("_paddock_%s() {\n\tlocal -a list=(\n", command->name);
		zsh_describe(command->subcommands);
		printf("\t)\n\tif (( CURRENT == 2 )); then\n\t\t_describe command list\n\t\treturn\n\tfi\n"
		       "\tcase $words[2] in\n");
		for (sub = command->subcommands; sub->name; sub++)
			zsh_case(sub);
		printf("\tesac\n}\n\n");
	}
	printf("_paddock() {\n\tif (( CURRENT == 2 )); then\n\t\t_paddock_commands\n\t\treturn\n\tfi\n"
	       "\tshift words\n\t(( CURRENT-- ))\n\tcase $words[1] in\n");
	for (command = commands; command->name; command++) {
		if (command->subcommands)
			printf("\t\t%s) _paddock_%s ;;\n", command->name, command->name);
		else
			zsh_case(command);
	}
	printf("\tesac\n}\n\n_paddock \"$@\"\n");
}

static void fish_options(const char *condition, const struct option_spec *options)
{
	for (; options && options->name; options++) {
		printf("complete -c paddock %s -l %s", condition, options->name);
		if (options->letter)
			printf(" -s %c", options->letter);
		if (options->value)
			printf(" -x");
		if (!strcmp(options->name, "template"))
			printf(" -a '(__paddock_templates)'");
		printf(" -d '");
		print_quoted(options->help, "");
		printf("'\n");
	}
}

static void fish_command(const char *condition, const struct command *command)
{
	fish_options(condition, command->options);
	if (command->operand == OPERAND_SANDBOX || command->operand == OPERAND_FILE)
		printf("complete -c paddock %s -a '(__paddock_sandboxes%s)'\n", condition,
		       command->operand == OPERAND_FILE ? " :" : "");
	if (command->operand == OPERAND_TEMPLATE)
		printf("complete -c paddock %s -x -a '(__paddock_templates)'\n", condition);
	if (command->operand == OPERAND_SNAPSHOT)
		printf("complete -c paddock %s -x -a '(paddock snapshots list -q 2>/dev/null)'\n", condition);
}

static void print_fish(void)
{
	const struct command *command, *sub;
	char condition[160];

	printf("# fish completion for paddock; `paddock completion fish` writes it\n"
	       "function __paddock_sandboxes\n\tfor id in (paddock list -q 2>/dev/null)\n\t\techo "
	       "$id$argv[1]\n\tend\nend\n"
	       "function __paddock_templates\n\tpaddock template list 2>/dev/null | awk 'NR > 1 { print $1 }'\nend\n");
	for (command = commands; command->name; command++) {
		printf("complete -c paddock -n __fish_use_subcommand -f -a %s -d '", command->name);
		print_quoted(command->summary, "");
		printf("'\n");
		for (sub = command->subcommands; sub && sub->name; sub++) {
			printf("complete -c paddock -n '__fish_seen_subcommand_from %s; and not "
			       "__fish_seen_subcommand_from ",
			       command->name);
			print_words(command->subcommands);
			printf("' -f -a %s -d '", sub->name);
			print_quoted(sub->summary, "");
			printf("'\n");
			snprintf(condition, sizeof(condition),
				 "-n '__fish_seen_subcommand_from %s; and __fish_seen_subcommand_from %s'",
				 command->name, sub->name);
			fish_command(condition, sub);
		}
		snprintf(condition, sizeof(condition), "-n '__fish_seen_subcommand_from %s'", command->name);
		if (!command->subcommands)
			fish_command(condition, command);
	}
	fish_options("", global_options);
}

int cmd_completion(struct cli *cli, const struct args *args)
{
	const char *shell = args->argv[0];

	if (!strcmp(shell, "bash"))
		print_bash();
	else if (!strcmp(shell, "zsh"))
		print_zsh();
	else if (!strcmp(shell, "fish"))
		print_fish();
	else
		return cli_usage(cli, "completion: bash, zsh or fish, not '%s'", shell);
	return EXIT_OK;
}
