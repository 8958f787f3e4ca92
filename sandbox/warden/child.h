#ifndef PADDOCK_WARDEN_CHILD_H
#define PADDOCK_WARDEN_CHILD_H

#include "rootfs.h"
#include "sandbox/base/error.h"
#include <stddef.h>
#include <sys/types.h>

/* What runs between clone3() and execve(), as straight lines. Never returns. A failure is written to `status`
 * as a struct child_failure. Right before execve one with error 0 is written, and a successful execve closes the pipe
 * (CLOEXEC): only that record and then the end of file mean success, an end of file alone is a child that was killed.
 */

struct child_failure {
	int error; /* positive errno; 0: about to execute */
	char step[60];
};

/*
 * A sandbox takes two processes. The builder is cloned into the cgroup with the host's capabilities and a copy of the
 * mount namespace; it makes the file systems, enters the sandbox's user namespace, and clones the first process as
 * its own sibling (CLONE_PARENT), so that the new namespaces belong to that user namespace. Then it exits. The kernel
 * writes the first process's id to `first`, in memory shared with the warden, before it can run: the warden knows every
 * child that there is, whenever the builder dies.
 */
struct child_plan {
	const char *id; /* of the cgroup */
	const char *hostname;
	struct rootfs_plan rootfs;
	pid_t *first;
	int netns;
	int status;
	int listener; /* becomes fd 3; fd 4 becomes paddock-archive */
	int place;    /* handover.h: where these descriptors are; -1: we have a copy of the warden's table */
};
void child_run_builder(const struct child_plan *plan) __attribute__((noreturn));

/* A confined helper on a directory of the pool: no network, no process of others, no root but its own. */
struct child_job {
	const char *id; /* of the cgroup */
	const char *name;
	int is_template;
	int userns;
	int netns;
	int status;
	int input;   /* fd 0, or -1 */
	int output;  /* fd 1 */
	int program; /* sealed memfd of paddock-archive */
	char *const *argv;
};
void child_run_job(const struct child_job *job) __attribute__((noreturn));

/* A sealed copy of a file that the warden executes. -ENOENT if it is not there. */
int child_load_program(const char *name, mode_t mode, struct pdk_error *err);
/* vm.memfd_noexec exists (6.3), with which every sandbox refuses executable memory files. */
int child_has_memfd_noexec(void);

#endif
