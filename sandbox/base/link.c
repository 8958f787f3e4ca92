#include "sandbox/base/link.h"

#include "sandbox/base/buffer.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/linger.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

/*
 * Theory of operation
 *
 * Input: bytes are read into `in` until a frame is whole, then it is handed to the owner from there, without
 * a copy. The kernel never joins the bytes of two sendmsg() calls *behind* a set of descriptors in one
 * recvmsg(), so descriptors that arrive belong to the last frame of what was read, or to one whose first
 * bytes came with it. `pending` holds those not matched yet: a frame takes what its header claims as soon as
 * the header is whole. Whenever no half header is left over, `pending` must be empty; else the peer sent
 * descriptors that no frame claims.
 *
 * Output: a frame is written at once if nothing waits before it; what the socket does not take becomes a
 * `chunk`. Descriptors are sent with the first byte, and are duplicated only if they have to wait. After link_gather()
 * a small frame becomes a chunk at once, and link_flush() writes many of them together.
 *
 * The first error is kept in `broken`; every later call returns it. A peer that is gone for writing (`deaf`) is
 * not broken yet: what it said before it left may still wait in the socket, and link_input() brings it before the end.
 */

#define READ_SIZE 16384u
#define LAST_MAX 1024u
#define GATHER_MAX 1024u /* a larger frame is not worth the copy */
#define IOV_MAX_AT_ONCE 16u
#define PENDING_MAX (2 * LINK_FDS_MAX)
#define QUEUE_FDS_MAX 256u

struct chunk {
	struct chunk *next;
	size_t length;
	size_t written;
	int fds[LINK_FDS_MAX];
	unsigned int n_fds;
	uint8_t bytes[];
};

struct link {
	int fd;
	int broken;
	bool deaf; /* nobody reads what we write */
	bool gathers;
	bool survives_lost_fds;
	bool fds_lost; /* the next frame that claims more than is pending has lost its descriptors */
	size_t max_payload;
	link_handler handler;
	void *arg;

	struct buffer in;
	int pending[PENDING_MAX];
	unsigned int n_pending;
	bool header_known; /* of the frame at the front of `in`; its descriptors are in frame.fds */
	struct link_frame frame;

	struct chunk *first;
	struct chunk **last;
	size_t queued_bytes;
	unsigned int queued_fds;
};

union control {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(sizeof(int) * LINK_FDS_MAX)];
};

static uint32_t get_u32(const uint8_t *bytes)
{
	return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static void put_u32(uint8_t *bytes, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		bytes[i] = (uint8_t)(value >> (8 * i));
}

static void close_fds(int *fds, unsigned int *n_fds)
{
	if (!*n_fds)
		return;
	linger_begin(); /* they are the peer's */
	for (unsigned int i = 0; i < *n_fds; i++)
		cleanup_fd(&fds[i]);
	linger_end();
	*n_fds = 0;
}

struct link *link_create(int fd, size_t max_payload, link_handler handler, void *arg)
{
	struct link *link = calloc(1, sizeof(*link));

	if (!link)
		return NULL;
	link->fd = fd;
	link->max_payload = max_payload < LINK_PAYLOAD_MAX ? max_payload : LINK_PAYLOAD_MAX;
	link->handler = handler;
	link->arg = arg;
	link->in = BUFFER(LINK_HEADER_SIZE + link->max_payload + READ_SIZE);
	link->last = &link->first;
	return link;
}

void link_survive_lost_fds(struct link *link)
{
	link->survives_lost_fds = true;
}

void link_gather(struct link *link)
{
	link->gathers = true;
}

static void drop_first_chunk(struct link *link)
{
	struct chunk *chunk = link->first;

	link->first = chunk->next;
	if (!link->first)
		link->last = &link->first;
	link->queued_bytes -= chunk->length;
	link->queued_fds -= chunk->n_fds;
	close_fds(chunk->fds, &chunk->n_fds);
	free(chunk);
}

void link_free(struct link *link)
{
	if (!link)
		return;
	while (link->first)
		drop_first_chunk(link);
	close_fds(link->frame.fds, &link->frame.n_fds);
	close_fds(link->pending, &link->n_pending);
	buffer_free(&link->in);
	linger_begin(); /* descriptors may wait in it */
	cleanup_fd(&link->fd);
	linger_end();
	free(link);
}

int link_fd(const struct link *link)
{
	return link->fd;
}

size_t link_queued(const struct link *link)
{
	return link->queued_bytes;
}

uint32_t link_events(const struct link *link)
{
	return EPOLLIN | (link->first ? (uint32_t)EPOLLOUT : 0);
}

static int break_link(struct link *link, int rc)
{
	if (!link->broken)
		link->broken = rc;
	return link->broken;
}

/* Output */

/* A write has failed. */
static int break_output(struct link *link, int rc)
{
	if (rc != -EPIPE)
		return break_link(link, rc);
	link->deaf = true;
	while (link->first)
		drop_first_chunk(link);
	return rc;
}

/* Bytes taken by the socket, 0 when it is full, or a negative errno. */
static ssize_t write_some(int fd, struct iovec *iov, size_t n_iov, const int *fds, unsigned int n_fds)
{
	union control control = {};
	struct msghdr message = {.msg_iov = iov, .msg_iovlen = n_iov};
	ssize_t n;

	if (n_fds) {
		struct cmsghdr *header = &control.align;

		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(header), fds, sizeof(int) * n_fds);
	}
	do
		n = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return n;
	if (errno == EAGAIN || errno == EWOULDBLOCK)
		return 0;
	return errno == ECONNRESET ? -EPIPE : -errno;
}

