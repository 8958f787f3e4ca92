#ifndef PADDOCK_BENCH_FLOOR_H
#define PADDOCK_BENCH_FLOOR_H

#include "sample.h"

/* What this machine can do without Paddock, measured between Paddock's own measurements. */

/* Spawn a program, wait for its end, with its stdout on /dev/null: one timing. Returns its exit code. */
int floor_spawn(struct sample *sample, char *const *argv);

/* MB/s of: a process writes `bytes` to a pipe, a relay reads it and writes it to a unix socket, this process reads. */
double floor_pipe_relay_socket(uint64_t bytes);

/* MB/s of: a process reads a file and writes it to a unix socket, this process reads it (and writes it to `to`
 * when given). */
double floor_file_socket(const char *from, const char *to);

#endif
