#include "store_env.h"

#include "log.h"
#include "sandbox/base/cleanup.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>

/*
 * A new environment is made under another name, committed, synced and renamed into place: LMDB writes its
 * first two meta pages without syncing them, so a power cut in a fresh DIR/store could leave a file that does not open.
 * From then on LMDB's own order (data, fdatasync, meta page through an O_DSYNC descriptor) keeps it consistent.
 */

#define STORE_SCHEMA 1
#define MAP_START (16ul << 20)
#define MAP_STEP (1ul << 30)
#define STORE_NAME "store"
#define STORE_NEW "store.new"

static const char *const db_names[STORE_DB_COUNT] = {
	[STORE_META] = "meta",
	[STORE_SANDBOXES] = "sandboxes",
	[STORE_PROCESSES] = "processes",
	[STORE_TENANTS] = "tenants",
	[STORE_KEYS] = "keys",
	[STORE_TEMPLATES] = "templates",
	[STORE_IDEMPOTENCY] = "idempotency",
	[STORE_AUDIT] = "audit",
	[STORE_PREVIEWS] = "previews",
	[STORE_SNAPSHOTS] = "snapshots",
	[STORE_CHECKPOINTS] = "checkpoints",
	[STORE_BUILDS] = "builds",
};

int store_errno(int mdb_rc)
{
	if (mdb_rc >= 0)
		return -mdb_rc;
	switch (mdb_rc) {
	case MDB_NOTFOUND:
		return -ENOENT;
	case MDB_MAP_FULL:
		return -ENOSPC;
	case MDB_READERS_FULL:
		return -EAGAIN;
	default:
		return -EIO;
	}
}

static int fail_mdb(struct pdk_error *err, int mdb_rc, const char *what)
{
	return pdk_fail(err, store_errno(mdb_rc), PDK_INTERNAL, "store: %s: %s", what, mdb_strerror(mdb_rc));
}

