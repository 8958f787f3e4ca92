#ifndef PADDOCK_BENCH_CLIENT_H
#define PADDOCK_BENCH_CLIENT_H

#include "paddock.h"
#include <stddef.h>
#include <stdint.h>

/* Paddock's calls as the benchmark needs them: any failure ends the program with its text. */

struct paddock_client *bench_connect(void);
/* Make a sandbox and give back its id (free it). */
char *bench_create(struct paddock_client *client);
/* As above, with limits that no pre-made sandbox has, so that it is made from nothing. */
char *bench_create_cold(struct paddock_client *client);
/* With this much memory. */
char *bench_create_sized(struct paddock_client *client, uint64_t memory_bytes);
void bench_kill(struct paddock_client *client, const char *id);
/* Start a command and leave its events to the caller. */
struct paddock_stream *bench_start(struct paddock_client *client, const char *id, char *const *argv, size_t n_argv);
/* Run a command to its end; the bytes of its output. */
uint64_t bench_exec(struct paddock_client *client, const char *id, char *const *argv, size_t n_argv);
void bench_true(struct paddock_client *client, const char *id);
/* MB/s of reading and writing one file. */
double bench_file_read(struct paddock_client *client, const char *id, const char *path);
double bench_file_write(struct paddock_client *client, const char *id, const char *path, uint64_t bytes);

#endif
