#ifndef PADDOCK_CLI_PADDOCKFILE_H
#define PADDOCK_CLI_PADDOCKFILE_H

#include <paddock/error.h>
#include <stddef.h>

/*
 * What a template is built from: a text in the form of a Dockerfile, and of that the part that a build here can do. All
 * else that a Dockerfile may say is refused by its name and line; nothing is left out in silence.
 */

#define PADDOCKFILE_MAX (1u << 20)
#define PADDOCKFILE_STEPS_MAX 128 /* of the contract */

struct paddockfile_step {
	const char *type; /* RUN, COPY, ENV, WORKDIR, USER */
	unsigned int line;
	char **args; /* as the contract's, but COPY: sources, then the target */
	size_t n_args;
	char *owner, *mode; /* COPY; NULL: not said */
};

struct paddockfile {
	char *from;
	struct paddockfile_step steps[PADDOCKFILE_STEPS_MAX];
	size_t n_steps;
	char *start_command; /* NULL: none */
	unsigned int start_line;
};

/* `name` is for texts of errors: "Paddockfile:3: ...". -EINVAL. */
int paddockfile_parse(const char *text, size_t length, const char *name, struct paddockfile *ret,
		      struct pdk_error *err);
void paddockfile_clear(struct paddockfile *file);

#endif
