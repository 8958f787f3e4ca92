#ifndef PADDOCK_SERVER_RPC_LINK_H
#define PADDOCK_SERVER_RPC_LINK_H

#include "rpc_packet.h"
#include "rpc_task.h"
#include "sandbox/base/link.h"

/*
 * Calls over link, for rpc_link*.c and listen.c only. The frames are in proto/paddock/internal/call.proto.
 *
 * A peer is one connection of the ingress. Its socket is read on the loop thread; what handlers send is written when
 * they are done, on whichever thread they run, as long as little waits in the link (RPC_LINK_ROOM); beyond that each call keeps
 * its one message and stands in line. So a peer that does not read costs at most the queue of the link and one message
 * a call, and a call whose client gives no credit delays no other.
 *
 * Handlers are never entered from inside themselves: what they ask for (the next message, on_sent) is brought by `task`
 * after the lock was released, or by the next frame.
 */

#define RPC_LINK_CALLS_MAX 4096u      /* of one peer; more are refused */
#define RPC_LINK_CALLS_HARD_MAX 8192u /* refused ones that the peer does not end included; more end the link */
#define RPC_LINK_PEERS_MAX 8u
#define RPC_LINK_WINDOW 4u             /* CALL_WINDOW of call.proto */
#define RPC_LINK_CREDIT_AT_ONCE 2u     /* half of it: most calls have one message and need no credit at all */
#define RPC_LINK_QUEUE_MAX (64u << 20) /* messages of one peer that no handler has taken yet */
#define RPC_LINK_ROOM (1u << 20)
#define RPC_LINK_CREDIT_MAX (1u << 20)
#define RPC_LINK_BUCKETS 1024u
#define RPC_LINK_ADDRESS_MAX 64u

struct rpc_link_call {
	struct rpc_call call;
	struct rpc_link_peer *peer; /* NULL: the stream is over; until then it counts in call.pending */
	struct rpc_link_call *next; /* in its bucket */
	struct rpc_link_call *next_waiting;
	uint32_t stream;
	bool waiting; /* in line for room in the link */

	struct rpc_packet *in[RPC_LINK_WINDOW]; /* received, not yet asked for; a ring */
	unsigned int in_first, n_in;
	uint32_t window;  /* messages that the peer may send */
	uint32_t owed;    /* and those that it will be told of with the next */
	bool half_closed; /* it has sent its END */
	bool abandoned;   /* it has cancelled the call */

	struct rpc_packet *out; /* waits for credit or room */
	uint32_t credit;        /* messages that we may send */
	bool out_lost;          /* a message could not be packed */
	bool sent;              /* on_sent is due */
	bool end_waits;         /* the status goes behind `out` */
	bool ended;             /* the status and our END were sent */

	struct rpc_task task;
};

struct rpc_link_peer {
	struct rpc_link_peer *next;
	struct link *link;
	struct loop_watch *watch;
	uint32_t watching;
	struct loop_task flush;  /* what was said in this turn leaves at its end */
	bool flushes;            /* it is in the list */
	struct loop_timer timer; /* due at once: a failure to act on, or frames that are already read */
	int failed;              /* why the link is to end */
	struct rpc_link_call *buckets[RPC_LINK_BUCKETS];
	unsigned int n_calls;
	size_t queued; /* bytes in all `in` */
	struct rpc_link_call *waiting;
	struct rpc_link_call **last_waiting;
};

/* rpc_link.c: calls */
struct rpc_link_call **rpc_link_slot(struct rpc_link_peer *peer, uint32_t stream);
/* A new stream. */
int rpc_link_open(struct rpc_link_peer *peer, uint32_t stream, const uint8_t *payload, size_t length);
/* The stream ends without a word: the link is gone. */
void rpc_link_lost(struct rpc_link_call *call);
int rpc_link_message(struct rpc_link_call *call, const uint8_t *bytes, size_t length);
int rpc_link_control(struct rpc_link_call *call, const uint8_t *payload, size_t length);
int rpc_link_credit(struct rpc_link_call *call, uint32_t credit);
int rpc_link_half_close(struct rpc_link_call *call);
/* There is room again: let those in line go on. */
void rpc_link_pump(struct rpc_link_peer *peer);

/* rpc_link_peer.c: connections */
/* Queue one frame. A failure ends the link, later. */
int rpc_link_write(struct rpc_link_peer *peer, uint32_t stream, enum link_kind kind, const void *payload,
		   size_t length);
int rpc_link_write_fd(struct rpc_link_peer *peer, uint32_t stream, enum link_kind kind, const void *payload,
		      size_t length, int fd); /* fd -1: none */
void rpc_link_write_credit(struct rpc_link_peer *peer, uint32_t stream, uint32_t credit);
void rpc_link_fail_later(struct rpc_link_peer *peer, int rc);
/* Take over a connected socket. Lock held. NULL: out of memory, and the fd stays the caller's. */
struct rpc_link_peer *rpc_link_peer_create(int fd);
/* Cancel the calls of all peers and close their links. Lock held. */
void rpc_link_close_all(void);

struct config;
/* rpc_link_listen.c: ingress.sock, if there is an ingress_user. Without the lock. */
int rpc_link_listen(const struct config *config, struct pdk_error *err);
void rpc_link_stop_listening(void);

#endif
