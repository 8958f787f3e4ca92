#include "build_context.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

/* .dockerignore: patterns, one a line, "#" comments, "!" exceptions; the last that matches counts. A pattern is of whole
 * paths from the folder on; "**" stands for any number of folders. What is below a name that matches is ignored, too. */

/* Up to the next '/', in place of which is a NUL; NULL: it was the last. */
static char *cut(char *text)
{
	char *slash = strchr(text, '/');

	if (!slash)
		return NULL;
	*slash = '\0';
	return slash + 1;
}

/* Does the pattern match the path or a folder above it? Both are taken apart in place, and put together again. */
static bool matches(char *pattern, char *path)
{
	char *next = cut(pattern), *rest = NULL;
	bool found;

	if (strcmp(pattern, "**") == 0) {
		found = !next;
		for (char *at = path; next && at && !found; at = strchr(at, '/') ? strchr(at, '/') + 1 : NULL)
			found = matches(next, at);
	} else {
		rest = cut(path);
		found = fnmatch(pattern, path, 0) == 0 && (!next || (rest && matches(next, rest)));
	}
	if (next)
		next[-1] = '/';
	if (rest)
		rest[-1] = '/';
	return found;
}

bool build_ignore_matches(const struct build_ignore *ignore, const char *path)
{
	char *copy = ignore->n ? strdup(path) : NULL;
	bool ignored = false;

	for (size_t i = 0; copy && i < ignore->n; i++)
		if (ignored == ignore->rules[i].keeps && matches(ignore->rules[i].pattern, copy))
			ignored = !ignored;
	free(copy);
	return ignored;
}

static void add(struct build_ignore *ignore, const char *line)
{
	bool keeps = *line == '!';
	char *pattern, *end;

	line += keeps;
	line += strspn(line, " \t");
	while (*line == '/' || strncmp(line, "./", 2) == 0)
		line += *line == '/' ? 1 : 2;
	pattern = strdup(line);
	if (!pattern)
		abort();
	for (end = pattern + strlen(pattern); end > pattern && strchr(" \t\r/", end[-1]); end--)
		end[-1] = '\0';
	if (!*pattern) {
		free(pattern);
		return;
	}
	ignore->rules = realloc(ignore->rules, (ignore->n + 1) * sizeof(*ignore->rules));
	if (!ignore->rules)
		abort();
	ignore->rules[ignore->n].pattern = pattern;
	ignore->rules[ignore->n++].keeps = keeps;
	ignore->may_keep |= keeps;
}

void build_ignore_parse(const char *text, struct build_ignore *ret)
{
	char *copy = strdup(text), *rest = copy, *line;

	*ret = (struct build_ignore){};
	if (!copy)
		abort();
	while ((line = strsep(&rest, "\n")))
		if (line[strspn(line, " \t")] != '#')
			add(ret, line + strspn(line, " \t"));
	free(copy);
}

void build_ignore_clear(struct build_ignore *ignore)
{
	for (size_t i = 0; i < ignore->n; i++)
		free(ignore->rules[i].pattern);
	free(ignore->rules);
	*ignore = (struct build_ignore){};
}
