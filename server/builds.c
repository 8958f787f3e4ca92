#include "build_internal.h"

#include "build_files.h"
#include "log.h"
#include "record.h"
#include "rpc.h"
#include "sandbox/base/cleanup.h"
#include "validate.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The builds in memory and in the store, and their calls. */

#define TAGS_MAX 16
#define BUILDS_OF_TENANT_MAX 64 /* ended ones included */
#define RUNNING_OF_TENANT_MAX 4
#define ENV_PAIRS_MAX 1024u
#define START_WITHIN_MS 3600000
#define REMEMBERED_MS 86400000

static struct build *newest;

/* --- the table --- */

static struct build *build_new(Paddock__Internal__StoredBuild *stored)
{
	struct build *build = calloc(1, sizeof(*build));

	if (build)
		build->log = build_log_create(stored->id, stored->state != BUILD_WAITING);
	if (!build || !build->log) {
		free(build);
		return NULL;
	}
	build->stored = stored;
	build->next = newest;
	newest = build;
	return build;
}

static void build_drop(struct build *build, bool remove_log)
{
	struct build **at = &newest;

	while (*at != build)
		at = &(*at)->next;
	*at = build->next;
	loop_timer_cancel(&build->timer);
	build_log_free(build->log, remove_log);
	paddock__internal__stored_build__free_unpacked(build->stored, NULL);
	free(build);
}

static int build_store(struct store_batch *batch, const struct build *build)
{
	return record_put(batch, STORE_BUILDS, build->stored->id, &build->stored->base);
}

static void forget(struct build *build)
{
	struct store_batch *batch = store_batch_create();

	if (batch && store_delete(batch, STORE_BUILDS, build->stored->id, strlen(build->stored->id)) >= 0)
		store_commit(batch, NULL, NULL);
	else
		store_batch_free(batch);
	build_drop(build, true);
}

static bool has_ended(const struct build *build)
{
	return build->stored->state == BUILD_READY || build->stored->state == BUILD_FAILED;
}

static void on_timer(void *arg)
{
	struct build *build = arg;
	struct pdk_error err;

	if (has_ended(build)) {
		forget(build);
		return;
	}
	pdk_fail(&err, -ETIMEDOUT, PDK_DEADLINE_EXCEEDED, "the build was not started within an hour");
	build_finish(build, &err, "base", NULL);
}

static void arm(struct build *build, int64_t due_ms)
{
	int64_t left = due_ms - loop_wall_ms();

	build->timer.handler = on_timer;
	build->timer.arg = build;
	(void)loop_timer_set(&build->timer, loop_now_ns() + (left > 0 ? (uint64_t)left : 0) * 1000000);
}

static void set_text(char **field, const char *text)
{
	char *copy = strdup(text);

	if (!copy)
		return;
	if (*field != protobuf_c_empty_string)
		free(*field);
	*field = copy;
}

static struct build *find_build(const char *id)
{
	struct build *build = newest;

	while (build && strcmp(build->stored->id, id) != 0)
		build = build->next;
	return build;
}

/* Only now it is true. */
static void on_ready(int rc, void *arg)
{
	_cleanup_free_ char *id = arg;
	struct build *build = find_build(id);

	if (!build)
		return;
	build->stored->state = rc < 0 ? BUILD_FAILED : BUILD_READY;
	if (rc < 0)
		set_text(&build->stored->reason, "the server's store does not accept changes");
}

void build_finish(struct build *build, const struct pdk_error *err, const char *step, struct store_batch *batch)
{
	Paddock__Internal__StoredBuild *stored = build->stored;
	char *id = err ? NULL : strdup(stored->id);

	stored->state = err ? BUILD_FAILED : BUILD_READY;
	stored->ended_unix_ms = loop_wall_ms();
	if (err) {
		set_text(&stored->reason, err->text);
		set_text(&stored->reason_step, step);
		build_log(build, step, true, err->text, strlen(err->text));
	}
	log_event(LOG_INFO, err ? "build.failed" : "build.ready", "build", stored->id, "tenant", stored->tenant, "name",
		  stored->name, "reason", stored->reason, NULL);
	if (!batch)
		batch = store_batch_create();
	if (batch && build_store(batch, build) >= 0) {
		(void)store_audit(batch, &(struct audit_entry){.tenant = stored->tenant,
							       .actor = "system",
							       .action = err ? "build.failed" : "build.ready",
							       .object = stored->id,
							       .outcome = err ? "FAILED" : "OK"});
		store_commit(batch, id ? on_ready : NULL, id);
		if (id)
			stored->state = BUILD_BUILDING; /* until that is durable */
	} else {
		free(id);
		store_batch_free(batch);
	}
	build_log_end(build->log);
	arm(build, stored->ended_unix_ms + REMEMBERED_MS);
}

