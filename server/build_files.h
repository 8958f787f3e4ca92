#ifndef PADDOCK_SERVER_BUILD_FILES_H
#define PADDOCK_SERVER_BUILD_FILES_H

#include "sandbox/base/error.h"
#include <stdbool.h>

/* Files that clients have uploaded for COPY, by tenant and the hash that the client calls them by. Kept in the data
 * directory until others need the room, at most a day, and not over a restart. */

struct rpc_call;
struct ProtobufCMessage;

#define BUILD_HASH_LEN 64

bool build_hash_valid(const char *hash);
/* A descriptor to read them from, or -ENOENT. */
int build_files_open(const char *tenant, const char *hash);

int build_files_start(struct pdk_error *err);
void build_files_stop(void);
void build_files_remove_tenant(const char *tenant);

void builds_get_files(struct rpc_call *call, const struct ProtobufCMessage *request);
void builds_upload_files(struct rpc_call *call, const struct ProtobufCMessage *request);

#endif
