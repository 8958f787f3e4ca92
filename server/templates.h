#ifndef PADDOCK_SERVER_TEMPLATES_H
#define PADDOCK_SERVER_TEMPLATES_H

#include "auth.h"
#include "sandbox/base/id.h"

struct rpc_call;
struct ProtobufCMessage;

struct snapshot;

/* Look a template up for a tenant: own name, public name, or id. NOT_FOUND "template not found".
 * `ret_name` (64 bytes) gets the name it was found by, without a tag; `ret_snapshot` what it is made of, which stays
 * NULL for an imported one: then ret_id is the whole of it. Lock held. */
int template_find(const char *tenant, const char *name_or_id, char ret_id[TEMPLATE_ID_SIZE], char ret_name[64],
		  struct snapshot **ret_snapshot, struct pdk_error *err);

/* Load names from the store and compare with what the warden holds. */
int templates_start(struct pdk_error *err);
/* The names of those that are made of snapshots, and what nothing is made of any more. After snapshots_start(). */
int templates_bind(struct pdk_error *err);
void templates_stop(void);

void templates_list(struct rpc_call *call, const struct ProtobufCMessage *request);
void templates_get(struct rpc_call *call, const struct ProtobufCMessage *request);
void templates_build(struct rpc_call *call, const struct ProtobufCMessage *request);
void templates_remove(struct rpc_call *call, const struct ProtobufCMessage *request);
void templates_create_from_snapshot(struct rpc_call *call, const struct ProtobufCMessage *request);
void templates_set_tags(struct rpc_call *call, const struct ProtobufCMessage *request);
void templates_remove_tags(struct rpc_call *call, const struct ProtobufCMessage *request);

#endif
