#ifndef PADDOCK_SERVER_RPC_INTERNAL_H
#define PADDOCK_SERVER_RPC_INTERNAL_H

#include <stdlib.h>

#include "arena.h"
#include "loop.h"
#include "rpc.h"
#include "sandbox/base/id.h"

/*
 * The engine behind rpc.h, for rpc*.c and listen.c only.
 *
 * Theory of operation. A transport (rpc_grpc.h, rpc_link.h) brings a call in with rpc_arrive(): it is matched with its
 * row, authenticated and admitted. From then on the engine asks the transport for at most one thing of each kind at a
 * time: the next message (`reading`), a message on its way out (`sending`), and in the end the status. What a transport
 * still has under way is counted in `pending`, and so are commits; the object goes when the call has ended and nothing
 * is pending.
 *
 * The ways of a call:
 *
 *	ARRIVED --refused--------------------------------------.
 *	   | admitted                                           v
 *	RUNNING --rpc_finish*()--> FINISHED --audit durable--> ENDED --all operations back--> freed
 *	   |                          ^
 *	   `--cancelled (flag)--------' by the handler, after on_cancel
 */

/* For mistakes of handlers that would otherwise end in freed memory; stays in every build. */
#define RPC_MUST(condition)                                                                                            \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			abort();                                                                                       \
	} while (0)

#define RPC_CALLS_MAX 16384

enum rpc_state {
	RPC_ARRIVED,  /* not yet given to its handler; method may be NULL */
	RPC_RUNNING,  /* the handler has it */
	RPC_FINISHED, /* rpc_finish*() was called; the commit may still run */
	RPC_ENDED,    /* the status is on its way, or the peer is gone */
};

/*
 * How calls travel. All of it under the lock but `release`. A packed message is the transport's own object: `send` and
 * `end` consume it, `drop` is for one that is not sent.
 */
struct rpc_transport {
	const char *name;
	/* Bring the next message to rpc_received(), later. `reading` is set. */
	void (*read)(struct rpc_call *call);
	/* NULL: no memory, or larger than what can travel. */
	void *(*pack)(const ProtobufCMessage *message);
	/* As rpc_send_bytes(). Takes care of `release` whatever it returns. */
	void *(*pack_bytes)(const void *head, size_t head_length, uint32_t field, const void *data, size_t length,
			    void (*release)(void *arg), void *arg);
	void (*drop)(void *packed);
	/* Send one message and come back with rpc_sent(), later. `sending` is set. NULL (it could not be packed):
	 * cancel the call, later. */
	void (*send)(struct rpc_call *call, void *packed);
	/* Send call->reply, if there is one, and call->end, as soon as what is on its way has left. Not called when
	 * the stream is `closed`. */
	void (*end)(struct rpc_call *call);
	/* The peer has not taken the status in its time: give up. */
	void (*reset)(struct rpc_call *call);
	/* Free the object. Without the lock. */
	void (*release)(struct rpc_call *call);
};

struct rpc_call { /* the first member of the transport's own struct */
	const struct rpc_transport *transport;
	struct rpc_call *previous, *next; /* all calls from arrival to RPC_ENDED and drained */
	bool listed;
	unsigned int pending; /* operations under way, commits included */
	struct loop_task free_task;

	const struct rpc_method *method;
	struct principal principal;
	enum rpc_state state;
	bool cancelled; /* `why` says how */
	bool closed;    /* the stream is gone: nothing can be sent any more */
	bool reading, sending;
	bool parked;                     /* rpc_park(): rpc_fail() says nothing */
	const ProtobufCMessage *request; /* UNARY, SERVER_STREAM: as given to its handler */
	bool recorded;                   /* the audit record was given to the store */
	struct pdk_error why;
	struct pdk_error end; /* the status, once finished */
	void *reply;          /* packed; leaves with the status */
	bool reply_lost;      /* it could not be packed */
	int reply_fd;         /* goes with the reply; -1: none */

	struct rpc_events events;
	void *user;
	struct arena arena;         /* the request of a unary call, and what handlers allocate */
	struct arena message_arena; /* the message of on_message */
	uint64_t arrived_ns;
	uint64_t deadline_ns;
	struct loop_timer timer; /* the deadline; after the end, the patience with the peer */

