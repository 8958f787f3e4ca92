#include "cli.h"

#include <stdio.h>
#include <string.h>

const struct command *command_find(const struct command *table, const char *name)
{
	for (; table && table->name; table++)
		if (!strcmp(table->name, name))
			return table;
	return NULL;
}

#define NAME_MAX_LENGTH 32

int name_distance(const char *a, const char *b)
{
	int row[NAME_MAX_LENGTH + 1];
	size_t la = strlen(a), lb = strlen(b);
	size_t i, j;

	if (la > NAME_MAX_LENGTH || lb > NAME_MAX_LENGTH)
		return NAME_MAX_LENGTH;
	for (j = 0; j <= lb; j++)
		row[j] = (int)j;
	for (i = 1; i <= la; i++) {
		int corner = row[0];

		row[0] = (int)i;
		for (j = 1; j <= lb; j++) {
			int above = row[j];
			int best = corner + (a[i - 1] != b[j - 1]);

			best = above + 1 < best ? above + 1 : best;
			best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
			row[j] = best;
			corner = above;
		}
	}
	return row[lb];
}

const char *command_suggest(const struct command *table, const char *name)
{
	const char *best = NULL;
	int distance = 3;

	for (; table && table->name; table++) {
		int d = name_distance(table->name, name);

		if (strlen(name) >= 3 && !strncmp(table->name, name, strlen(name)))
			d = 1;
		if (d < distance && d < (int)strlen(table->name)) {
			distance = d;
			best = table->name;
		}
	}
	return best;
}

static void help_rows(const struct command *table, const char *group)
{
	for (; table->name; table++)
		if (!group || !strcmp(table->group, group))
			printf("  %-12s %s\n", table->name, table->summary);
}

void help_overview(bool color)
{
	static const char *const groups[] = {"Sandboxes", "Processes", "Files", "Server", NULL};
	const char *bold = color ? "\033[1m" : "", *plain = color ? "\033[0m" : "";
	int i;

	printf("Usage: paddock COMMAND [OPTIONS] ...\n\nIsolated computers for coding agents.\n");
	for (i = 0; groups[i]; i++) {
		printf("\n%s%s%s\n", bold, groups[i], plain);
		help_rows(commands, groups[i]);
	}
	printf("\n`paddock help COMMAND` shows options and examples.\n"
	       "The server is PADDOCK_ADDR (with PADDOCK_API_KEY), else the one on this machine.\n");
}

static void help_options(const struct option_spec *options)
{
	char left[64];

	for (; options && options->name; options++) {
		char letter[5] = {'-', options->letter, ',', ' ', '\0'};

		snprintf(left, sizeof(left), "%s--%s%s%s", options->letter ? letter : "    ", options->name,
			 options->value ? " " : "", options->value ? options->value : "");
		printf("  %-26s %s\n", left, options->help);
	}
}

void help_command(const struct command *command, const char *parent, bool color)
{
	const char *bold = color ? "\033[1m" : "", *plain = color ? "\033[0m" : "";

	printf("Usage: paddock %s%s%s %s\n\n%s\n", parent ? parent : "", parent ? " " : "", command->name,
	       command->synopsis, command->summary);
	if (command->subcommands) {
		printf("\n%sCommands%s\n", bold, plain);
		help_rows(command->subcommands, NULL);
	}
	printf("\n%sOptions%s\n", bold, plain);
	help_options(command->options);
	help_options(global_options);
	if (command->details)
		printf("\n%s", command->details);
}
