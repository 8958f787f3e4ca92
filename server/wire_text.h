#ifndef PADDOCK_SERVER_WIRE_TEXT_H
#define PADDOCK_SERVER_WIRE_TEXT_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

#include "sandbox/base/error.h"

/* protobuf-c hands strings out as C strings, so a NUL byte inside one would silently end it. Checks the
 * packed bytes of a message that protobuf_c_message_unpack() has accepted: INVALID_ARGUMENT, naming the field. */
int wire_check_text(const ProtobufCMessageDescriptor *descriptor, const uint8_t *data, size_t length,
		    struct pdk_error *err);

#endif
