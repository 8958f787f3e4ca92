#ifndef PADDOCK_TESTS_BUILDS_FAKES_H
#define PADDOCK_TESTS_BUILDS_FAKES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Needs what stands above. */
#include <cmocka.h>

/* A clock that tests move, a worker whose jobs run when they say so, calls that remember their end, a data directory. */

extern uint64_t fake_now_ns;
/* Run what was submitted, and what that submits; how many jobs it was. */
unsigned int fake_work(void);

struct rpc_call;
struct rpc_call *fake_call(void);
void fake_call_free(struct rpc_call *call);
bool fake_call_failed(const struct rpc_call *call);
/* Its client goes away. */
void fake_call_cancel(struct rpc_call *call);

int fake_setup(void **state);
int fake_teardown(void **state);
/* Files in a folder of the data directory. */
unsigned int fake_files_in(const char *folder);
/* Of one of them. */
long fake_file_size(const char *folder, const char *name);
void fake_truncate(const char *folder, const char *name, long size);

#endif
