#ifndef PADDOCK_WARDEN_CRIU_H
#define PADDOCK_WARDEN_CRIU_H

/*
 * CRIU 4.1 or newer: LIBEXEC_DIR/criu, unpacked from a newer release of the distribution with its own loader and
 * libraries, or else /usr/sbin/criu. It runs with a small library of ours in front of the C library (preload.c).
 */

/* Find it and ask for its version. -ENOENT: there is none; -ENOSYS: too old. Once, in the warden. */
int criu_setup(void);
/* "4.1.1"; empty when there is none. */
const char *criu_version(void);
/* Of a lazy restore: where our library in CRIU finds the server of pages (lazy_server.c). For this process. */
void criu_set_pages(const char *name);
/* Execute it with `argv` (NULL-terminated, without a program name; at most CRIU_ARGS_MAX). Returns only on failure. */
#define CRIU_ARGS_MAX 200
void criu_execute(const char *const *argv);

#endif
