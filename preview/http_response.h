#ifndef PADDOCK_PREVIEW_HTTP_RESPONSE_H
#define PADDOCK_PREVIEW_HTTP_RESPONSE_H

#include "http_head.h"

/*
 * The head of an HTTP/1.1 response from an application in a sandbox. It is as little trusted as a request: what two
 * parsers could understand in two ways is refused, by the same rules (http_head.h).
 */

#define HTTP_RESPONSE_MAX 65536u
#define HTTP_RESPONSE_FIELDS_MAX 128u

/* What follows the head. */
enum http_body { HTTP_BODY_NONE, HTTP_BODY_LENGTH, HTTP_BODY_CHUNKED, HTTP_BODY_UNTIL_END };

struct http_response {
	int status; /* 100 .. 999 */
	int minor;
	struct http_field fields[HTTP_RESPONSE_FIELDS_MAX];
	unsigned int n_fields;
	enum http_body body;
	int64_t content_length; /* -1: not given; may be there without a body (HEAD, 304) */
	bool keep_alive;
};

/* Take a whole head apart, in place. `method` is the request's. 0, or -EPROTO. */
int http_response_parse(char *text, size_t length, const char *method, struct http_response *ret);
/* The value of the first field of this name, or NULL. */
const char *http_response_get(const struct http_response *response, const char *name);

#endif
