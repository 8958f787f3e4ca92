#ifndef PADDOCK_PREVIEW_REST_SANDBOX_H
#define PADDOCK_PREVIEW_REST_SANDBOX_H

#include "paddock/v1/sandboxes.pb-c.h"
#include "rest_internal.h"

/* Sandboxes in the words of the SDKs. */

/* What the SDKs compare to learn what the sandbox side can do. */
#define ENVD_VERSION "0.6.13"

/* The answer to create and connect. */
void rest_sandbox_answer(struct rest *rest, int status, const Paddock__V1__Sandbox *sandbox);
/* As a list and a detail show it; `detail` adds what only the latter has. */
int rest_sandbox_put(struct buffer *out, const struct rest *rest, const Paddock__V1__Sandbox *sandbox, bool detail);
bool rest_sandbox_lives(const Paddock__V1__Sandbox *sandbox);
void rest_sandbox_not_found(struct rest *rest);
/* False: it is answered. */
bool rest_sandbox_runs(struct rest *rest, const Paddock__V1__Sandbox *sandbox);

/* A whole number of seconds of the body, 0 to a year; `*ret` stays as it is when there is none. */
int rest_read_seconds(struct rest *rest, const char *name, int64_t *ret, struct pdk_error *err);

#endif
