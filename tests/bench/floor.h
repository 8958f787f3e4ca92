#ifndef PADDOCK_BENCH_FLOOR_H
#define PADDOCK_BENCH_FLOOR_H

#include "sample.h"

/* What this machine can do without Paddock, measured between Paddock's own measurements. */

/* Spawn a program, wait for its end, with its stdout on /dev/null: one timing. Returns its exit code. */
int floor_spawn(struct sample *sample, char *const *argv);

/* MB/s of: a program writes to a pipe (of 1 MB, as Paddock's are), a relay reads it and writes it to a unix socket,
 * this process reads until the end. */
double floor_pipe_relay_socket(char *const *argv);

/* MB/s of: a process writes zeros to a unix socket, this one reads them and writes them to a new file. */
double floor_socket_file(const char *path, uint64_t bytes);
/* MB/s of: a process reads a file and writes it to a unix socket, this one reads it. */
double floor_file_socket(const char *path);

#endif
