#ifndef PADDOCK_PREVIEW_ENVELOPE_H
#define PADDOCK_PREVIEW_ENVELOPE_H

#include "sandbox/base/buffer.h"
#include "sandbox/base/error.h"

/* Connect's envelopes: a byte of flags, a big-endian length, the message. */

#define ENVELOPE_HEADER 5u
#define ENVELOPE_COMPRESSED 0x01u
#define ENVELOPE_END 0x02u
#define MESSAGE_MAX (4u << 20)

struct envelope {
	uint8_t flags;
	const uint8_t *bytes; /* in the buffer */
	size_t length;
};

/* Look at the front of `in`: 1 = a whole envelope is there, take ENVELOPE_HEADER + length bytes when it is used; 0 =
 * not yet; -EMSGSIZE or -EINVAL with `err`: too large, unknown flags. */
int envelope_next(const struct buffer *in, struct envelope *ret, struct pdk_error *err);
/* Append the header of an envelope whose message follows. */
int envelope_put_header(struct buffer *out, uint8_t flags, size_t length);

/* Uncompress gzip into `out`, up to the maximum of that: -EMSGSIZE beyond, -EINVAL for what is not one gzip stream. */
int envelope_gunzip(const uint8_t *bytes, size_t length, struct buffer *out, struct pdk_error *err);

#endif
