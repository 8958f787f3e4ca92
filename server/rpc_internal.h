#ifndef PADDOCK_SERVER_RPC_INTERNAL_H
#define PADDOCK_SERVER_RPC_INTERNAL_H

#include <grpc/grpc.h>
#include <stdlib.h>

#include "arena.h"
#include "loop.h"
#include "rpc.h"
#include "sandbox/base/id.h"

/*
 * The engine behind rpc.h, for rpc*.c and listen.c only.
 *
 * Theory of operation. Each listener keeps RPC_SLOTS empty calls requested from gRPC. An arrival comes out of the
 * completion queue, is matched with its row, authenticated and admitted, and then has at most one operation of
 * each kind under way: `close` (ends last, always), `read`, `send`. What is under way is counted in `pending`.
 *
 * gRPC is never entered with the loop lock held: an operation is prepared under the lock and started by a
 * loop_task right after it is released. So I/O runs in parallel, and the release function of a zero-copy
 * message may take the lock. Until the turn ends a prepared send can still be extended, which is how the last
 * message and the status travel together.
 *
 * The ways of a call:
 *
 *	ARRIVED --refused--------------------------------------.
 *	   | admitted                                           v
 *	RUNNING --rpc_finish*()--> FINISHED --audit durable--> ENDED --all operations back--> freed
 *	   |                          ^
 *	   `--cancelled (flag)--------' by the handler, after on_cancel
 */

/* A call goes from thread to thread through gRPC, which ThreadSanitizer cannot see: tell it. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RPC_TSAN 1
#endif
#elif defined(__SANITIZE_THREAD__)
#define RPC_TSAN 1
#endif
#ifdef RPC_TSAN
void __tsan_acquire(void *address);
void __tsan_release(void *address);
#define RPC_HAND_OVER(tag) __tsan_release((void *)(uintptr_t)(tag))
#define RPC_TAKE_OVER(tag) __tsan_acquire((void *)(uintptr_t)(tag))
#else
#define RPC_HAND_OVER(tag) ((void)0)
#define RPC_TAKE_OVER(tag) ((void)0)
#endif

/* For mistakes of handlers that would otherwise end in freed memory; stays in every build. */
#define RPC_MUST(condition)                                                                                            \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			abort();                                                                                       \
	} while (0)

#define RPC_SLOTS 32
#define RPC_CALLS_MAX 16384
#define RPC_METADATA_MAX (16u << 10)

struct rpc_listener {
	grpc_server *server;
	grpc_completion_queue *queue;
	bool trusted; /* the admin socket: no key means the operator */
};

enum rpc_state {
	RPC_ARRIVED,  /* not yet given to its handler; method may be NULL */
	RPC_RUNNING,  /* the handler has it */
	RPC_FINISHED, /* rpc_finish*() was called; the commit may still run */
	RPC_ENDED,    /* the status is on its way, or the peer is gone */
};

enum rpc_operation { RPC_OP_ARRIVAL, RPC_OP_CLOSE, RPC_OP_READ, RPC_OP_SEND, RPC_OP_COUNT };

struct rpc_tag {
	struct rpc_call *call;
	enum rpc_operation operation;
};

struct rpc_send { /* the one send operation that is prepared or under way */
	struct loop_task task;
	uint64_t turn; /* loop_turn() in which it was prepared */
	grpc_op ops[3];
	unsigned int n_ops;
	grpc_byte_buffer *message;
	grpc_slice details;
	bool has_status;
};

struct rpc_call {
	struct rpc_call *previous, *next; /* all calls from arrival to RPC_ENDED and drained */
	struct rpc_listener *listener;
	bool listed;
	bool slot_lost; /* no memory for the next empty call: request one when this is freed */

	/* gRPC's */
	grpc_call *grpc;
	grpc_call_details details;
	grpc_metadata_array metadata;
	struct rpc_tag tags[RPC_OP_COUNT];
	unsigned int pending; /* operations under way, commits included */
	struct loop_task close_task, read_task, cancel_task, free_task;
	grpc_op close_op, read_op;
	int close_cancelled;
	grpc_byte_buffer *read_buffer;
	struct rpc_send send;

	/* ours */
	const struct rpc_method *method;
	struct principal principal;
	enum rpc_state state;
	bool cancelled; /* `why` says how */
	bool closed;    /* the stream is gone: nothing can be sent any more */
	bool reading, sending;
	bool headers_sent;
	bool recorded; /* the audit record was given to the store */
	struct pdk_error why;
	struct pdk_error end;    /* the status, once finished */
	grpc_byte_buffer *reply; /* leaves with the status */
	bool status_waits;       /* ended while a message was being sent */

	struct rpc_events events;
	void *user;
	struct arena arena;         /* the request of a unary call, and what handlers allocate */
	struct arena message_arena; /* the message of on_message */
	uint64_t arrived_ns;
	uint64_t deadline_ns;
	struct loop_timer timer; /* the deadline; after the end, the patience with the peer */

	char audit_sandbox[SANDBOX_ID_SIZE];
	char *audit_object;
	char *audit_detail;
};

/* rpc.c: the way in */
struct rpc_call *rpc_call_create(struct rpc_listener *listener);
/* Ask gRPC for the next call of the listener. Without the lock. */
void rpc_call_request(struct rpc_call *call);
/* One event of the completion queue. Without the lock. */
void rpc_event(const struct rpc_tag *tag, bool success);
/* Tell a running call that it is over; the first reason counts. */
void rpc_cancel(struct rpc_call *call, const struct pdk_error *why);
/* Let go of a call that has ended, when nothing of it is under way. */
void rpc_call_settle(struct rpc_call *call);
/* End everything that still runs. */
void rpc_cancel_all(const struct pdk_error *why);
unsigned int rpc_active(void);

/* rpc_auth.c: who calls, and may they */
int rpc_admit(struct rpc_call *call, struct pdk_error *err);

/* rpc_send.c: the way out */
void rpc_prepare_close(struct rpc_call *call);
void rpc_prepare_read(struct rpc_call *call);
void rpc_sent(struct rpc_call *call, bool success);
/* Send call->end and call->reply, or wait until the message under way has left. */
void rpc_send_status(struct rpc_call *call);
grpc_byte_buffer *rpc_pack(const ProtobufCMessage *message);

/* rpc_finish.c */
/* End a call that has no handler (refused, unknown): like rpc_fail(). */
void rpc_refuse(struct rpc_call *call, const struct pdk_error *err);

/* rpc_check.c: the table against the descriptors, and the look-up. */
int rpc_table_check(const uint8_t *set, size_t length, struct pdk_error *err);
int rpc_table_index(struct pdk_error *err);
const struct rpc_method *rpc_table_find(const char *path, size_t length);

/* rpc_descriptors.c: the serialized FileDescriptorSet of everything that is served. */
extern const uint8_t *const rpc_descriptor_set;
extern const size_t rpc_descriptor_set_size;

#endif
