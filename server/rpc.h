#ifndef PADDOCK_SERVER_RPC_H
#define PADDOCK_SERVER_RPC_H

#include "auth.h"
#include "sandbox/base/error.h"
#include "store.h"
#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The way of a call: table row -> completion queue -> unpack in the call's arena -> authenticate -> handler
 * -> rpc_finish*() (status, one log line, counters, audit).
 *
 * Handlers know nothing of gRPC: the same rows can be served over `link`. All functions and callbacks run
 * under the loop lock. A handler validates, starts work and returns; it ends the call later (or at once)
 * with exactly one rpc_finish*(). After that the call must not be touched, with one exception: between a
 * cancellation and the handler's rpc_finish*() the call stays valid, and sending on it is a no-op.
 */

struct rpc_call;

enum rpc_kind { RPC_UNARY, RPC_SERVER_STREAM, RPC_CLIENT_STREAM, RPC_BIDI };

/* How a call shows up in the audit log. */
enum rpc_audit {
	RPC_AUDIT_NONE,   /* health, reflection */
	RPC_AUDIT_READ,   /* recorded, not waited for */
	RPC_AUDIT_CHANGE, /* durable before it is acknowledged, but for rpc_finish_kept() */
};

struct rpc_method {
	const char *path; /* "/paddock.v1.Sandboxes/Create" */
	enum rpc_kind kind;
	enum rpc_audit audit;
	unsigned int scope;           /* enum auth_scope: any of these */
	uint32_t default_deadline_ms; /* when the client sends none; 0: unbounded */
	uint32_t max_request_bytes;   /* per message */
	const ProtobufCMessageDescriptor *request;
	const ProtobufCMessageDescriptor *response;
	bool link_only; /* for our own processes: over gRPC there is no such method */
	/* UNARY, SERVER_STREAM: `request` is the message, valid until the call is finished.
	 * CLIENT_STREAM, BIDI: `request` is NULL; messages come to call->on_message. */
	void (*start)(struct rpc_call *call, const ProtobufCMessage *request);
};

/* Every module registers its rows in rpc_table[] (server/table.c), the only list of methods. */
extern const struct rpc_method rpc_table[];
extern const size_t rpc_table_size;

struct rpc_events {
	/* Client-streaming: one message; valid until the callback returns. The next is read only after rpc_read(). */
	void (*on_message)(struct rpc_call *call, const ProtobufCMessage *message);
	/* Client-streaming: the client has sent everything. */
	void (*on_half_close)(struct rpc_call *call);
	/* Server-streaming: the message given to rpc_send() has left; the next may be sent. */
	void (*on_sent)(struct rpc_call *call);
	/* The client went away, the deadline passed, the key was revoked or the server stops. At most once, never
	 * after rpc_finish*(). The handler must still call rpc_finish*() (soon). NULL: finished automatically. */
	void (*on_cancel)(struct rpc_call *call, const struct pdk_error *why);
};

void rpc_set_events(struct rpc_call *call, const struct rpc_events *events, void *user);
void *rpc_user(const struct rpc_call *call);
const struct rpc_method *rpc_method(const struct rpc_call *call);
const struct principal *rpc_principal(const struct rpc_call *call);
/* The call needs something named `id` (at most SANDBOX_ID_LEN bytes) until it ends: `release` hears of that, on whichever
 * stack it happens, once. One for each call: false, it has one. */
bool rpc_hold(struct rpc_call *call, const char *id, void (*release)(const char *id));
/* For the contracts that name these beside the request: the sandbox ("e2b-sandbox-id"; NULL: none), and whom to act as
 * in it ("authorization: Basic"; "": not said). */
const char *rpc_sandbox_id(const struct rpc_call *call);
const char *rpc_client_user(const struct rpc_call *call);
/* A call with a signed file URL may touch that file alone; every other call may be asked too. */
bool rpc_is_signed_file(const struct rpc_call *call);
bool rpc_file_allowed(const struct rpc_call *call, const ProtobufCBinaryData *path, const char *user);
/* Whom the ingress makes the call for: "203.0.113.9:4711"; "": not known. Only characters of an address. */
const char *rpc_client_address(const struct rpc_call *call);
/* Absolute CLOCK_BOOTTIME deadline, 0 when there is none. */
uint64_t rpc_deadline_ns(const struct rpc_call *call);
/* True after a cancellation. */
bool rpc_is_cancelled(const struct rpc_call *call);