/* --- start, stop, tenants --- */

static int load_one(const void *key, size_t key_length, const void *value, size_t length, void *arg)
{
	Paddock__Internal__StoredBuild *stored = paddock__internal__stored_build__unpack(NULL, length, value);

	if (!stored || !build_id_valid(stored->id) || strlen(stored->tenant) > TENANT_NAME_MAX ||
	    stored->n_tags > TAGS_MAX + 1) {
		log_event(LOG_ERROR, "store.bad_record", "kind", "build", NULL);
		if (stored)
			paddock__internal__stored_build__free_unpacked(stored, NULL);
		return 0;
	}
	if (build_new(stored))
		return 0;
	paddock__internal__stored_build__free_unpacked(stored, NULL);
	return -ENOMEM;
}

/* A sandbox that was made for a build. Of the same tenant: metadata is the client's word. */
struct made {
	const struct build *build; /* NULL: for any */
	const char *why;
};

static void end_made(struct sandbox *sandbox, void *arg)
{
	const struct text_list *metadata = sandbox->private->metadata;
	const struct made *made = arg;

	for (size_t i = 0; metadata && i + 1 < metadata->count; i += 2) {
		const struct build *build;

		if (strcmp(metadata->item[i], "paddock.build") != 0)
			continue;
		build = find_build(metadata->item[i + 1]);
		if (build && (!made->build || made->build == build) &&
		    strcmp(build->stored->tenant, sandbox->tenant) == 0 && sandbox_is_living(sandbox))
			sandbox_end_soon(sandbox, PADDOCK__V1__END_REASON__END_REASON_KILLED, made->why);
	}
}

void build_end_sandboxes(const struct build *build)
{
	sandbox_each(end_made, &(struct made){.build = build, .why = "its build is over"});
}

static bool is_known(const char *id)
{
	return find_build(id);
}

/* It fails where it was. */
static void cut_off(struct build *build)
{
	struct build_log_page page;
	struct pdk_error cut;

	if (build_log_file_read(build->stored->id, UINT64_MAX, &page) < 0)
		log_event(LOG_ERROR, "build.log_unread", "build", build->stored->id, NULL);
	pdk_fail(&cut, -ECANCELED, PDK_ABORTED, "the server was restarted while it ran");
	build_finish(build, &cut, page.last_step[0] ? page.last_step : "base", NULL);
	build_log_page_clear(&page);
}

int builds_start(struct pdk_error *err)
{
	int rc = store_each(STORE_BUILDS, NULL, 0, load_one, NULL);

	if (rc < 0)
		return pdk_fail_errno(err, rc, "loading the builds from the store");
	rc = build_log_files_start(is_known, err);
	if (rc < 0)
		return rc;
	sandbox_each(end_made, &(struct made){.why = "its build was ended by a restart of the server"});
	for (struct build *build = newest, *next; build; build = next) {
		next = build->next;
		if (has_ended(build))
			arm(build, build->stored->ended_unix_ms + REMEMBERED_MS);
		else if (build->stored->state == BUILD_WAITING)
			arm(build, build->stored->created_unix_ms + START_WITHIN_MS);
		else
			cut_off(build);
	}
	return 0;
}

void builds_stop(void)
{
	while (newest) {
		if (newest->run)
			build_run_drop(newest);
		build_drop(newest, false);
	}
	build_log_files_stop();
}

int builds_remove_tenant(const char *tenant, struct store_batch *batch)
{
	struct pdk_error err;

	for (const struct build *build = newest; build; build = build->next)
		if (strcmp(build->stored->tenant, tenant) == 0 &&
		    store_delete(batch, STORE_BUILDS, build->stored->id, strlen(build->stored->id)) < 0)
			return -ENOMEM;
	pdk_fail(&err, -ENOENT, PDK_ABORTED, "the tenant is removed");
	for (struct build *build = newest, *next; build; build = next) {
		next = build->next;
		if (strcmp(build->stored->tenant, tenant) != 0)
			continue;
		if (build->run)
			build_run_drop(build);
		build_drop(build, true);
	}
	build_files_remove_tenant(tenant);
	return 0;
}

/* --- the reply --- */

