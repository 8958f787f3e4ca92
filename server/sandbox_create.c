#include "config.h"
#include "guest.h"
#include "log.h"
#include "metrics.h"
#include "rpc.h"
#include "sandbox/base/cleanup.h"
#include "snapshot_internal.h"
#include "templates.h"
#include "validate.h"
#include "warden_client.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * Create: validate -> rate -> idempotency -> template -> quota -> admission -> a pre-made sandbox, or
 *
 *	intent (store) in parallel with WARDEN_CREATE -> link to init -> hello answered -> record + audit -> reply
 *
 * Between record and reply comes what the image starts, if it does (sandbox_start.c).
 *
 * The reservation is taken in the same turn of the lock as the checks, so parallel creates cannot pass a limit
 * together. The calls that wait for a create are in sandbox->private->creators: several with an idempotency key.
 * When the last of them goes away before the sandbox runs, the create is rolled back without a trace.
 */

#define MIB (1ull << 20)

/* --- calls that wait --- */

int sandbox_wait(struct sandbox *sandbox, struct sandbox_waiter **list, struct rpc_call *call,
		 void (*on_cancel)(struct rpc_call *call, const struct pdk_error *why))
{
	struct sandbox_waiter *waiter = rpc_alloc(call, sizeof(*waiter) + sizeof(struct rpc_events));
	struct rpc_events *events;

	if (!waiter)
		return -ENOMEM;
	events = (struct rpc_events *)(waiter + 1);
	events->on_cancel = on_cancel;
	waiter->call = call;
	waiter->sandbox = sandbox;
	waiter->list = list;
	/* In order of arrival: the first is who the audit record of the change belongs to. */
	while (*list)
		list = &(*list)->next;
	*list = waiter;
	rpc_set_events(call, events, waiter);
	return 0;
}

void sandbox_waiter_remove(struct sandbox_waiter *waiter)
{
	struct sandbox_waiter **slot = waiter->list;

	while (*slot != waiter)
		slot = &(*slot)->next;
	*slot = waiter->next;
}

struct sandbox_waiter *sandbox_waiter_take(struct sandbox_waiter **list)
{
	struct sandbox_waiter *waiter = *list;

	if (waiter)
		*list = waiter->next;
	return waiter;
}

/* --- the request --- */

static int validate_create(const Paddock__V1__CreateSandboxRequest *request, struct pdk_error *err)
{
	int rc = validate_label("template", request->template_, 128, err);

	if (rc >= 0)
		rc = validate_label("snapshot", request->snapshot, 128, err);
	if (rc >= 0 && request->snapshot[0] && request->template_[0])
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "template: not together with snapshot");
	if (rc >= 0)
		rc = validate_optional_range("timeout_ms", request->timeout_ms, SANDBOX_TIMEOUT_MIN_MS,
					     SANDBOX_TIMEOUT_MAX_MS, err);
	if (rc >= 0)
		rc = validate_optional_range("idle_timeout_ms", request->idle_timeout_ms, SANDBOX_TIMEOUT_MIN_MS,
					     SANDBOX_TIMEOUT_MAX_MS, err);
	if (rc >= 0)
		rc = validate_optional_range("on_timeout", (uint64_t)request->on_timeout, 1, 2, err);
	if (rc >= 0)
		rc = validate_map("metadata", (const struct validate_entry *const *)request->metadata,
				  request->n_metadata, METADATA_PAIRS_MAX, 128, 1024, err);
	if (rc >= 0)
		rc = validate_env("env", (const struct validate_entry *const *)request->env, request->n_env, err);
	if (rc >= 0)
		rc = validate_label("idempotency_key", request->idempotency_key, 128, err);
	if (rc >= 0)
		rc = validate_hostname("hostname", request->hostname, err);
	if (rc >= 0)
		rc = validate_range("port_access", (uint64_t)request->port_access, 0,
				    PADDOCK__V1__PORT_ACCESS__PORT_ACCESS_PUBLIC, err);
	if (rc >= 0)
		rc = validate_host_pattern("port_host_header", request->port_host_header, err);
	return rc;
}

static uint64_t quota_or_all(uint64_t quota)
{
	return quota ? quota : UINT64_MAX;
}

