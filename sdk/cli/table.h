#ifndef PADDOCK_CLI_TABLE_H
#define PADDOCK_CLI_TABLE_H

#include <stdbool.h>
#include <stddef.h>

/* Text tables: columns as wide as their widest cell, numbers to the right. */

struct table;

/* `heads`: column titles, NULL behind the last; a title that starts with '>' is set to the right. */
struct table *table_create(const char *const heads[], bool color);
/* Add a cell; a copy is made, and made safe for a terminal. After the last column a new row begins. */
void table_add(struct table *table, const char *text);
void table_add_bytes(struct table *table, const void *bytes, size_t length);
void table_addf(struct table *table, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Print to stdout and free. */
void table_print(struct table *table);

/* "name:   value" lines. */
void field_print(bool color, const char *name, const char *value);

#endif