static void fill_reply(const struct build *build, Paddock__V1__TemplateBuild *reply)
{
	const Paddock__Internal__StoredBuild *stored = build->stored;

	paddock__v1__template_build__init(reply);
	reply->id = stored->id;
	reply->name = stored->name;
	reply->n_tags = stored->n_tags;
	reply->tags = stored->tags;
	reply->state = (Paddock__V1__TemplateBuildState)stored->state;
	reply->reason = stored->reason;
	reply->reason_step = stored->reason_step;
	reply->created_unix_ms = stored->created_unix_ms;
	reply->ended_unix_ms = stored->ended_unix_ms;
	reply->cached_steps = stored->cached_steps;
}

static void answer(struct rpc_call *call, const struct build *build, struct store_batch *batch)
{
	Paddock__V1__TemplateBuild reply;

	fill_reply(build, &reply);
	rpc_finish_commit(call, batch, &reply.base);
}

/* --- CreateBuild --- */

/* An ended one makes room. */
static int make_room(const char *tenant, struct pdk_error *err)
{
	struct build *oldest = NULL;
	unsigned int count = 0;

	for (struct build *build = newest; build; build = build->next) {
		if (strcmp(build->stored->tenant, tenant) != 0)
			continue;
		count++;
		if (has_ended(build) && (!oldest || build->stored->ended_unix_ms < oldest->stored->ended_unix_ms))
			oldest = build;
	}
	if (count < BUILDS_OF_TENANT_MAX)
		return 0;
	if (!oldest)
		return pdk_fail(err, -EBUSY, PDK_RESOURCE_EXHAUSTED, "builds exhausted: %u wait or run", count);
	forget(oldest);
	return 0;
}

/* All its tags, each once, into `record`, in the call's arena. */
static int collect_tags(struct rpc_call *call, const Paddock__V1__CreateTemplateBuildRequest *request,
			Paddock__Internal__StoredBuild *record, struct pdk_error *err)
{
	char *colon = strchr(request->name, ':');
	char ref[TEMPLATE_REF_SIZE];
	int rc = template_ref("name", request->name, ref, err);

	if (rc >= 0)
		rc = validate_count("tags", request->n_tags, TAGS_MAX, err);
	if (rc < 0)
		return rc;
	record->name = rpc_strdup(call, request->name);
	record->tags = rpc_alloc(call, (request->n_tags + 1) * sizeof(char *));
	if (!record->name || !record->tags)
		return pdk_fail_errno(err, -ENOMEM, "reading the tags");
	record->name[strcspn(record->name, ":")] = '\0';
	if (template_id_valid(record->name) || snapshot_id_valid(record->name))
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "name: must not look like an id");
	if (colon || !request->n_tags)
		record->tags[record->n_tags++] = colon ? colon + 1 : (char *)"default";
	for (size_t i = 0; i < request->n_tags && rc >= 0; i++) {
		bool repeated = false;

		rc = template_tag_ref("tags", record->name, request->tags[i], ref, err);
		for (size_t j = 0; j < record->n_tags; j++)
			repeated |= strcmp(record->tags[j], request->tags[i]) == 0;
		if (!repeated)
			record->tags[record->n_tags++] = request->tags[i];
	}
	return rc;
}

static Paddock__Internal__StoredBuild *copy_record(const Paddock__Internal__StoredBuild *record)
{
	size_t length = paddock__internal__stored_build__get_packed_size(record);
	_cleanup_free_ uint8_t *packed = malloc(length + 1);

	if (!packed)
		return NULL;
	paddock__internal__stored_build__pack(record, packed);
	return paddock__internal__stored_build__unpack(NULL, length, packed);
}

static struct build *make_build(struct rpc_call *call, const Paddock__V1__CreateTemplateBuildRequest *request,
				struct pdk_error *err)
{
	Paddock__Internal__StoredBuild record = PADDOCK__INTERNAL__STORED_BUILD__INIT;
	Paddock__Internal__StoredBuild *stored;
	struct build *build;
	char id[SANDBOX_ID_SIZE];

	if (collect_tags(call, request, &record, err) < 0)
		return NULL;
	build_id_make(id);
	record.id = id;
	record.tenant = (char *)(uintptr_t)rpc_principal(call)->tenant;
	record.state = BUILD_WAITING;
	record.created_unix_ms = loop_wall_ms();
	if (request->resources) {
		record.memory_bytes = request->resources->memory_bytes;
		record.cpu_millis = request->resources->cpu_millis;
		record.max_pids = request->resources->max_pids;
		record.disk_bytes = request->resources->disk_bytes;
		record.max_inodes = request->resources->max_inodes;
	}
	stored = copy_record(&record);
	build = stored ? build_new(stored) : NULL;
	if (!build) {
		if (stored)
			paddock__internal__stored_build__free_unpacked(stored, NULL);
		pdk_fail_errno(err, -ENOMEM, "keeping the build");
	}
	return build;
}

