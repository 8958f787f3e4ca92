#ifndef PADDOCK_SDK_ADDRESS_H
#define PADDOCK_SDK_ADDRESS_H

#include <paddock/error.h>
#include <stdbool.h>

struct address {
	char *target; /* for grpc_channel_create() */
	bool tls;
	bool local; /* a unix socket or loopback: a key may travel in clear text */
};

/* -EINVAL: neither unix:PATH nor HOST:PORT nor https://HOST:PORT. Release with address_clear(). */
int address_parse(const char *text, struct address *ret_address, struct pdk_error *err);
void address_clear(struct address *address);
/* PADDOCK_ADDR, or the socket in /run/paddock that this process may open. Allocated; NULL when there is none. */
char *address_default(struct pdk_error *err);

#endif
