#ifndef PADDOCK_PREVIEW_PROXY_H
#define PADDOCK_PREVIEW_PROXY_H

#include "http.h"
#include "visit.h"

/* Take an exchange to the visit's port and bring the answer back; it is cut when the visit is over. */

enum proxy_failure {
	PROXY_REFUSED, /* nothing listens on the port */
	PROXY_BROKEN,  /* the application gave no answer, or none that can be understood */
	PROXY_SLOW,    /* none in time */
	PROXY_BUSY,    /* too many at once, or paddockd does not answer; try again */
	PROXY_CUT,     /* the visit ended meanwhile: `why` */
};

/* How to tell the visitor of a failure before the first byte of an answer: reply to the exchange. */
typedef void (*proxy_fail)(struct http_exchange *exchange, const struct visit_key *key, uint16_t port,
			   enum proxy_failure failure, visit_refusal why);

/* How long an application may be silent after it has taken a request. */
#define PROXY_ANSWER_SECONDS 120
void proxy_set_answer_timeout(unsigned int seconds);

void proxy_serve(struct http_exchange *exchange, struct visit *visit, const struct visit_key *key, proxy_fail fail);

/* A websocket is asked for. */
bool proxy_is_websocket(const struct http_head *head);

#endif
