#ifndef PADDOCK_PREVIEW_GUARD_FRAMES_H
#define PADDOCK_PREVIEW_GUARD_FRAMES_H

#include <nghttp2/nghttp2.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sandbox/base/buffer.h"

/*
 * The rules that an HTTP/2 connection has to keep, frame by frame (RFC 9113). No I/O and no clock of its own.
 *
 * Bytes of the client go through guard_client_bytes(), those of the server through guard_server_bytes(), in the order
 * in which they travel. What the client sends is let through up to a whole frame header and, for frames that carry
 * header blocks, the whole frame.
 *
 * Who the server is, gRPC or our own HTTP, is known with the first request. Until then the guard is: it has sent
 * guard_settings[], acknowledges the client's SETTINGS and answers its pings. What that makes superfluous (the client's
 * acknowledgement of those settings, its pings, the real server's acknowledgements) later goes by as frames of a type
 * that nobody knows, which RFC 9113 has everybody ignore.
 */

#define GUARD_STREAMS_MAX 100u /* told to the client, and kept */
#define GUARD_FRAME_MAX 16384u

/* What is told to clients of gRPC. */
#define GUARD_HEADER_LIST_MAX 16384u /* of one block, decoded, as RFC 9113 counts */

#define GUARD_SETTINGS_SIZE 27u
extern const uint8_t guard_settings[GUARD_SETTINGS_SIZE];

enum guard_protocol { GUARD_UNDECIDED, GUARD_GRPC, GUARD_HTTP };

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
	enum guard_protocol protocol;
	struct buffer *answers; /* while it is undecided: where what the guard says to the client goes */
	bool asked;             /* the first request is there, of which these are told: */
	bool grpc_type;         /* content-type: application/grpc */
	bool grpc_method;
	char authority[256]; /* "" when there is none, or none that fits */
	unsigned int settings_answered;

	/* Client */
	bool prefaced;         /* the preface has come */
	bool settled;          /* and the first SETTINGS */
	bool acknowledged;     /* and the acknowledgement of guard_settings */
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
	uint8_t server_head[9]; /* of the frame that is going by, or, of a part, what is held back */
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
int guard_frames_init(struct guard_frames *frames, struct buffer *answers);
void guard_frames_free(struct guard_frames *frames);

/* How many of the bytes may be handed on: all of them, or fewer when the rest must be held back until more has come
 * (keep it and give it again together with what follows; GUARD_HOLD bytes are always enough), or -EPROTO when a rule is
 * broken. Behind the first request it stops: then guard_choose() is due. Frames are hidden in place. */
#define GUARD_HOLD (9u + GUARD_FRAME_MAX)
int64_t guard_client_bytes(struct guard_frames *frames, uint8_t *bytes, size_t length, uint64_t now_ns);
/* Say who serves the connection. -EPROTO: its first request breaks the rules for that. */
int guard_choose(struct guard_frames *frames, enum guard_protocol protocol);
/* The server's bytes. How many of them may go on; the rest, a part of a frame's head, is kept in `server_head` and has
 * to be given again, before what follows. Limits that gRPC states too high are changed in place. -EPROTO as above. */
int64_t guard_server_bytes(struct guard_frames *frames, uint8_t *bytes, size_t length, uint64_t now_ns);

#endif
