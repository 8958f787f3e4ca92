#include "guard_frames.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* RFC 9113 */
enum { DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION };
enum { FLAG_END_STREAM = 1, FLAG_ACK = 1, FLAG_END_HEADERS = 4, FLAG_PADDED = 8, FLAG_PRIORITY = 32 };
enum { PROTOCOL_ERROR = 1, FRAME_SIZE_ERROR = 6, COMPRESSION_ERROR = 9, ENHANCE_YOUR_CALM = 11 };

#define HEAD 9u
#define BLOCK_FRAMES_MAX 8u
#define HIDDEN 0xee /* a type of frames that is nobody's */

/* Of one header block. An HTTP head that is too long for us, but not absurd, is answered with 431. */
static const struct {
	size_t list; /* decoded, as RFC 9113 counts */
	size_t wire;
	unsigned int fields;
} limits[] = {
	[GUARD_UNDECIDED] = {65536, 65536, 512},
	[GUARD_GRPC] = {GUARD_HEADER_LIST_MAX, 16384, 128},
	[GUARD_HTTP] = {65536, 65536, 512},
};

/* MAX_CONCURRENT_STREAMS, MAX_HEADER_LIST_SIZE, NO_RFC7540_PRIORITIES */
const uint8_t guard_settings[GUARD_SETTINGS_SIZE] = {
	0, 0,      18, SETTINGS, 0,
	0, 0,      0,  0,        /**/ 0,
	3, 0,      0,  0,        GUARD_STREAMS_MAX, /**/
	0, 6,      0,  0,        GUARD_HEADER_LIST_MAX >> 8,
	0, /**/ 0, 9,  0,        0,
	0, 1,
};

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
#define PREFACE (sizeof(preface) - 1)

/* Burst, and how many a second come back. A gRPC client cancels calls, measures its bandwidth with pings and opens
 * windows as it reads; the numbers leave an honest one a wide margin. */
static const struct {
	const char *name;
	double burst, rate;
} allowances[GUARD_KINDS] = {
	[GUARD_RESET] = {"streams reset", 1000, 33},
	[GUARD_SERVER_RESET] = {"streams that the server had to reset", 1000, 33},
	[GUARD_PING] = {"pings", 200, 50},
	[GUARD_SETTINGS] = {"settings", 50, 5},
	[GUARD_EMPTY] = {"frames without content", 1000, 100},
	[GUARD_WINDOW] = {"window updates", 20000, 20000},
};

struct frame {
	uint32_t length;
	uint8_t type;
	uint8_t flags;
	uint32_t stream;
};

int guard_frames_init(struct guard_frames *frames, struct buffer *answers)
{
	*frames = (struct guard_frames){.answers = answers};
	for (int i = 0; i < GUARD_KINDS; i++)
		frames->allowances[i].left = allowances[i].burst;
	return nghttp2_hd_inflate_new(&frames->inflater) ? -ENOMEM : 0;
}

void guard_frames_free(struct guard_frames *frames)
{
	if (frames->inflater)
		nghttp2_hd_inflate_del(frames->inflater);
	frames->inflater = NULL;
}

static int fail(struct guard_frames *frames, uint32_t error, const char *why)
{
	frames->broken = why;
	frames->error = error;
	return -EPROTO;
}

static int count(struct guard_frames *frames, enum guard_kind kind, uint64_t now_ns)
{
	struct guard_allowance *allowance = &frames->allowances[kind];

	if (allowance->since_ns && now_ns > allowance->since_ns)
		allowance->left += (double)(now_ns - allowance->since_ns) / 1e9 * allowances[kind].rate;
	if (allowance->left > allowances[kind].burst)
		allowance->left = allowances[kind].burst;
	allowance->since_ns = now_ns;
	if (allowance->left < 1)
		return fail(frames, ENHANCE_YOUR_CALM, allowances[kind].name);
	allowance->left -= 1;
	return 0;
}

static struct frame parse_head(const uint8_t *bytes)
{
	return (struct frame){
		.length = (uint32_t)bytes[0] << 16 | (uint32_t)bytes[1] << 8 | bytes[2],
		.type = bytes[3],
		.flags = bytes[4],
		.stream = ((uint32_t)bytes[5] << 24 | (uint32_t)bytes[6] << 16 | (uint32_t)bytes[7] << 8 | bytes[8]) &
			  0x7fffffff,
	};
}

/* Streams */

