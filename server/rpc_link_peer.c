#include "rpc_link.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "log.h"
#include "sandbox/base/cleanup.h"

/* Connections of the ingress: frames in, frames out, the end. See rpc_link.h. */

#define FRAMES_PER_TURN 64u

static struct rpc_link_peer *peers;
static unsigned int n_peers;

static void lose_calls(struct rpc_link_peer *peer)
{
	/* Handlers may end other calls of the peer meanwhile: rows leave the table first. */
	for (unsigned int i = 0; i < RPC_LINK_BUCKETS; i++) {
		while (peer->buckets[i])
			rpc_link_lost(peer->buckets[i]);
	}
}

static void peer_destroy(struct rpc_link_peer *peer)
{
	struct rpc_link_peer **at = &peers;

	while (*at != peer)
		at = &(*at)->next;
	*at = peer->next;
	n_peers--;
	if (!peer->failed)
		peer->failed = -ECONNRESET;
	lose_calls(peer);
	loop_finally_not(&peer->flush);
	loop_timer_cancel(&peer->timer);
	loop_watch_remove(peer->watch);
	link_free(peer->link);
	free(peer);
}

void rpc_link_fail_later(struct rpc_link_peer *peer, int rc)
{
	if (peer->failed)
		return;
	peer->failed = rc;
	loop_timer_set(&peer->timer, loop_now_ns());
}

static void update_watch(struct rpc_link_peer *peer)
{
	uint32_t events = link_events(peer->link);

	if (events == peer->watching)
		return;
	if (loop_watch_set(peer->watch, events) == 0)
		peer->watching = events;
}

static void run_flush(struct loop_task *task)
{
	struct rpc_link_peer *peer = (struct rpc_link_peer *)((char *)task - offsetof(struct rpc_link_peer, flush));
	int rc = peer->failed ? 0 : link_flush(peer->link);

	peer->flushes = false;
	if (rc < 0)
		rpc_link_fail_later(peer, rc);
	else
		update_watch(peer);
}

static void flush_later(struct rpc_link_peer *peer)
{
	if (peer->flushes)
		return;
	peer->flushes = true;
	loop_finally(&peer->flush);
}

int rpc_link_write_fd(struct rpc_link_peer *peer, uint32_t stream, enum link_kind kind, const void *payload,
		      size_t length, int fd)
{
	int rc = peer->failed;

	if (rc == 0)
		rc = link_send(peer->link, stream, kind, payload, length, &fd, fd >= 0);
	if (rc < 0)
		rpc_link_fail_later(peer, rc);
	else
		flush_later(peer);
	return rc;
}

int rpc_link_write(struct rpc_link_peer *peer, uint32_t stream, enum link_kind kind, const void *payload, size_t length)
{
	return rpc_link_write_fd(peer, stream, kind, payload, length, -1);
}

void rpc_link_write_credit(struct rpc_link_peer *peer, uint32_t stream, uint32_t credit)
{
	int rc = peer->failed;

	if (rc == 0)
		rc = link_send_credit(peer->link, stream, credit);
	if (rc < 0)
		rpc_link_fail_later(peer, rc);
	else
		flush_later(peer);
}

/* Frames */

/* A stream is opened, or credit and cancellation have crossed the end of a call that was half-closed. */
static int without_call(struct rpc_link_peer *peer, const struct link_frame *frame)
{
	if (frame->kind == LINK_REQUEST)
		return rpc_link_open(peer, frame->stream, frame->payload, frame->length);
	return frame->kind == LINK_CREDIT ? 0 : -EPROTO;
}

static int dispatch(struct rpc_link_peer *peer, const struct link_frame *frame)
{
	struct rpc_link_call *call;

	if (frame->stream % 2 == 0 || frame->n_fds)
		return -EPROTO;
	call = *rpc_link_slot(peer, frame->stream);
	if (!call)
		return without_call(peer, frame);
	switch (frame->kind) {
	case LINK_REQUEST:
		return rpc_link_control(call, frame->payload, frame->length);
	case LINK_EVENT:
		return rpc_link_message(call, frame->payload, frame->length);
	case LINK_CREDIT:
		return rpc_link_credit(call, frame->credit);
	case LINK_END:
		return rpc_link_half_close(call);
	case LINK_REPLY:
		return -EPROTO;
	}
	return -EPROTO;
}

static int on_frame(struct link *link, struct link_frame *frame, void *arg)
{
	struct rpc_link_peer *peer = arg;

	return peer->failed ? peer->failed : dispatch(peer, frame);
}

/* Read what is there; what is read already but not yet looked at does not make the socket readable again. */
static int input(struct rpc_link_peer *peer)
{
	int rc;

	rc = link_input(peer->link, FRAMES_PER_TURN);
	if (rc == 1 && !peer->failed)
		loop_timer_set(&peer->timer, loop_now_ns());
	return rc;
}

static void go_on(struct rpc_link_peer *peer, int rc)
{
	if (rc >= 0 && !peer->failed)
		rpc_link_pump(peer);
	if (rc >= 0)
		rc = peer->failed;
	if (rc >= 0) {
		update_watch(peer);
		return;
	}
	if (rc != -ECONNRESET)
		log_event(LOG_WARN, "ingress.broken", "error", log_i64(rc), NULL);
	peer_destroy(peer);
}

static void on_io(uint32_t events, void *arg)
{
	struct rpc_link_peer *peer = arg;
	int rc = peer->failed;

	if (rc >= 0 && events & EPOLLOUT)
		rc = link_flush(peer->link);
	if (rc >= 0 && events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		rc = input(peer);
	go_on(peer, rc);
}

static void on_timer(void *arg)
{
	struct rpc_link_peer *peer = arg;

	go_on(peer, peer->failed ? peer->failed : input(peer));
}

/* Life */

struct rpc_link_peer *rpc_link_peer_create(int fd)
{
	struct rpc_link_peer *peer = n_peers < RPC_LINK_PEERS_MAX ? calloc(1, sizeof(*peer)) : NULL;

	if (!peer)
		return NULL;
	peer->last_waiting = &peer->waiting;
	peer->timer.handler = on_timer;
	peer->timer.arg = peer;
	peer->watching = EPOLLIN;
	peer->watch = loop_watch_add(fd, EPOLLIN, on_io, peer);
	if (peer->watch)
		peer->link = link_create(fd, LINK_PAYLOAD_MAX, on_frame, peer);
	if (!peer->link) {
		loop_watch_remove(peer->watch);
		free(peer);
		return NULL;
	}
	link_gather(peer->link);
	peer->flush.run = run_flush;
	peer->next = peers;
	peers = peer;
	n_peers++;
	return peer;
}

void rpc_link_close_all(void)
{
	while (peers)
		peer_destroy(peers);
}
