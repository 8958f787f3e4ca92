#ifndef PADDOCK_CLI_RECIPE_H
#define PADDOCK_CLI_RECIPE_H

#include <paddock/error.h>
#include <stdbool.h>
#include <sys/types.h>

/* How a root file system is made of Debian packages: the argument list of mmdebstrap, and its run. */

#define RECIPE_DIGEST_SIZE 65
#define RECIPE_ARGS_MAX 96

struct recipe {
	const char *name;        /* "base" or "code-interpreter" */
	const char *suite;       /* NULL: bookworm */
	const char *mirror;      /* NULL: this machine's own apt sources, if they have the suite */
	const char *include[32]; /* further packages, each a comma-separated list */
	int n_include;
};

struct recipe_run {
	pid_t pid;
	int out; /* the tar stream */
	int log; /* what mmdebstrap says, in memory */
};

/* Build the argument list; strings are allocated. -EDOM: there is no such recipe, or a suite or package that cannot be
 * one. */
int recipe_args(const struct recipe *recipe, char *argv[RECIPE_ARGS_MAX], struct pdk_error *err);
void recipe_args_clear(char *argv[RECIPE_ARGS_MAX]);
/* The name of the template that a recipe makes when none is given. */
const char *recipe_template(const char *name);
/* SHA-256 of the argument list and of the apt sources that it names: the same digest, the same recipe. */
void recipe_digest(char *const argv[], char out[RECIPE_DIGEST_SIZE]);
/* Start it. -ENOENT: mmdebstrap is not installed. */
int recipe_start(char *const argv[], struct recipe_run *ret_run, struct pdk_error *err);
/* The last line of the log that tells of a step ("I: downloading packages with apt"), without its mark. */
void recipe_phase(const struct recipe_run *run, char *out, size_t size);
/* Wait for the end; when it failed and `err` is given, the last lines of the log are printed. */
int recipe_finish(struct recipe_run *run, struct pdk_error *err);

#endif
