#ifndef PADDOCK_SERVER_PREVIEW_INTERNAL_H
#define PADDOCK_SERVER_PREVIEW_INTERNAL_H

#include "auth.h"
#include "loop.h"
#include "paddock/internal/visit.pb-c.h"
#include "paddock/v1/previews.pb-c.h"
#include "previews.h"
#include "sandbox/base/id.h"
#include "store.h"
#include "validate.h"

/*
 * What the preview*.c and visits.c share; nobody else includes this. Everything under the loop lock.
 *
 * Life of a grant (state; entered by; leaves to):
 *
 *	ACTIVE   Grant; its timer is the expiry; -> EXPIRED, REVOKED
 *	EXPIRED  its time ran out; the timer is the retention; forgotten after it
 *	REVOKED  Revoke, or the end of its sandbox; the same
 *
 * An end is final: a clock that is set back revives nothing. Only ACTIVE ones are in their sandbox's list.
 */

#define PREVIEW_ID_LEN 27
#define PREVIEW_ID_SIZE (PREVIEW_ID_LEN + 1)
#define PREVIEW_TOKEN_LEN 64
#define PREVIEW_VISITOR_LEN 32
#define PREVIEW_COOKIE_LEN (PREVIEW_VISITOR_LEN + PREVIEW_TOKEN_LEN)
#define PREVIEW_HOST_MAX VALIDATE_HOST_PATTERN_MAX

struct preview {
	struct preview *next_bucket;
	struct preview *newer, *older; /* all of the server */
	struct preview *next;          /* in its sandbox's list */
	char id[PREVIEW_ID_SIZE];
	char tenant[TENANT_NAME_MAX + 1];
	char sandbox_id[SANDBOX_ID_SIZE];
	int64_t generation; /* of that sandbox */
	uint16_t port;
	Paddock__V1__PreviewState state;
	int64_t created_unix_ms, expires_unix_ms, ended_unix_ms;
	bool read_only, one_visitor, counts_as_activity, resumes;
	char host_header[PREVIEW_HOST_MAX + 1];
	uint64_t visitors;
	int64_t last_visit_unix_ms;
	char visitor[PREVIEW_VISITOR_LEN + 1]; /* one_visitor: who it is; empty: nobody yet */
	struct loop_timer timer;
};

/* --- previews.c: the table, and ends --- */
struct preview *preview_get(const char *id); /* by exact id, or NULL */
struct preview *preview_oldest(void);        /* then ->newer */
unsigned int preview_count(void);
/* Into the table, the lists; arms the expiry. -ENOMEM. */
void preview_insert(struct preview *preview);
int preview_store(struct store_batch *batch, const struct preview *preview);
/* The sandbox it is of, if that is living; or NULL. */
struct sandbox *preview_sandbox(const struct preview *preview);
/* ACTIVE -> `state`: out of its sandbox's list, visits cut. The caller stores it. */
void preview_finish(struct preview *preview, Paddock__V1__PreviewState state);
void preview_arm(struct preview *preview);

/* --- preview_token.c: what opens a grant --- */
int preview_token_start(void);
/* 27 characters: "p" and 130 random bits. */
void preview_make_id(char id[PREVIEW_ID_SIZE]);
void preview_make_visitor(char visitor[PREVIEW_VISITOR_LEN + 1]);
/* HMAC-SHA-256 in hexadecimal over what the grant is bound to. */
bool preview_make_token(const struct preview *preview, char token[PREVIEW_TOKEN_LEN + 1]);
bool preview_make_cookie(const struct preview *preview, const char *visitor, char cookie[PREVIEW_COOKIE_LEN + 1]);
/* Constant time, and the same work for a grant that is not there (NULL). */
bool preview_check_token(const struct preview *preview, const char *token);
bool preview_check_cookie(const struct preview *preview, const char *cookie);

/* --- visits.c --- */
void visits_cut_preview(const struct preview *preview, Paddock__Internal__VisitRefusal why);
void visits_cut_sandbox(const struct sandbox *sandbox, Paddock__Internal__VisitRefusal why);

#endif
