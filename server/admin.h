#ifndef PADDOCK_SERVER_ADMIN_H
#define PADDOCK_SERVER_ADMIN_H

struct rpc_call;
struct ProtobufCMessage;

/* The Admin and Audit services. */
void admin_create_tenant(struct rpc_call *call, const struct ProtobufCMessage *request);
void admin_list_tenants(struct rpc_call *call, const struct ProtobufCMessage *request);
void admin_set_quota(struct rpc_call *call, const struct ProtobufCMessage *request);
void admin_remove_tenant(struct rpc_call *call, const struct ProtobufCMessage *request);
void admin_create_key(struct rpc_call *call, const struct ProtobufCMessage *request);
void admin_list_keys(struct rpc_call *call, const struct ProtobufCMessage *request);
void admin_revoke_key(struct rpc_call *call, const struct ProtobufCMessage *request);
void admin_who_am_i(struct rpc_call *call, const struct ProtobufCMessage *request);
void admin_get_status(struct rpc_call *call, const struct ProtobufCMessage *request);
void audit_list(struct rpc_call *call, const struct ProtobufCMessage *request);
void audit_verify(struct rpc_call *call, const struct ProtobufCMessage *request);
void audit_export(struct rpc_call *call, const struct ProtobufCMessage *request);
void audit_get_key(struct rpc_call *call, const struct ProtobufCMessage *request);

#endif
