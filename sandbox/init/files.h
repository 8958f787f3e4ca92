#ifndef PADDOCK_INIT_FILES_H
#define PADDOCK_INIT_FILES_H

#include "sandbox/init/path.h"
#include "sandbox/init/worker.h"
#include <limits.h>

/* What GuestFile says about a file. The texts stay the worker's until the next call, `path` the caller's. */
void files_describe(struct worker *worker, const char *path, const struct stat *st, guest_message(File) * file);
uint32_t files_type(mode_t mode);
/* Reply `file` for what is at `name` below `dir` (name "": dir itself), named `path`. */
int files_reply_stat(struct worker *worker, int dir, const char *name, const char *path, struct pdk_error *err);
/* What metadata the file has, into `file` (memory of the process). name "": of dir itself, which may be O_PATH. -ENOMEM. */
int files_metadata_load(int dir, const char *name, mode_t mode, guest_message(File) * file, size_t *ret_bytes);
/* Give what the request says to a new file. `path` is for the error. */
int files_metadata_store(int fd, const guest_message(Write) * request, const char *path, struct pdk_error *err);
int files_make_path(struct worker *worker, const ProtobufCBinaryData *bytes, char path[PATH_MAX],
		    struct pdk_error *err);

#endif