void builds_create(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__V1__CreateTemplateBuildRequest *request = (const void *)message;
	struct store_batch *batch = store_batch_create();
	struct build *build = NULL;
	struct pdk_error err;

	if (!batch)
		pdk_fail_errno(&err, -ENOMEM, "keeping the build");
	else if (make_room(rpc_principal(call)->tenant, &err) >= 0)
		build = make_build(call, request, &err);
	if (build && build_store(batch, build) < 0) {
		build_drop(STEAL_PTR(build), true);
		pdk_fail_errno(&err, -ENOMEM, "keeping the build");
	}
	if (!build) {
		store_batch_free(batch);
		rpc_fail(call, &err);
		return;
	}
	rpc_audit_object(call, NULL, build->stored->id);
	arm(build, build->stored->created_unix_ms + START_WITHIN_MS);
	answer(call, build, batch);
}

/* --- StartBuild --- */

static int find(struct rpc_call *call, const char *id, struct build **ret, struct pdk_error *err)
{
	const struct principal *principal = rpc_principal(call);
	struct build *build = build_id_valid(id) ? find_build(id) : NULL;

	if (!build || (!principal->is_operator && strcmp(build->stored->tenant, principal->tenant) != 0))
		return pdk_fail(err, -ENOENT, PDK_NOT_FOUND, "build not found");
	rpc_audit_object(call, NULL, build->stored->id);
	*ret = build;
	return 0;
}

static int check_arity(const Paddock__V1__TemplateBuildStep *step, size_t index, struct pdk_error *err)
{
	static const struct {
		const char *type;
		size_t min, max;
	} types[] = {{"RUN", 1, 2}, {"COPY", 2, 4}, {"ENV", 2, 512}, {"WORKDIR", 1, 1}, {"USER", 1, 2}};

	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		if (strcmp(step->type, types[i].type) != 0)
			continue;
		if (step->n_args >= types[i].min && step->n_args <= types[i].max && (i != 2 || step->n_args % 2 == 0))
			return 0;
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "steps[%zu].args: not as many as %s takes", index,
				types[i].type);
	}
	return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "steps[%zu].type: RUN, COPY, ENV, WORKDIR or USER", index);
}

static int check_step(const Paddock__V1__TemplateBuildStep *step, size_t index, struct pdk_error *err)
{
	size_t bytes = 0;
	char field[40];
	int rc = check_arity(step, index, err);

	snprintf(field, sizeof(field), "steps[%zu].args", index);
	for (size_t i = 0; i < step->n_args && rc >= 0; i++) {
		rc = validate_text(field, step->args[i], 128 << 10, err);
		bytes += strlen(step->args[i]);
	}
	if (rc >= 0 && bytes > 128 << 10)
		rc = pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "%s: at most 131072 bytes together", field);
	if (rc >= 0 && strcmp(step->type, "COPY") == 0 && !build_hash_valid(step->files_hash))
		rc = pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "steps[%zu].files_hash: 64 hexadecimal digits",
			      index);
	return rc;
}

/* Each is set anew, with all that are there, while everybody waits. */
static int check_pairs(const Paddock__V1__StartTemplateBuildRequest *request, struct pdk_error *err)
{
	size_t pairs = 0;

	for (size_t i = 0; i < request->n_steps; i++)
		pairs += strcmp(request->steps[i]->type, "ENV") == 0 ? request->steps[i]->n_args / 2 : 0;
	if (pairs <= ENV_PAIRS_MAX)
		return 0;
	return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "steps: at most %u variables are set by all ENV together",
			ENV_PAIRS_MAX);
}

static int check_start(const struct build *build, const Paddock__V1__StartTemplateBuildRequest *request,
		       struct pdk_error *err)
{
	unsigned int running = 0;
	int rc = validate_count("steps", request->n_steps, BUILD_STEPS_MAX, err);

	if (rc >= 0)
		rc = validate_label("from_template", request->from_template, 128, err);
	if (rc >= 0)
		rc = validate_text("start_command", request->start_command, 64 << 10, err);
	if (rc >= 0)
		rc = validate_text("ready_command", request->ready_command, 64 << 10, err);
	for (size_t i = 0; i < request->n_steps && rc >= 0; i++)
		rc = check_step(request->steps[i], i, err);
	if (rc >= 0)
		rc = check_pairs(request, err);
	if (rc < 0)
		return rc;
	if (build->stored->state != BUILD_WAITING)
		return pdk_fail(err, -EINVAL, PDK_FAILED_PRECONDITION, "the build was started before");
	for (const struct build *other = newest; other; other = other->next)
		running += other->run && strcmp(other->stored->tenant, build->stored->tenant) == 0;
	if (running >= RUNNING_OF_TENANT_MAX)
		return pdk_fail(err, -EBUSY, PDK_RESOURCE_EXHAUSTED,
				"builds exhausted: %u of %u running; try again later", running, RUNNING_OF_TENANT_MAX);
	return 0;
}

