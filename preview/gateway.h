#ifndef PADDOCK_PREVIEW_GATEWAY_H
#define PADDOCK_PREVIEW_GATEWAY_H

#include "http.h"

/* Where a request belongs, in this order: the label of its Host below our domain, the header that names a sandbox, a
 * signed file URL, the control plane. Clients are told `advertise` for the domain. Both must stay valid. */
void gateway_start(const char *domain, const char *advertise);
void gateway_serve(struct http_exchange *exchange, void *arg);
/* True if a connection whose first request has this host, and gRPC's content-type, is gRPC's: all but those for
 * something in a sandbox. */
bool gateway_takes_grpc(const char *host);

#endif
