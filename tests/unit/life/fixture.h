#ifndef PADDOCK_TESTS_LIFE_FIXTURE_H
#define PADDOCK_TESTS_LIFE_FIXTURE_H

#include "fake_warden.h"
#include "fakes.h"
#include "paddock/v1/sandboxes.pb-c.h"
#include "paddock/v1/templates.pb-c.h"

#define BASE_ID "t0123456789012345678901234567890123456789"

/* Group set-up and tear-down of a test: a fresh warden and store with the public template "base", no pool. */
int life_setup(void **state);
int life_teardown(void **state);
/* Only the server's side goes and comes, as after a crash. `between` runs while it is away. */
void life_restart(void (*between)(void));
/* For a store that was prepared before: start the server's side. */
void life_start(void);
void life_stop(void);
void life_add_base_record(void);

/* Calls, started. */
struct rpc_call *life_create(const char *tenant);
struct rpc_call *life_create_with(const char *tenant, const Paddock__V1__CreateSandboxRequest *request);
struct rpc_call *life_kill(const char *tenant, const char *id);
struct rpc_call *life_set_timeout(const char *tenant, const char *id, uint64_t timeout_ms);
struct rpc_call *life_pause(const char *tenant, const char *id);
struct rpc_call *life_resume(const char *tenant, const char *id, uint64_t timeout_ms);
struct rpc_call *life_reset(const char *tenant, const char *id);
struct rpc_call *life_get(const char *tenant, const char *id);
struct rpc_call *life_list(const char *tenant, const Paddock__V1__ListSandboxesRequest *request);
struct rpc_call *life_watch(const char *tenant, const char *id, uint64_t after);

/* Wait for the end, check the code, and free the call. */
Paddock__V1__Sandbox *life_sandbox(struct rpc_call *call); /* OK and its reply; free with life_free() */
void life_free(Paddock__V1__Sandbox *sandbox);
void life_expect(struct rpc_call *call, enum pdk_code code, const char *text_start);
/* Create as tenant "a" and give the id. */
void life_make(char id[32]);
Paddock__V1__SandboxState life_state(const char *tenant, const char *id);

#endif
