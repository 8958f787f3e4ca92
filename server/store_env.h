#ifndef PADDOCK_SERVER_STORE_ENV_H
#define PADDOCK_SERVER_STORE_ENV_H

#include "store.h"
#include <lmdb.h>

/* The LMDB environment below the store: making it, opening it, letting it grow. Private to store*.c. */

struct store_env {
	MDB_env *env;
	MDB_dbi dbi[STORE_DB_COUNT];
	size_t map_size;
	int dir_fd;  /* the data directory */
	int lock_fd; /* holds the flock */
};

#define STORE_ENV_CLOSED                                                                                               \
	{                                                                                                              \
		.dir_fd = -1, .lock_fd = -1                                                                            \
	}

/* Lock DIR, make DIR/store if it is not there, open it and check its schema. */
int store_env_open(struct store_env *env, const char *dir, struct pdk_error *err);
void store_env_close(struct store_env *env);

/* Is everything that is in use in the database at `path` readable? Looked at by a child. `data`: its file, from dir_fd.
 */
int store_probe(const char *path, int dir_fd, const char *data, const char *const names[STORE_DB_COUNT],
		struct pdk_error *err);

/* Make the map larger. No transaction of this process may be open. After a failure the environment cannot be used. */
int store_env_grow(struct store_env *env);

/* LMDB's return codes are errno values, or its own negative numbers: always 0 or a negative errno. */
int store_errno(int mdb_rc);

#endif