static void encode_header(uint8_t *header, size_t length, uint32_t stream, enum link_kind kind, unsigned int n_fds,
			  uint32_t credit)
{
	put_u32(header, (uint32_t)length);
	put_u32(header + 4, stream);
	header[8] = (uint8_t)kind;
	header[9] = 0;
	header[10] = (uint8_t)n_fds;
	header[11] = 0;
	put_u32(header + 12, credit);
}

/* Keep what the socket did not take. Descriptors that have not gone with the first byte are duplicated. */
static int queue_rest(struct link *link, const uint8_t *header, const void *payload, size_t length, size_t written,
		      const int *fds, unsigned int n_fds)
{
	size_t total = LINK_HEADER_SIZE + length;
	struct chunk *chunk = malloc(sizeof(*chunk) + total - written);

	if (!chunk)
		return -ENOMEM;
	*chunk = (struct chunk){.length = total - written};
	for (; chunk->n_fds < (written ? 0 : n_fds); chunk->n_fds++) {
		int copy = fcntl(fds[chunk->n_fds], F_DUPFD_CLOEXEC, 0);

		if (copy < 0) {
			int rc = -errno;

			close_fds(chunk->fds, &chunk->n_fds);
			free(chunk);
			return rc;
		}
		chunk->fds[chunk->n_fds] = copy;
	}
	if (written < LINK_HEADER_SIZE) {
		memcpy(chunk->bytes, header + written, LINK_HEADER_SIZE - written);
		if (length)
			memcpy(chunk->bytes + LINK_HEADER_SIZE - written, payload, length);
	} else {
		memcpy(chunk->bytes, (const uint8_t *)payload + (written - LINK_HEADER_SIZE), total - written);
	}
	*link->last = chunk;
	link->last = &chunk->next;
	link->queued_bytes += chunk->length;
	link->queued_fds += chunk->n_fds;
	return 0;
}

static int send_frame(struct link *link, uint32_t stream, enum link_kind kind, uint32_t credit, const void *payload,
		      size_t length, const int *fds, unsigned int n_fds)
{
	uint8_t header[LINK_HEADER_SIZE];
	struct iovec iov[2] = {{header, sizeof(header)}, {(void *)(uintptr_t)payload, length}};
	ssize_t written = 0;
	int rc;

	if (link->broken || link->deaf)
		return -EPIPE;
	if (length > LINK_PAYLOAD_MAX || n_fds > LINK_FDS_MAX)
		return -EMSGSIZE;
	if (link->queued_bytes + sizeof(header) + length > LINK_QUEUE_MAX || link->queued_fds + n_fds > QUEUE_FDS_MAX)
		return -ENOBUFS;
	encode_header(header, length, stream, kind, n_fds, credit);
	if (link->gathers && !n_fds && length <= GATHER_MAX)
		return queue_rest(link, header, payload, length, 0, NULL, 0);
	if (link->gathers) {
		rc = link_flush(link);
		if (rc < 0 || link->deaf)
			return -EPIPE;
	}
	if (!link->first) {
		written = write_some(link->fd, iov, length ? 2 : 1, fds, n_fds);
		if (written < 0)
			return break_output(link, (int)written);
		if ((size_t)written == sizeof(header) + length)
			return 0;
	}
	rc = queue_rest(link, header, payload, length, (size_t)written, fds, n_fds);
	/* Half a frame is on its way: nothing else can follow it. */
	if (rc < 0 && written)
		break_link(link, rc);
	return rc;
}

int link_send(struct link *link, uint32_t stream, enum link_kind kind, const void *payload, size_t length,
	      const int *fds, unsigned int n_fds)
{
	return send_frame(link, stream, kind, 0, payload, length, fds, n_fds);
}

