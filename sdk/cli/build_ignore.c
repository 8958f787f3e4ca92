#include "build_context.h"

#include "sandbox/base/cleanup.h"
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

/* .dockerignore: patterns, one a line, "#" comments, "!" exceptions; the last that matches counts. A pattern is of whole
 * paths from the folder on; "**" stands for any number of folders. What is below a name that matches is ignored, too. */

static struct build_ignore_parts split(const char *text)
{
	struct build_ignore_parts parts = {.text = strdup(text)};
	char *rest = parts.text, *part;

	parts.item = parts.text ? malloc((strlen(text) / 2 + 2) * sizeof(char *)) : NULL;
	if (!parts.item)
		abort();
	while ((part = strsep(&rest, "/")))
		if (*part)
			parts.item[parts.n++] = part;
	return parts;
}

static void parts_clear(struct build_ignore_parts *parts)
{
	free(parts->text);
	free(parts->item);
}

/* Does the pattern match the path or a folder above it? `row[j]`: what is left of the pattern matches so what is left of
 * the path from part j on; so that many "**" cost no more than a few. */
static bool matches(const struct build_ignore_parts *pattern, const struct build_ignore_parts *path)
{
	bool *row = malloc(path->n + 1), found;

	if (!row)
		abort();
	memset(row, true, path->n + 1);
	for (size_t i = pattern->n; i-- > 0;) {
		if (strcmp(pattern->item[i], "**") != 0) {
			for (size_t j = 0; j < path->n; j++)
				row[j] = row[j + 1] && fnmatch(pattern->item[i], path->item[j], 0) == 0;
			row[path->n] = false;
		} else if (i + 1 == pattern->n) {
			row[path->n] = false; /* what is below, not the folder itself */
		} else {
			for (size_t j = path->n; j-- > 0;)
				row[j] |= row[j + 1];
		}
	}
	found = row[0];
	free(row);
	return found;
}

bool build_ignore_matches(const struct build_ignore *ignore, const char *path)
{
	struct build_ignore_parts parts;
	bool ignored = false;

	if (!ignore->n)
		return false;
	parts = split(path);
	for (size_t i = 0; i < ignore->n; i++)
		if (ignored == ignore->rules[i].keeps && matches(&ignore->rules[i].pattern, &parts))
			ignored = !ignored;
	parts_clear(&parts);
	return ignored;
}

static void add(struct build_ignore *ignore, const char *line)
{
	struct build_ignore_rule rule = {.keeps = *line == '!'};
	_cleanup_free_ char *text = NULL;
	char *end;

	line += rule.keeps;
	line += strspn(line, " \t");
	while (strncmp(line, "./", 2) == 0)
		line += 2;
	text = strdup(line);
	if (!text)
		abort();
	for (end = text + strlen(text); end > text && strchr(" \t\r", end[-1]); end--)
		end[-1] = '\0';
	rule.pattern = split(text);
	if (!rule.pattern.n) {
		parts_clear(&rule.pattern);
		return;
	}
	ignore->rules = realloc(ignore->rules, (ignore->n + 1) * sizeof(*ignore->rules));
	if (!ignore->rules)
		abort();
	ignore->rules[ignore->n++] = rule;
	ignore->may_keep |= rule.keeps;
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
		parts_clear(&ignore->rules[i].pattern);
	free(ignore->rules);
	*ignore = (struct build_ignore){};
}
