#ifndef PADDOCK_WARDEN_RECORD_H
#define PADDOCK_WARDEN_RECORD_H

#include "protocol.h"
#include <stdbool.h>
#include <stdint.h>

/* RUNTIME_DIR/sandboxes/<id>/: `state` and the socket that init listens on. The state is written before the first
 * resource of a sandbox exists and removed after the last is gone, so that a warden that starts after a crash
 * finds everything by enumerating. The runtime directory is a tmpfs: after a reboot there is nothing to find. */

#define RECORD_MAGIC 0x70646b31u /* "pdk1" */

enum record_ready {
	RECORD_UNREADY,  /* what there is of it is removed, or is its checkpoint again */
	RECORD_READY,    /* init was executed */
	RECORD_RESTORED, /* all its processes are there, frozen; its checkpoint may still count */
};

struct record {
	uint32_t magic;
	uint32_t slot;
	uint32_t range_base;
	uint32_t ready; /* enum record_ready */
	struct warden_limits limits;
	char id[24];
	char template_id[48];
};

int record_setup(void);
/* Make the directory and its first, unready state. */
int record_create(const struct record *record);
/* Replace the state; one small write over the old one. */
int record_update(const struct record *record);
int record_load(const char *id, struct record *ret);
/* Remove state, socket and directory. 0 if there is none. */
int record_remove(const char *id);
void record_enumerate(void (*found)(const char *id));

/* A lock on the directory: a descriptor that holds it, also in other processes that inherit it, until the last is
 * closed. It outlives the warden with the CRIU that has it. */
int record_lock(const char *id);
bool record_locked(const char *id);

/* Of a lazy restore (lazy.h): the file that is locked while it goes on, and the pipe to hurry it. */
int record_open_lazy(const char *id, bool make);
int record_open_hurry(const char *id, bool make);

/* A listening socket at init.sock of the sandbox, and a connection to it. */
int record_listen(const char *id);
int record_connect(const char *id);

#endif
