#ifndef PADDOCK_CLI_RECIPE_FILES_H
#define PADDOCK_CLI_RECIPE_FILES_H

#include <stddef.h>

/* Files of sandbox/interpreter/, made part of the command by recipe_files.cmake. */

struct recipe_file {
	const char *name;   /* NULL: the end of the list */
	const char *folder; /* where it belongs in an image */
	unsigned int mode;
	const unsigned char *bytes;
	size_t length;
};

extern const struct recipe_file recipe_interpreter_files[];

#endif
