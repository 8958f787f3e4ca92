#ifndef PADDOCK_SERVER_FILES_H
#define PADDOCK_SERVER_FILES_H

struct rpc_call;
struct ProtobufCMessage;

/* The Files service: requests are validated and passed to the sandbox's init; bytes flow through pipes. */

void files_stat(struct rpc_call *call, const struct ProtobufCMessage *request);
void files_list(struct rpc_call *call, const struct ProtobufCMessage *request);
void files_read(struct rpc_call *call, const struct ProtobufCMessage *request);
void files_write(struct rpc_call *call, const struct ProtobufCMessage *request);
void files_make_dir(struct rpc_call *call, const struct ProtobufCMessage *request);
void files_move(struct rpc_call *call, const struct ProtobufCMessage *request);
void files_remove(struct rpc_call *call, const struct ProtobufCMessage *request);
void files_watch(struct rpc_call *call, const struct ProtobufCMessage *request);
void files_unpack_archive(struct rpc_call *call, const struct ProtobufCMessage *request);
void files_pack_archive(struct rpc_call *call, const struct ProtobufCMessage *request);

#endif