/* The server's default, but never more than the tenant may have. */
static uint64_t given(uint64_t value, uint64_t fallback, uint64_t max)
{
	if (value > 0)
		return value;
	return fallback < max ? fallback : max;
}

static int decide_limits(const Paddock__V1__Resources *asked, const struct tenant_quota *quota,
			 struct warden_limits *ret, struct pdk_error *err)
{
	uint64_t max_memory = quota_or_all(quota->max_memory_bytes), max_disk = quota_or_all(quota->max_disk_bytes);
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t max_cpu = 1000 * (uint64_t)(cores > 0 ? cores : 1);
	int rc;

	rc = validate_optional_range("resources.memory_bytes", asked->memory_bytes, 16 * MIB, max_memory, err);
	if (rc >= 0)
		rc = validate_optional_range("resources.cpu_millis", asked->cpu_millis, 50, max_cpu, err);
	if (rc >= 0)
		rc = validate_optional_range("resources.max_pids", asked->max_pids, 16, 32768, err);
	if (rc >= 0)
		rc = validate_optional_range("resources.disk_bytes", asked->disk_bytes, 16 * MIB, max_disk, err);
	if (rc >= 0)
		rc = validate_optional_range("resources.max_inodes", asked->max_inodes, 1000, 10000000, err);
	if (rc < 0)
		return rc;
	ret->memory_bytes = given(asked->memory_bytes, server_config.default_memory_bytes, max_memory);
	ret->disk_bytes = given(asked->disk_bytes, server_config.default_disk_bytes, max_disk);
	ret->cpu_millis = given(asked->cpu_millis, server_config.default_cpu_millis, max_cpu);
	ret->max_pids = given(asked->max_pids, server_config.default_max_pids, 32768);
	ret->max_inodes = given(asked->max_inodes, server_config.default_max_inodes, 10000000);
	return 0;
}

static int over_quota(struct pdk_error *err, const char *name, uint64_t wanted, uint64_t used, uint64_t limit)
{
	return pdk_fail(err, -EDQUOT, PDK_RESOURCE_EXHAUSTED,
			"tenant quota %s exhausted: %llu of %llu in use, %llu more asked for; retry in 1000 ms", name,
			(unsigned long long)used, (unsigned long long)limit, (unsigned long long)wanted);
}

static int check_quota(const char *tenant, const struct tenant_quota *quota, const struct warden_limits *limits,
		       struct pdk_error *err)
{
	static const struct sandbox_owner nothing;
	const struct sandbox_owner *owner = sandbox_owner_find(tenant);
	uint64_t memory = quota_or_all(quota->total_memory_bytes), disk = quota_or_all(quota->total_disk_bytes);

	if (!owner)
		owner = &nothing;
	if (owner->living >= quota->max_sandboxes)
		return over_quota(err, "max_sandboxes", 1, owner->living, quota->max_sandboxes);
	if (limits->memory_bytes > memory || owner->memory_bytes > memory - limits->memory_bytes)
		return over_quota(err, "total_memory_bytes", limits->memory_bytes, owner->memory_bytes, memory);
	if (limits->disk_bytes > disk || owner->disk_bytes > disk - limits->disk_bytes)
		return over_quota(err, "total_disk_bytes", limits->disk_bytes, owner->disk_bytes, disk);
	return 0;
}

/* --- a create that has been let in --- */

static void answer(struct rpc_call *call, const struct sandbox *sandbox, struct store_batch *batch)
{
	Paddock__V1__Sandbox *reply;

	rpc_audit_object(call, sandbox->id, NULL);
	reply = sandbox_reply(call, sandbox);
	if (!reply) {
		if (batch)
			store_commit(batch, NULL, NULL);
		return;
	}
	if (batch)
		rpc_finish_commit(call, batch, &reply->base);
	else
		rpc_finish(call, &reply->base);
}

void sandbox_creators_fail(struct sandbox *sandbox, const struct pdk_error *err)
{
	struct sandbox_waiter *waiter;

	while ((waiter = sandbox_waiter_take(&sandbox->private->creators))) {
		metric_add(METRIC_CREATES_REFUSED, 1);
		rpc_audit_object(waiter->call, sandbox->id, NULL);
		rpc_fail(waiter->call, err);
	}
}

