#ifndef PADDOCK_BENCH_MEMORY_H
#define PADDOCK_BENCH_MEMORY_H

#include "measure.h"

/* Bytes that are in use, after caches were dropped until it stood still. */
struct memory {
	double kernel;    /* objects of the kernel, and tmpfs, of the whole host */
	double processes; /* anonymous memory of paddockd, the warden and all processes below it */
	double not_free;  /* all that is in use and is not content of files, of the whole host */
};

void memory_look(const struct bench_options *options, struct memory *ret);

#endif
