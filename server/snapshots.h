#ifndef PADDOCK_SERVER_SNAPSHOTS_H
#define PADDOCK_SERVER_SNAPSHOTS_H

#include "sandbox/base/error.h"

/* Snapshots of sandboxes: records, quotas, expiry, the calls. snapshot_internal.h says how they live. */

struct rpc_call;
struct store_batch;
struct ProtobufCMessage;

/* Load from the store, compare with what the warden has. After the tenants and the templates, before the sandboxes. */
int snapshots_start(struct pdk_error *err);
void snapshots_stop(void);
/* Forget those of a tenant that is removed; the records' deletion goes into `batch`. -ENOMEM: nothing was forgotten. */
int snapshots_remove_tenant(const char *tenant, struct store_batch *batch);
/* The warden is back: its list again decides what is lost and what is nobody's. */
void snapshots_reconcile(void);

void snapshots_create(struct rpc_call *call, const struct ProtobufCMessage *request);
void snapshots_get(struct rpc_call *call, const struct ProtobufCMessage *request);
void snapshots_list(struct rpc_call *call, const struct ProtobufCMessage *request);
void snapshots_remove(struct rpc_call *call, const struct ProtobufCMessage *request);
void snapshots_fork(struct rpc_call *call, const struct ProtobufCMessage *request);

#endif
