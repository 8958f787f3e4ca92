#include "paddockfile.h"

#include "cli.h"
#include "sandbox/base/cleanup.h"
#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/*
 * A text is cut into physical lines; those that end with '\' are one with the next, comments between them are dropped. Each
 * is an instruction, a row of the table. Words are split and quoted as a Dockerfile's are. "$NAME" is left to the build
 * where it replaces it (ENV); elsewhere, and where it could not be told from a '$' that is meant, it is refused.
 */

struct words {
	char **item;
	size_t count;
};

struct parser {
	const char *name;
	struct paddockfile *file;
	unsigned int line;
	struct words entrypoint, command; /* as in exec form */
	bool entrypoint_is_shell, command_is_shell;
	unsigned int entrypoint_line, command_line;
	struct pdk_error *err;
};

static int refuse(struct parser *parser, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int refuse(struct parser *parser, const char *format, ...)
{
	char text[PDK_ERROR_TEXT_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return pdk_fail(parser->err, -EINVAL, PDK_INVALID_ARGUMENT, "%.80s:%u: %.300s", parser->name, parser->line,
			text);
}

static void *must(void *pointer)
{
	if (!pointer)
		abort();
	return pointer;
}

/* --- words --- */

static void words_add(struct words *words, char *item)
{
	words->item = must(realloc(words->item, (words->count + 1) * sizeof(char *)));
	words->item[words->count++] = item;
}

static void words_clear(struct words *words)
{
	for (size_t i = 0; i < words->count; i++)
		free(words->item[i]);
	free(words->item);
	*words = (struct words){};
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static const char *skip_blanks(const char *text)
{
	while (is_blank(*text))
		text++;
	return text;
}

/* The name of a variable begins here, after a '$'. */
static bool is_name(const char *text)
{
	return *text == '{' || *text == '_' || isalpha((unsigned char)*text);
}

struct word {
	char *text;
	bool has_variable; /* a '$' that is to be replaced */
	bool has_dollar;   /* one that is meant, in front of what looks like a name */
};

static void put(struct word *word, size_t *length, const char *at, bool is_meant)
{
	if (*at == '$' && is_name(at + 1)) {
		word->has_dollar |= is_meant;
		word->has_variable |= !is_meant;
	}
	word->text[(*length)++] = *at;
}

#define BLANKS " \t"

/* The next word, with its quotes taken off; up to one of `stops` that is not in quotes. */
static int next_word(struct parser *parser, const char **text, const char *stops, struct word *ret)
{
	const char *at = *text;
	size_t length = 0;
	char quote = '\0';

	*ret = (struct word){.text = must(malloc(strlen(at) + 1))};
	for (; *at && (quote || !strchr(stops, *at)); at++) {
		if (quote ? *at == quote : *at == '"' || *at == '\'')
			quote = quote ? '\0' : *at;
		else if (*at == '\\' && quote != '\'' && at[1] && (!quote || strchr("\"\\$", at[1])))
			put(ret, &length, ++at, true);
		else
			put(ret, &length, at, quote == '\'');
	}
	ret->text[length] = '\0';
	*text = at;
	if (!quote)
		return 0;
	free(ret->text);
	return refuse(parser, "a quote is not closed");
}

static int plain_word(struct parser *parser, const char *what, const char **text, char **ret)
{
	struct word word;
	int rc = next_word(parser, text, BLANKS, &word);

	if (rc < 0)
		return rc;
	if (word.has_variable) {
		rc = refuse(parser, "%s: variables are not replaced here: '%.60s'", what, word.text);
		free(word.text);
		return rc;
	}
	*ret = word.text;
	return 0;
}

/* A JSON list of strings. False: it is none, so a command is for the shell. */
static bool exec_form(const char *text, struct words *ret)
{
	json_t *list = *text == '[' ? json_loads(text, 0, NULL) : NULL;
	struct words words = {};
	bool whole = json_is_array(list);

	for (size_t i = 0; whole && i < json_array_size(list); i++) {
		const char *item = json_string_value(json_array_get(list, i));

		if (item)
			words_add(&words, must(strdup(item)));
		whole = item;
	}
	json_decref(list);
	if (whole)
		*ret = words;
	else
		words_clear(&words);
	return whole;
}

/* --- commands --- */

/* One word for a shell. */
static char *put_quoted(char *to, const char *word)
{
	if (*word &&
	    strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=,@%+") == strlen(word))
		return stpcpy(to, word);
	*to++ = '\'';
	for (; *word; word++)
		to = *word == '\'' ? stpcpy(to, "'\\''") : (*to = *word, to + 1);
	*to++ = '\'';
	return to;
}

static char *shell_command(const struct words *first, const struct words *second)
{
	size_t size = 1;
	char *command, *to;

	for (size_t i = 0; i < first->count; i++)
		size += 4 * strlen(first->item[i]) + 3;
	for (size_t i = 0; second && i < second->count; i++)
		size += 4 * strlen(second->item[i]) + 3;
	to = command = must(malloc(size));
	for (size_t i = 0; i < first->count; i++) {
		if (i)
			*to++ = ' ';
		to = put_quoted(to, first->item[i]);
	}
	for (size_t i = 0; second && i < second->count; i++) {
		*to++ = ' ';
		to = put_quoted(to, second->item[i]);
	}
	*to = '\0';
	return command;
}

/* Text that would come from the lines below: "<<EOF". Numbers are shifted by, and "<<<" is one word. */
static bool has_here_document(const char *text)
{
	for (const char *at = text; (at = strstr(at, "<<")); at += 2) {
		const char *word = at + 2;

		if (*word == '<') {
			at++;
			continue;
		}
		word += *word == '-';
		word += *word == '"' || *word == '\'';
		if (isalpha((unsigned char)*word) || *word == '_')
			return true;
	}
	return false;
}

/* --- instructions --- */

static struct paddockfile_step *new_step(struct parser *parser, const char *type)
{
	struct paddockfile_step *step;

	if (parser->file->n_steps == PADDOCKFILE_STEPS_MAX) {
		refuse(parser, "a build has at most %d steps", PADDOCKFILE_STEPS_MAX);
		return NULL;
	}
	step = &parser->file->steps[parser->file->n_steps++];
	*step = (struct paddockfile_step){.type = type, .line = parser->line};
	return step;
}

static int add_step(struct parser *parser, const char *type, struct words *args)
{
	struct paddockfile_step *step = new_step(parser, type);

	if (!step) {
		words_clear(args);
		return -EINVAL;
	}
	step->args = args->item;
	step->n_args = args->count;
	*args = (struct words){};
	return 0;
}

static int take_from(struct parser *parser, const char *rest)
{
	char *from = NULL;
	int rc;

	if (parser->file->from)
		return refuse(parser, "FROM: a build has one stage");
	if (strncmp(rest, "--", 2) == 0)
		return refuse(parser, "FROM: %.*s is not available here", (int)strcspn(rest, "= \t"), rest);
	rc = plain_word(parser, "FROM", &rest, &from);
	if (rc < 0)
		return rc;
	parser->file->from = from;
	rest = skip_blanks(rest);
	if (*rest)
		return refuse(parser, "FROM takes one template, and nothing after it: '%.60s'", rest);
	return *from ? 0 : refuse(parser, "FROM takes a template");
}

static int take_run(struct parser *parser, const char *rest)
{
	struct words words = {}, args = {};

	if (strncmp(rest, "--", 2) == 0)
		return refuse(parser, "RUN: %.*s is not available here", (int)strcspn(rest, "= \t"), rest);
	if (!*rest)
		return refuse(parser, "RUN takes a command");
	if (exec_form(rest, &words)) {
		words_add(&args, shell_command(&words, NULL));
		words_clear(&words);
	} else if (has_here_document(rest)) {
		return refuse(parser, "RUN: here-documents are not available here; COPY a script and run that");
	} else {
		words_add(&args, must(strdup(rest)));
	}
	return add_step(parser, "RUN", &args);
}

/* Of COPY: --chown=, --chmod=. */
static int take_flags(struct parser *parser, const char **rest, char **owner, char **mode)
{
	while (strncmp(*rest, "--", 2) == 0) {
		size_t length = strcspn(*rest, " \t"), name = strcspn(*rest, "= \t");
		bool is_owner = name == 7 && strncmp(*rest, "--chown", 7) == 0;
		bool is_mode = name == 7 && strncmp(*rest, "--chmod", 7) == 0;

		if (!is_owner && !is_mode)
			return refuse(parser, "COPY: %.*s is not available here", (int)name, *rest);
		if (length <= name + 1)
			return refuse(parser, "COPY: %.*s needs a value", (int)name, *rest);
		free(is_owner ? *owner : *mode);
		*(is_owner ? owner : mode) = must(strndup(*rest + name + 1, length - name - 1));
		*rest = skip_blanks(*rest + length);
	}
	return 0;
}

static int copy_words(struct parser *parser, const char *rest, struct words *ret)
{
	if (exec_form(rest, ret))
		return 0;
	if (has_here_document(rest))
		return refuse(parser, "COPY: here-documents are not available here");
	while (*rest) {
		char *word = NULL;
		int rc = plain_word(parser, "COPY", &rest, &word);

		if (rc < 0)
			return rc;
		words_add(ret, word);
		rest = skip_blanks(rest);
	}
	return 0;
}

static int check_copy(struct parser *parser, const struct words *words)
{
	if (words->count < 2)
		return refuse(parser, "COPY takes one or more sources, and a target");
	for (size_t i = 0; i + 1 < words->count; i++)
		if (strstr(words->item[i], "://"))
			return refuse(parser, "COPY takes files of the folder, not '%.60s'", words->item[i]);
	return 0;
}

static int take_copy(struct parser *parser, const char *rest)
{
	_cleanup_free_ char *owner = NULL, *mode = NULL;
	struct words words = {};
	int rc = take_flags(parser, &rest, &owner, &mode);

	if (rc >= 0)
		rc = copy_words(parser, rest, &words);
	if (rc >= 0)
		rc = check_copy(parser, &words);
	if (rc >= 0)
		rc = add_step(parser, "COPY", &words);
	words_clear(&words);
	if (rc < 0)
		return rc;
	parser->file->steps[parser->file->n_steps - 1].owner = STEAL_PTR(owner);
	parser->file->steps[parser->file->n_steps - 1].mode = STEAL_PTR(mode);
	return 0;
}

/* "NAME=VALUE", or "NAME the rest of the line" as it was written before: `separator` and what ends the value. */
static int env_pair(struct parser *parser, const char **rest, char separator, const char *stops, struct words *args)
{
	struct word name, value = {};
	int rc = next_word(parser, rest, BLANKS "=", &name);

	if (rc < 0)
		return rc;
	words_add(args, name.text);
	if (separator == '=' ? **rest != '=' : !**rest)
		return refuse(parser, "ENV: '%.60s' has no value; write NAME=VALUE", name.text);
	*rest = separator == '=' ? *rest + 1 : skip_blanks(*rest);
	rc = next_word(parser, rest, stops, &value);
	if (rc < 0)
		return rc;
	words_add(args, value.text);
	if (value.has_dollar)
		return refuse(parser,
			      "ENV: in the value of %.60s a '$' is to stay before what looks like a name, which "
			      "cannot be said to a build",
			      name.text);
	*rest = skip_blanks(*rest);
	return 0;
}

static int take_env(struct parser *parser, const char *rest)
{
	bool is_old = is_blank(rest[strcspn(rest, BLANKS "=")]);
	struct words args = {};
	int rc = *rest ? 0 : refuse(parser, "ENV takes NAME=VALUE");

	while (rc >= 0 && *rest)
		rc = env_pair(parser, &rest, is_old ? ' ' : '=', is_old ? "" : BLANKS, &args);
	if (rc >= 0)
		rc = add_step(parser, "ENV", &args);
	words_clear(&args);
	return rc;
}

static int one_word(struct parser *parser, const char *type, const char *rest)
{
	struct words args = {};
	char *word = NULL;
	int rc = plain_word(parser, type, &rest, &word);

	if (rc < 0)
		return rc;
	words_add(&args, word);
	if (!*word || *skip_blanks(rest))
		rc = refuse(parser, "%s takes one word", type);
	else if (strcmp(type, "USER") == 0 && strchr(word, ':'))
		rc = refuse(parser, "USER: a group is not available here: '%.60s'", word);
	if (rc >= 0)
		rc = add_step(parser, type, &args);
	words_clear(&args);
	return rc;
}

static int take_workdir(struct parser *parser, const char *rest)
{
	return one_word(parser, "WORKDIR", rest);
}

static int take_user(struct parser *parser, const char *rest)
{
	return one_word(parser, "USER", rest);
}

/* Of several, the last one counts. */
static void take_words(const char *rest, struct words *words, bool *ret_is_shell)
{
	words_clear(words);
	*ret_is_shell = !exec_form(rest, words);
	if (*ret_is_shell)
		words_add(words, must(strdup(rest)));
}

static int take_cmd(struct parser *parser, const char *rest)
{
	parser->command_line = parser->line;
	take_words(rest, &parser->command, &parser->command_is_shell);
	return *rest ? 0 : refuse(parser, "CMD takes a command");
}

static int take_entrypoint(struct parser *parser, const char *rest)
{
	parser->entrypoint_line = parser->line;
	take_words(rest, &parser->entrypoint, &parser->entrypoint_is_shell);
	return *rest ? 0 : refuse(parser, "ENTRYPOINT takes a command");
}

static const struct instruction {
	const char *name;
	int (*take)(struct parser *parser, const char *rest);
	const char *instead; /* without `take` */
} instructions[] = {
	{"FROM", take_from, NULL},
	{"RUN", take_run, NULL},
	{"COPY", take_copy, NULL},
	{"ENV", take_env, NULL},
	{"WORKDIR", take_workdir, NULL},
	{"USER", take_user, NULL},
	{"CMD", take_cmd, NULL},
	{"ENTRYPOINT", take_entrypoint, NULL},
	{"ADD", NULL, "COPY takes files of the folder; unpack an archive with RUN"},
	{"ARG", NULL, "write the value, or set it with ENV"},
	{"EXPOSE", NULL, "`paddock preview` opens a port of a sandbox"},
	{"HEALTHCHECK", NULL, "--ready says when the start command is ready"},
	{"LABEL", NULL, "sandboxes have labels, templates that are built have not"},
	{"MAINTAINER", NULL, "write it into a comment"},
	{"ONBUILD", NULL, "write the instruction into the file that it is meant for"},
	{"SHELL", NULL, "commands are run by `bash -l -c`"},
	{"STOPSIGNAL", NULL, "sandboxes are ended by KILL"},
	{"VOLUME", NULL, "what a sandbox writes stays in it"},
};

static int unknown(struct parser *parser, const char *word)
{
	const char *near = NULL;
	int least = 3;

	for (size_t i = 0; i < ARRAY_SIZE(instructions); i++) {
		int distance = name_distance(instructions[i].name, word);

		if (distance < least) {
			least = distance;
			near = instructions[i].name;
		}
	}
	return near ? refuse(parser, "there is no instruction '%.40s'; did you mean %s?", word, near)
		    : refuse(parser, "there is no instruction '%.40s'", word);
}

/* One instruction, whole, without a line end. */
static int take_line(struct parser *parser, char *text)
{
	char *rest, *end;
	size_t length;

	text += strspn(text, " \t");
	length = strcspn(text, " \t");
	rest = text + length;
	if (*rest)
		*rest++ = '\0';
	rest = (char *)(uintptr_t)skip_blanks(rest);
	for (end = rest + strlen(rest); end > rest && is_blank(end[-1]); end--)
		end[-1] = '\0';
	for (char *at = text; *at; at++)
		*at = (char)toupper((unsigned char)*at);
	for (size_t i = 0; i < ARRAY_SIZE(instructions); i++) {
		if (strcmp(instructions[i].name, text) != 0)
			continue;
		if (!instructions[i].take)
			return refuse(parser, "%s is not available here: %s", text, instructions[i].instead);
		if (!parser->file->from && instructions[i].take != take_from)
			return refuse(parser, "%s: FROM comes first", text);
		return instructions[i].take(parser, rest);
	}
	return unknown(parser, text);
}

/* --- lines --- */

/* "# escape=`" would change what all other lines mean. */
static int check_directive(struct parser *parser, const char *line)
{
	line = skip_blanks(line + 1);
	if (strncasecmp(line, "escape", 6) != 0 || *skip_blanks(line + 6) != '=')
		return 0;
	line = skip_blanks(skip_blanks(line + 6) + 1);
	return *line == '\\' ? 0 : refuse(parser, "another escape character than '\\' is not available here");
}

/* The line ends with '\': without it. */
static bool cut_continuation(char *line)
{
	size_t length = strlen(line);

	while (length && is_blank(line[length - 1]))
		length--;
	if (!length || line[length - 1] != '\\')
		return false;
	line[length - 1] = '\0';
	return true;
}

static char *join(char *whole, const char *line)
{
	size_t before = whole ? strlen(whole) : 0;

	whole = must(realloc(whole, before + strlen(line) + 1));
	strcpy(whole + before, line);
	return whole;
}

static int take_lines(struct parser *parser, char *text)
{
	char *whole = NULL, *line;
	unsigned int number = 0;
	bool at_top = true;
	int rc = 0;

	while (rc >= 0 && (line = strsep(&text, "\n"))) {
		size_t length = strlen(line);
		const char *content;
		bool goes_on;

		number++;
		if (length && line[length - 1] == '\r')
			line[length - 1] = '\0';
		content = skip_blanks(line);
		if (!whole)
			parser->line = number;
		if (*content == '#') {
			rc = at_top ? check_directive(parser, content) : 0;
			continue;
		}
		at_top = false;
		if (!*content)
			continue;
		goes_on = cut_continuation(line);
		whole = join(whole, line);
		if (goes_on)
			continue;
		rc = take_line(parser, whole);
		free(STEAL_PTR(whole));
	}
	if (rc >= 0 && whole && *skip_blanks(whole))
		rc = take_line(parser, whole);
	free(whole);
	return rc;
}

/* ENTRYPOINT and CMD as the command that a build leaves running. */
static void compose(struct parser *parser)
{
	struct words *entrypoint = &parser->entrypoint, *command = &parser->command;
	struct paddockfile *file = parser->file;

	file->start_line = entrypoint->count ? parser->entrypoint_line : parser->command_line;
	if (entrypoint->count && parser->entrypoint_is_shell) {
		file->start_command = must(strdup(entrypoint->item[0])); /* it gets no arguments */
	} else if (entrypoint->count && command->count && parser->command_is_shell) {
		words_add(entrypoint, must(strdup("/bin/sh")));
		words_add(entrypoint, must(strdup("-c")));
		file->start_command = shell_command(entrypoint, command);
	} else if (entrypoint->count) {
		file->start_command = shell_command(entrypoint, command);
	} else if (command->count) {
		file->start_command =
			parser->command_is_shell ? must(strdup(command->item[0])) : shell_command(command, NULL);
	}
}

int paddockfile_parse(const char *text, size_t length, const char *name, struct paddockfile *ret, struct pdk_error *err)
{
	struct parser parser = {.name = name, .file = ret, .line = 1, .err = err};
	_cleanup_free_ char *copy = must(strndup(text, length));
	int rc = 0;

	*ret = (struct paddockfile){};
	if (length > PADDOCKFILE_MAX)
		rc = refuse(&parser, "it is larger than %u bytes", PADDOCKFILE_MAX);
	else if (strlen(copy) != length)
		rc = refuse(&parser, "it is no text");
	if (rc >= 0)
		rc = take_lines(&parser, copy);
	if (rc >= 0 && !ret->from) {
		parser.line = 1;
		rc = refuse(&parser, "there is no FROM");
	}
	if (rc >= 0)
		compose(&parser);
	words_clear(&parser.entrypoint);
	words_clear(&parser.command);
	if (rc < 0)
		paddockfile_clear(ret);
	return rc;
}

void paddockfile_clear(struct paddockfile *file)
{
	for (size_t i = 0; i < file->n_steps; i++) {
		struct paddockfile_step *step = &file->steps[i];

		for (size_t j = 0; j < step->n_args; j++)
			free(step->args[j]);
		free(step->args);
		free(step->owner);
		free(step->mode);
	}
	free(file->from);
	free(file->start_command);
	*file = (struct paddockfile){};
}
