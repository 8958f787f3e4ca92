#include "cli.h"

#include "format.h"
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPTIONS_MAX 48
#define FIRST_LONG 256

const struct option_spec global_options[] = {
	{"output", 'o', "FORMAT", "text (default) or json"},
	{"addr", 0, "ADDRESS", "the server: unix:PATH, HOST:PORT or https://HOST:PORT"},
	{"help", 'h', NULL, "show this help"},
	{},
};

struct parser {
	struct option longs[OPTIONS_MAX];
	const struct option_spec *specs[OPTIONS_MAX];
	char shorts[OPTIONS_MAX * 2 + 4];
	int count;
};

static void parser_add(struct parser *parser, const struct option_spec *spec)
{
	size_t end = strlen(parser->shorts);

	for (; spec && spec->name && parser->count < OPTIONS_MAX - 1; spec++) {
		parser->specs[parser->count] = spec;
		parser->longs[parser->count] = (struct option){
			.name = spec->name,
			.has_arg = spec->value ? required_argument : no_argument,
			.val = FIRST_LONG + parser->count,
		};
		parser->count++;
		if (spec->letter) {
			parser->shorts[end++] = spec->letter;
			if (spec->value)
				parser->shorts[end++] = ':';
		}
	}
	parser->shorts[end] = '\0';
}

static const struct option_spec *parser_spec(const struct parser *parser, int c)
{
	int i;

	if (c >= FIRST_LONG)
		return parser->specs[c - FIRST_LONG];
	for (i = 0; i < parser->count; i++)
		if (parser->specs[i]->letter == c)
			return parser->specs[i];
	return NULL;
}

static int long_option_error(const struct parser *parser, const char *word, struct pdk_error *err)
{
	char name[64];
	const char *nearest = NULL;
	int i, beginnings = 0, best = 3;

	snprintf(name, sizeof(name), "%.*s", (int)strcspn(word + 2, "="), word + 2);
	for (i = 0; i < parser->count; i++) {
		const char *known = parser->specs[i]->name;
		int distance = name_distance(known, name);

		if (!strcmp(known, name))
			return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "option --%s takes no value", name);
		beginnings += !strncmp(known, name, strlen(name));
		if (distance < best) {
			best = distance;
			nearest = known;
		}
	}
	if (beginnings > 1)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "option --%s may be more than one; write it out",
				name);
	if (nearest)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "unknown option --%s; did you mean --%s?", name,
				nearest);
	return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "unknown option --%s", name);
}

static int option_error(const struct parser *parser, int c, char **argv, int before, struct pdk_error *err)
{
	const char *word = argv[before] ? argv[before] : "";

	if (c == ':')
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "option %s needs a value", word);
	if (strncmp(word, "--", 2) != 0)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "unknown option -%c", optopt);
	return long_option_error(parser, word, err);
}

/* One option, or the end of options: 1 when there is nothing more to parse. */
static int parse_one(struct args *args, const struct parser *parser, int argc, char **argv, struct pdk_error *err)
{
	int before = optind ? optind : 1;
	bool dashes = before < argc && !strcmp(argv[before], "--");
	int leading = args->command->leading;
	int c = getopt_long(argc, argv, parser->shorts, parser->longs, NULL);
	const struct option_spec *spec;

	if (c == '?' || c == ':')
		return option_error(parser, c, argv, before, err);
	if (c != -1) {
		spec = parser_spec(parser, c);
		if (args->n_given == ARGS_MAX)
			return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "more than %d options", ARGS_MAX);
		args->given[args->n_given].spec = spec;
		args->given[args->n_given++].value = optarg;
		return 0;
	}
	if (!dashes && optind < argc && (!args->command->leading || args->argc < leading)) {
		args->argv[args->argc++] = argv[optind++];
		return 0;
	}
	while (optind < argc)
		args->argv[args->argc++] = argv[optind++];
	return 1;
}

int args_parse(struct args *args, const struct command *command, int argc, char **argv, struct pdk_error *err)
{
	struct parser parser = {.shorts = "+:"};
	int rc = 0;

	*args = (struct args){.command = command};
	args->argv = calloc((size_t)argc + 1, sizeof(*args->argv));
	if (!args->argv)
		return pdk_fail_errno(err, -ENOMEM, "options");
	parser_add(&parser, command->options);
	parser_add(&parser, global_options);
	opterr = 0;
	optind = 0; /* glibc: forget what an earlier parse left, begin at 1 */
	while (rc == 0)
		rc = parse_one(args, &parser, argc, argv, err);
	if (rc < 0 || args_has(args, "help"))
		return rc < 0 ? rc : 0;
	if (args->argc < command->min_operands)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "%s: an argument is missing", command->name);
	if (command->max_operands >= 0 && args->argc > command->max_operands)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "%s: '%s' is one argument too many", command->name,
				args->argv[command->max_operands]);
	return 0;
}

void args_clear(struct args *args)
{
	free(args->argv);
	args->argv = NULL;
}

const char *args_next(const struct args *args, const char *name, int *index)
{
	while (*index < args->n_given) {
		int i = (*index)++;

		if (!strcmp(args->given[i].spec->name, name))
			return args->given[i].value ? args->given[i].value : "";
	}
	return NULL;
}

const char *args_value(const struct args *args, const char *name)
{
	const char *value, *last = NULL;
	int index = 0;

	while ((value = args_next(args, name, &index)))
		last = value;
	return last;
}

bool args_has(const struct args *args, const char *name)
{
	return args_value(args, name) != NULL;
}

int args_size(struct cli *cli, const struct args *args, const char *name, uint64_t *ret_bytes)
{
	const char *text = args_value(args, name);

	if (text && parse_size(text, ret_bytes) < 0)
		return cli_usage(cli, "--%s: '%s' is not a size; write 512M or 2G", name, text);
	return 0;
}

int args_duration(struct cli *cli, const struct args *args, const char *name, uint64_t *ret_ms)
{
	const char *text = args_value(args, name);

	if (text && parse_duration(text, ret_ms) < 0)
		return cli_usage(cli, "--%s: '%s' is not a duration; write 30s, 5m or 1h30m", name, text);
	return 0;
}

int args_number(struct cli *cli, const struct args *args, const char *name, uint64_t max, uint64_t *ret_number)
{
	const char *text = args_value(args, name);
	unsigned long long number;
	char *end;

	if (!text)
		return 0;
	errno = 0;
	number = strtoull(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || number > max)
		return cli_usage(cli, "--%s: '%s' is not a number from 0 to %llu", name, text, (unsigned long long)max);
	*ret_number = number;
	return 0;
}
