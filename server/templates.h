#ifndef PADDOCK_SERVER_TEMPLATES_H
#define PADDOCK_SERVER_TEMPLATES_H

#include "auth.h"
#include "sandbox/base/id.h"

struct rpc_call;
struct ProtobufCMessage;

/* Look a template up for a tenant: own name, public name, or id. NOT_FOUND "template not found".
 * `ret_name` (64 bytes) gets the name it was found by. Lock held. */
int template_find(const char *tenant, const char *name_or_id, char ret_id[TEMPLATE_ID_SIZE], char ret_name[64],
		  struct pdk_error *err);

/* Load names from the store and compare with what the warden holds. */
int templates_start(struct pdk_error *err);
void templates_stop(void);

void templates_list(struct rpc_call *call, const struct ProtobufCMessage *request);
void templates_get(struct rpc_call *call, const struct ProtobufCMessage *request);
void templates_build(struct rpc_call *call, const struct ProtobufCMessage *request);
void templates_remove(struct rpc_call *call, const struct ProtobufCMessage *request);

#endif
