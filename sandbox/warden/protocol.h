#ifndef PADDOCK_WARDEN_PROTOCOL_H
#define PADDOCK_WARDEN_PROTOCOL_H

#include "sandbox/base/id.h"
#include <stdint.h>

/*
 * What paddockd may ask of the warden: fixed messages over a SOCK_SEQPACKET socket, both on one host, so in
 * host byte order. The warden takes ids, enums and numbers, never a path or a name, and checks
 * every field as if paddockd were hostile. Strings are NUL-terminated within their array, or refused.
 *
 * The warden listens on RUNTIME_DIR/warden.sock and serves one paddockd at a time, whose uid it checks
 * (SO_PEERCRED). Sandboxes live on when that connection ends; the next one asks WARDEN_LIST.
 */

#define WARDEN_PROTOCOL_VERSION 6u

enum warden_op {
	WARDEN_HELLO = 1, /* -> version in `value` of the request; reply.value = warden's version */
	WARDEN_CREATE,    /* id, template, limits; reply brings one fd: the link to init, connected. With a
				 * snapshot_id: on a copy of its layer, which must be of this template */
	WARDEN_KILL,      /* id; replies when nothing is left. Unknown id: status 0 (idempotent), value = 0 */
	WARDEN_ATTACH,    /* id; reply brings a new connected link fd (after a restart of paddockd) */
	WARDEN_LIMITS,    /* id, limits: set all of them on a living sandbox */
	WARDEN_USAGE,     /* id; reply.usage. value = WARDEN_USAGE_BRIEF: only cpu_usec, and reply.value = microseconds
				 * in which something in it waited for a disk (0 without PSI). WARDEN_USAGE_SAMPLE: only
				 * memory_bytes, cpu_usec and disk_bytes, and reply.value = bytes of its page cache, without
				 * what tmpfs holds */
	WARDEN_LIST,      /* one reply per living sandbox (flags WARDEN_MORE), then one with an empty id */
	WARDEN_TEMPLATE_IMPORT, /* brings one fd: the read end of a pipe with a tar. value = limit of unpacked
				 * bytes; one reply when done: template, size, files, digest; progress replies
				 * (WARDEN_MORE) before */
	WARDEN_TEMPLATE_REMOVE, /* template; -EBUSY while a sandbox uses it */
	WARDEN_TEMPLATE_LIST,   /* one reply per template (WARDEN_MORE), then one with an empty template */
	WARDEN_FREEZE,     /* id; replies when nothing in it runs. Stays over restarts of both until THAW or KILL */
	WARDEN_THAW,       /* id */
	WARDEN_CHECKPOINT, /* id, value = a token for it, not 0: freeze, write processes and memory to the pool, stay
			      * frozen. On failure it runs on. reply.value = bytes. THAW takes it back */
	WARDEN_RELEASE,    /* id, value = the token: end the frozen processes, keep layer and checkpoint */
	WARDEN_RESTORE,    /* id, value = the token, hostname, limits: as CREATE, from the checkpoint */
	WARDEN_STOCK,      /* value = how many layers, namespaces and uid ranges to hold ready; 0..256 */
	WARDEN_STATUS,     /* reply.status_info */
	WARDEN_SNAPSHOT,   /* id, snapshot_id, value = a token for it, not 0: freeze, copy processes, memory and layer,
			      * let it go on. The first reply (WARDEN_MORE) comes when it does: stopped_usec. The last
			      * when the snapshot is whole: value = bytes of memory, size_bytes = bytes of its layer */
	WARDEN_COPY,       /* id (a new one), snapshot_id, value = its token, hostname, limits: as CREATE, from it */
	WARDEN_SNAPSHOT_REMOVE, /* snapshot_id; -EBUSY while a sandbox is made from it */
	WARDEN_SNAPSHOT_LIST,   /* one reply per whole snapshot (WARDEN_MORE; id, template), then one without an id */
	WARDEN_LAYER, /* id, snapshot_id: as SNAPSHOT, but of the layer alone: there is nothing to make a COPY from, only to
		       * CREATE on. Replies as SNAPSHOT does */
	WARDEN_SNAPSHOT_BRIEF, /* as SNAPSHOT, for copies that are made at once: a loss of power may lose it */
	WARDEN_EVENT_EXITED,   /* warden -> paddockd, serial 0: the sandbox's init died; id, value = wait status,
			      * usage, text = why, where it was not its own doing (also in the reply of a KILL that
			      * came first); what was left of the sandbox is already being removed */
};

#define WARDEN_USAGE_BRIEF 1u
#define WARDEN_USAGE_SAMPLE 2u
#define WARDEN_MORE 1u   /* reply.flags: further replies with this serial follow */
#define WARDEN_STORED 4u /* reply.flags of LIST: no process, only a layer and a checkpoint */
#define WARDEN_FROZEN 2u /* reply.flags of LIST: the sandbox is, or is to be, frozen */
/* reply.flags of LIST: a dump or restore that an earlier connection asked for, or the end of its processes, is under way.
 * What it will be is not known yet: ask again. */
#define WARDEN_UNSETTLED 8u

struct warden_limits {
	uint64_t memory_bytes;
	uint64_t disk_bytes;
	uint64_t max_inodes;
	uint32_t cpu_millis;
	uint32_t max_pids;
};

struct warden_usage {
	uint64_t memory_bytes;
	uint64_t memory_peak_bytes;
	uint64_t cpu_usec;
	uint64_t disk_bytes;
	uint64_t inodes;
	uint64_t oom_kills;
	uint32_t pids;
	uint32_t reserved;
};

struct warden_request {
	uint32_t op;     /* enum warden_op */
	uint32_t serial; /* chosen by paddockd, not 0; comes back in every reply */
	uint64_t value;
	char id[24];          /* sandbox id, zero-filled */
	char snapshot_id[24]; /* zero-filled */
	char template_id[48]; /* template id, zero-filled */
	char hostname[64];
	struct warden_limits limits;
};

struct warden_reply {
	uint32_t op;
	uint32_t serial;
	int32_t status; /* 0 or a negative errno */
	uint32_t flags;
	uint64_t value;
	uint64_t size_bytes;       /* templates */
	uint64_t files;            /* templates */
	uint64_t stored_bytes;     /* CHECKPOINT, SNAPSHOT: what `value` bytes take on disk; 0: not known */
	uint64_t stopped_usec;     /* SNAPSHOT: how long nothing in the sandbox ran */
	uint64_t total_disk_bytes; /* STATUS: size of the pool */
	uint64_t free_disk_bytes;  /* STATUS */
	char id[24];
	char template_id[48];
	char digest[80];             /* "sha256:..." of a template */
	char text[256];              /* a sentence for people when status is not 0; may be shown to a client */
	struct warden_limits limits; /* LIST: those in force */
	struct warden_usage usage;
};

#endif
