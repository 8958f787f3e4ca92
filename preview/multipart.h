#ifndef PADDOCK_PREVIEW_MULTIPART_H
#define PADDOCK_PREVIEW_MULTIPART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sandbox/base/buffer.h"

/* multipart/form-data (RFC 7578), taken apart as it comes. It does no I/O: the owner puts bytes in and asks for what is
 * next. */

#define MULTIPART_HEAD_MAX 8192u
#define MULTIPART_IN_MAX (256u << 10)

struct multipart {
	char delimiter[80]; /* CRLF, "--", the boundary */
	size_t delimiter_length;
	int state;
	struct buffer in;
};

enum multipart_event {
	MULTIPART_MORE, /* nothing until more bytes come */
	MULTIPART_PART, /* a part begins */
	MULTIPART_DATA,
	MULTIPART_PART_END,
	MULTIPART_END, /* the last boundary */
	MULTIPART_BAD,
};

struct multipart_part {
	char name[256];
	char filename[4200]; /* as it was sent: "%22" stays */
	bool has_filename;
};

/* `type` is the Content-Type. -EINVAL: not multipart/form-data, or no valid boundary. */
int multipart_start(struct multipart *multipart, const char *type);
void multipart_free(struct multipart *multipart);
/* What is next. With MULTIPART_PART `part` is filled. With MULTIPART_DATA the bytes stay at the front, and are given
 * again, until multipart_take() says that so many of them are used. */
enum multipart_event multipart_next(struct multipart *multipart, struct multipart_part *part, const uint8_t **ret_bytes,
				    size_t *ret_length);
void multipart_take(struct multipart *multipart, size_t length);

#endif
