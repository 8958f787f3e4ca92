#ifndef PADDOCK_SERVER_CONFIG_H
#define PADDOCK_SERVER_CONFIG_H

#include "sandbox/base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* /etc/paddock/paddock.conf: `name = value` lines, # comments, sizes with K/M/G/T, durations with ms/s/m/h/d.
 * An unknown or repeated name, a bad value, a file that others can write: an error with file and line. Options on the
 * command line (--set name=value) win. `paddockd -n` prints what is in force, in the same form. */

#define CONFIG_PATH_MAX 256

struct config {
	char data_dir[CONFIG_PATH_MAX];        /* /var/lib/paddock */
	char runtime_dir[CONFIG_PATH_MAX];     /* /run/paddock: admin.sock, paddock.sock, warden.sock */
	char user[64];                         /* paddock: what paddockd becomes when it is started as root */
	char ingress_user[64];                 /* whose ingress.sock is; empty: there is none */
	char listen[CONFIG_PATH_MAX];          /* 127.0.0.1:7411; empty: no TCP. Not loopback needs TLS */
	char metrics_listen[64];               /* 127.0.0.1:7412; empty: off; loopback only */
	char tls_certificate[CONFIG_PATH_MAX]; /* PEM chain; set: TCP speaks TLS only; re-read when it changes */
	char tls_key[CONFIG_PATH_MAX];
	char tls_client_ca[CONFIG_PATH_MAX]; /* set: clients must present a certificate (mTLS) */
	char preview_url[CONFIG_PATH_MAX];   /* http://localhost:7413: where browsers reach the ingress */
	bool reflection;                     /* false */
	char log_level[16];                  /* info: error, warn, info, debug */
	uint32_t max_streams;                /* 1000 concurrent calls per connection */
	uint32_t shutdown_grace_ms;          /* 5000 */

	/* sandboxes */
	uint64_t default_timeout_ms;   /* 300,000 */
	uint64_t default_memory_bytes; /* 512 MiB */
	uint32_t default_cpu_millis;   /* 1000 */
	uint32_t default_max_pids;     /* 512 */
	uint64_t default_disk_bytes;   /* 2 GiB */
	uint64_t default_max_inodes;   /* 200,000 */
	uint64_t retention_ms;         /* 3,600,000: how long an ended sandbox stays visible */
	char default_template[64];     /* base */
	uint32_t pool_size;            /* 4 pre-made sandboxes of the default template */
	bool sudo;                     /* true */

	/* output kept per process */
	uint64_t output_head_bytes;    /* 256 KiB */
	uint64_t output_tail_bytes;    /* 1 MiB */
	uint64_t output_sandbox_bytes; /* 64 MiB of all processes of a sandbox */

	/* admission: RESOURCE_EXHAUSTED beyond these */
	uint32_t max_sandboxes;        /* 4096 */
	uint64_t memory_reserve_bytes; /* 512 MiB that sandboxes never get; also the floor of MemAvailable */
	double memory_overcommit;      /* 4.0: sum of limits <= (RAM - reserve) x this */
	double disk_overcommit;        /* 4.0, against the size of the pool */
	uint64_t template_max_bytes;   /* 16 GiB */

	/* default tenant quota */
	uint32_t quota_max_sandboxes;      /* 1000 */
	uint64_t quota_max_memory_bytes;   /* 4 GiB */
	uint64_t quota_total_memory_bytes; /* 0: the box's */
	uint64_t quota_max_disk_bytes;     /* 16 GiB */
	uint64_t quota_total_disk_bytes;
	uint32_t quota_creates_per_minute; /* 60,000 */
	uint32_t quota_max_templates;      /* 32 */
	uint32_t quota_max_snapshots;      /* 100 */
};

void config_defaults(struct config *config);
int config_load(struct config *config, const char *path, struct pdk_error *err);
/* Parse from memory: for `--set`, tests and fuzzing. `name` is used in errors. */
int config_parse(struct config *config, const char *name, const char *text, size_t length, struct pdk_error *err);
/* Cross-field checks (listen without TLS off loopback, certificate without key, ...). */
int config_check(const struct config *config, struct pdk_error *err);
void config_print(const struct config *config);

/* The configuration in force; constant after start. */
extern struct config server_config;

#endif
