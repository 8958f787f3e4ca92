#ifndef PADDOCK_BENCH_MEASURE_H
#define PADDOCK_BENCH_MEASURE_H

#include "client.h"
#include "sample.h"
#include <sys/types.h>

/*
 * The parts of the benchmark. Each measures Paddock and its floor in turns, so that the ratio holds where absolute
 * numbers drift, and prints one line of the table for each: what, Paddock's number, the other's number, the ratio, the
 * aim.
 */

struct bench_options {
	int rounds;          /* of everything that is short */
	int live;            /* sandboxes that are alive at once at the end; below 8: that part is left out */
	const char *only;    /* lives, commands, streams, checkpoints (or freezes, pauses, heaps, copies of them) or many; NULL: all */
	const char *bundle;  /* of crun, with /bin/true; NULL: no such line */
	const char *running; /* name of a container that crun runs; NULL: no such line */
	const char *criu;    /* the program, or where it was unpacked; NULL: no such lines */
	const char *work;    /* a folder for it */
	const char *runc;    /* name of a container that runc runs, out of the folder "bundle" of `work`; NULL: no such
				lines */
	const char *curve;   /* file for the picture's numbers; NULL: none */
	pid_t paddockd;      /* whose memory is looked at; 0: no such line */
	pid_t warden;        /* the same, with all below it */
};

void bench_row(const char *what, double ours, double theirs, const char *unit, const char *aim);

/* life.c: create, run, destroy */
void bench_lives(struct paddock_client *client, const struct bench_options *options);
/* exec.c: a command in a running sandbox, one unary call */
void bench_commands(struct paddock_client *client, const struct bench_options *options);
/* stream.c: bytes out of and into a sandbox */
void bench_streams(struct paddock_client *client, const struct bench_options *options);
/* checkpoint.c: pause, resume, snapshot, fork */
void bench_checkpoints(struct paddock_client *client, const struct bench_options *options);
void bench_lazy(struct paddock_client *client);
/* live.c: many idle sandboxes */
void bench_many(struct paddock_client *client, const struct bench_options *options);

/* What a process has in memory now. */
double bench_resident_mb(pid_t pid);

extern char *const bench_true_argv[];

#endif
