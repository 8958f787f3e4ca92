#ifndef PADDOCK_PREVIEW_VISIT_H
#define PADDOCK_PREVIEW_VISIT_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "forward.h"
#include "paddock/internal/visit.pb-c.h"
#include "sandbox/base/error.h"
#include "sandbox/base/id.h"

/*
 * Visits: one visitor at one port of one sandbox (proto/paddock/internal/visit.proto). paddockd decides, once for each
 * visit, and keeps a stream open as long as it stands by that; when the stream ends, whatever runs in the visit is cut.
 * While a visit is open its requests cost no call.
 */

#define VISIT_PREVIEW_LEN 27

/* What the visitor has come to, and has shown. Zeroed, so that it can be compared as bytes. */
struct visit_key {
	char preview[VISIT_PREVIEW_LEN + 1]; /* a grant, with its cookie; or */
	char cookie[FORWARD_COOKIE_LEN + 1];
	char sandbox[SANDBOX_ID_SIZE]; /* a port that its sandbox publishes */
	char traffic_token[FORWARD_TOKEN_LEN + 1];
	char client[INET6_ADDRSTRLEN]; /* without a port */
	uint16_t port;
};

typedef Paddock__Internal__VisitRefusal visit_refusal;
#define VISIT(name) PADDOCK__INTERNAL__VISIT_REFUSAL__VISIT_##name

struct visit;

/* Something that runs in a visit. Embedded in its owner. */
struct visit_user {
	struct visit_user *next, *previous;
	struct visit *visit; /* NULL: in none */
	/* The visit is over: stop now. It has left the visit already. */
	void (*cut)(struct visit_user *user, visit_refusal why);
	/* Every two seconds. */
	void (*tick)(struct visit_user *user, uint64_t now_ns);
};

/* Somebody who waits for a visit to be opened. Embedded in its owner. */
struct visit_waiter {
	struct visit_waiter *next;
	struct visit *visit; /* while it waits */
	/* `visit` NULL: `why` says why not; with VISIT_ALLOWED there is no saying now, and `err` has the reason. */
	void (*done)(struct visit_waiter *waiter, struct visit *visit, visit_refusal why, const struct pdk_error *err);
};

/* The visit if it is open, or NULL. */
struct visit *visit_find(const struct visit_key *key);
/* Open it; done() is called later. -errno with `err`: it is not. `address` is for the record. */
int visit_open(const struct visit_key *key, const char *address, struct visit_waiter *waiter, struct pdk_error *err);
/* Wait no longer. Harmless when it does not wait. */
void visit_give_up(struct visit_waiter *waiter);
/* End all. */
void visits_stop(void);

uint64_t visit_number(const struct visit *visit);
uint16_t visit_port(const struct visit *visit);
const char *visit_sandbox(const struct visit *visit);
bool visit_read_only(const struct visit *visit);
const char *visit_host_header(const struct visit *visit);

/* False: it has too many already. */
bool visit_enter(struct visit *visit, struct visit_user *user);
void visit_leave(struct visit_user *user);
/* For the record, and for the sandbox's timeout if the grant says so. */
void visit_count(struct visit *visit, uint64_t requests, uint64_t bytes_in, uint64_t bytes_out);

/* The idle connections of a visit are kept in it by app_conn.c. */
struct app_conn;
struct app_conn **visit_idle(struct visit *visit);

#endif
