#include "build_internal.h"

#include "config.h"
#include "keys.h"
#include "log.h"
#include "sandbox/base/cleanup.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * The way of a build:
 *
 *	the deepest layer that another build has left, or the base    build_cache.c
 *	Sandboxes.Create, on its files					on_created()
 *	each step, and a layer after it					build_steps.c, build_run_layer()
 *	the start command, the ready command until it succeeds		finalize()
 *	the last layer, or a snapshot with memory; its names		publish()
 *
 * It ends in build_run_fail() or publish(). What is under way then (struct build_run says what) is taken back, or
 * waited for: `over` is set, and whatever comes last frees it. A sandbox that ends makes the call fail that is under way
 * in it.
 */

#define SANDBOX_TIMEOUT_MS (6ull * 3600000)
#define READY_FOR_NS (600ull * 1000000000)
#define READY_AGAIN_NS (2ull * 1000000000)
#define READY_DEFAULT "sleep 20"

/* --- the end --- */

static void context_clear(struct build_context *context)
{
	free(context->env);
	free(context->cwd);
}

static void free_if_idle(struct build_run *run)
{
	if (!run->over || run->inner || run->busy || run->taking)
		return;
	build_copy_clear(run);
	build_command_clear(run);
	context_clear(&run->context);
	free(run->keys);
	paddock__v1__start_template_build_request__free_unpacked(run->plan, NULL);
	free(run);
}

/* Nobody hears of it any more. */
static void detach(struct build_run *run)
{
	struct sandbox *sandbox = run->sandbox_id[0] ? sandbox_get(run->sandbox_id) : NULL;

	run->over = true;
	loop_timer_cancel(&run->timer);
	rpc_local_cancel(STEAL_PTR(run->inner));
	if (run->origin)
		snapshot_unuse(STEAL_PTR(run->origin));
	if (sandbox && sandbox_is_living(sandbox))
		sandbox_end_soon(sandbox, PADDOCK__V1__END_REASON__END_REASON_KILLED, "its build is over");
	/* It may be there already, and the answer that names it not. */
	if (!run->sandbox_id[0])
		build_end_sandboxes(run->build);
	if (run->build)
		run->build->run = NULL;
}

void build_run_fail(struct build_run *run, const struct pdk_error *err)
{
	struct build *build = run->build;

	if (!run->over) {
		detach(run);
		build_finish(build, err, run->label, NULL);
		run->build = NULL;
	}
	free_if_idle(run);
}

void build_run_stop(struct build *build, const struct pdk_error *why)
{
	build_run_fail(build->run, why);
}

void build_run_drop(struct build *build)
{
	struct build_run *run = build->run;

	detach(run);
	run->build = NULL;
	free_if_idle(run);
}

/* --- records --- */

static bool set_text(char **field, const char *text)
{
	char *copy = strdup(text);

	if (!copy)
		return false;
	if (*field != protobuf_c_empty_string)
		free(*field);
	*field = copy;
	return true;
}

/* What commands in it begin with from now on. */
static int record_context(Paddock__Internal__StoredSnapshot *stored, const struct build_run *run)
{
	const struct build_context *context = &run->context;
	char **env = calloc(context->env->count + 1, sizeof(char *));
	bool whole = env;

	for (size_t i = 0; whole && i < context->env->count; i++)
		whole = (env[i] = strdup(context->env->item[i])) != NULL;
	if (env) {
		for (size_t i = 0; i < stored->n_env; i++)
			free(stored->env[i]);
		free(stored->env);
		stored->env = env;
		stored->n_env = whole ? context->env->count : 0;
	}
	whole = whole && set_text(&stored->default_user, context->user);
	return whole && set_text(&stored->default_cwd, context->cwd ? context->cwd : "") ? 0 : -ENOMEM;
}

