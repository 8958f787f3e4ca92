#ifndef PADDOCK_SERVER_BUILDS_H
#define PADDOCK_SERVER_BUILDS_H

#include "sandbox/base/error.h"

/* Builds of templates: records, calls. build_internal.h says how they live. */

struct rpc_call;
struct store_batch;
struct ProtobufCMessage;

/* Load from the store. What was under way has failed, and its sandboxes end. After the sandboxes. */
int builds_start(struct pdk_error *err);
/* Before the sandboxes stop. */
void builds_stop(void);
/* Forget those of a tenant that is removed; the records' deletion goes into `batch`. -ENOMEM: nothing was forgotten. */
int builds_remove_tenant(const char *tenant, struct store_batch *batch);

void builds_create(struct rpc_call *call, const struct ProtobufCMessage *request);
void builds_begin(struct rpc_call *call, const struct ProtobufCMessage *request);
void builds_get(struct rpc_call *call, const struct ProtobufCMessage *request);
void builds_list(struct rpc_call *call, const struct ProtobufCMessage *request);
void builds_end(struct rpc_call *call, const struct ProtobufCMessage *request);

#endif