	char audit_sandbox[SANDBOX_ID_SIZE];
	char held[SANDBOX_ID_SIZE]; /* rpc_hold() */
	void (*release_held)(const char *id);
	char *client_address;            /* NULL: not known */
	char *sandbox_id;                /* as the arrival says; NULL: none */
	char *signed_path, *signed_user; /* of a signed file URL; NULL: it is none */
	char *client_user;
	char *audit_object;
	char *audit_detail;
};

#define RPC_NO_TIMEOUT UINT64_MAX

/* Of a signed file URL, as it says. */
struct rpc_file_signature {
	const char *path, *user, *signature;
	bool expires;
	int64_t expires_unix_s;
};

/* What a call says of itself before its first message. Valid during rpc_arrive(). */
struct rpc_arrival {
	const char *path;
	size_t path_length;
	uint64_t timeout_ns;                   /* from now on; RPC_NO_TIMEOUT: none was given */
	const char *authorization;             /* "Bearer pdk_..."; NULL: none */
	const char *access_token;              /* of the sandbox `sandbox_id`; NULL: none */
	const char *sandbox_id;                /* NULL: none */
	const char *user;                      /* whom to act as in the sandbox; NULL: not said */
	const struct principal *principal;     /* of the call that this one is made for (rpc_local.h): known already */
	bool trusted;                          /* came in on the admin socket: no key means the operator */
	const char *refused;                   /* the transport cannot serve it, and why; else NULL */
	const struct rpc_file_signature *file; /* a signed file URL; NULL: none */
	bool own_process;                      /* over link: rows that are `link_only` are there */
	const char *client_address;            /* whom a call of the ingress is for; NULL or empty: unknown */
};

/* rpc.c: what transports call, with the lock held unless it says otherwise */
void rpc_call_init(struct rpc_call *call, const struct rpc_transport *transport);
/* Frees what the engine has in it, not the object. Without the lock. */
void rpc_call_clear(struct rpc_call *call);
/* From here on the engine has it. The transport is asked for the first message when it was admitted. */
void rpc_arrive(struct rpc_call *call, const struct rpc_arrival *arrival);
/* Decode one message in the arena that it belongs in. With or without the lock. */
int rpc_unpack(struct rpc_call *call, const uint8_t *bytes, size_t length, ProtobufCMessage **ret,
	       struct pdk_error *err);
/* The answer to `read`: a message, NULL when the peer has sent everything, or why it is not accepted (rc < 0). */
void rpc_received(struct rpc_call *call, const ProtobufCMessage *message, int rc, const struct pdk_error *err);
/* The answer to `send`. Without `success` the stream is broken, and rpc_closed() will say how. */
void rpc_sent(struct rpc_call *call, bool success);
/* The peer has gone away, or takes nothing more. */
void rpc_closed(struct rpc_call *call, bool cancelled);
/* Let go of a call that has ended, when nothing of it is under way. */
void rpc_call_settle(struct rpc_call *call);

/* Tell a running call that it is over; the first reason counts. */
void rpc_cancel(struct rpc_call *call, const struct pdk_error *why);
/* End everything that still runs. */
void rpc_cancel_all(const struct pdk_error *why);
unsigned int rpc_active(void);
bool rpc_client_streams(const struct rpc_call *call);

/* rpc_auth.c: who calls, and may they */
int rpc_admit(struct rpc_call *call, const struct rpc_arrival *arrival, struct pdk_error *err);

/* rpc_send.c: the way out */
/* The status is decided: send it and call->reply. */
void rpc_send_end(struct rpc_call *call);
/* Call `release(arg)` as soon as the lock is free. */
void rpc_release_later(void (*release)(void *arg), void *arg);
/* Tag and length of a `bytes` field. Returns the length of the prefix. */
#define RPC_FIELD_PREFIX_MAX 20
size_t rpc_field_prefix(uint8_t prefix[RPC_FIELD_PREFIX_MAX], uint32_t field, size_t length);

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