static struct guard_stream *find_stream(struct guard_frames *frames, uint32_t id)
{
	for (unsigned int i = 0; i < frames->n_streams; i++) {
		if (frames->streams[i].id == id)
			return &frames->streams[i];
	}
	return NULL;
}

static void drop_stream(struct guard_frames *frames, struct guard_stream *stream)
{
	if (stream)
		*stream = frames->streams[--frames->n_streams];
}

static void end_side(struct guard_frames *frames, struct guard_stream *stream, bool client)
{
	if (!stream)
		return;
	stream->client_done |= client;
	stream->server_done |= !client;
	if (stream->client_done && stream->server_done)
		drop_stream(frames, stream);
}

/* HEADERS: a new stream, or the trailers of one. */
static int open_stream(struct guard_frames *frames, const struct frame *frame, uint64_t now_ns)
{
	struct guard_stream *stream = find_stream(frames, frame->stream);

	frames->block_is_trailer = frame->stream <= frames->last_stream;
	if (!stream && frame->stream > frames->last_stream) {
		if (!(frame->stream & 1))
			return fail(frames, PROTOCOL_ERROR, "an even stream");
		if (frames->n_streams == GUARD_STREAMS_MAX)
			return fail(frames, ENHANCE_YOUR_CALM, "too many streams at once");
		frames->last_stream = frame->stream;
		stream = &frames->streams[frames->n_streams++];
		*stream = (struct guard_stream){.id = frame->stream};
	} else if (!(frame->flags & FLAG_END_STREAM)) {
		return fail(frames, PROTOCOL_ERROR, "headers in the middle of a stream");
	} else if (!stream && count(frames, GUARD_EMPTY, now_ns) < 0) {
		return -EPROTO;
	}
	if (frame->flags & FLAG_END_STREAM)
		end_side(frames, stream, true);
	return 0;
}

/* Header blocks */

static bool field_is(const nghttp2_nv *field, const char *name)
{
	return field->namelen == strlen(name) && memcmp(field->name, name, field->namelen) == 0;
}

static bool value_is(const nghttp2_nv *field, const char *value)
{
	return field->valuelen == strlen(value) && memcmp(field->value, value, field->valuelen) == 0;
}

static bool pseudo_valid(struct guard_frames *frames, const nghttp2_nv *field)
{
	static const char *const names[] = {":method", ":scheme", ":path", ":authority"};

	if (frames->block_is_trailer || frames->list_fields != (unsigned int)__builtin_popcount(frames->pseudo))
		return false; /* behind an ordinary field */
	for (unsigned int i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (!field_is(field, names[i]) || frames->pseudo & 1u << i)
			continue;
		frames->pseudo |= 1u << i;
		if (i == 0)
			frames->grpc_method =
				value_is(field, "POST") || value_is(field, "GET") || value_is(field, "PUT");
		if (i == 3 && !frames->asked && field->valuelen < sizeof(frames->authority))
			snprintf(frames->authority, sizeof(frames->authority), "%.*s", (int)field->valuelen,
				 field->value);
		return i == 0   ? frames->protocol != GUARD_GRPC || frames->grpc_method
		       : i == 1 ? value_is(field, "http") || value_is(field, "https")
				: true;
	}
	return false;
}

/* "application/grpc", with what may follow; "application/grpc-web" is another protocol. */
static void see_type(struct guard_frames *frames, const nghttp2_nv *field)
{
	static const char type[] = "application/grpc";
	size_t length = sizeof(type) - 1;

	if (!frames->asked && field_is(field, "content-type") && field->valuelen >= length &&
	    memcmp(field->value, type, length) == 0)
		frames->grpc_type =
			field->valuelen == length || field->value[length] == '+' || field->value[length] == ';';
}

static bool bytes_valid(const uint8_t *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		if (bytes[i] == '\0' || bytes[i] == '\r' || bytes[i] == '\n')
			return false;
	}
	return true;
}

static bool field_valid(struct guard_frames *frames, const nghttp2_nv *field)
{
	if (!field->namelen || !bytes_valid(field->name, field->namelen) || !bytes_valid(field->value, field->valuelen))
		return false;
	if (field->name[0] == ':')
		return pseudo_valid(frames, field);
	if (field_is(field, "te"))
		return value_is(field, "trailers");
	return !field_is(field, "connection") && !field_is(field, "transfer-encoding") && !field_is(field, "upgrade");
}

