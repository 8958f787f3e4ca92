#include "store_env.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/*
 * LMDB trusts its file: a page that was cut off or changed ends the process that looks at it with a signal, or sends it
 * in circles. So a child looks first, at every page that is in use, and paddockd refuses to start on what the child
 * could not survive. This is before gRPC's threads exist. A log of many gigabytes is passed over: reading it would
 * take longer than a start may, and audit_check() reads it on demand.
 */

#define AUDIT_BYTES_MAX (1ull << 30)
#define CHECK_SECONDS 30

/* Read every byte; the compiler must not leave it out. */
static void touch(const MDB_val *value)
{
	unsigned int sum = 0;

	for (size_t i = 0; i < value->mv_size; i++)
		sum += ((const unsigned char *)value->mv_data)[i];
	__asm__ volatile("" : : "r"(sum));
}

static int read_whole(MDB_txn *txn, MDB_dbi dbi)
{
	MDB_val key, value;
	MDB_cursor *cursor;
	int rc = mdb_cursor_open(txn, dbi, &cursor);

	if (rc)
		return rc;
	while (!(rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT))) {
		touch(&key);
		touch(&value);
	}
	mdb_cursor_close(cursor);
	return rc == MDB_NOTFOUND ? 0 : rc;
}

static int read_database(MDB_txn *txn, const char *name)
{
	MDB_dbi dbi;
	int rc = mdb_dbi_open(txn, name, 0, &dbi);

	/* Another schema is not for us to judge. */
	return rc ? rc == MDB_NOTFOUND ? 0 : rc : read_whole(txn, dbi);
}

/* The list of free pages, which writes read piece by piece: number 0, for a transaction that only reads. */
static int read_free_list(MDB_env *env)
{
	MDB_txn *txn;
	int rc = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn);

	if (!rc) {
		rc = read_whole(txn, 0);
		mdb_txn_abort(txn);
	}
	return rc;
}

/* Taking a page for a write; nothing is committed. */
static int use_free_pages(MDB_txn *txn, const char *name)
{
	MDB_val key = {5, (void *)"probe"}, value = {5, (void *)"probe"};
	MDB_dbi dbi;
	int rc = mdb_dbi_open(txn, name, 0, &dbi);

	return rc ? rc == MDB_NOTFOUND ? 0 : rc : mdb_put(txn, dbi, &key, &value, 0);
}

static int read_all(const char *path, const char *const names[STORE_DB_COUNT], bool with_audit)
{
	MDB_env *env;
	MDB_txn *txn;
	int rc = mdb_env_create(&env);

	if (!rc)
		rc = mdb_env_set_maxdbs(env, STORE_DB_COUNT);
	if (!rc)
		rc = mdb_env_open(env, path, MDB_NOLOCK, 0600);
	if (!rc)
		rc = read_free_list(env);
	if (!rc)
		rc = mdb_txn_begin(env, NULL, 0, &txn);
	for (unsigned int db = 0; !rc && db < STORE_DB_COUNT; db++)
		if (db != STORE_AUDIT || with_audit)
			rc = read_database(txn, names[db]);
	return rc ? rc : use_free_pages(txn, names[STORE_META]);
}

static void look(const char *path, const char *const names[STORE_DB_COUNT], bool with_audit)
{
	static const int fatal[] = {SIGBUS, SIGSEGV, SIGABRT, SIGALRM, SIGFPE, SIGILL};
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	sigset_t alarm_set;
	int rc;

	/* A sanitizer's or anybody's handlers, and LMDB's words about its assertions, are not wanted. */
	for (size_t i = 0; i < sizeof(fatal) / sizeof(fatal[0]); i++)
		signal(fatal[i], SIG_DFL);
	setrlimit(RLIMIT_CORE, &(struct rlimit){0});
	if (null >= 0)
		dup2(null, STDERR_FILENO);
	sigemptyset(&alarm_set);
	sigaddset(&alarm_set, SIGALRM);
	sigprocmask(SIG_UNBLOCK, &alarm_set, NULL);
	alarm(CHECK_SECONDS);
	rc = read_all(path, names, with_audit);
	_exit(rc == 0 ? 0 : rc == ENOMEM ? 2 : 1);
}

int store_probe(const char *path, int dir_fd, const char *data, const char *const names[STORE_DB_COUNT],
		struct pdk_error *err)
{
	struct stat st;
	int status;
	pid_t pid;

	if (fstatat(dir_fd, data, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return pdk_fail_errno(err, -errno, "store: looking at %s", data);
	pid = fork();
	if (pid == 0)
		look(path, names, (uint64_t)st.st_size <= AUDIT_BYTES_MAX);
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return pdk_fail_errno(err, -errno, "store: checking the database");
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 2)
		return pdk_fail_errno(err, -ENOMEM, "store: checking the database");
	return pdk_fail(err, -EBADMSG, PDK_DATA_LOSS,
			"store: the database is damaged: restore %s from a backup, or move it away to begin anew",
			data);
}