static int lock_dir(struct store_env *env, const char *dir, struct pdk_error *err)
{
	env->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (env->dir_fd < 0)
		return pdk_fail_errno(err, -errno, "store: opening the data directory");
	env->lock_fd = openat(env->dir_fd, "store.lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (env->lock_fd < 0)
		return pdk_fail_errno(err, -errno, "store: opening store.lock");
	if (flock(env->lock_fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? pdk_fail(err, -EBUSY, PDK_FAILED_PRECONDITION,
						       "store: another paddockd uses this data directory")
					    : pdk_fail_errno(err, -errno, "store: locking store.lock");
	return 0;
}

/* The records decide who may enter: what another user could have written is not believed. */
static int check_owner(int dir_fd, const char *name, mode_t type, struct pdk_error *err)
{
	struct stat st;

	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? -ENOENT : pdk_fail_errno(err, -errno, "store: looking at %s", name);
	if ((st.st_mode & S_IFMT) != type)
		return pdk_fail(err, -EINVAL, PDK_FAILED_PRECONDITION, "store: %s is not a %s", name,
				type == S_IFDIR ? "directory" : "regular file");
	if (st.st_uid != geteuid() || (st.st_mode & 022))
		return pdk_fail(err, -EPERM, PDK_FAILED_PRECONDITION,
				"store: %s belongs to another user or others can write to it", name);
	return 0;
}

/* A store of an earlier version gets the databases that it has not yet. */
static int open_databases(struct store_env *env, struct pdk_error *err)
{
	MDB_txn *txn;
	int rc = mdb_txn_begin(env->env, NULL, 0, &txn);

	if (rc)
		return fail_mdb(err, rc, "opening");
	for (unsigned int db = 0; db < STORE_DB_COUNT; db++) {
		rc = mdb_dbi_open(txn, db_names[db], MDB_CREATE, &env->dbi[db]);
		if (rc) {
			mdb_txn_abort(txn);
			return fail_mdb(err, rc, db_names[db]);
		}
	}
	rc = mdb_txn_commit(txn);
	return rc ? fail_mdb(err, rc, "opening") : 0;
}

static int open_env(struct store_env *env, const char *path, struct pdk_error *err)
{
	int rc = mdb_env_create(&env->env);

	if (rc)
		return fail_mdb(err, rc, "creating the environment");
	mdb_env_set_maxdbs(env->env, STORE_DB_COUNT);
	mdb_env_set_mapsize(env->env, MAP_START);
	/* NOTLS: a read transaction belongs to its caller, not to the thread, so that reads may nest. */
	rc = mdb_env_open(env->env, path, MDB_NOTLS, 0600);
	if (!rc) {
		MDB_envinfo info;
		int dead;

		mdb_env_info(env->env, &info);
		env->map_size = info.me_mapsize;
		rc = mdb_reader_check(env->env, &dead);
	}
	if (rc) {
		mdb_env_close(env->env);
		env->env = NULL;
		return fail_mdb(err, rc, "opening the environment");
	}
	return open_databases(env, err);
}

static int put_meta(struct store_env *env, struct pdk_error *err)
{
	char schema[16], server_id[33];
	uint8_t random[16];
	MDB_txn *txn;
	int rc;

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return pdk_fail_errno(err, -EIO, "store: random numbers");
	for (unsigned int i = 0; i < sizeof(random); i++)
		snprintf(server_id + 2 * i, 3, "%02x", random[i]);
	snprintf(schema, sizeof(schema), "%d", STORE_SCHEMA);
	rc = mdb_txn_begin(env->env, NULL, 0, &txn);
	if (rc)
		return fail_mdb(err, rc, "writing the schema");
	rc = mdb_put(txn, env->dbi[STORE_META], &(MDB_val){6, (void *)"schema"}, &(MDB_val){strlen(schema), schema}, 0);
	if (!rc)
		rc = mdb_put(txn, env->dbi[STORE_META], &(MDB_val){9, (void *)"server_id"}, &(MDB_val){32, server_id},
			     0);
	if (rc)
		mdb_txn_abort(txn);
	else
		rc = mdb_txn_commit(txn);
	return rc ? fail_mdb(err, rc, "writing the schema") : 0;
}

/* What a create that was cut short left behind. */
static int clear_new(int dir_fd, struct pdk_error *err)
{
	static const char *const files[] = {STORE_NEW "/data.mdb", STORE_NEW "/lock.mdb"};

	for (unsigned int i = 0; i < ARRAY_SIZE(files); i++)
		if (unlinkat(dir_fd, files[i], 0) < 0 && errno != ENOENT)
			return pdk_fail_errno(err, -errno, "store: removing %s", files[i]);
	if (unlinkat(dir_fd, STORE_NEW, AT_REMOVEDIR) < 0 && errno != ENOENT)
		return pdk_fail_errno(err, -errno, "store: removing " STORE_NEW);
	return 0;
}

static int make_env(struct store_env *env, const char *dir, struct pdk_error *err)
{
	char path[PATH_MAX];
	_cleanup_fd_ int fd = -1;
	int rc = clear_new(env->dir_fd, err);

	if (rc < 0)
		return rc;
	if (mkdirat(env->dir_fd, STORE_NEW, 0700) < 0)
		return pdk_fail_errno(err, -errno, "store: making " STORE_NEW);
	snprintf(path, sizeof(path), "%s/" STORE_NEW, dir);
	rc = open_env(env, path, err);
	if (!rc)
		rc = put_meta(env, err);
	if (env->env)
		mdb_env_close(STEAL_PTR(env->env));
	if (rc < 0)
		return rc;
	fd = openat(env->dir_fd, STORE_NEW, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0 || renameat(env->dir_fd, STORE_NEW, env->dir_fd, STORE_NAME) < 0 ||
	    fsync(env->dir_fd) < 0)
		return pdk_fail_errno(err, -errno, "store: making it durable");
	return 0;
}

static int check_schema(struct store_env *env, struct pdk_error *err)
{
	char text[16] = "";
	MDB_val value;
	MDB_txn *txn;
	int schema, rc = mdb_txn_begin(env->env, NULL, MDB_RDONLY, &txn);

	if (rc)
		return fail_mdb(err, rc, "reading the schema");
	rc = mdb_get(txn, env->dbi[STORE_META], &(MDB_val){6, (void *)"schema"}, &value);
	if (!rc)
		memcpy(text, value.mv_data, value.mv_size < sizeof(text) ? value.mv_size : sizeof(text) - 1);
	mdb_txn_abort(txn);
	if (rc)
		return fail_mdb(err, rc, "reading the schema");
	schema = atoi(text);
	if (schema < 1)
		return pdk_fail(err, -EBADMSG, PDK_DATA_LOSS, "store: the schema version cannot be read");
	if (schema > STORE_SCHEMA)
		return pdk_fail(err, -EPROTONOSUPPORT, PDK_FAILED_PRECONDITION,
				"store: written by a newer paddockd (schema %d; this one knows %d)", schema,
				STORE_SCHEMA);
	return 0;
}

static int open_locked(struct store_env *env, const char *dir, struct pdk_error *err)
{
	char path[PATH_MAX];
	int rc = check_owner(env->dir_fd, STORE_NAME, S_IFDIR, err);

	if (rc == -ENOENT)
		rc = make_env(env, dir, err);
	if (rc < 0)
		return rc;
	rc = check_owner(env->dir_fd, STORE_NAME "/data.mdb", S_IFREG, err);
	if (rc == -ENOENT)
		return pdk_fail(err, rc, PDK_DATA_LOSS, "store: the directory is there but data.mdb is not");
	if (rc < 0)
		return rc;
	snprintf(path, sizeof(path), "%s/" STORE_NAME, dir);
	rc = store_probe(path, env->dir_fd, STORE_NAME "/data.mdb", db_names, err);
	if (rc == 0)
		rc = open_env(env, path, err);
	return rc < 0 ? rc : check_schema(env, err);
}

int store_env_open(struct store_env *env, const char *dir, struct pdk_error *err)
{
	int rc;

	*env = (struct store_env)STORE_ENV_CLOSED;
	if (strlen(dir) > PATH_MAX - 32)
		return pdk_fail(err, -ENAMETOOLONG, PDK_INVALID_ARGUMENT, "store: data_dir is too long");
	rc = lock_dir(env, dir, err);
	if (!rc)
		rc = open_locked(env, dir, err);
	if (rc < 0)
		store_env_close(env);
	return rc;
}

void store_env_close(struct store_env *env)
{
	if (env->env)
		mdb_env_close(env->env);
	cleanup_fd(&env->lock_fd);
	cleanup_fd(&env->dir_fd);
	*env = (struct store_env)STORE_ENV_CLOSED;
}

int store_env_grow(struct store_env *env)
{
	size_t size = env->map_size < MAP_STEP ? env->map_size * 2 : env->map_size + MAP_STEP;
	int dead = 0, rc;

	/* A reader that was killed in the middle (mdb_dump of an operator) would keep its pages from being used again.
	 */
	if (!mdb_reader_check(env->env, &dead) && dead) {
		log_event(LOG_WARN, "store.dead_readers", "count", log_u64((uint64_t)dead), NULL);
		return 0;
	}
	rc = mdb_env_set_mapsize(env->env, size);
	if (rc)
		return store_errno(rc);
	env->map_size = size;
	log_event(LOG_INFO, "store.grown", "map_bytes", log_u64(size), NULL);
	return 0;
}
