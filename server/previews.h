#ifndef PADDOCK_SERVER_PREVIEWS_H
#define PADDOCK_SERVER_PREVIEWS_H

#include <stdbool.h>
#include <stdint.h>

#include "sandbox/base/error.h"

/* Previews: grants that open one port of one sandbox, and the visits of whoever has the link. */

struct rpc_call;
struct sandbox;
struct ProtobufCMessage;

/* Load the grants, after the sandboxes; those of sandboxes that have ended meanwhile end too. Lock held. */
int previews_start(struct pdk_error *err);
void previews_stop(void);

/* The sandbox is ending: revoke its grants and cut the visits. */
void previews_end(struct sandbox *sandbox);
/* The sandbox is being stopped for a while: cut the visits. */
void previews_suspend(struct sandbox *sandbox);

/* A preview's port may be any that is not the door of something else: 22, and the one where SDKs have their agent. */
bool preview_port_valid(uint32_t port);

/* RPC handlers: rows in table.c */
void previews_grant(struct rpc_call *call, const struct ProtobufCMessage *request);
void previews_list(struct rpc_call *call, const struct ProtobufCMessage *request);
void previews_revoke(struct rpc_call *call, const struct ProtobufCMessage *request);
void previews_extend(struct rpc_call *call, const struct ProtobufCMessage *request);
void previews_list_ports(struct rpc_call *call, const struct ProtobufCMessage *request);
void visits_enter(struct rpc_call *call, const struct ProtobufCMessage *request);
void visits_open(struct rpc_call *call, const struct ProtobufCMessage *request);
void visits_dial(struct rpc_call *call, const struct ProtobufCMessage *request);
void visits_report(struct rpc_call *call, const struct ProtobufCMessage *request);

#endif