/* The call's bounded arena (protobuf-c allocator, freed with the call). rpc_alloc() is zeroed; NULL at the bound. */
ProtobufCAllocator *rpc_allocator(struct rpc_call *call);
void *rpc_alloc(struct rpc_call *call, size_t size);
struct arena *rpc_arena(struct rpc_call *call);
char *rpc_strdup(struct rpc_call *call, const char *text);

/* Ask for the next client message (CLIENT_STREAM, BIDI). One read is outstanding when `start` runs. */
void rpc_read(struct rpc_call *call);

/* Send one message of a stream. One at a time: wait for on_sent (rpc_can_send() is false until then).
 * The message is packed before returning. */
bool rpc_can_send(const struct rpc_call *call);
void rpc_send(struct rpc_call *call, const ProtobufCMessage *message);
/* Send a message whose last field is `bytes`: `head` is the packed rest, then field number `field`, then the
 * data, which is handed over without a copy and released with `release(arg)` on any thread when gRPC is done. */
void rpc_send_bytes(struct rpc_call *call, const void *head, size_t head_length, uint32_t field, const void *data,
		    size_t length, void (*release)(void *arg), void *arg);

/* What the audit record of this call names beside tenant, actor, method and outcome. Strings are copied and
 * cut to their limits. `detail` is a JSON object or NULL. */
void rpc_audit_object(struct rpc_call *call, const char *sandbox_id, const char *object);
void rpc_audit_detail(struct rpc_call *call, const char *json);

/* End the call with OK and (unary, client-stream; NULL for streams) its reply. For RPC_AUDIT_CHANGE rows the
 * audit record is made durable first; the reply leaves after it. The reply is packed before returning. */
void rpc_finish(struct rpc_call *call, const ProtobufCMessage *reply);
/* As rpc_finish(), and `batch` (consumed) is committed in the same transaction as the audit record.
 * A commit that fails ends the call with UNAVAILABLE. */
void rpc_finish_commit(struct rpc_call *call, struct store_batch *batch, const ProtobufCMessage *reply);
/* The same for a change of which store_commit_kept() speaks: the reply does not wait for the store. */
void rpc_finish_kept(struct rpc_call *call, struct store_batch *batch, const ProtobufCMessage *reply);
/* As rpc_finish() of a unary call over link, with a descriptor beside the reply (taken over). */
void rpc_finish_fd(struct rpc_call *call, const ProtobufCMessage *reply, int fd);
/* End the call with an error. err->text goes to the client as it is. */
void rpc_fail(struct rpc_call *call, const struct pdk_error *err);
/* For streams that acknowledge early (Start): commit `batch` and this call's audit record now; `done` runs when
 * durable (rc 0) or failed. rpc_finish() then adds no second record. The call stays alive until `done` ran. */
void rpc_commit(struct rpc_call *call, struct store_batch *batch, void (*done)(struct rpc_call *call, int rc));

/* For a handler that has done nothing yet and cannot: let the call wait, with events of whoever parks it. What the handler
 * says by rpc_fail() meanwhile is not heard. A client that streams cannot wait. */
bool rpc_can_park(const struct rpc_call *call);
void rpc_park(struct rpc_call *call);
/* Give it to its handler anew. */
void rpc_unpark(struct rpc_call *call);
/* End it after all. */
void rpc_unpark_fail(struct rpc_call *call, const struct pdk_error *err);

/* End every call of a key with UNAUTHENTICATED (revocation), or every call that named a sandbox in
 * rpc_audit_object() with `err`. */
void rpc_cancel_key(const char *key_id);
void rpc_cancel_sandbox(const char *sandbox_id, const struct pdk_error *err);

struct config;
/* Check the table against the descriptors, then bind all listeners. Before loop_run(). */
int rpc_start(const struct config *config, struct pdk_error *err);
/* Stop accepting, cancel what does not end within `grace_ms`, wait. Called without the lock. */
void rpc_stop(uint32_t grace_ms);

#endif
