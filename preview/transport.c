#include "transport.h"

#include <errno.h>
#include <openssl/err.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

int transport_open(struct transport *transport, int fd, SSL_CTX *context)
{
	*transport = (struct transport){.fd = fd, .handshaken = !context, .events = EPOLLIN};
	if (!context)
		return 0;
	transport->ssl = SSL_new(context);
	if (!transport->ssl || SSL_set_fd(transport->ssl, fd) != 1) {
		SSL_free(transport->ssl);
		transport->ssl = NULL;
		return -ENOMEM;
	}
	SSL_set_accept_state(transport->ssl);
	return 0;
}

void transport_close(struct transport *transport)
{
	SSL_free(transport->ssl);
	transport->ssl = NULL;
	if (transport->fd >= 0)
		close(transport->fd);
	transport->fd = -1;
}

/* What OpenSSL's return value means in our terms. */
static int tls_result(struct transport *transport, int rc)
{
	int error = SSL_get_error(transport->ssl, rc);

	ERR_clear_error();
	switch (error) {
	case SSL_ERROR_WANT_READ:
		transport->events |= EPOLLIN;
		return 0;
	case SSL_ERROR_WANT_WRITE:
		transport->events |= EPOLLOUT;
		return 0;
	case SSL_ERROR_ZERO_RETURN:
		return -ECONNRESET;
	case SSL_ERROR_SYSCALL:
		return errno ? -errno : -ECONNRESET;
	default:
		return -EPROTO;
	}
}

int transport_handshake(struct transport *transport)
{
	int rc;

	if (transport->handshaken)
		return 1;
	ERR_clear_error();
	transport->events = 0;
	errno = 0;
	rc = SSL_do_handshake(transport->ssl);
	if (rc != 1)
		return tls_result(transport, rc);
	transport->handshaken = true;
	return 1;
}

ssize_t transport_read(struct transport *transport, void *bytes, size_t size)
{
	ssize_t n;

	if (transport->ssl) {
		ERR_clear_error();
		errno = 0;
		n = SSL_read(transport->ssl, bytes, size > 1 << 20 ? 1 << 20 : (int)size);
		return n > 0 ? n : tls_result(transport, (int)n);
	}
	do
		n = recv(transport->fd, bytes, size, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n > 0)
		return n;
	if (!n)
		return -ECONNRESET;
	transport->events |= EPOLLIN;
	return errno == EAGAIN ? 0 : -errno;
}

ssize_t transport_write(struct transport *transport, const void *bytes, size_t length)
{
	ssize_t n;

	if (transport->ssl) {
		ERR_clear_error();
		errno = 0;
		n = SSL_write(transport->ssl, bytes, length > 1 << 20 ? 1 << 20 : (int)length);
		return n > 0 ? n : tls_result(transport, (int)n);
	}
	do
		n = send(transport->fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return n;
	transport->events |= EPOLLOUT;
	return errno == EAGAIN ? 0 : -errno;
}

void transport_finish(struct transport *transport)
{
	if (transport->ssl) {
		ERR_clear_error();
		SSL_shutdown(transport->ssl);
		ERR_clear_error();
	}
	shutdown(transport->fd, SHUT_WR);
}

bool transport_is_h2(const struct transport *transport)
{
	const unsigned char *name = NULL;
	unsigned int length = 0;

	if (transport->ssl)
		SSL_get0_alpn_selected(transport->ssl, &name, &length);
	return length == 2 && memcmp(name, "h2", 2) == 0;
}