int link_send_last(struct link *link, uint32_t stream, enum link_kind kind, const void *payload, size_t length)
{
	uint8_t bytes[LAST_MAX];
	size_t total = 2 * LINK_HEADER_SIZE + length;
	struct iovec iov = {bytes, total};
	ssize_t written;
	int rc;

	if (link->broken || link->deaf || link->first || link->gathers || total > sizeof(bytes)) {
		rc = link_send(link, stream, kind, payload, length, NULL, 0);
		return rc < 0 ? rc : link_send(link, stream, LINK_END, NULL, 0, NULL, 0);
	}
	encode_header(bytes, length, stream, kind, 0, 0);
	if (length)
		memcpy(bytes + LINK_HEADER_SIZE, payload, length);
	encode_header(bytes + LINK_HEADER_SIZE + length, 0, stream, LINK_END, 0, 0);
	written = write_some(link->fd, &iov, 1, NULL, 0);
	if (written < 0)
		return break_output(link, (int)written);
	if ((size_t)written == total)
		return 0;
	rc = queue_rest(link, bytes, bytes + LINK_HEADER_SIZE, total - LINK_HEADER_SIZE, (size_t)written, NULL, 0);
	if (rc < 0 && written)
		break_link(link, rc);
	return rc;
}

int link_send_credit(struct link *link, uint32_t stream, uint32_t credit)
{
	return send_frame(link, stream, LINK_CREDIT, credit, NULL, 0, NULL, 0);
}

/* The chunks that can leave in one write: descriptors go with its first byte, so a chunk that still has its own begins one. */
static size_t gather(const struct link *link, struct iovec iov[IOV_MAX_AT_ONCE])
{
	struct chunk *chunk = link->first;
	size_t n = 0;

	do {
		iov[n++] = (struct iovec){chunk->bytes + chunk->written, chunk->length - chunk->written};
		chunk = chunk->next;
	} while (chunk && n < IOV_MAX_AT_ONCE && !chunk->n_fds);
	return n;
}

/* The socket has taken `n` bytes. */
static void drop_written(struct link *link, size_t n)
{
	while (n) {
		struct chunk *chunk = link->first;
		size_t left = chunk->length - chunk->written;

		chunk->written += n < left ? n : left;
		n -= n < left ? n : left;
		if (chunk->written == chunk->length)
			drop_first_chunk(link);
	}
}

int link_flush(struct link *link)
{
	if (link->broken)
		return link->broken;
	while (link->first) {
		struct iovec iov[IOV_MAX_AT_ONCE];
		size_t n_iov = gather(link, iov);
		bool with_fds = link->first->n_fds && !link->first->written;
		ssize_t n = write_some(link->fd, iov, n_iov, link->first->fds, with_fds ? link->first->n_fds : 0);

		if (n == -EPIPE) {
			break_output(link, (int)n);
			return 0;
		}
		if (n < 0)
			return break_link(link, (int)n);
		if (!n)
			return 0;
		drop_written(link, (size_t)n);
	}
	return 0;
}

/* Input */

static bool header_valid(const struct link *link, const uint8_t *header)
{
	uint32_t length = get_u32(header);
	unsigned int kind = header[8] | (unsigned int)header[9] << 8;
	bool bare = kind == LINK_CREDIT || kind == LINK_END;

	if (length > link->max_payload || kind < LINK_REQUEST || kind > LINK_END)
		return false;
	if (header[10] > LINK_FDS_MAX || header[11] || (bare && (length || header[10])))
		return false;
	return kind == LINK_CREDIT || !get_u32(header + 12);
}

/* The header at the front of `in` is whole: check it and give it its descriptors. */
static int parse_header(struct link *link, const uint8_t *header)
{
	struct link_frame *frame = &link->frame;
	unsigned int n_fds = header[10];
	bool lost = n_fds > link->n_pending && link->fds_lost;

	if (!header_valid(link, header) || (n_fds > link->n_pending && !lost))
		return -EPROTO;
	if (lost) {
		link->fds_lost = false;
		n_fds = 0;
	}
	*frame = (struct link_frame){
		.stream = get_u32(header + 4),
		.kind = (enum link_kind)header[8],
		.credit = get_u32(header + 12),
		.length = get_u32(header),
		.n_fds = n_fds,
		.fds_lost = lost,
	};
	memcpy(frame->fds, link->pending, sizeof(int) * n_fds);
	link->n_pending -= n_fds;
	memmove(link->pending, link->pending + n_fds, sizeof(int) * link->n_pending);
	link->header_known = true;
	return 0;
}

/* 1 = a frame was handed on, 0 = none is whole yet. */
static int dispatch_frame(struct link *link)
{
	struct link_frame *frame = &link->frame;
	int rc;

	if (buffer_length(&link->in) < LINK_HEADER_SIZE)
		return 0;
	if (!link->header_known) {
		rc = parse_header(link, buffer_data(&link->in));
		if (rc < 0)
			return rc;
	}
	if (buffer_length(&link->in) < LINK_HEADER_SIZE + frame->length)
		return 0;
	frame->payload = buffer_data(&link->in) + LINK_HEADER_SIZE;
	rc = link->handler(link, frame, link->arg);
	close_fds(frame->fds, &frame->n_fds);
	link->header_known = false;
	buffer_take(&link->in, LINK_HEADER_SIZE + frame->length);
	return rc < 0 ? rc : 1;
}

