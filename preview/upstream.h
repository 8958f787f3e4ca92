#ifndef PADDOCK_PREVIEW_UPSTREAM_H
#define PADDOCK_PREVIEW_UPSTREAM_H

#include "sandbox/base/id.h"
#include "sandbox/call/call.h"

/*
 * The one link to paddockd that all calls of the ingress share. It is made when it is first needed and again when it
 * broke; paddockd may come and go. The functions are those of sandbox/call, with the event loop taken care of.
 */

/* Who a call is for, in the words that its client used. Nothing here is checked but by paddockd. */
struct caller {
	char authorization[512]; /* "Bearer <key>", or "" */
	char access_token[128];  /* of `sandbox`, or "" */
	char sandbox[SANDBOX_ID_SIZE];
	char user[64]; /* whom to act as in it, or "" */
	char address[64];
	const struct call_file *file; /* a signed file URL, or NULL; with one, no other credential counts */
};

/* `path` of paddockd's ingress.sock; must stay valid. */
void upstream_start(const char *path);
void upstream_stop(void);

/* NULL with `err`: paddockd does not answer, or has too many calls. */
struct call *upstream_open(const struct caller *caller, const char *method, uint64_t timeout_ms, uint32_t credit,
			   const struct call_events *events, void *arg, struct pdk_error *err);
int upstream_send(struct call *call, const void *bytes, size_t length);
void upstream_half_close(struct call *call);
void upstream_credit(struct call *call, uint32_t n);
void upstream_cancel(struct call *call);

#endif
