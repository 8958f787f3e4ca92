#ifndef PADDOCK_SERVER_REFLECTION_H
#define PADDOCK_SERVER_REFLECTION_H

#include "grpc/reflection/v1/reflection.pb-c.h"
#include "grpc/reflection/v1alpha/reflection.pb-c.h"
#include "sandbox/base/error.h"

/* Server reflection for tools like grpcurl. Off unless `reflection` is set, and never without a valid key. */

struct rpc_call;
struct ProtobufCMessage;

void reflection_info(struct rpc_call *call, const struct ProtobufCMessage *request);

/* Index the descriptor set. Before the first call. */
int reflection_start(struct pdk_error *err);

#define REFLECTION_ROW(package, c_package)                                                                             \
	{                                                                                                              \
		.path = "/grpc.reflection." #package ".ServerReflection/ServerReflectionInfo", .kind = RPC_BIDI,       \
		.audit = RPC_AUDIT_NONE, .scope = SCOPE_ANY, .default_deadline_ms = 0, .max_request_bytes = 4096,      \
		.request = &grpc__reflection__##c_package##__server_reflection_request__descriptor,                    \
		.response = &grpc__reflection__##c_package##__server_reflection_response__descriptor,                  \
		.start = reflection_info                                                                               \
	}

#define REFLECTION_ROWS REFLECTION_ROW(v1, v1), REFLECTION_ROW(v1alpha, v1alpha)

#endif
