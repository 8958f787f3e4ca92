#ifndef PADDOCK_SERVER_HEALTH_H
#define PADDOCK_SERVER_HEALTH_H

#include <stdbool.h>

#include "grpc/health/v1/health.pb-c.h"

/* grpc.health.v1: open to anybody, for load balancers and supervisors. */

struct rpc_call;
struct ProtobufCMessage;

void health_check(struct rpc_call *call, const struct ProtobufCMessage *request);
void health_watch(struct rpc_call *call, const struct ProtobufCMessage *request);

/* Tell the watchers. Serving from the start until rpc_stop(). Lock held. */
void health_set_serving(bool serving);

#define HEALTH_ROW(method, kind_, deadline, handler)                                                                   \
	{                                                                                                              \
		.path = "/grpc.health.v1.Health/" #method, .kind = kind_, .audit = RPC_AUDIT_NONE,                     \
		.scope = SCOPE_NONE, .default_deadline_ms = deadline, .max_request_bytes = 4096,                       \
		.request = &grpc__health__v1__health_check_request__descriptor,                                        \
		.response = &grpc__health__v1__health_check_response__descriptor, .start = handler                     \
	}

#define HEALTH_ROWS                                                                                                    \
	HEALTH_ROW(Check, RPC_UNARY, 60000, health_check), HEALTH_ROW(Watch, RPC_SERVER_STREAM, 0, health_watch)

#endif
