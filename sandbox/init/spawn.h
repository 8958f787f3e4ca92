#ifndef PADDOCK_INIT_SPAWN_H
#define PADDOCK_INIT_SPAWN_H

#include "sandbox/init/init.h"
#include <stdbool.h>
#include <stdint.h>

/*
 * Starting a program: init forks (or has forked, see spare.h), and the child takes every step that can fail or
 * block (reading /etc/passwd, entering the directory, finding the program) on its own side, as the user. It writes one
 * spawn_report for the directory it is in, and another one if something fails; the pipe closes on exec, so
 * its end is the news that the program runs. init never waits for the child: a hostile SIGSTOP in the
 * short time before the exec can stop the child, and only the child.
 */

enum spawn_stage {
	SPAWN_READY, /* cwd is set */
	SPAWN_IDENTITY,
	SPAWN_CWD,
	SPAWN_EXEC,
	SPAWN_SETUP,
};

struct spawn_report {
	enum spawn_stage stage;
	int error;       /* errno */
	char text[4080]; /* READY: the directory; else what could not be used */
};

struct spawn_plan {
	char *const *argv;
	char *const *sandbox_env; /* NULL-terminated, may be NULL */
	char *const *env;         /* over it */
	size_t n_env;
	const char *cwd; /* "" = the home */
	uid_t uid;
	int fds[3];
	bool terminal; /* fds[0] becomes the controlling terminal */
	bool bare_env; /* env is all there is, besides HOME and its like; for sudo */
	struct rlimit nofile;
};

/* What every child of init does first: default signals, and a target for the out-of-memory killer before init. */
void spawn_settle_child(void);

/* In a settled child that leads its own session: become the user and execute the program. */
void __attribute__((noreturn)) spawn_execute(const struct spawn_plan *plan, int report);

/* Returns the pid; *ret_report is the read end of the report pipe, non-blocking. */
int spawn(struct init *init, const struct spawn_plan *plan, int *ret_report);

/* Read what has come: 1 = the pipe ended, the child has executed the program or failed; 0 = not yet. `report`
 * is the last one that was sent; ready is set when the READY report came. */
int spawn_read_report(int fd, struct spawn_report *report, bool *ready);

/* Fill `err` from a report with an error. */
int spawn_explain(const struct spawn_report *report, struct pdk_error *err);

#endif
