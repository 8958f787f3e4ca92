#ifndef PADDOCK_SERVER_E2B_H
#define PADDOCK_SERVER_E2B_H

/* The contract of the hosted-sandbox SDKs (proto/e2b/), translated to paddock.v1. Rows in table.c. */

struct rpc_call;
struct ProtobufCMessage;

void e2b_process_list(struct rpc_call *call, const struct ProtobufCMessage *request);
void e2b_process_connect(struct rpc_call *call, const struct ProtobufCMessage *request);
void e2b_process_start(struct rpc_call *call, const struct ProtobufCMessage *request);
void e2b_process_update(struct rpc_call *call, const struct ProtobufCMessage *request);
void e2b_process_stream_input(struct rpc_call *call, const struct ProtobufCMessage *request);
void e2b_process_send_input(struct rpc_call *call, const struct ProtobufCMessage *request);
void e2b_process_send_signal(struct rpc_call *call, const struct ProtobufCMessage *request);
void e2b_process_close_stdin(struct rpc_call *call, const struct ProtobufCMessage *request);

void e2b_filesystem_stat(struct rpc_call *call, const struct ProtobufCMessage *request);
void e2b_filesystem_make_dir(struct rpc_call *call, const struct ProtobufCMessage *request);
void e2b_filesystem_move(struct rpc_call *call, const struct ProtobufCMessage *request);
void e2b_filesystem_list_dir(struct rpc_call *call, const struct ProtobufCMessage *request);
void e2b_filesystem_remove(struct rpc_call *call, const struct ProtobufCMessage *request);
void e2b_filesystem_watch_dir(struct rpc_call *call, const struct ProtobufCMessage *request);
void e2b_filesystem_create_watcher(struct rpc_call *call, const struct ProtobufCMessage *request);
void e2b_filesystem_get_watcher_events(struct rpc_call *call, const struct ProtobufCMessage *request);
void e2b_filesystem_remove_watcher(struct rpc_call *call, const struct ProtobufCMessage *request);

#endif
