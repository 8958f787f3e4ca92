#ifndef PADDOCK_PREVIEW_HTTP_HEAD_H
#define PADDOCK_PREVIEW_HTTP_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The head of an HTTP/1.1 request (RFC 9110, 9112), read strictly: what two parsers could understand in two ways is
 * refused, since a request that is smuggled past one of them is the attack. Refused are bare CR or LF, folded lines,
 * space before a colon, control characters, two Host or Content-Length or Transfer-Encoding lines, Content-Length
 * beside Transfer-Encoding, any transfer coding but "chunked", absolute targets, a target with bytes outside of visible
 * ASCII, HTTP/1.0 with a coded body.
 */

#define HTTP_HEAD_MAX 32768u
#define HTTP_TARGET_MAX 8192u
#define HTTP_FIELDS_MAX 100u

struct http_field {
	const char *name; /* as it was written */
	const char *value;
};

struct http_head {
	const char *method;
	char *path;        /* of the target, still encoded; starts with '/' (or is "*") */
	const char *query; /* what follows the '?', or "" */
	int minor;         /* HTTP/1.minor: 0 or 1 */
	struct http_field fields[HTTP_FIELDS_MAX];
	unsigned int n_fields;

	const char *host; /* "" when HTTP/1.0 gave none */
	bool chunked;
	int64_t content_length; /* -1: not given */
	bool keep_alive;
	bool upgrade; /* Connection: upgrade, and the field Upgrade is there */
	bool expects_continue;
};

/* The length of the head at the front of `bytes`, its empty line included; 0 if it is not whole yet. */
size_t http_head_length(const char *bytes, size_t length);

/* Take a whole head apart, in place: `text` is changed, and everything in `ret` points into it. 0, or the HTTP status
 * that the peer deserves (400, 414, 417, 431, 505); the connection cannot go on after one. */
int http_head_parse(char *text, size_t length, struct http_head *ret);

/* The value of the first field of this name, or NULL. */
const char *http_head_get(const struct http_head *head, const char *name);
/* True if a comma-separated list has the token, in any case. */
bool http_list_has(const char *list, const char *token);
bool http_token_char(char c);

/* Of one line: "name: value" into the field, in place. 0 or 400. */
int http_field_parse(char *line, struct http_field *ret);
/* Every line ends with CRLF, neither of the two is anywhere else, and there is no NUL. */
bool http_lines_valid(const char *text, size_t length);
/* Cut the line at the front of a text whose lines are valid, and go on to the next. */
char *http_next_line(char **text);
/* A Content-Length: up to 15 digits and nothing else. 0 or 400. */
int http_length_parse(const char *text, int64_t *ret);

#endif
