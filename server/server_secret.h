#ifndef PADDOCK_SERVER_SERVER_SECRET_H
#define PADDOCK_SERVER_SERVER_SECRET_H

#include <stdint.h>

/* Random keys of this server, made once and kept in the store. */

#define SERVER_SECRET_SIZE 32

/* The key of this name; a new one is on its way to the store when this returns. Lock held; before anybody uses it. */
int server_secret_load(const char *name, uint8_t ret[SERVER_SECRET_SIZE]);

#endif
