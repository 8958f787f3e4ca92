#ifndef PADDOCK_INIT_PATH_H
#define PADDOCK_INIT_PATH_H

#include "sandbox/base/error.h"
#include <limits.h>
#include <protobuf-c/protobuf-c.h>
#include <sys/stat.h>

/* Paths in requests: bytes, absolute or relative to the home. Only workers use them, as the user. */

/* Check the limits and write the absolute form into `path`, without empty or "." components and without a
 * slash behind. ".." stays: only the kernel knows where it leads. */
int path_make(const ProtobufCBinaryData *bytes, const char *home, char path[PATH_MAX], struct pdk_error *err);

/* openat2() that refuses magic links (/proc/PID/fd and the like). A descriptor or a negative errno. */
int path_open_at(int dir, const char *path, int flags, mode_t mode);

/* Open the directory that holds the last component and copy that into `name`. -EINVAL: the path has none
 * ("/", or it ends in ".."). */
int path_open_parent(const char *path, char name[NAME_MAX + 1]);

/* As path_open_parent() of what the path finally means: a symbolic link at its end is followed, also to a target that
 * does not exist. */
int path_open_target_parent(const char *path, char name[NAME_MAX + 1]);

/* Make the missing directories above the last component, or all of them. */
int path_make_parents(const char *path);
int path_make_dirs(const char *path, mode_t mode);

/* Say what failed, with the path as people know it. Returns rc. */
int path_fail(struct pdk_error *err, int rc, const char *path);

#endif
