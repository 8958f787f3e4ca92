#ifndef PADDOCK_SERVER_PROCESSES_H
#define PADDOCK_SERVER_PROCESSES_H

#include <stddef.h>
#include <stdint.h>

struct Paddock__Internal__StoredProcess;
struct guest;
struct process_list;
struct processes_ended;
struct store_batch;
struct rpc_call;
struct sandbox;
struct ProtobufCMessage;

/* Processes of sandboxes: handles, followers, kept output. See processes.c for the theory of operation. */

/* After a restart, once the link is up: take over what runs, load what ended from the store. `done` when finished. */
void processes_adopt(struct sandbox *sandbox, void (*done)(struct sandbox *sandbox, int rc));
/* The sandbox is ending: every running process gets its `exited` (sandbox_ended), followers are finished. */
void processes_end(struct sandbox *sandbox);
/* The server ends and the sandbox lives on: free what is known of its processes, nothing else. The link is gone. */
void processes_let_go(struct sandbox *sandbox);
/* Let go of all descriptors and streams of a sandbox that is about to be checkpointed; processes_adopt() takes them again.
 * -EAGAIN, and nothing was done: a process is starting, or its end is being stored; try again soon. */
int processes_suspend(struct sandbox *sandbox);
#define PROCESSES_RUNNING_MAX 1024u
/* Those that run, as records for a snapshot: each is allocated, also those before a failure. The number in `*ret_count`;
 * 0 or -ENOMEM. */
int processes_record(struct sandbox *sandbox, struct Paddock__Internal__StoredProcess *ret[PROCESSES_RUNNING_MAX],
		     size_t *ret_count);
/* A copy that holds these from its first moment: rows for the store, and memory. Their earlier output is not kept. */
int processes_inherit(struct sandbox *sandbox, struct Paddock__Internal__StoredProcess *const *records, size_t count,
		      struct store_batch *batch);
/* The sandbox becomes another one (a reset): from now on it has these records' processes, and `ret_old` is what it had.
 * The rows of both go into the batch. -ENOMEM: nothing was changed. */
int processes_replace(struct sandbox *sandbox, struct Paddock__Internal__StoredProcess *const *records, size_t count,
		      struct store_batch *batch, struct process_list **ret_old);
/* What runs of the old ones ends, and is told so by processes_told(), which says whether that is durable. Before the old
 * link is let go of. NULL: nobody is to be told. */
struct processes_ended *processes_end_old(struct process_list *old);
void processes_told(struct processes_ended *ended, int rc);
/* Retention is over: forget processes and remove kept output. */
void processes_forget(struct sandbox *sandbox);

/* End a process of init's that nobody knows, and have it forgotten. */
void process_kill_unwanted(struct guest *guest, uint64_t handle);

void processes_start(struct rpc_call *call, const struct ProtobufCMessage *request);
void processes_attach(struct rpc_call *call, const struct ProtobufCMessage *request);
void processes_interact(struct rpc_call *call, const struct ProtobufCMessage *request);
void processes_list(struct rpc_call *call, const struct ProtobufCMessage *request);
void processes_send_input(struct rpc_call *call, const struct ProtobufCMessage *request);
void processes_close_stdin(struct rpc_call *call, const struct ProtobufCMessage *request);
void processes_resize(struct rpc_call *call, const struct ProtobufCMessage *request);
void processes_signal(struct rpc_call *call, const struct ProtobufCMessage *request);
void processes_wait(struct rpc_call *call, const struct ProtobufCMessage *request);

#endif