static int check_field(struct guard_frames *frames, const nghttp2_nv *field)
{
	bool valid = field_valid(frames, field);

	frames->list_length += field->namelen + field->valuelen + 32;
	frames->list_fields++;
	if (frames->list_length > limits[frames->protocol].list ||
	    frames->list_fields > limits[frames->protocol].fields)
		return fail(frames, ENHANCE_YOUR_CALM, "headers are too large");
	see_type(frames, field);
	return valid ? 0 : fail(frames, PROTOCOL_ERROR, "a malformed header");
}

static int inflate_block(struct guard_frames *frames, const uint8_t *bytes, size_t length, bool last)
{
	for (;;) {
		nghttp2_nv field;
		int flags = 0;
		ssize_t used = nghttp2_hd_inflate_hd2(frames->inflater, &field, &flags, bytes, length, last);

		if (used < 0)
			return fail(frames, COMPRESSION_ERROR, "a damaged header block");
		bytes += used;
		length -= (size_t)used;
		if (flags & NGHTTP2_HD_INFLATE_EMIT && check_field(frames, &field) < 0)
			return -EPROTO;
		if (flags & NGHTTP2_HD_INFLATE_FINAL) {
			nghttp2_hd_inflate_end_headers(frames->inflater);
			return 0;
		}
		if (!(flags & NGHTTP2_HD_INFLATE_EMIT) && !length)
			return last ? fail(frames, COMPRESSION_ERROR, "a header block that is cut") : 0;
	}
}

/* HEADERS or CONTINUATION, whole. */
static int take_block(struct guard_frames *frames, const struct frame *frame, const uint8_t *payload, uint64_t now_ns)
{
	size_t skip = 0, padding = 0;
	bool last = frame->flags & FLAG_END_HEADERS;

	if (frame->type == HEADERS) {
		if (open_stream(frames, frame, now_ns) < 0)
			return -EPROTO;
		if (frame->flags & FLAG_PADDED) {
			padding = frame->length ? payload[0] : 0;
			skip = 1;
		}
		skip += frame->flags & FLAG_PRIORITY ? 5 : 0;
		frames->block_length = frames->list_length = 0;
		frames->block_frames = frames->list_fields = frames->pseudo = 0;
		frames->block_stream = frame->stream;
	}
	if (skip + padding > frame->length)
		return fail(frames, PROTOCOL_ERROR, "padding beyond the frame");
	frames->in_block = !last;
	frames->block_length += frame->length;
	if (frames->block_length > limits[frames->protocol].wire || ++frames->block_frames > BLOCK_FRAMES_MAX)
		return fail(frames, ENHANCE_YOUR_CALM, "headers are too large");
	if (inflate_block(frames, payload + skip, frame->length - skip - padding, last) < 0)
		return -EPROTO;
	frames->asked |= last;
	return 0;
}

int guard_choose(struct guard_frames *frames, enum guard_protocol protocol)
{
	frames->protocol = protocol;
	if (protocol != GUARD_GRPC)
		return 0;
	if (frames->list_length > limits[protocol].list || frames->list_fields > limits[protocol].fields ||
	    frames->block_length > limits[protocol].wire)
		return fail(frames, ENHANCE_YOUR_CALM, "headers are too large");
	return frames->grpc_method ? 0 : fail(frames, PROTOCOL_ERROR, "a malformed header");
}

/* Frames of the client */

static int check_data(struct guard_frames *frames, const struct frame *frame, uint64_t now_ns)
{
	struct guard_stream *stream = find_stream(frames, frame->stream);

	if (!frame->stream || frame->stream > frames->last_stream)
		return fail(frames, PROTOCOL_ERROR, "data for no stream");
	if (stream && stream->client_done)
		return fail(frames, PROTOCOL_ERROR, "data behind the end of a stream");
	if ((!frame->length && !(frame->flags & FLAG_END_STREAM)) || !stream) {
		if (count(frames, GUARD_EMPTY, now_ns) < 0)
			return -EPROTO;
	}
	if (frame->flags & FLAG_END_STREAM)
		end_side(frames, stream, true);
	return 0;
}

static int check_reset(struct guard_frames *frames, const struct frame *frame, uint64_t now_ns)
{
	if (frame->length != 4)
		return fail(frames, FRAME_SIZE_ERROR, "a frame of the wrong size");
	if (!(frame->stream & 1))
		return fail(frames, PROTOCOL_ERROR, "a reset of no stream");
	/* Of a stream that was never opened, too: gRPC's own client resets one whose call ended before its headers were
	 * written. Against RFC 9113, but it costs the server nothing, and it is counted like the others. */
	drop_stream(frames, find_stream(frames, frame->stream));
	return count(frames, GUARD_RESET, now_ns);
}

