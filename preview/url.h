#ifndef PADDOCK_PREVIEW_URL_H
#define PADDOCK_PREVIEW_URL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sandbox/base/id.h"

/* Decode %XX, and '+' as a space if asked, in place. -EINVAL: a '%' without two digits, or a NUL. */
int url_decode(char *text, bool plus);

/* The decoded value of the first pair of this name in a query, cut out into `ret` (NUL-terminated). 0, -ENOENT,
 * -EINVAL, -ENAMETOOLONG. */
int url_query(const char *query, const char *name, char *ret, size_t size);

/* What a Host names below our domain. */
struct url_host {
	bool is_sandbox;
	char sandbox[SANDBOX_ID_SIZE];
	uint16_t port;
	bool is_grant; /* <label>.<domain>, with a label that is no sandbox's */
	char label[64];
};

/*
 * Take a Host apart: an optional ":port", an optional last dot, any case. "<port>-<id>.<domain>" and
 * "<port>-<id>-<more>.<domain>" name a port of a sandbox; the port is a plain decimal number from 1 to 65535. Another
 * single label below the domain is a grant. All else (the domain itself, an address, "api.<domain>",
 * "sandbox.<domain>") is neither. -EINVAL: not a host at all, or something below the domain that is malformed.
 */
int url_parse_host(const char *host, const char *domain, struct url_host *ret);

/* A decimal number from 1 to 65535 without sign, space or leading zero; 0 if it is not. */
uint16_t url_parse_port(const char *text, size_t length);

#endif
