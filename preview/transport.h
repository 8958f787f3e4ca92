#ifndef PADDOCK_PREVIEW_TRANSPORT_H
#define PADDOCK_PREVIEW_TRANSPORT_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A non-blocking connection to a client, plain or TLS. Reads and writes return bytes, 0 when nothing is possible now,
 * -ECONNRESET at the end, or another negative errno; transport_events() says what to wait for then. */

struct transport {
	int fd;
	SSL *ssl; /* NULL: plain */
	bool handshaken;
	uint32_t events; /* that the last read, write or handshake waits for */
};

/* Take over a connected, non-blocking socket. `context` NULL: plain. -ENOMEM; the fd stays the caller's then. */
int transport_open(struct transport *transport, int fd, SSL_CTX *context);
void transport_close(struct transport *transport);
/* 1 = done, 0 = wait for transport->events, or a negative errno. */
int transport_handshake(struct transport *transport);
ssize_t transport_read(struct transport *transport, void *bytes, size_t size);
ssize_t transport_write(struct transport *transport, const void *bytes, size_t length);
/* Say that nothing more is written; what the peer sends can still be read. */
void transport_finish(struct transport *transport);
/* The protocol that ALPN chose is "h2". */
bool transport_is_h2(const struct transport *transport);

#endif
