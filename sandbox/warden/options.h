#ifndef PADDOCK_WARDEN_OPTIONS_H
#define PADDOCK_WARDEN_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* What the command line says. Read once, constant afterwards. */
struct options {
	const char *data_dir;    /* absolute; holds pool.btrfs or pool/ */
	const char *runtime_dir; /* absolute; on tmpfs, root only */
	const char *libexec_dir; /* paddock-init, paddock-archive, paddock-sudo */
	const char *policy_dir;  /* seccomp/default.policy below it */
	uid_t client_uid;        /* the only uid that may use the socket */
	gid_t client_gid;
	uint64_t pool_bytes;
	uint32_t checkpoint_timeout; /* seconds that CRIU has, beside those for the memory */
	const char *compress;        /* how btrfs makes checkpoints and snapshots smaller: "none", "lzo" or "zstd" */
	uint32_t range_base;         /* host uid of the first slot's root */
	bool allow_memfd_exec;       /* do without vm.memfd_noexec, which kernels before 6.3 lack */
	bool lazy_restore;           /* where the host can, and where it answers sooner */
	bool check_only;
	bool json;
};

extern struct options options;

#endif
