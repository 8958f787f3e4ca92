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
int files_make_path(struct worker *worker, const ProtobufCBinaryData *bytes, char path[PATH_MAX],
		    struct pdk_error *err);

#endif
