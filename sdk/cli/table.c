#include "table.h"

#include "format.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

struct table {
	const char *const *heads;
	size_t columns;
	bool color;
	char **cells;
	size_t count;
	size_t room;
};

struct table *table_create(const char *const heads[], bool color)
{
	struct table *table = calloc(1, sizeof(*table));

	if (!table)
		abort();
	table->heads = heads;
	table->color = color;
	while (heads[table->columns])
		table->columns++;
	return table;
}

void table_add_bytes(struct table *table, const void *bytes, size_t length)
{
	if (table->count == table->room) {
		table->room = table->room ? table->room * 2 : 64;
		table->cells = realloc(table->cells, table->room * sizeof(*table->cells));
		if (!table->cells)
			abort();
	}
	table->cells[table->count++] = length ? text_safe(bytes, length) : text_safe("-", 1);
}

void table_add(struct table *table, const char *text)
{
	table_add_bytes(table, text, strlen(text));
}

void table_addf(struct table *table, const char *fmt, ...)
{
	char text[1024];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	table_add(table, text);
}

/* Characters, not bytes; wide ones count as the terminal shows them. */
static size_t text_width(const char *text)
{
	mbstate_t state = {0};
	size_t width = 0;

	while (*text) {
		wchar_t c;
		size_t n = mbrtowc(&c, text, 8, &state);

		if (n == 0 || n > 8)
			return width + strlen(text);
		width += wcwidth(c) > 0 ? (size_t)wcwidth(c) : 0;
		text += n;
	}
	return width;
}

static const char *table_cell(const struct table *table, size_t row, size_t column)
{
	size_t i = row * table->columns + column;

	return i < table->count ? table->cells[i] : "";
}

static void table_print_cell(const char *text, size_t width, bool right, bool last)
{
	size_t blank = width - text_width(text);

	if (right)
		printf("%*s%s", (int)blank, "", text);
	else if (last)
		fputs(text, stdout);
	else
		printf("%s%*s", text, (int)blank, "");
	fputs(last ? "\n" : "   ", stdout);
}

void table_print(struct table *table)
{
	size_t rows = (table->count + table->columns - 1) / table->columns;
	size_t widths[32] = {0};
	size_t row, column;

	for (column = 0; column < table->columns && column < 32; column++) {
		const char *head = table->heads[column];

		widths[column] = strlen(head) - (*head == '>');
		for (row = 0; row < rows; row++) {
			size_t width = text_width(table_cell(table, row, column));

			widths[column] = width > widths[column] ? width : widths[column];
		}
	}
	fputs(table->color ? "\033[1m" : "", stdout);
	for (column = 0; column < table->columns; column++) {
		const char *head = table->heads[column];

		table_print_cell(head + (*head == '>'), widths[column], *head == '>', column + 1 == table->columns);
	}
	fputs(table->color ? "\033[0m" : "", stdout);
	for (row = 0; row < rows; row++)
		for (column = 0; column < table->columns; column++)
			table_print_cell(table_cell(table, row, column), widths[column], *table->heads[column] == '>',
					 column + 1 == table->columns);
	for (row = 0; row < table->count; row++)
		free(table->cells[row]);
	free(table->cells);
	free(table);
}

void field_print(bool color, const char *name, const char *value)
{
	char *safe = text_safe(value, strlen(value));

	printf("%s%s:%s%*s %s\n", color ? "\033[1m" : "", name, color ? "\033[0m" : "",
	       strlen(name) < 14 ? (int)(14 - strlen(name)) : 0, "", *safe ? safe : "-");
	free(safe);
}