void sandbox_creators_answer(struct sandbox *sandbox, struct store_batch *batch)
{
	struct sandbox_waiter *waiter;

	while ((waiter = sandbox_waiter_take(&sandbox->private->creators))) {
		answer(waiter->call, sandbox, batch);
		batch = NULL;
	}
	if (batch)
		store_commit(batch, NULL, NULL);
}

static void on_started(struct sandbox *sandbox, const struct pdk_error *err)
{
	if (err)
		sandbox_end(sandbox, PADDOCK__V1__END_REASON__END_REASON_CREATE_FAILED, err->text);
	else
		sandbox_creators_answer(sandbox, NULL);
}

/* It accepts commands: make that durable together with the first waiter's audit record, and tell everybody. */
static void complete(struct sandbox *sandbox)
{
	struct sandbox_private *private = sandbox->private;
	struct store_batch *batch = store_batch_create();
	bool is_copy = private->origin && !private->bare;
	int rc;

	sandbox->state = PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_RUNNING;
	sandbox->expires_unix_ms = loop_wall_ms() + (int64_t) private->timeout_ms;
	rc = batch ? sandbox_store(batch, sandbox) : -ENOMEM;
	if (rc >= 0 && private->idempotency)
		rc = idempotency_settle(private->idempotency, batch);
	if (rc < 0) {
		store_batch_free(batch);
		sandbox_end(sandbox, PADDOCK__V1__END_REASON__END_REASON_CREATE_FAILED, "the server is out of memory");
		return;
	}
	private->idempotency = NULL;
	sandbox_arm_expiry(sandbox);
	sandbox_idle_watch(sandbox);
	sandbox_metrics_watch(sandbox);
	metric_add(METRIC_SANDBOXES_CREATED, 1);
	sandbox_event(sandbox, PADDOCK__V1__SANDBOX_EVENT__TYPE__TYPE_CREATED);
	sandbox_copy_over(sandbox);
	/* What a copy's image starts is among the processes that it has. */
	if (!is_copy && private->creators && guest_has_start(sandbox->guest)) {
		store_commit(batch, NULL, NULL);
		sandbox_start_begin(sandbox, rpc_principal(private->creators->call), on_started);
		return;
	}
	sandbox_creators_answer(sandbox, batch);
	fork_copy_over(sandbox, NULL);
}

static void on_copy_filled(struct sandbox *sandbox, int rc)
{
	if (sandbox->state != PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_CREATING)
		return;
	if (rc < 0)
		sandbox_end_soon(sandbox, PADDOCK__V1__END_REASON__END_REASON_CREATE_FAILED,
				 "its processes could not be taken over");
	else
		complete(sandbox);
}

static void on_guest_ready(struct guest *guest, int rc, void *arg)
{
	struct sandbox *sandbox = arg;

	if (sandbox->state != PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_CREATING)
		return;
	if (rc < 0) {
		sandbox_end_soon(sandbox, PADDOCK__V1__END_REASON__END_REASON_CREATE_FAILED,
				 "the sandbox's init did not answer");
		return;
	}
	if (sandbox->private->twin) {
		sandbox_reset_ready(sandbox);
		return;
	}
	if (sandbox->private->bare && sandbox_copy_rename(sandbox) < 0) {
		sandbox_end_soon(sandbox, PADDOCK__V1__END_REASON__END_REASON_CREATE_FAILED,
				 "the server is out of memory");
		return;
	}
	if (sandbox->private->origin && !sandbox->private->bare) {
		sandbox_copy_fill(sandbox, on_copy_filled);
		return;
	}
	if (sandbox->private->pooled) {
		sandbox->state = PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_RUNNING;
		sandbox_pool_ready(sandbox);
		return;
	}
	complete(sandbox);
}

static void on_made(const struct warden_reply *reply, int *fd, void *arg)
{
	struct sandbox *sandbox = arg;
	const struct text_list *env = sandbox->private->env;

	sandbox->private->creating_in_warden = false;
	if (sandbox->state != PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_CREATING) {
		sandbox_tear_down(sandbox);
		return;
	}
	if (reply->status < 0 || *fd < 0) {
		log_event(LOG_ERROR, "sandbox.create_failed", "sandbox", sandbox->id, "errno", log_i64(reply->status),
			  "reason", reply->text, NULL);
		if (sandbox->private->origin)
			sandbox->private->end_code = sandbox_code_of(reply);
		sandbox_end(sandbox, PADDOCK__V1__END_REASON__END_REASON_CREATE_FAILED,
			    reply->text[0] ? reply->text : "the host could not make the sandbox");
		return;
	}
	sandbox->guest = guest_create(sandbox, STEAL_FD(*fd), env ? env->item : NULL, env ? env->count : 0,
				      sandbox->hostname, on_guest_ready, sandbox);
	if (!sandbox->guest)
		sandbox_end(sandbox, PADDOCK__V1__END_REASON__END_REASON_CREATE_FAILED,
			    "the link to the sandbox could not be made");
}

