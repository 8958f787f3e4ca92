#ifndef PADDOCK_SERVER_BUILD_INTERNAL_H
#define PADDOCK_SERVER_BUILD_INTERNAL_H

#include "auth.h"
#include "build_log.h"
#include "builds.h"
#include "paddock/internal/store.pb-c.h"
#include "paddock/v1/templates.pb-c.h"
#include "rpc_local.h"
#include "snapshot_internal.h"
#include "template_internal.h"
#include "worker.h"
#include <sys/types.h>

/*
 * What the build*.c files share. Everything under the loop lock.
 *
 * Life of a build (StoredBuild.state):
 *
 *	WAITING   CreateBuild; -> BUILDING, FAILED
 *	BUILDING  StartBuild: `run` is there (build_run.c); -> READY, FAILED
 *	READY     its names mean what it made, durably
 *	FAILED    reason says why
 *
 * Ended ones are forgotten after a day, or when a tenant has too many. Their logs are files (build_log.h).
 *
 * What a build does in its sandbox it does by calls as any client's (rpc_local.h), as the principal that started it.
 * Only layers are taken behind the API.
 */

#define BUILD_KEY_SIZE 32
#define BUILD_STEPS_MAX 128
#define BUILD_ENV_BYTES_MAX (256u << 10) /* it is in the record of each layer */

#define BUILD_WAITING PADDOCK__V1__TEMPLATE_BUILD_STATE__TEMPLATE_BUILD_STATE_WAITING
#define BUILD_BUILDING PADDOCK__V1__TEMPLATE_BUILD_STATE__TEMPLATE_BUILD_STATE_BUILDING
#define BUILD_READY PADDOCK__V1__TEMPLATE_BUILD_STATE__TEMPLATE_BUILD_STATE_READY
#define BUILD_FAILED PADDOCK__V1__TEMPLATE_BUILD_STATE__TEMPLATE_BUILD_STATE_FAILED

struct build_run;

struct build {
	struct build *next; /* newest first */
	Paddock__Internal__StoredBuild *stored;
	struct build_run *run;
	struct build_log *log;
	struct loop_timer timer; /* WAITING: it is not started; ended: it is forgotten */
};

/* What runs, and with what. Every string is the context's own. */
struct build_context {
	struct text_list *env; /* NAME=value; never NULL */
	const char *user;      /* "user" or "root" */
	char *cwd;             /* NULL: the home directory */
};

/* --- builds.c --- */
/* READY (no error) or FAILED: the rest of its life. `batch` may hold what belongs to it; consumed. */
void build_finish(struct build *build, const struct pdk_error *err, const char *step, struct store_batch *batch);

/* Whatever says that it is a sandbox of this build. */
void build_end_sandboxes(const struct build *build);

/* --- build_log.c --- */
/* One line; what does not fit is left out. `step` as TemplateBuildLog.step. */
void build_log(struct build *build, const char *step, bool is_error, const char *text, size_t length);
void build_log_format(struct build *build, const char *step, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* --- build_cache.c --- */
/* keys[0] is the base, keys[i] what is there after step i. */
void build_cache_base(const char *template_id, const struct snapshot *snapshot, uint8_t key[BUILD_KEY_SIZE]);
bool build_cache_step(const uint8_t before[BUILD_KEY_SIZE], const Paddock__V1__TemplateBuildStep *step,
		      uint8_t key[BUILD_KEY_SIZE]);
struct snapshot *build_cache_find(const char *tenant, const uint8_t key[BUILD_KEY_SIZE]);
/* Let other builds have it, and store it. -ENOMEM. */
int build_cache_add(struct snapshot *layer, const uint8_t key[BUILD_KEY_SIZE]);
void build_cache_touch(struct snapshot *layer);

/* --- build_run.c --- */
/* Takes over a copy of `request`, which is checked. */
int build_run_start(struct build *build, const struct principal *principal,
		    const Paddock__V1__StartTemplateBuildRequest *request, struct pdk_error *err);
/* End it: build_finish() comes from here, soon or later. */
void build_run_stop(struct build *build, const struct pdk_error *why);
/* paddockd stops: drop it as it is. */
void build_run_drop(struct build *build);

/*
 * What a started build is doing. One thing at a time: a call into its sandbox (`inner`), a read of uploaded files
 * (`job`), a layer that is being taken (`taking`), or a pause between two tries of the ready command (`timer`).
 */
struct build_run {
	struct worker_job job;
	struct build *build;
	struct principal principal;
	Paddock__V1__StartTemplateBuildRequest *plan;
	uint8_t (*keys)[BUILD_KEY_SIZE]; /* n_steps + 1 */
	struct build_context context;
	struct rpc_local *inner;
	struct loop_timer timer;
	struct snapshot *origin; /* what it begins on, used; NULL: an imported template */
	char origin_template[TEMPLATE_ID_SIZE];
	char sandbox_id[SANDBOX_ID_SIZE];
	size_t step; /* index of the one that runs */
	char label[BUILD_STEP_LABEL];
	bool use_cache;
	bool taking; /* a layer or snapshot: its `done` is sure to come */
	bool over;   /* failed or dropped while something is under way; freed when that ends */
	/* A command */
	const char *what; /* for the log */
	char *line[2];    /* of stdout and stderr: what has no end yet */
	size_t line_length[2];
	char *kept; /* output of a quiet one */
	size_t kept_length;
	bool quiet;
	bool exited;
	uint32_t exit_code, exit_signal;
	bool timed_out;
	void (*then)(struct build_run *run, const struct pdk_error *err);
	uint64_t ready_until_ns;
	size_t pair; /* ENV: which one is looked at */
	/* COPY */
	uint64_t file; /* number of the uploaded one */
	int fd;        /* or -errno */
	bool busy;     /* `job` is the worker's */
	uint8_t *chunk;
	ssize_t chunk_length;
	char scratch[64];
};

/* The build goes on with the next step. */
void build_run_next(struct build_run *run);
/* Something went wrong: the build has failed. */
void build_run_fail(struct build_run *run, const struct pdk_error *err);

/* --- build_command.c --- */
struct build_command {
	const char *const *argv; /* up to a NULL */
	const char *user;        /* NULL: the context's */
	const char *cwd;         /* NULL: the context's; "" the home directory */
	bool plain;              /* without the context's environment */
	bool quiet;              /* its output is kept (at most 64 KiB) and not logged */
	bool detach;             /* leave it running: `then` comes when it has started */
	uint64_t timeout_ms;
};
/* `then(run, NULL)` when it has ended, with run->exit_*; with an error when it could not be run. */
void build_command(struct build_run *run, const struct build_command *command,
		   void (*then)(struct build_run *run, const struct pdk_error *err));
/* PDK_ABORTED, with what became of the last command, if it did not exit with 0. */
int build_command_check(const struct build_run *run, const char *what, struct pdk_error *err);
void build_command_clear(struct build_run *run);

/* --- build_steps.c, build_copy.c --- */
/* Do run->step, then build_run_layer() or build_run_next(). */
void build_step(struct build_run *run);
void build_step_copy(struct build_run *run, const Paddock__V1__TemplateBuildStep *step);
void build_copy_clear(struct build_run *run);
/* The step is done and has changed files: keep a layer for other builds, go on. */
void build_run_layer(struct build_run *run);
/* Into a context: a name and its value, instead of one of this name. -ENOMEM, or -E2BIG with more than 256, or than
 * BUILD_ENV_BYTES_MAX. */
int build_context_set(struct build_context *context, const char *name, const char *value);

#endif