static int check_settings(struct guard_frames *frames, const struct frame *frame, uint64_t now_ns)
{
	if (frame->length % 6 || (frame->flags & FLAG_ACK && frame->length) || frame->length > 600)
		return fail(frames, FRAME_SIZE_ERROR, "a frame of the wrong size");
	if (frame->stream)
		return fail(frames, PROTOCOL_ERROR, "settings of a stream");
	if (frame->flags & FLAG_ACK && !frames->settled)
		return fail(frames, PROTOCOL_ERROR, "no settings at the beginning");
	frames->settled = true;
	return count(frames, GUARD_SETTINGS, now_ns);
}

static int check_frame(struct guard_frames *frames, const struct frame *frame, uint64_t now_ns)
{
	switch (frame->type) {
	case DATA:
		return check_data(frames, frame, now_ns);
	case RST_STREAM:
		return check_reset(frames, frame, now_ns);
	case SETTINGS:
		return check_settings(frames, frame, now_ns);
	case PUSH_PROMISE:
		return fail(frames, PROTOCOL_ERROR, "a push from a client");
	case PING:
		if (frame->length != 8 || frame->stream)
			return fail(frames, FRAME_SIZE_ERROR, "a frame of the wrong size");
		return frame->flags & FLAG_ACK ? 0 : count(frames, GUARD_PING, now_ns);
	case WINDOW_UPDATE:
		if (frame->length != 4)
			return fail(frames, FRAME_SIZE_ERROR, "a frame of the wrong size");
		if (frame->stream > frames->last_stream)
			return fail(frames, PROTOCOL_ERROR, "a window of no stream");
		return count(frames, GUARD_WINDOW, now_ns);
	default: /* PRIORITY, GOAWAY, and what nobody knows */
		return count(frames, GUARD_EMPTY, now_ns);
	}
}

/* While no server is chosen: answer the frame, of which the head was found good. */
static int answer(struct guard_frames *frames, const struct frame *frame, const uint8_t *payload)
{
	uint8_t bytes[HEAD + 8] = {0, 0, (uint8_t)frame->length, frame->type, FLAG_ACK};

	if (frame->flags & FLAG_ACK)
		return 0;
	if (frame->type == SETTINGS) {
		bytes[2] = 0;
		frames->settings_answered++;
	} else {
		memcpy(bytes + HEAD, payload, frame->length);
	}
	if (buffer_append(frames->answers, bytes, HEAD + bytes[2]) < 0)
		return fail(frames, ENHANCE_YOUR_CALM, "answers that are not read");
	return 0;
}

/* What the server is not to know of. */
static bool is_hidden(struct guard_frames *frames, const struct frame *frame)
{
	if (frame->type == PING)
		return frames->protocol == GUARD_UNDECIDED && !(frame->flags & FLAG_ACK);
	if (frame->type != SETTINGS || !(frame->flags & FLAG_ACK) || frames->acknowledged)
		return false;
	frames->acknowledged = true;
	return true;
}

/* The frame at the front: how many bytes of it may go on now, 0 = more is needed, or -EPROTO. */
static int64_t take_frame(struct guard_frames *frames, uint8_t *bytes, size_t length, uint64_t now_ns)
{
	bool answered;
	struct frame frame;

	if (length < HEAD)
		return 0;
	frame = parse_head(bytes);
	answered = frames->protocol == GUARD_UNDECIDED && (frame.type == PING || frame.type == SETTINGS);
	if (frame.length > GUARD_FRAME_MAX)
		return fail(frames, FRAME_SIZE_ERROR, "a frame that is too large");
	if (!frames->settled && frame.type != SETTINGS)
		return fail(frames, PROTOCOL_ERROR, "no settings at the beginning");
	if (frames->in_block != (frame.type == CONTINUATION) ||
	    (frames->in_block && frame.stream != frames->block_stream))
		return fail(frames, PROTOCOL_ERROR, "a header block that is interrupted");
	if (frame.type == HEADERS || frame.type == CONTINUATION) {
		if (!frame.stream)
			return fail(frames, PROTOCOL_ERROR, "headers for no stream");
		if (length < HEAD + frame.length)
			return 0;
		return take_block(frames, &frame, bytes + HEAD, now_ns) < 0 ? -EPROTO : HEAD + (int64_t)frame.length;
	}
	if (answered && frame.type == PING && length < HEAD + 8u && frame.length == 8)
		return 0;
	if (check_frame(frames, &frame, now_ns) < 0 || (answered && answer(frames, &frame, bytes + HEAD) < 0))
		return -EPROTO;
	if (is_hidden(frames, &frame))
		bytes[3] = HIDDEN;
	frames->payload_left = frame.length;
	return HEAD;
}