/* The key that started it may have been revoked meanwhile. */
static int check_principal(const struct build_run *run, struct pdk_error *err)
{
	const struct key *key = run->principal.key_id[0] ? key_find(run->principal.key_id) : NULL;

	if (!run->principal.key_id[0] || (key && key_is_valid(key, loop_wall_ms())))
		return 0;
	return pdk_fail(err, -EACCES, PDK_UNAUTHENTICATED, "the API key that started the build is not valid any more");
}

/* --- layers --- */

static void on_layer(struct snapshot *layer, const struct pdk_error *err, void *arg)
{
	struct build_run *run = arg;

	run->taking = false;
	if (run->over) {
		if (!err)
			snapshot_discard(layer);
		free_if_idle(run);
		return;
	}
	if (err) {
		build_log_format(run->build, run->label, "the layer is not kept for other builds: %s", err->text);
	} else if (record_context(layer->stored, run) < 0 || build_cache_add(layer, run->keys[run->step + 1]) < 0) {
		snapshot_discard(layer);
	}
	build_run_next(run);
}

void build_run_layer(struct build_run *run)
{
	struct sandbox *sandbox = sandbox_get(run->sandbox_id);
	struct snapshot_take take = {.done = on_layer, .arg = run};
	struct pdk_error err;
	int rc = sandbox ? admission_check_disk(0, &err)
			 : pdk_fail(&err, -ENOENT, PDK_ABORTED, "the build's sandbox has ended");

	if (rc >= 0) {
		run->taking = true;
		rc = snapshot_take_layer(sandbox, &take, &err);
	}
	if (rc >= 0)
		return;
	run->taking = false;
	build_log_format(run->build, run->label, "the layer is not kept for other builds: %s", err.text);
	build_run_next(run);
}

/* --- the last of it --- */

static int name_it(struct build_run *run, struct snapshot *snapshot, struct store_batch *batch, struct pdk_error *err)
{
	const Paddock__Internal__StoredBuild *stored = run->build->stored;
	char ref[TEMPLATE_REF_SIZE];
	unsigned int more = 0;
	int rc = 0;

	for (size_t i = 0; i < stored->n_tags && rc >= 0; i++) {
		rc = template_tag_ref("tags", stored->name, stored->tags[i], ref, err);
		more += rc >= 0 && !template_name_find(stored->tenant, ref);
	}
	if (rc >= 0)
		rc = template_check_room(stored->tenant, more, err);
	if (rc >= 0 && snapshot_store(batch, snapshot) < 0)
		rc = pdk_fail_errno(err, -ENOMEM, "keeping the template");
	for (size_t i = 0; i < stored->n_tags && rc >= 0; i++) {
		rc = template_tag_ref("tags", stored->name, stored->tags[i], ref, err);
		if (rc >= 0 && template_name_set_snapshot(stored->tenant, ref, snapshot, batch) < 0)
			rc = pdk_fail_errno(err, -ENOMEM, "keeping the template");
	}
	return rc;
}

static int check_disk_quota(const struct snapshot *snapshot, struct pdk_error *err)
{
	const struct sandbox_owner *owner;
	struct tenant_quota quota;

	tenant_get_quota(snapshot->stored->tenant, &quota);
	if (quota.total_disk_bytes)
		snapshot_yield(snapshot->stored->tenant, quota.total_disk_bytes);
	owner = sandbox_owner_find(snapshot->stored->tenant);
	if (!owner || !quota.total_disk_bytes || owner->snapshot_bytes <= quota.total_disk_bytes)
		return 0;
	return pdk_fail(err, -EDQUOT, PDK_RESOURCE_EXHAUSTED,
			"tenant quota total_disk_bytes exhausted: %llu of %llu in use",
			(unsigned long long)owner->snapshot_bytes, (unsigned long long)quota.total_disk_bytes);
}

