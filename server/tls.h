#ifndef PADDOCK_SERVER_TLS_H
#define PADDOCK_SERVER_TLS_H

#include <grpc/grpc_security.h>

#include "config.h"

/* TLS of the TCP listener. The files are looked at for each new connection and read again when they changed, so a
 * renewed certificate needs no restart; one that does not load leaves the old one in force and is logged. */

/* Credentials for grpc_server_add_http2_port(). `config` must stay. A private key that others can read is refused. */
int tls_credentials(const struct config *config, grpc_server_credentials **ret, struct pdk_error *err);

/* Read the files at the next connection, changed or not (SIGHUP). Any thread. */
void tls_reload(void);

#endif