void sandbox_make(struct sandbox *sandbox)
{
	struct warden_request request = {.op = WARDEN_CREATE, .limits = sandbox->limits};
	int rc;

	memcpy(request.id, sandbox->kernel_id, SANDBOX_ID_SIZE);
	memcpy(request.template_id, sandbox->template_id, TEMPLATE_ID_SIZE);
	memcpy(request.hostname, sandbox->hostname, sizeof(request.hostname));
	if (sandbox->private->origin)
		sandbox_copy_request(sandbox, &request);
	sandbox->private->creating_in_warden = true;
	rc = warden_call(&request, -1, on_made, sandbox);
	if (rc >= 0) {
		sandbox->private->asked_for = true;
		return;
	}
	sandbox->private->creating_in_warden = false;
	sandbox_end(sandbox, PADDOCK__V1__END_REASON__END_REASON_CREATE_FAILED,
		    "the sandbox manager is away; try again");
}

/* A failed intent means that the store is broken: the record of RUNNING would not be durable either. */
static void on_intent(int rc, void *arg)
{
	_cleanup_free_ char *id = arg;
	struct sandbox *sandbox = sandbox_get(id);

	if (rc < 0 && sandbox && sandbox->state == PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_CREATING)
		sandbox_end(sandbox, PADDOCK__V1__END_REASON__END_REASON_CREATE_FAILED,
			    "the server's store does not accept changes");
}

static int commit_intent(const struct sandbox *sandbox)
{
	struct store_batch *batch = store_batch_create();
	char *id = strdup(sandbox->id);

	if (!batch || !id || sandbox_store(batch, sandbox) < 0) {
		store_batch_free(batch);
		free(id);
		return -ENOMEM;
	}
	store_commit(batch, on_intent, id);
	return 0;
}

static void on_creator_cancel(struct rpc_call *call, const struct pdk_error *why)
{
	struct sandbox_waiter *waiter = rpc_user(call);
	struct sandbox *sandbox = waiter->sandbox;
	struct sandbox_private *private = sandbox->private;

	sandbox_waiter_remove(waiter);
	rpc_fail(call, why);
	if (private->creators ||
	    (sandbox->state != PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_CREATING && !private->start))
		return;
	/* One that starts what its image says is in the store, and stays there as one that failed. */
	private->discard = !private->start;
	sandbox_end(sandbox, PADDOCK__V1__END_REASON__END_REASON_CREATE_FAILED, "given up by the client");
}

struct new_sandbox {
	const Paddock__V1__CreateSandboxRequest *request;
	const char *tenant;
	struct warden_limits limits;
	char template_id[TEMPLATE_ID_SIZE];
	char template_name[64];
	struct idempotency *key;
	struct snapshot *snapshot; /* to be a copy of, or NULL */
	bool by_template;          /* which is what the template is made of */
	struct fork_copy *copy;
};

static int fill_copy(struct sandbox *sandbox, const struct new_sandbox *wanted)
{
	struct sandbox_private *private = sandbox->private;
	struct text_list *env = sandbox_copy_env(wanted->snapshot, private->env);

	if (!env)
		return -ENOMEM;
	free(private->env);
	private->env = env;
	if (!wanted->request->hostname[0] && !wanted->by_template)
		snprintf(sandbox->hostname, sizeof(sandbox->hostname), "%s", sandbox->id);
	private->inherited_bytes = wanted->snapshot->stored->layer_bytes;
	private->origin = wanted->snapshot;
	private->bare = wanted->snapshot->stored->files_only || wanted->request->files_only;
	private->default_user = strcmp(wanted->snapshot->stored->default_user, "root") == 0 ? "root" : "user";
	if (wanted->snapshot->stored->default_cwd[0]) {
		private->default_cwd = strdup(wanted->snapshot->stored->default_cwd);
		if (!private->default_cwd)
			return -ENOMEM;
	}
	memcpy(private->origin_id, wanted->snapshot->stored->id, SANDBOX_ID_SIZE);
	snapshot_use(wanted->snapshot);
	private->copy = wanted->copy;
	return 0;
}

