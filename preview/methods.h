#ifndef PADDOCK_PREVIEW_METHODS_H
#define PADDOCK_PREVIEW_METHODS_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>

#include "sandbox/base/error.h"

/* What can be called over the Connect protocol: the methods of the contract, with the messages that protobuf-c knows
 * them by, and whether they stream, which it does not know and the descriptor set does. */
struct method {
	char path[128]; /* "/paddock.v1.Sandboxes/Create" */
	const ProtobufCMessageDescriptor *request;
	const ProtobufCMessageDescriptor *reply;
	bool client_streams;
	bool server_streams;
};

/* Once, at start. An error names a method that the two descriptions do not agree on. */
int methods_load(struct pdk_error *err);
const struct method *method_find(const char *path);
unsigned int methods_count(void);

#endif
