#ifndef PADDOCK_PREVIEW_TLS_H
#define PADDOCK_PREVIEW_TLS_H

#include <openssl/ssl.h>

#include "config.h"

/* The TLS settings in force: TLS 1.2 and 1.3, no renegotiation, no compression; the certificate by the name that the
 * client asks for, the first one when none fits. ALPN takes http/1.1 if it is offered, and h2 from clients that speak
 * nothing else (gRPC). NULL with `err`: a file cannot be read, a key is open to others or does not fit its certificate.
 * Free with SSL_CTX_free(). */
SSL_CTX *tls_load(const struct ingress_config *config, struct pdk_error *err);

#endif
