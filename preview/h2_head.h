#ifndef PADDOCK_PREVIEW_H2_HEAD_H
#define PADDOCK_PREVIEW_H2_HEAD_H

#include "http_head.h"
#include "sandbox/base/buffer.h"

/*
 * The head of an HTTP/2 request, put together field by field. When it is whole it is written as the head of an HTTP/1.1
 * request and read by http_head_parse(): what is refused there is refused here, in the same words, and nothing can mean
 * one thing to us and another to an application behind us. Before, no piece may have a byte that ends a line, nor a
 * name a colon; a Host beside :authority has to be the same; fields of a connection (Connection, Transfer-Encoding,
 * ...) are refused, and the pieces of Cookie become one line.
 */

enum h2_pseudo { H2_METHOD, H2_SCHEME, H2_AUTHORITY, H2_PATH, H2_PSEUDOS };

struct h2_head {
	char *pseudo[H2_PSEUDOS];
	char *host; /* the field */
	struct buffer fields;
	struct buffer cookies;
	unsigned int n_fields;
	int status; /* what it has to be answered with already, or 0 */
};

void h2_head_init(struct h2_head *head);
void h2_head_free(struct h2_head *head);
/* One field, in the order in which they come. */
void h2_head_add(struct h2_head *head, const uint8_t *name, size_t name_length, const uint8_t *value,
		 size_t value_length);
/* All fields were there. `tls`: what :scheme has to say; `body`: more follows. `*ret_text` is what `ret` points into
 * and has to be freed, also after a failure. 0, or the HTTP status that the client deserves. */
int h2_head_finish(struct h2_head *head, bool tls, bool body, char **ret_text, struct http_head *ret);

/* True if a Host names the host that the TLS connection was made for (`name`, by SNI; NULL or "": it did not say). */
bool h2_host_is(const char *host, const char *name);

#endif