/* 1 = the limit of frames was reached, 0 = no whole frame is left. */
static int dispatch(struct link *link, unsigned int *frames, unsigned int max_frames)
{
	for (;;) {
		int rc;

		if (max_frames && *frames >= max_frames)
			return 1;
		rc = dispatch_frame(link);
		if (rc < 0)
			return rc;
		if (!rc)
			break;
		++*frames;
	}
	if (link->n_pending && (link->header_known || !buffer_length(&link->in)))
		return -EPROTO;
	return 0;
}

/* Cut off: more came than a frame may have, or we have no room. In the second case none of them is kept: they would be
 * taken for the first of a set that is not whole. */
static int lose_descriptors(struct link *link, unsigned int n_before)
{
	unsigned int n = link->n_pending - n_before;

	if (!link->survives_lost_fds || n >= LINK_FDS_MAX || link->fds_lost)
		return -EPROTO;
	link->n_pending = n_before;
	close_fds(link->pending + n_before, &n);
	link->fds_lost = true;
	return 0;
}

static int keep_descriptors(struct link *link, struct msghdr *message)
{
	unsigned int n_before = link->n_pending;
	int rc = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		size_t n = c->cmsg_len >= CMSG_LEN(0) ? (c->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;
		int fds[LINK_FDS_MAX + 1];

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		if (n > ARRAY_SIZE(fds))
			n = ARRAY_SIZE(fds);
		memcpy(fds, CMSG_DATA(c), n * sizeof(int));
		for (size_t i = 0; i < n; i++) {
			if (link->n_pending < PENDING_MAX) {
				link->pending[link->n_pending++] = fds[i];
			} else {
				close(fds[i]);
				rc = -EPROTO;
			}
		}
	}
	if (rc == 0 && message->msg_flags & MSG_CTRUNC)
		rc = lose_descriptors(link, n_before);
	return rc;
}

/* How much to ask for: the rest of a known frame, and some more for what follows it. */
static size_t wanted(const struct link *link)
{
	size_t have = buffer_length(&link->in);
	size_t whole = link->header_known ? LINK_HEADER_SIZE + link->frame.length : 0;

	return whole > have + READ_SIZE ? whole - have : READ_SIZE;
}

/* Bytes read, 0 when the socket is empty, or a negative errno. `ret_drained`: it was seen to be empty after that. */
static ssize_t read_some(struct link *link, bool *ret_drained)
{
	union control control;
	struct iovec iov = {.iov_len = wanted(link)};
	struct msghdr message = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	ssize_t n;
	int rc = 0;

	if (iov.iov_len > buffer_room(&link->in))
		iov.iov_len = buffer_room(&link->in);
	iov.iov_base = buffer_reserve(&link->in, iov.iov_len, &rc);
	if (!iov.iov_base)
		return rc;
	linger_begin();
	do
		n = recvmsg(link->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	rc = n < 0 ? -errno : 0;
	linger_end();
	if (rc < 0)
		return rc == -EAGAIN || rc == -EWOULDBLOCK ? 0 : rc;
	/* Only descriptors make the kernel stop before the room or the socket ends. */
	*ret_drained = n && (size_t)n < iov.iov_len && !message.msg_controllen;
	rc = keep_descriptors(link, &message);
	if (rc < 0)
		return rc;
	if (!n)
		return -ECONNRESET;
	buffer_commit(&link->in, (size_t)n);
	return n;
}

int link_input(struct link *link, unsigned int max_frames)
{
	unsigned int frames = 0;
	bool drained = false;

	if (link->broken)
		return link->broken;
	for (;;) {
		int rc = dispatch(link, &frames, max_frames);
		ssize_t n;

		if (rc < 0)
			return break_link(link, rc);
		if (rc > 0)
			return 1;
		if (drained)
			break;
		n = read_some(link, &drained);
		if (n < 0)
			return break_link(link, (int)n);
		if (!n)
			break;
	}
	if (!buffer_length(&link->in))
		buffer_free(&link->in);
	return 0;
}

int link_feed(struct link *link, const uint8_t *bytes, size_t length)
{
	unsigned int frames = 0;

	if (link->broken)
		return link->broken;
	while (length) {
		size_t n = length < READ_SIZE ? length : READ_SIZE;
		int rc = buffer_append(&link->in, bytes, n);

		if (rc == 0)
			rc = dispatch(link, &frames, 0);
		if (rc < 0)
			return break_link(link, rc);
		bytes += n;
		length -= n;
	}
	return 0;
}