static const char *hostname_of(const Paddock__V1__CreateSandboxRequest *request)
{
	return request->hostname[0] ? request->hostname : "paddock";
}

static int fill(struct sandbox *sandbox, const struct new_sandbox *wanted)
{
	const Paddock__V1__CreateSandboxRequest *request = wanted->request;
	struct sandbox_private *private = sandbox->private;

	snprintf(sandbox->tenant, sizeof(sandbox->tenant), "%s", wanted->tenant);
	snprintf(sandbox->hostname, sizeof(sandbox->hostname), "%s", hostname_of(request));
	strcpy(sandbox->private->port_host_header, request->port_host_header);
	sandbox->private->port_access = request->port_access;
	memcpy(sandbox->template_id, wanted->template_id, sizeof(sandbox->template_id));
	memcpy(sandbox->template_name, wanted->template_name, sizeof(sandbox->template_name));
	sandbox->limits = wanted->limits;
	private->timeout_ms = request->timeout_ms ? request->timeout_ms : server_config.default_timeout_ms;
	private->on_timeout =
		request->on_timeout ? request->on_timeout : PADDOCK__V1__TIMEOUT_ACTION__TIMEOUT_ACTION_KILL;
	private->auto_resume = request->auto_resume;
	private->idle_timeout_ms = request->idle_timeout_ms;
	sandbox->created_unix_ms = loop_wall_ms();
	sandbox->expires_unix_ms = sandbox->created_unix_ms + (int64_t) private->timeout_ms;
	private->metadata = text_list_from_map(request->metadata, request->n_metadata, 0);
	private->env = text_list_from_map(request->env, request->n_env, '=');
	if (!private->metadata || !private->env || (wanted->snapshot && fill_copy(sandbox, wanted) < 0) ||
	    sandbox_own(sandbox) < 0)
		return -ENOMEM;
	sandbox_count(sandbox);
	return 0;
}

/* A pre-made sandbox becomes the caller's. It is dropped from the pool already. */
static int claim(struct sandbox *sandbox, const struct new_sandbox *wanted)
{
	const struct text_list *env;

	if (fill(sandbox, wanted) < 0)
		return -ENOMEM;
	env = sandbox->private->env;
	if (!env->count)
		return 0;
	return guest_setup(sandbox->guest, env->item, env->count, sandbox->hostname, NULL);
}

static int start_from_pool(struct rpc_call *call, struct sandbox *sandbox, const struct new_sandbox *wanted)
{
	int rc = claim(sandbox, wanted);

	if (rc >= 0)
		rc = sandbox_wait(sandbox, &sandbox->private->creators, call, on_creator_cancel);
	if (rc < 0) {
		sandbox->private->discard = true;
		sandbox_end(sandbox, PADDOCK__V1__END_REASON__END_REASON_CREATE_FAILED, "could not be claimed");
		return rc;
	}
	if (wanted->key)
		idempotency_bind(wanted->key, sandbox);
	metric_add(METRIC_POOL_HITS, 1);
	complete(sandbox);
	return 0;
}

static int start_new(struct rpc_call *call, const struct new_sandbox *wanted)
{
	char id[SANDBOX_ID_SIZE];
	struct sandbox *sandbox;

	sandbox_id_make(id);
	sandbox = sandbox_new(id);
	if (!sandbox)
		return -ENOMEM;
	if (fill(sandbox, wanted) < 0 ||
	    (call && sandbox_wait(sandbox, &sandbox->private->creators, call, on_creator_cancel) < 0)) {
		sandbox_drop(sandbox);
		return -ENOMEM;
	}
	if (commit_intent(sandbox) < 0) {
		if (call)
			sandbox_waiter_take(&sandbox->private->creators);
		sandbox_drop(sandbox);
		return -ENOMEM;
	}
	if (wanted->key)
		idempotency_bind(wanted->key, sandbox);
	metric_add(METRIC_POOL_MISSES, 1);
	sandbox_make(sandbox);
	return 0;
}

