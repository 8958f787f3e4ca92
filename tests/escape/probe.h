#ifndef PADDOCK_TESTS_ESCAPE_PROBE_H
#define PADDOCK_TESTS_ESCAPE_PROBE_H

#include <stdbool.h>
#include <stdint.h>

/*
 * The probe runs inside a sandbox (and, as a control, outside with --outside) and prints one line per check:
 *
 *	ok ID what: ERRNO	refused as it must be, or allowed as it must be
 *	FAIL ID what: ERRNO	...
 *	saw ID what: ERRNO	outside: what the same call gives where nothing confines it
 *
 * ID is an entry of the security catalogue. run.py gathers the lines of an id.
 */

extern bool outside;

/* The call failed with one of `errnos` (ended by 0). rc and errno are taken as the call left them. */
void expect_refused(const char *id, const char *what, long rc, const int *errnos);
/* The control: the call worked. */
void expect_allowed(const char *id, const char *what, long rc);
void expect_true(const char *id, const char *what, bool truth, const char *why);

#define REFUSED(id, what, call, ...) expect_refused(id, what, (long)(call), (const int[]){__VA_ARGS__, 0})

/* Run `body` in a child. -> its exit status, or 256 + signal. */
int in_child(int (*body)(void *arg), void *arg);

void probe_syscalls(void);
void probe_sockets(void);
void probe_task(void);
void probe_peers(void);
void probe_terminal(void);
void probe_files(void);
void probe_descriptors(void);
void probe_network(void);
void probe_limits(void);

void fuzz_calls(unsigned int seconds, uint64_t seed);

#endif
