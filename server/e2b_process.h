#ifndef PADDOCK_SERVER_E2B_PROCESS_H
#define PADDOCK_SERVER_E2B_PROCESS_H

#include <stdbool.h>

#include "e2b/process.pb-c.h"
#include "paddock/v1/processes.pb-c.h"
#include "rpc_local.h"

/*
 * What e2b_*.c share. A call of this contract is translated to one call of paddock.v1.Processes, or, where it
 * selects the process by pid or tag, to a List first, which finds the process_id. `inner` is the one under way.
 */

struct e2b_call {
	struct rpc_call *call;
	struct rpc_local *inner;
	char *sandbox_id;
	void *state;          /* of e2b_files.c and e2b_watch.c */
	const void *argument; /* what `found` needs of the request */
	const Process__ProcessSelector *selector;
	void (*found)(struct e2b_call *e2b);
	/* Of the process that was found. */
	uint64_t process_id;
	uint64_t from_sequence; /* behind what it had written */
};

/* In the call's arena, its user. NULL: the call has failed (no sandbox was named). */
struct e2b_call *e2b_begin(struct rpc_call *call);
void e2b_fail(struct e2b_call *e2b, enum pdk_code code, const char *text);
/* With the status of an inner call. That a sandbox ended is UNAVAILABLE in these contracts. */
void e2b_fail_with(struct e2b_call *e2b, const struct pdk_error *err);
/* It is about the sandbox as a whole, not about what was asked of it. */
bool e2b_is_about_sandbox(const struct pdk_error *err);
/* Make a call; RESOURCE_EXHAUSTED ends the outer one when there is no memory. */
void e2b_call_inner(struct e2b_call *e2b, const char *path, const ProtobufCMessage *request,
		    const struct rpc_local_events *events);
/* List, and go on with `found`; NOT_FOUND ends the call. */
void e2b_find(struct e2b_call *e2b, const Process__ProcessSelector *selector, void (*found)(struct e2b_call *e2b));

#endif
