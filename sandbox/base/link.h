#ifndef PADDOCK_BASE_LINK_H
#define PADDOCK_BASE_LINK_H

#include "error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * link: the framed protocol between Paddock's own processes (paddockd and paddock-init today; the
 * ingress and the egress broker later), over a unix stream socket.
 *
 * A frame is a 16-byte little-endian header and a payload of at most LINK_PAYLOAD_MAX bytes:
 *
 *	u32 length   of the payload
 *	u32 stream   0 = the link itself; odd numbers are opened by the connecting side, even by the other
 *	u16 kind     enum link_kind
 *	u8  fds      descriptors that travel with this frame (SCM_RIGHTS), at most LINK_FDS_MAX
 *	u8  reserved 0
 *	u32 credit   with LINK_CREDIT: how many more frames of kind LINK_EVENT the peer may send on the stream
 *
 * Streams carry requests, replies and events. Requests and replies are bounded by their number (the
 * requester opens a stream and gets as many replies as the operation has); LINK_EVENT is what a peer
 * produces on its own and may send only against credit, so that a slow reader bounds the writer's memory.
 * Descriptors are sent with the first byte of their frame, so the receiver can pair them; a frame that
 * claims more than it brings, or brings what it did not claim, ends the link (-EPROTO) and closes all.
 *
 * The object does no I/O scheduling of its own: the owner polls link_fd() for link_events() and calls
 * link_input() / link_flush(). Everything is bounded: LINK_QUEUE_MAX bytes of output may wait; a peer
 * that does not read makes link_send() fail with -ENOBUFS, and the owner ends the link.
 */

#define LINK_HEADER_SIZE 16
#define LINK_PAYLOAD_MAX (2u << 20)
#define LINK_QUEUE_MAX (8u << 20)
#define LINK_FDS_MAX 4

enum link_kind {
	LINK_REQUEST = 1, /* opens the stream, or goes on with it */
	LINK_REPLY = 2,
	LINK_EVENT = 3,  /* costs one credit; on stream 0 it is free but bounded by the queue */
	LINK_CREDIT = 4, /* no payload */
	LINK_END = 5,    /* the sender is done with the stream; no payload. After both ENDs it is gone */
};

struct link_frame {
	uint32_t stream;
	enum link_kind kind;
	uint32_t credit;
	const uint8_t *payload; /* valid until the callback returns */
	size_t length;
	int fds[LINK_FDS_MAX]; /* owned by the link; take one with STEAL_FD(), the rest is closed after the callback */
	unsigned int n_fds;
	bool fds_lost; /* it came with descriptors that we have no room for; only after link_survive_lost_fds() */
};

struct link;

/* Called for every whole frame. A negative errno ends the link. */
typedef int (*link_handler)(struct link *link, struct link_frame *frame, void *arg);

/* Take over a connected, non-blocking SOCK_STREAM socket. `max_payload` <= LINK_PAYLOAD_MAX bounds what this
 * side accepts. Returns NULL when out of memory; the fd stays the caller's then. */
struct link *link_create(int fd, size_t max_payload, link_handler handler, void *arg);
/* A frame whose descriptors find no room in our table (EMFILE) is handed on without them, instead of ending the link. */
void link_survive_lost_fds(struct link *link);
/* From now on a small frame without descriptors waits for link_flush(), or for a frame that does not wait, so that what is
 * said in one go leaves in one write and wakes the peer once. The owner flushes before it waits for anything. */
void link_gather(struct link *link);
/* Close the socket and everything queued. NULL is fine. Must not be called from inside the handler
 * (return an error instead). */
void link_free(struct link *link);

int link_fd(const struct link *link);
/* Bytes that wait to be written. */
size_t link_queued(const struct link *link);
/* EPOLLIN, and EPOLLOUT while output waits. */
uint32_t link_events(const struct link *link);

/* Queue one frame and try to write it at once. Descriptors are duplicated: the caller keeps its own.
 * -ENOBUFS: the queue is full; -EMSGSIZE: the payload is too large; -EPIPE: the peer is gone. */
int link_send(struct link *link, uint32_t stream, enum link_kind kind, const void *payload, size_t length,
	      const int *fds, unsigned int n_fds);
/* A frame without descriptors and the END of its stream; when it is small, in one write, so that the peer wakes once. */
int link_send_last(struct link *link, uint32_t stream, enum link_kind kind, const void *payload, size_t length);
int link_send_credit(struct link *link, uint32_t stream, uint32_t credit);

/* Write what is queued. 0, or a negative errno that ends the link (never -EAGAIN). A peer that is gone is no error here:
 * link_input() brings what it said last, then -ECONNRESET. */
int link_flush(struct link *link);
/* Read and dispatch at most `max_frames` frames (0: until the socket is empty). 1 = more may wait, 0 = drained (the end, if it
 * is all that is left, may still have to be read), -ECONNRESET = the peer closed, -EPROTO = it broke the protocol, or what
 * the handler returned. */
int link_input(struct link *link, unsigned int max_frames);

/* Feed bytes as if they had been read from the peer: for tests and fuzzing, without a socket. */
int link_feed(struct link *link, const uint8_t *bytes, size_t length);

#endif