/* What it is made from. */
static int find_origin(struct new_sandbox *wanted, struct pdk_error *err)
{
	const char *name = wanted->request->template_;

	if (!wanted->snapshot) {
		int rc = template_find(wanted->tenant, name[0] ? name : server_config.default_template,
				       wanted->template_id, wanted->template_name, &wanted->snapshot, err);

		wanted->by_template = wanted->snapshot;
		return rc;
	}
	snprintf(wanted->template_id, sizeof(wanted->template_id), "%s", wanted->snapshot->stored->template_id);
	snprintf(wanted->template_name, sizeof(wanted->template_name), "%s", wanted->snapshot->stored->template_name);
	return 0;
}

/* Limits, template, quota, admission. */
static int let_in(struct new_sandbox *wanted, struct pdk_error *err)
{
	Paddock__V1__Resources asked = PADDOCK__V1__RESOURCES__INIT;
	struct tenant_quota quota;
	int rc;

	if (wanted->request->resources)
		asked = *wanted->request->resources;
	rc = find_origin(wanted, err);
	if (rc >= 0 && wanted->snapshot)
		sandbox_copy_limits(wanted->snapshot, &asked);
	tenant_get_quota(wanted->tenant, &quota);
	if (rc >= 0)
		rc = decide_limits(&asked, &quota, &wanted->limits, err);
	if (rc >= 0)
		rc = check_quota(wanted->tenant, &quota, &wanted->limits, err);
	if (rc >= 0)
		rc = admission_check(&wanted->limits, false, err);
	return rc;
}

/* `call` may be NULL when `wanted->copy` hears of the end. */
static int start(struct rpc_call *call, struct new_sandbox *wanted, struct pdk_error *err)
{
	struct sandbox *ready;
	int rc = let_in(wanted, err);

	if (rc < 0)
		return rc;
	ready = wanted->snapshot
			? NULL
			: sandbox_pool_claim(wanted->template_id, hostname_of(wanted->request), &wanted->limits);
	rc = ready ? start_from_pool(call, ready, wanted) : start_new(call, wanted);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "creating the sandbox");
	sandbox_pool_trim();
	return 0;
}

static int begin_with_key(struct rpc_call *call, struct new_sandbox *wanted, struct pdk_error *err)
{
	struct sandbox *sandbox;
	int rc = idempotency_begin(wanted->tenant, wanted->request, &wanted->key, &sandbox, err);

	if (rc < 0)
		return rc;
	if (rc == IDEMPOTENCY_DONE) {
		answer(call, sandbox, NULL);
		return 0;
	}
	if (rc == IDEMPOTENCY_PENDING) {
		if (sandbox_wait(sandbox, &sandbox->private->creators, call, on_creator_cancel) < 0)
			return pdk_fail_errno(err, -ENOMEM, "waiting for the sandbox");
		return 0;
	}
	rc = start(call, wanted, err);
	if (rc < 0)
		idempotency_forget(wanted->key);
	return rc;
}

void sandboxes_create(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__V1__CreateSandboxRequest *request = (const void *)message;
	struct new_sandbox wanted = {.request = request, .tenant = rpc_principal(call)->tenant};
	struct pdk_error err;
	int rc = validate_create(request, &err);

	if (rc >= 0 && request->snapshot[0])
		rc = snapshot_find_origin(rpc_principal(call), request->snapshot, &wanted.snapshot, &err);
	if (rc >= 0)
		rc = tenant_take_create(wanted.tenant, &err);
	if (rc >= 0)
		rc = request->idempotency_key[0] ? begin_with_key(call, &wanted, &err) : start(call, &wanted, &err);
	if (rc < 0) {
		metric_add(METRIC_CREATES_REFUSED, 1);
		rpc_fail(call, &err);
	}
}

int sandbox_start_copy(struct snapshot *snapshot, const char *tenant, const Paddock__V1__CreateSandboxRequest *request,
		       struct fork_copy *copy, struct pdk_error *err)
{
	struct new_sandbox wanted = {.request = request, .tenant = tenant, .snapshot = snapshot, .copy = copy};
	int rc = tenant_take_create(tenant, err);

	return rc < 0 ? rc : start(NULL, &wanted, err);
}
