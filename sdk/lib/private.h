#ifndef PADDOCK_SDK_PRIVATE_H
#define PADDOCK_SDK_PRIVATE_H

#include "paddock.h"
#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>

struct paddock_client {
	grpc_channel *channel;
	char *address;
	char *bearer; /* "Bearer pdk_...", or NULL */
	int64_t timeout_ms;
};

/* message.c: between protobuf-c messages and gRPC's byte buffers */
grpc_byte_buffer *message_pack(const ProtobufCMessage *message);
/* Memory that a stream keeps for putting the pieces of a message together, so that large messages do not map and
 * unmap it each time. */
struct scratch {
	uint8_t *data;
	size_t size;
};
ProtobufCMessage *message_unpack(grpc_byte_buffer *buffer, const ProtobufCMessageDescriptor *type,
				 struct scratch *scratch);

/* client.c */
grpc_call *client_new_call(struct paddock_client *client, grpc_completion_queue *cq, const char *path,
			   int64_t timeout_ms);
size_t client_metadata(const struct paddock_client *client, grpc_metadata metadata[1]);
gpr_timespec client_deadline(int64_t timeout_ms);
int client_fail(const struct paddock_client *client, grpc_status_code status, grpc_slice details,
		struct pdk_error *err);

#endif