static void publish(struct build_run *run, struct snapshot *snapshot)
{
	struct store_batch *batch = store_batch_create();
	struct build *build = run->build;
	struct pdk_error err;
	int rc = check_principal(run, &err);

	snapshot->stored->unlisted = true;
	snapshot_count(snapshot, snapshot->counted_bytes);
	if (rc >= 0)
		rc = check_disk_quota(snapshot, &err);
	if (rc >= 0 && (!batch || record_context(snapshot->stored, run) < 0 ||
			!set_text(&snapshot->stored->build_id, build->stored->id)))
		rc = pdk_fail_errno(&err, -ENOMEM, "keeping the template");
	if (rc >= 0)
		rc = name_it(run, snapshot, batch, &err);
	if (rc < 0) {
		store_batch_free(batch);
		if (!snapshot->names)
			snapshot_discard(snapshot);
		build_run_fail(run, &err);
		return;
	}
	build_log_format(build, run->label, "the template is ready");
	sandbox_pool_wake();
	detach(run);
	run->build = NULL;
	build_finish(build, NULL, run->label, batch);
	free_if_idle(run);
}

static void on_whole(struct snapshot *snapshot, const struct pdk_error *err, void *arg)
{
	struct build_run *run = arg;

	run->taking = false;
	if (run->over) {
		if (!err)
			snapshot_discard(snapshot);
		free_if_idle(run);
	} else if (err) {
		build_run_fail(run, err);
	} else {
		publish(run, snapshot);
	}
}

static void take_whole(struct build_run *run)
{
	struct sandbox *sandbox = sandbox_get(run->sandbox_id);
	struct snapshot_take take = {.done = on_whole, .arg = run};
	struct pdk_error err;
	int rc = 0;

	if (!sandbox || sandbox->state != PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_RUNNING)
		rc = pdk_fail(&err, -ENOENT, PDK_ABORTED, "the build's sandbox has ended");
	if (rc >= 0) {
		run->taking = true;
		rc = run->plan->start_command[0] ? snapshot_take(sandbox, "", 0, false, &take, &err)
						 : snapshot_take_layer(sandbox, &take, &err);
	}
	if (rc >= 0)
		return;
	run->taking = false;
	build_run_fail(run, &err);
}

/* --- start and ready commands --- */

static void try_ready(void *arg);

static void ready_tried(struct build_run *run, const struct pdk_error *err)
{
	struct pdk_error failure;

	if (err) {
		build_run_fail(run, err);
		return;
	}
	if (build_command_check(run, "ready command", &failure) >= 0) {
		take_whole(run);
	} else if (!run->exited || loop_now_ns() + READY_AGAIN_NS >= run->ready_until_ns) {
		pdk_fail(&failure, -ETIMEDOUT, PDK_DEADLINE_EXCEEDED,
			 "the ready command did not succeed within 10 minutes");
		build_run_fail(run, &failure);
	} else {
		run->timer.handler = try_ready;
		run->timer.arg = run;
		(void)loop_timer_set(&run->timer, loop_now_ns() + READY_AGAIN_NS);
	}
}

static void try_ready(void *arg)
{
	struct build_run *run = arg;
	struct pdk_error err;
	const char *ready = run->plan->ready_command[0] ? run->plan->ready_command : READY_DEFAULT;
	const char *argv[] = {"/bin/bash", "-l", "-c", ready, NULL};
	const struct build_command command = {.argv = argv,
					      .timeout_ms = (run->ready_until_ns - loop_now_ns()) / 1000000 + 1};

	if (check_principal(run, &err) < 0)
		build_run_fail(run, &err);
	else
		build_command(run, &command, ready_tried);
}

static void begin_ready(struct build_run *run)
{
	run->ready_until_ns = loop_now_ns() + READY_FOR_NS;
	build_log_format(run->build, run->label, "ready command: %.300s",
			 run->plan->ready_command[0] ? run->plan->ready_command : READY_DEFAULT);
	try_ready(run);
}

static void started(struct build_run *run, const struct pdk_error *err)
{
	if (err)
		build_run_fail(run, err);
	else
		begin_ready(run);
}

