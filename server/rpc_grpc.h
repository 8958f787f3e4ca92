#ifndef PADDOCK_SERVER_RPC_GRPC_H
#define PADDOCK_SERVER_RPC_GRPC_H

#include <grpc/grpc.h>

#include "rpc_internal.h"

/*
 * Calls over gRPC, for rpc_grpc*.c and listen.c only.
 *
 * Each listener keeps RPC_SLOTS empty calls requested from gRPC. An arrival comes out of the completion queue, and has
 * then at most one operation of each kind under way: `close` (ends last, always), `read`, `send`.
 *
 * gRPC is never entered with the loop lock held: an operation is prepared under the lock and started by a
 * loop_task right after it is released. So I/O runs in parallel, and the release function of a zero-copy
 * message may take the lock. Until the turn ends a prepared send can still be extended, which is how the last
 * message and the status travel together.
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

#define RPC_SLOTS 32
#define RPC_METADATA_MAX (16u << 10)
#define RPC_AUTHORIZATION_MAX 255

struct rpc_listener {
	grpc_server *server;
	grpc_completion_queue *queue;
	bool trusted; /* the admin socket: no key means the operator */
};

enum rpc_operation { RPC_OP_ARRIVAL, RPC_OP_CLOSE, RPC_OP_READ, RPC_OP_SEND, RPC_OP_COUNT };

struct rpc_tag {
	struct rpc_grpc_call *call;
	enum rpc_operation operation;
};

struct rpc_grpc_send { /* the one send operation that is prepared or under way */
	struct loop_task task;
	uint64_t turn; /* loop_turn() in which it was prepared */
	grpc_op ops[3];
	unsigned int n_ops;
	grpc_byte_buffer *message;
	grpc_slice details;
};

struct rpc_grpc_call {
	struct rpc_call call;
	struct rpc_listener *listener;
	bool slot_lost; /* no memory for the next empty call: request one when this is freed */
	bool headers_sent;
	bool status_waits; /* ended while a message was being sent */

	grpc_call *grpc;
	grpc_call_details details;
	grpc_metadata_array metadata;
	struct rpc_tag tags[RPC_OP_COUNT];
	struct loop_task close_task, read_task, cancel_task;
	grpc_op close_op, read_op;
	int close_cancelled;
	grpc_byte_buffer *read_buffer;
	struct rpc_grpc_send send;
};

static inline struct rpc_grpc_call *rpc_grpc_of(struct rpc_call *call)
{
	return (struct rpc_grpc_call *)call;
}

/* rpc_grpc.c: the way in */
struct rpc_grpc_call *rpc_grpc_create(struct rpc_listener *listener);
/* Ask gRPC for the next call of the listener. Without the lock. */
void rpc_grpc_request(struct rpc_grpc_call *call);
/* One event of the completion queue. Without the lock. */
void rpc_grpc_event(const struct rpc_tag *tag, bool success);

/* rpc_grpc_send.c: the way out */
void rpc_grpc_prepare_close(struct rpc_grpc_call *call);
void rpc_grpc_prepare_read(struct rpc_call *call);
void *rpc_grpc_pack(const ProtobufCMessage *message);
void *rpc_grpc_pack_bytes(const void *head, size_t head_length, uint32_t field, const void *data, size_t length,
			  void (*release)(void *arg), void *arg);
void rpc_grpc_drop(void *packed);
void rpc_grpc_send(struct rpc_call *call, void *packed);
void rpc_grpc_end(struct rpc_call *call);
void rpc_grpc_sent(struct rpc_grpc_call *call, bool success);

#endif
