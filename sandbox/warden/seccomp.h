#ifndef PADDOCK_WARDEN_SECCOMP_H
#define PADDOCK_WARDEN_SECCOMP_H

#include "sandbox/base/error.h"

/* The system call filter of every sandbox. policies/README.md describes the language. */

/* Read and compile the policy file; once, at start. Errors name the line. */
int seccomp_setup(const char *path, struct pdk_error *err);
/* Load the compiled filter into the calling process, which has no_new_privs. */
int seccomp_load(void);

#endif
