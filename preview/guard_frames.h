#ifndef PADDOCK_PREVIEW_GUARD_FRAMES_H
#define PADDOCK_PREVIEW_GUARD_FRAMES_H

#include <nghttp2/nghttp2.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The rules that a gRPC connection has to keep, frame by frame (RFC 9113). No I/O and no clock of its own.
 *
 * Bytes of the client go through guard_client_bytes(), those of the server through guard_server_bytes(), in the order
 * in which they travel. What the client sends is let through up to a whole frame header and, for frames that carry
 * header blocks, the whole frame.
 */

#define GUARD_STREAMS_MAX 100u       /* told to the client, and kept */
#define GUARD_HEADER_LIST_MAX 16384u /* of one block, decoded, as RFC 9113 counts */
#define GUARD_HEADER_FIELDS_MAX 128u
#define GUARD_BLOCK_MAX 16384u /* of one block on the wire */
#define GUARD_FRAME_MAX 16384u

/* What is counted, each with an allowance that fills again with time. */
enum guard_kind { GUARD_RESET, GUARD_SERVER_RESET, GUARD_PING, GUARD_SETTINGS, GUARD_EMPTY, GUARD_WINDOW, GUARD_KINDS };

struct guard_allowance {
	double left;
	uint64_t since_ns;
};

struct guard_stream {
	uint32_t id;
	bool client_done, server_done;
};

struct guard_frames {
	/* Client */
	bool prefaced;         /* the preface has come */
	bool settled;          /* and the first SETTINGS */
	uint32_t payload_left; /* of a frame whose head was let through */
	uint32_t last_stream;
	bool in_block; /* CONTINUATION must follow, for `block_stream` */
	bool block_is_trailer;
	uint32_t block_stream;
	size_t block_length;
	unsigned int block_frames;
	size_t list_length;
	unsigned int list_fields;
	unsigned int pseudo; /* bits of those that were there */
	nghttp2_hd_inflater *inflater;

	/* Server */
	uint8_t server_head[9];
	size_t server_head_length;
	uint32_t server_left;
	uint8_t setting[2]; /* the identifier of the setting that is going by */
	unsigned int setting_at;

	struct guard_stream streams[GUARD_STREAMS_MAX];
	unsigned int n_streams;
	struct guard_allowance allowances[GUARD_KINDS];
	const char *broken; /* the rule that was broken, for the log */
	uint32_t error;     /* its HTTP/2 code */
};

/* -ENOMEM */
int guard_frames_init(struct guard_frames *frames);
void guard_frames_free(struct guard_frames *frames);

/* How many of the bytes may be handed on: all of them, or fewer when the rest must be held back until more has come
 * (keep it and give it again together with what follows; GUARD_HOLD bytes are always enough), or -EPROTO when a rule is
 * broken. */
#define GUARD_HOLD (9u + GUARD_FRAME_MAX)
int64_t guard_client_bytes(struct guard_frames *frames, const uint8_t *bytes, size_t length, uint64_t now_ns);
/* The server's bytes; limits that it states too high are changed in place. -EPROTO as above. */
int guard_server_bytes(struct guard_frames *frames, uint8_t *bytes, size_t length, uint64_t now_ns);

#endif