void builds_begin(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__V1__StartTemplateBuildRequest *request = (const void *)message;
	struct store_batch *batch = NULL;
	struct principal principal;
	struct build *build;
	struct pdk_error err;
	int rc = find(call, request->build_id, &build, &err);

	if (rc >= 0)
		rc = check_start(build, request, &err);
	if (rc >= 0) {
		batch = store_batch_create();
		build->stored->state = BUILD_BUILDING;
		rc = batch ? build_store(batch, build) : -ENOMEM;
		/* The operator builds for the tenant whose build it is. */
		principal = *rpc_principal(call);
		snprintf(principal.tenant, sizeof(principal.tenant), "%s", build->stored->tenant);
		if (rc < 0)
			pdk_fail_errno(&err, rc, "starting the build");
		else
			rc = build_run_start(build, &principal, request, &err);
		if (rc < 0)
			build->stored->state = BUILD_WAITING;
	}
	if (rc < 0) {
		store_batch_free(batch);
		rpc_fail(call, &err);
		return;
	}
	loop_timer_cancel(&build->timer);
	answer(call, build, batch);
}

/* --- GetBuild, StopBuild --- */

static void answer_with_log(struct rpc_call *call, const char *id, const struct build_log_page *page)
{
	const struct build *build = find_build(id);
	Paddock__V1__TemplateBuild reply;
	struct pdk_error err;

	if (!build) { /* while its log was read */
		pdk_fail(&err, -ENOENT, PDK_NOT_FOUND, "build not found");
		rpc_fail(call, &err);
		return;
	}
	fill_reply(build, &reply);
	reply.log = (Paddock__V1__TemplateBuildLog **)(uintptr_t)page->entries;
	reply.n_log = page->n;
	reply.log_entries = page->total;
	rpc_finish(call, &reply.base);
}

void builds_get(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__V1__GetTemplateBuildRequest *request = (const void *)message;
	struct build *build;
	struct pdk_error err;

	if (find(call, request->build_id, &build, &err) < 0)
		rpc_fail(call, &err);
	else
		build_log_show(call, build->log, request->log_offset, answer_with_log);
}

static int by_creation(const void *a, const void *b)
{
	int64_t x = (*(Paddock__V1__TemplateBuild *const *)a)->created_unix_ms;
	int64_t y = (*(Paddock__V1__TemplateBuild *const *)b)->created_unix_ms;

	return (x < y) - (x > y);
}

void builds_list(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const char *tenant = rpc_principal(call)->tenant;
	Paddock__V1__ListTemplateBuildsResponse reply = PADDOCK__V1__LIST_TEMPLATE_BUILDS_RESPONSE__INIT;
	Paddock__V1__TemplateBuild builds[BUILDS_OF_TENANT_MAX], *pointers[BUILDS_OF_TENANT_MAX];

	for (const struct build *build = newest; build && reply.n_builds < BUILDS_OF_TENANT_MAX; build = build->next) {
		if (strcmp(build->stored->tenant, tenant) != 0)
			continue;
		pointers[reply.n_builds] = &builds[reply.n_builds];
		fill_reply(build, pointers[reply.n_builds++]);
	}
	/* In memory they are in the order of the store after a restart. */
	qsort(pointers, reply.n_builds, sizeof(pointers[0]), by_creation);
	reply.builds = pointers;
	rpc_finish(call, &reply.base);
}

void builds_end(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__V1__StopTemplateBuildRequest *request = (const void *)message;
	Paddock__V1__StopTemplateBuildResponse reply = PADDOCK__V1__STOP_TEMPLATE_BUILD_RESPONSE__INIT;
	struct build *build;
	struct pdk_error err;

	if (find(call, request->build_id, &build, &err) < 0) {
		rpc_fail(call, &err);
		return;
	}
	pdk_fail(&err, -ECANCELED, PDK_CANCELLED, "the build was stopped");
	if (build->run)
		build_run_stop(build, &err);
	else if (build->stored->state == BUILD_WAITING)
		build_finish(build, &err, "base", NULL);
	rpc_finish(call, &reply.base);
}