static void finalize(struct build_run *run)
{
	const char *argv[] = {"/bin/bash", "-l", "-c", run->plan->start_command, NULL};
	const struct build_command command = {.argv = argv, .detach = true};

	snprintf(run->label, sizeof(run->label), "finalize");
	if (run->plan->start_command[0]) {
		build_log_format(run->build, run->label, "start command: %.300s", run->plan->start_command);
		build_command(run, &command, started);
	} else if (run->plan->ready_command[0]) {
		begin_ready(run);
	} else {
		take_whole(run);
	}
}

/* --- steps --- */

static void go(struct build_run *run)
{
	struct pdk_error err;

	if (check_principal(run, &err) < 0)
		build_run_fail(run, &err);
	else if (run->step < run->plan->n_steps)
		build_step(run);
	else
		finalize(run);
}

void build_run_next(struct build_run *run)
{
	run->step++;
	go(run);
}

/* --- the sandbox --- */

static void on_created(void *arg, const ProtobufCMessage *message)
{
	struct build_run *run = arg;

	snprintf(run->sandbox_id, sizeof(run->sandbox_id), "%s",
		 ((const Paddock__V1__Sandbox *)(const void *)message)->id);
}

static void on_create_end(void *arg, const struct pdk_error *end)
{
	struct build_run *run = arg;

	run->inner = NULL;
	if (run->origin)
		snapshot_unuse(STEAL_PTR(run->origin));
	if (end->code != PDK_OK)
		build_run_fail(run, end);
	else
		go(run);
}

static int create_sandbox(struct build_run *run)
{
	static const struct rpc_local_events events = {.on_message = on_created, .on_end = on_create_end};
	const Paddock__Internal__StoredBuild *stored = run->build->stored;
	Paddock__V1__CreateSandboxRequest request = PADDOCK__V1__CREATE_SANDBOX_REQUEST__INIT;
	Paddock__V1__CreateSandboxRequest__MetadataEntry entry =
		PADDOCK__V1__CREATE_SANDBOX_REQUEST__METADATA_ENTRY__INIT;
	Paddock__V1__CreateSandboxRequest__MetadataEntry *entries[] = {&entry};
	Paddock__V1__Resources resources = PADDOCK__V1__RESOURCES__INIT;

	resources.memory_bytes = stored->memory_bytes;
	resources.cpu_millis = stored->cpu_millis;
	resources.max_pids = stored->max_pids;
	resources.disk_bytes = stored->disk_bytes;
	resources.max_inodes = stored->max_inodes;
	request.resources = &resources;
	request.timeout_ms = SANDBOX_TIMEOUT_MS;
	request.files_only = true;
	entry.key = (char *)"paddock.build";
	entry.value = stored->id;
	request.metadata = entries;
	request.n_metadata = 1;
	if (run->origin)
		request.snapshot = run->origin->stored->id;
	else
		request.template_ = run->origin_template;
	run->inner = rpc_local_open_as(&run->principal, "/paddock.v1.Sandboxes/Create", &request.base, &events, run);
	return run->inner ? 0 : -ENOMEM;
}

/* --- the beginning --- */

static Paddock__V1__StartTemplateBuildRequest *copy_plan(const Paddock__V1__StartTemplateBuildRequest *request)
{
	size_t length = paddock__v1__start_template_build_request__get_packed_size(request);
	_cleanup_free_ uint8_t *packed = malloc(length + 1);

	if (!packed)
		return NULL;
	paddock__v1__start_template_build_request__pack(request, packed);
	return paddock__v1__start_template_build_request__unpack(NULL, length, packed);
}

static struct build_run *run_new(const struct principal *principal,
				 const Paddock__V1__StartTemplateBuildRequest *request)
{
	struct build_run *run = calloc(1, sizeof(*run));

	if (!run)
		return NULL;
	run->fd = -1;
	run->principal = *principal;
	run->plan = copy_plan(request);
	run->keys = calloc(request->n_steps + 1, sizeof(*run->keys));
	run->context.env = text_list_copy(NULL, 0);
	run->context.user = "user";
	snprintf(run->label, sizeof(run->label), "base");
	if (run->plan && run->keys && run->context.env)
		return run;
	if (run->plan)
		paddock__v1__start_template_build_request__free_unpacked(run->plan, NULL);
	free(run->keys);
	free(run->context.env);
	free(run);
	return NULL;
}

