#include "fakes.h"

#include "server/build_files.h"
#include "server/config.h"
#include "server/log.h"
#include "server/loop.h"
#include "server/rpc.h"
#include "server/worker.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct config server_config;
uint64_t fake_now_ns = 1;
static struct worker_job *first, **last = &first;

uint64_t loop_now_ns(void)
{
	return fake_now_ns;
}

int64_t loop_wall_ms(void)
{
	return (int64_t)(fake_now_ns / 1000000);
}

void log_event(enum log_level level, const char *event, ...)
{
}

/* --- the worker --- */

void worker_submit(struct worker_job *job)
{
	job->next = NULL;
	*last = job;
	last = &job->next;
}

void worker_close(int fd)
{
	if (fd >= 0)
		close(fd);
}

unsigned int fake_work(void)
{
	unsigned int n = 0;

	while (first) {
		struct worker_job *job = first;

		first = job->next;
		if (!first)
			last = &first;
		job->work(job);
		job->done(job);
		n++;
	}
	return n;
}

/* --- calls --- */

struct rpc_call {
	const struct rpc_events *events;
	void *user;
	bool failed;
};

struct rpc_call *fake_call(void)
{
	struct rpc_call *call = calloc(1, sizeof(*call));

	assert_non_null(call);
	return call;
}

void fake_call_free(struct rpc_call *call)
{
	free(call);
}

bool fake_call_failed(const struct rpc_call *call)
{
	return call->failed;
}

void fake_call_cancel(struct rpc_call *call)
{
	struct pdk_error why = {.code = PDK_CANCELLED};

	call->events->on_cancel(call, &why);
}

void rpc_set_events(struct rpc_call *call, const struct rpc_events *events, void *user)
{
	call->events = events;
	call->user = user;
}

void *rpc_user(const struct rpc_call *call)
{
	return call->user;
}

void rpc_fail(struct rpc_call *call, const struct pdk_error *err)
{
	call->failed = true;
}

/* --- build_files.c's neighbours --- */

int build_token_start(struct pdk_error *err)
{
	return 0;
}

void build_uploads_remove_tenant(const char *tenant)
{
}

/* --- the data directory --- */

int fake_setup(void **state)
{
	char *dir = strdup("/tmp/paddock-builds.XXXXXX");

	assert_non_null(dir);
	assert_non_null(mkdtemp(dir));
	snprintf(server_config.data_dir, sizeof(server_config.data_dir), "%s", dir);
	*state = dir;
	return 0;
}

static void path_of(const char *folder, const char *name, char path[4096])
{
	snprintf(path, 4096, "%s/%s%s%s", server_config.data_dir, folder, name ? "/" : "", name ? name : "");
}

static unsigned int each(const char *folder, bool remove)
{
	char path[4096];
	struct dirent *entry;
	unsigned int n = 0;
	DIR *dir;

	path_of(folder, NULL, path);
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		n++;
		if (remove)
			unlinkat(dirfd(dir), entry->d_name, 0);
	}
	if (dir)
		closedir(dir);
	if (remove)
		rmdir(path);
	return n;
}

unsigned int fake_files_in(const char *folder)
{
	return each(folder, false);
}

long fake_file_size(const char *folder, const char *name)
{
	char path[4096];
	struct stat st;

	path_of(folder, name, path);
	return stat(path, &st) < 0 ? -1 : (long)st.st_size;
}

void fake_truncate(const char *folder, const char *name, long size)
{
	char path[4096];

	path_of(folder, name, path);
	assert_int_equal(truncate(path, size), 0);
}

int fake_teardown(void **state)
{
	assert_int_equal(fake_work(), 0);
	each("builds", true);
	each("build-logs", true);
	rmdir(*state);
	free(*state);
	return 0;
}
