#ifndef PADDOCK_SERVER_FILE_INTERNAL_H
#define PADDOCK_SERVER_FILE_INTERNAL_H

#include "guest.h"
#include "paddock/v1/files.pb-c.h"
#include "question.h"
#include "rpc.h"
#include "sandboxes.h"

/* Shared by files.c and file_*.c only. */

#define FILE_CHUNK_MAX (1u << 20)

/* What every call of Files begins with: the sandbox, the path, the user; names both for the audit log. */
int file_begin(struct rpc_call *call, const char *sandbox_id, const ProtobufCBinaryData *path, const char *user,
	       struct sandbox **ret, struct pdk_error *err);
/* "user" when none is given. */
char *file_user(const struct sandbox *sandbox, const char *user);
/* `ret` points into `file` and the call's arena. -ENOMEM. */
int file_fill_info(struct rpc_call *call, const Paddock__Internal__GuestFile *file, Paddock__V1__FileInfo *ret);
/* The file as the reply of the call. */
void file_finish(struct rpc_call *call, const Paddock__Internal__GuestFile *file);
/* The error of a guest_call() that failed. */
int file_fail_ask(int64_t rc, struct pdk_error *err);

#endif