int64_t guard_client_bytes(struct guard_frames *frames, uint8_t *bytes, size_t length, uint64_t now_ns)
{
	size_t used = 0;

	if (!frames->prefaced) {
		size_t n = length < PREFACE ? length : PREFACE;

		if (memcmp(bytes, preface, n) != 0)
			return fail(frames, PROTOCOL_ERROR, "not HTTP/2");
		if (length < PREFACE)
			return 0;
		frames->prefaced = true;
		used = PREFACE;
	}
	while (used < length) {
		size_t n = length - used < frames->payload_left ? length - used : frames->payload_left;
		int64_t taken;

		used += n;
		frames->payload_left -= (uint32_t)n;
		if (frames->payload_left || used == length || (frames->asked && !frames->protocol))
			break;
		taken = take_frame(frames, bytes + used, length - used, now_ns);
		if (taken < 0)
			return taken;
		if (!taken)
			break;
		used += (size_t)taken;
	}
	return (int64_t)used;
}

/* Frames of the server */

static int see_server_frame(struct guard_frames *frames, const struct frame *frame, uint64_t now_ns)
{
	struct guard_stream *stream = find_stream(frames, frame->stream);

	if (frame->type == RST_STREAM) {
		/* After a whole response it only says that the rest of the request is not wanted. */
		bool forced = stream && !stream->server_done;

		drop_stream(frames, stream);
		return forced ? count(frames, GUARD_SERVER_RESET, now_ns) : 0;
	}
	if ((frame->type == DATA || frame->type == HEADERS) && frame->flags & FLAG_END_STREAM)
		end_side(frames, stream, false);
	return 0;
}

/* The limits that we keep are what the client is told, whatever the server thinks. */
static uint32_t our_setting(uint16_t id, bool *ret_ours)
{
	*ret_ours = true;
	switch (id) {
	case NGHTTP2_SETTINGS_HEADER_TABLE_SIZE:
		return 4096;
	case NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS:
		return GUARD_STREAMS_MAX;
	case NGHTTP2_SETTINGS_MAX_FRAME_SIZE:
		return GUARD_FRAME_MAX;
	case NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE:
		return GUARD_HEADER_LIST_MAX;
	default:
		*ret_ours = false;
		return 0;
	}
}

/* One byte of a SETTINGS payload, which is a row of 2-byte names and 4-byte values. */
static void change_setting(struct guard_frames *frames, uint8_t *byte)
{
	unsigned int at = frames->setting_at;
	uint32_t value;
	bool ours;

	frames->setting_at = (at + 1) % 6;
	if (at < 2) {
		frames->setting[at] = *byte;
		return;
	}
	value = our_setting((uint16_t)(frames->setting[0] << 8 | frames->setting[1]), &ours);
	if (ours)
		*byte = (uint8_t)(value >> (8 * (5 - at)));
}

int64_t guard_server_bytes(struct guard_frames *frames, uint8_t *bytes, size_t length, uint64_t now_ns)
{
	uint32_t left = frames->server_left;
	size_t at = 0;

	frames->server_head_length = 0;
	while (at < length) {
		size_t n = length - at < frames->server_left ? length - at : frames->server_left;
		struct frame frame = parse_head(frames->server_head);

		if (n && frame.type == SETTINGS && frames->protocol == GUARD_GRPC) {
			for (size_t i = 0; i < n; i++)
				change_setting(frames, bytes + at + i);
		}
		at += n;
		frames->server_left -= (uint32_t)n;
		if (at == length)
			break;
		if (length - at < HEAD) {
			frames->server_head_length = length - at;
			memcpy(frames->server_head, bytes + at, length - at);
			break;
		}
		memcpy(frames->server_head, bytes + at, HEAD);
		frames->setting_at = 0;
		frame = parse_head(frames->server_head);
		frames->server_left = frame.length;
		if (frame.type == SETTINGS && frame.flags & FLAG_ACK && frames->settings_answered) {
			frames->settings_answered--;
			bytes[at + 3] = HIDDEN;
		}
		if (see_server_frame(frames, &frame, now_ns) < 0) {
			frames->server_left = left; /* nothing of this goes on */
			return -EPROTO;
		}
		at += HEAD;
	}
	return (int64_t)at;
}
