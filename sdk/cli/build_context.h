#ifndef PADDOCK_CLI_BUILD_CONTEXT_H
#define PADDOCK_CLI_BUILD_CONTEXT_H

#include "archive.h"
#include <paddock/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * The folder of a build: what COPY takes, and nothing outside of it. A folder may come from somebody else, so no name in
 * it and no symbolic link leads out; links are sent as links. What .dockerignore names is not there.
 */

struct build_context;

/* NULL with err set. */
struct build_context *build_context_open(const char *folder, struct pdk_error *err);
/* NULL is fine. */
void build_context_close(struct build_context *context);
/* A file of it, as it is; at most `max` bytes. Allocated, with a NUL behind. -ENOENT. */
int build_context_read(const struct build_context *context, const char *path, size_t max, char **ret,
		       size_t *ret_length, struct pdk_error *err);

struct build_tree_entry {
	char *name; /* in the tar */
	char *path; /* in the folder */
	char *link; /* NULL: it is none */
	mode_t mode;
	uint64_t bytes;
	size_t order; /* among those of one name */
};

/* What one COPY sends. */
struct build_tree {
	char source[256]; /* COPY's first argument: a file, or the folder that holds all */
	char hash[65];    /* of names, modes and contents, so equal trees are sent once */
	struct build_tree_entry *entries;
	size_t n;
	uint64_t bytes;
};

/* Sources are paths with wildcards. Several, a wildcard and a folder need a target that is a folder (`to_folder`). */
int build_context_collect(const struct build_context *context, char *const *sources, size_t n, bool to_folder,
			  struct build_tree *ret, struct pdk_error *err);
/* As a tar. -ESTALE: it is not what the hash says any more. */
int build_context_pack(const struct build_context *context, const struct build_tree *tree, archive_sink sink, void *arg,
		       struct pdk_error *err);
void build_tree_clear(struct build_tree *tree);

/* --- build_ignore.c --- */

struct build_ignore {
	struct build_ignore_rule {
		struct build_ignore_parts {
			char *text;
			char **item; /* between slashes */
			size_t n;
		} pattern;
		bool keeps; /* "!": what it names is there after all */
	} * rules;
	size_t n;
	bool may_keep;
};

void build_ignore_parse(const char *text, struct build_ignore *ret);
bool build_ignore_matches(const struct build_ignore *ignore, const char *path);
void build_ignore_clear(struct build_ignore *ignore);

#endif
