#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sdk/cli/build_context.h"
#include "sdk/cli/paddockfile.h"

/* What is in a folder that somebody else made, and is built from: its file of steps, and what it ignores. The first byte
 * chooses. A file is understood, with steps that the contract takes, or refused with a line of it. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition) ((condition) ? (void)0 : __builtin_trap())

static void check_step(const struct paddockfile_step *step)
{
	bool is_env = strcmp(step->type, "ENV") == 0, is_copy = strcmp(step->type, "COPY") == 0;

	MUST(step->line && step->n_args >= (is_env || is_copy ? 2 : 1) && (!is_env || step->n_args % 2 == 0));
	MUST(is_env || is_copy || step->n_args == 1);
	MUST(is_copy || (!step->owner && !step->mode));
	for (size_t i = 0; i < step->n_args; i++)
		MUST(step->args[i] && !strchr(step->args[i], '\n'));
}

static void fuzz_file(const uint8_t *data, size_t size)
{
	static struct paddockfile file;
	struct pdk_error err = {};

	if (paddockfile_parse((const char *)data, size, "f", &file, &err) < 0) {
		MUST(strncmp(err.text, "f:", 2) == 0 && atoi(err.text + 2) > 0 && !file.n_steps && !file.from);
		return;
	}
	MUST(file.from && file.from[0] && file.n_steps <= PADDOCKFILE_STEPS_MAX);
	for (size_t i = 0; i < file.n_steps; i++)
		check_step(&file.steps[i]);
	MUST(!file.start_command || file.start_line);
	paddockfile_clear(&file);
}

/* A path in the first line, rules in the others. What is looked at is left as it was. */
static void fuzz_ignore(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1), *rules;
	struct build_ignore ignore;
	bool ignored;

	memcpy(text, data, size);
	text[size] = '\0';
	rules = strchr(text, '\n');
	if (rules) {
		*rules++ = '\0';
		build_ignore_parse(rules, &ignore);
		ignored = build_ignore_matches(&ignore, text);
		MUST(ignored == build_ignore_matches(&ignore, text));
		MUST(!ignored || ignore.n);
		build_ignore_clear(&ignore);
	}
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size && data[0] == 'i')
		fuzz_ignore(data + 1, size - 1);
	else if (size)
		fuzz_file(data + 1, size - 1);
	return 0;
}
