#ifndef PADDOCK_SERVER_BUILD_FILES_H
#define PADDOCK_SERVER_BUILD_FILES_H

#include "sandbox/base/error.h"
#include "worker.h"
#include <stdbool.h>
#include <stdint.h>

/*
 * Files that clients have uploaded for COPY, by tenant and the hash that the client calls them by. Kept in the data
 * directory until others need the room, at most a day, and not over a restart.
 *
 * Room is shared: when it is short, the oldest of whoever holds most goes, and of the one who asks if others do not
 * hold more. So a tenant that holds less than its share loses nothing to the uploads of others.
 *
 * Everything here is under the loop lock and touches no disk; what does is work for the worker (worker.h), in order: a
 * file that was found stays there until the job that is submitted next has opened it.
 */

struct rpc_call;
struct ProtobufCMessage;
struct build_share;

#define BUILD_HASH_LEN 64

bool build_hash_valid(const char *hash);
/* Its number, or 0. It counts as used. */
uint64_t build_files_find(const char *tenant, const char *hash);
/* For the worker: a descriptor to read from, or -errno. */
int build_files_open(uint64_t number);

int build_files_start(struct pdk_error *err);
/* After the calls have ended and the worker has stopped. */
void build_files_stop(void);
void build_files_remove_tenant(const char *tenant);

/* --- for build_upload.c: a file that is being uploaded --- */

struct build_file {
	struct worker_job job;
	struct build_file *next; /* of the share's, once it is kept */
	struct build_share *share;
	uint64_t number; /* its name on disk */
	uint64_t bytes, used_ns;
	bool kept;
	char hash[BUILD_HASH_LEN + 1];
};

/* NULL: out of memory. */
struct build_file *build_file_create(const char *tenant, const char *hash);
/* RESOURCE_EXHAUSTED: there is no room for this much more. */
int build_file_grow(struct build_file *file, uint64_t more, struct pdk_error *err);
const char *build_file_tenant(const struct build_file *file);
/* It is whole and on disk: from now on it is found, instead of one of the same hash. */
void build_file_keep(struct build_file *file);
/* Take it away, on disk too. NULL is fine. */
void build_file_drop(struct build_file *file);

/* What there is room for; changed by tests alone. */
extern struct build_files_limits {
	uint64_t tenant_bytes, bytes;
	uint64_t keep_free; /* of the disk: the store is there, too */
	unsigned int tenant_files, files;
} build_files_limits;

/* For the worker: a new file, without a name; its name; free bytes of the disk. */
int build_file_open_new(void);
int build_file_link(int fd, uint64_t number);
uint64_t build_files_disk_free(void);
/* What build_files_disk_free() said last. */
void build_files_set_disk_free(uint64_t bytes);

/* --- build_upload.c --- */
void builds_get_files(struct rpc_call *call, const struct ProtobufCMessage *request);
void builds_upload_files(struct rpc_call *call, const struct ProtobufCMessage *request);
/* End those of a tenant that is removed. */
void build_uploads_remove_tenant(const char *tenant);

/* --- build_token.c: who may upload what, for an hour: as long as the key is valid that asked for it --- */
#define BUILD_TOKEN_SIZE 160
struct build_token {
	char tenant[64];
	char key_id[17]; /* "": the operator's socket */
};
struct principal;
int build_token_start(struct pdk_error *err);
/* False: there is no such tenant. */
bool build_token_make(const struct principal *principal, const char *hash, char ret[BUILD_TOKEN_SIZE]);
bool build_token_check(const char *token, const char *hash, struct build_token *ret);
/* Is the key still valid? */
bool build_token_holds(const struct build_token *token);

#endif
