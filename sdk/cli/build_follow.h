#ifndef PADDOCK_CLI_BUILD_FOLLOW_H
#define PADDOCK_CLI_BUILD_FOLLOW_H

#include "cli.h"
#include "paddockfile.h"
#include <stdio.h>

/* A build, from the side of whoever waits for it: its log as it comes, until it has ended. */

struct build_follow {
	struct cli *cli;
	const char *id;
	const struct paddockfile *file; /* NULL: it is not known what it does */
	FILE *out;                      /* of the log; NULL: nowhere */
	bool json;                      /* an entry is a line of JSON */
	bool once;                      /* what there is now, without waiting for its end */
	/* Is it to be stopped? Looked at 10 times a second. NULL: never. The build is stopped then, and followed to its
	 * end. */
	bool (*is_unwanted)(void);
	uint64_t offset; /* entries that were shown */
	bool stopped;
};

/* 0 with the build as it is then, without its log. */
int build_follow(struct build_follow *follow, Paddock__V1__TemplateBuild **ret_build);
/* Stop it; what comes of that does not matter. */
void build_stop(struct cli *cli, const char *id);
const char *build_state_name(Paddock__V1__TemplateBuildState state);

#endif