static bool read_context(struct build_run *run, const struct snapshot *from)
{
	struct text_list *env = text_list_copy(from->stored->env, from->stored->n_env);

	if (!env)
		return false;
	free(run->context.env);
	run->context.env = env;
	run->context.user = strcmp(from->stored->default_user, "root") == 0 ? "root" : "user";
	free(run->context.cwd);
	run->context.cwd = from->stored->default_cwd[0] ? strdup(from->stored->default_cwd) : NULL;
	return run->context.cwd || !from->stored->default_cwd[0];
}

static size_t env_bytes(const struct snapshot *from)
{
	size_t bytes = 0;

	for (size_t i = 0; i < from->stored->n_env; i++)
		bytes += strlen(from->stored->env[i]) + 1;
	return bytes;
}

/* The deepest layer of another build that may be begun on. */
static struct snapshot *find_layer(struct build_run *run)
{
	const Paddock__V1__StartTemplateBuildRequest *plan = run->plan;
	struct snapshot *found = NULL;

	for (size_t i = 0; i < plan->n_steps; i++) {
		struct snapshot *layer;

		if (!build_cache_step(run->keys[i], plan->steps[i], run->keys[i + 1]))
			return NULL;
		run->use_cache &= !plan->steps[i]->force;
		layer = run->use_cache ? build_cache_find(run->build->stored->tenant, run->keys[i + 1]) : NULL;
		if (!layer)
			continue;
		found = layer;
		run->step = i + 1;
	}
	return found;
}

static int find_origin(struct build_run *run, struct pdk_error *err)
{
	const char *name = run->plan->from_template[0] ? run->plan->from_template : server_config.default_template;
	char template_id[TEMPLATE_ID_SIZE], template_name[64];
	struct snapshot *base = NULL, *layer;
	int rc = template_find(run->build->stored->tenant, name, template_id, template_name, &base, err);

	if (rc < 0)
		return pdk_fail(err, rc, PDK_NOT_FOUND, "from_template: template not found");
	build_cache_base(template_id, base, run->keys[0]);
	memcpy(run->origin_template, template_id, TEMPLATE_ID_SIZE);
	if (base && env_bytes(base) > BUILD_ENV_BYTES_MAX)
		return pdk_fail(err, -E2BIG, PDK_FAILED_PRECONDITION,
				"from_template: its environment is larger than %u bytes", BUILD_ENV_BYTES_MAX);
	layer = find_layer(run);
	run->origin = layer ? layer : base;
	if (run->origin && !read_context(run, run->origin))
		return pdk_fail_errno(err, -ENOMEM, "starting the build");
	if (run->origin)
		snapshot_use(run->origin);
	if (layer)
		build_cache_touch(layer);
	return 0;
}

int build_run_start(struct build *build, const struct principal *principal,
		    const Paddock__V1__StartTemplateBuildRequest *request, struct pdk_error *err)
{
	struct build_run *run = run_new(principal, request);
	int rc;

	if (!run)
		return pdk_fail_errno(err, -ENOMEM, "starting the build");
	run->build = build;
	run->use_cache = !request->force;
	rc = find_origin(run, err);
	if (rc >= 0 && create_sandbox(run) < 0)
		rc = pdk_fail_errno(err, -ENOMEM, "starting the build");
	if (rc < 0) {
		if (run->origin)
			snapshot_unuse(STEAL_PTR(run->origin));
		run->over = true;
		free_if_idle(run);
		return rc;
	}
	build->run = run;
	build->stored->cached_steps = (uint32_t)run->step;
	build_log_format(build, "base", "from %s: %zu of %zu steps are cached",
			 request->from_template[0] ? request->from_template : server_config.default_template, run->step,
			 request->n_steps);
	return 0;
}
