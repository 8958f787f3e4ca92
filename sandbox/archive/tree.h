#ifndef PADDOCK_ARCHIVE_TREE_H
#define PADDOCK_ARCHIVE_TREE_H

#include <stddef.h>
#include <sys/stat.h>

/*
 * Walk a tree in a fixed order: a directory, then its content sorted by bytes. Links are not followed. The tree
 * may change meanwhile: what is gone is left out.
 */

struct tree_entry {
	const char *path; /* relative to what is walked, behind the prefix */
	int dir;
	const char *name; /* in dir */
	const struct stat *st;
};

/* Not 0 ends the walk with that value; TREE_SKIP leaves out what is below a directory. */
#define TREE_SKIP (-1)
typedef int (*tree_visitor)(const struct tree_entry *entry, void *arg);

/* Visit `name` in `dir` as `path`, and everything below it. -1 with errno: it cannot be read. */
int tree_walk(int dir, const char *name, const char *path, tree_visitor visit, void *arg);

#endif
