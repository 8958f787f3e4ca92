#include "config.h"
#include "process_audit.h"
#include "process_internal.h"
#include "processes.h"
#include "sandbox/base/cleanup.h"
#include "validate.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Start: every limit is checked, then init and the store are asked at the same time. */

#define TIMEOUT_MAX_MS 86400000u
#define GRACE_MAX_MS 60000u
#define GRACE_DEFAULT_MS 5000u
#define TAG_MAX 128u
#define TERMINAL_MAX 4096u

static int validate_start(const Paddock__V1__StartProcessRequest *request, struct pdk_error *err)
{
	const Paddock__V1__TerminalSize *terminal = request->terminal;
	int rc = validate_argv("argv", request->argv, request->n_argv, err);

	if (rc == 0)
		rc = validate_env("env", (const struct validate_entry *const *)request->env, request->n_env, err);
	if (rc == 0)
		rc = validate_path_text("cwd", request->cwd, true, err);
	if (rc == 0)
		rc = validate_user("user", request->user, err);
	if (rc == 0 && terminal)
		rc = validate_range("terminal.columns", terminal->columns, 1, TERMINAL_MAX, err);
	if (rc == 0 && terminal)
		rc = validate_range("terminal.rows", terminal->rows, 1, TERMINAL_MAX, err);
	if (rc == 0)
		rc = validate_range("timeout_ms", request->timeout_ms, 0, TIMEOUT_MAX_MS, err);
	if (rc == 0)
		rc = validate_range("grace_ms", request->grace_ms, 0, GRACE_MAX_MS, err);
	if (rc == 0)
		rc = validate_label("tag", request->tag, TAG_MAX, err);
	return rc;
}

/* NAME=value and NAME lists in the call's arena. */
static int make_env(struct rpc_call *call, const Paddock__V1__StartProcessRequest *request, char ***ret_env,
		    char ***ret_names, size_t *ret_count)
{
	const struct validate_entry *const *entries = (const struct validate_entry *const *)request->env;
	char **env = rpc_alloc(call, (request->n_env + 1) * sizeof(*env));
	char **names = rpc_alloc(call, (request->n_env + 1) * sizeof(*names));
	size_t count = 0;

	if (!env || !names)
		return -ENOMEM;
	for (size_t i = 0; i < request->n_env; i++) {
		size_t size = strlen(entries[i]->key) + strlen(entries[i]->value) + 2;

		if (validate_entry_repeated(entries, request->n_env, i))
			continue;
		env[count] = rpc_alloc(call, size);
		if (!env[count])
			return -ENOMEM;
		snprintf(env[count], size, "%s=%s", entries[i]->key, entries[i]->value);
		names[count++] = entries[i]->key;
	}
	*ret_env = env;
	*ret_names = names;
	*ret_count = count;
	return 0;
}

static void fill_stored(Paddock__Internal__StoredProcess *ret, const Paddock__V1__StartProcessRequest *request,
			const struct sandbox *sandbox, uint64_t id, char **names, size_t n_names)
{
	paddock__internal__stored_process__init(ret);
	ret->id = id;
	ret->n_argv = request->n_argv;
	ret->argv = request->argv;
	ret->cwd = request->cwd[0] ? request->cwd : (char *)(uintptr_t)sandbox_default_cwd(sandbox);
	ret->user = request->user[0] ? request->user : (char *)(uintptr_t)sandbox_default_user(sandbox);
	ret->tag = request->tag;
	ret->terminal = request->terminal != NULL;
	ret->open_stdin = request->open_stdin || request->terminal;
	ret->started_unix_ms = loop_wall_ms();
	ret->timeout_ms = request->timeout_ms;
	ret->grace_ms = request->grace_ms ? request->grace_ms : GRACE_DEFAULT_MS;
	ret->n_env_names = n_names;
	ret->env_names = names;
}

/* A copy of `stored` that does not belong to the call. */
static struct process *create_listed(struct process_list *list, const Paddock__Internal__StoredProcess *stored)
{
	size_t length = paddock__internal__stored_process__get_packed_size(stored);
	_cleanup_free_ uint8_t *packed = malloc(length);
	Paddock__Internal__StoredProcess *own;
	struct process *process;

	if (!packed)
		return NULL;
	paddock__internal__stored_process__pack(stored, packed);
	own = paddock__internal__stored_process__unpack(NULL, length, packed);
	if (!own)
		return NULL;
	process = process_create(list, own);
	if (!process) {
		paddock__internal__stored_process__free_unpacked(own, NULL);
		return NULL;
	}
	if (process_list_add(list, process) < 0) {
		process_unref(process);
		return NULL;
	}
	return process;
}

static int ask_init(struct process *process, const Paddock__V1__StartProcessRequest *request, char **env, size_t n_env)
{
	Paddock__Internal__GuestStart start = PADDOCK__INTERNAL__GUEST_START__INIT;
	Paddock__Internal__GuestRequest message = PADDOCK__INTERNAL__GUEST_REQUEST__INIT;
	const Paddock__Internal__StoredProcess *stored = process->stored;
	int64_t stream;

	start.handle = process->id;
	start.argv = request->argv;
	start.n_argv = request->n_argv;
	start.env = env;
	start.n_env = n_env;
	start.cwd = stored->cwd;
	start.user = stored->user;
	start.open_stdin = stored->open_stdin;
	start.columns = request->terminal ? request->terminal->columns : 0;
	start.rows = request->terminal ? request->terminal->rows : 0;
	start.timeout_ms = stored->timeout_ms;
	start.grace_ms = stored->grace_ms;
	message.op_case = PADDOCK__INTERNAL__GUEST_REQUEST__OP_START;
	message.start = &start;
	stream = guest_call(process->list->sandbox->guest, &message, 0, process_on_guest, process);
	if (stream < 0)
		return (int)stream;
	process->stream = (uint32_t)stream;
	process_ref(process);
	return 0;
}

static int fail_ask(int rc, struct pdk_error *err)
{
	if (rc == -EMSGSIZE)
		return pdk_fail(err, rc, PDK_INVALID_ARGUMENT, "env: with argv it must stay below 2 MiB");
	if (rc == -EAGAIN)
		return pdk_fail(err, rc, PDK_RESOURCE_EXHAUSTED, "too many operations of this sandbox are under way");
	if (rc == -ENOMEM)
		return pdk_fail(err, rc, PDK_UNAVAILABLE, "the server is out of memory");
	return pdk_fail(err, rc, PDK_UNAVAILABLE, "the sandbox does not answer");
}

/* Take a process back that was not started. */
static void remove_process(struct process *process)
{
	struct store_batch *batch;

	if (!process->list)
		return;
	batch = store_batch_create();
	if (batch && process_delete(batch, process) == 0)
		store_commit(batch, NULL, NULL);
	else
		store_batch_free(batch);
	process_list_remove(process);
}

static void start_committed(struct rpc_call *call, int rc)
{
	struct follower *follower = rpc_user(call);

	follower->commit_pending = false;
	follower->commit_rc = rc;
	follower->process->committed = rc == 0;
	process_start_settle(follower);
}

/* Both answers count: the call ends, or goes on as a follower, only when the store and init have spoken. */
void process_start_settle(struct follower *follower)
{
	struct process *process = follower->process;
	struct pdk_error err;

	if (follower->commit_pending || !follower->start_answered)
		return;
	follower->starting = false;
	if (follower->start_error.code) {
		remove_process(process);
		follower_fail(follower, follower->cancelled ? &follower->why : &follower->start_error);
		return;
	}
	if (follower->commit_rc < 0) {
		if (process->list && process->state == PROCESS_RUNNING)
			process_signal(process, 9, false);
		pdk_fail(&err, follower->commit_rc, PDK_UNAVAILABLE, "the start could not be stored");
		follower_fail(follower, &err);
		return;
	}
	if (follower->cancelled) {
		follower_fail(follower, &follower->why);
		return;
	}
	if (follower->interactive)
		rpc_read(follower->call);
	follower_pump(follower);
}

/* Ask the store: the row, and the audit record of the call. */
static int commit_start(struct follower *follower)
{
	struct process *process = follower->process;
	_cleanup_free_ char *detail = process_audit_start(process->stored);
	struct store_batch *batch = store_batch_create();
	int rc = batch ? process_put(batch, process) : -ENOMEM;

	if (rc < 0) {
		store_batch_free(batch);
		return rc;
	}
	rpc_audit_detail(follower->call, detail);
	follower->commit_pending = true;
	rpc_commit(follower->call, batch, start_committed);
	return 0;
}

static int start_process(struct rpc_call *call, struct process_list *list,
			 const Paddock__V1__StartProcessRequest *request, bool interactive, struct pdk_error *err)
{
	Paddock__Internal__StoredProcess stored;
	struct follower *follower;
	struct process *process;
	char **env, **names;
	char object[24];
	size_t n_env;
	int rc;

	if (make_env(call, request, &env, &names, &n_env) < 0)
		return pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "env: too large");
	fill_stored(&stored, request, list->sandbox, list->next_id, names, n_env);
	process = create_listed(list, &stored);
	if (!process)
		return fail_ask(-ENOMEM, err);
	snprintf(object, sizeof(object), "%llu", (unsigned long long)process->id);
	rpc_audit_object(call, list->sandbox->id, object);
	follower = follower_create(call, process);
	if (!follower) {
		process_list_remove(process);
		return fail_ask(-ENOMEM, err);
	}
	follower->interactive = interactive;
	follower->detach = request->detach;
	follower->starting = true;
	follower_attach(follower, 0);
	rc = ask_init(process, request, env, n_env);
	if (rc == 0)
		rc = commit_start(follower);
	if (rc == 0)
		return 0;
	/* Nothing is under way for this call: it ends here, and a process that init may start is killed at once. */
	if (process->stream)
		process_signal(process, 9, false);
	process_list_remove(process_ref(process));
	fail_ask(rc, err);
	follower_fail(follower, err);
	process_unref(process);
	return 1;
}

void process_start_call(struct rpc_call *call, const Paddock__V1__StartProcessRequest *request, bool interactive)
{
	struct process_list *list = NULL;
	struct sandbox *sandbox;
	struct pdk_error err;
	int rc;

	rc = sandbox_find_running(call, request->sandbox_id, &sandbox, &err);
	if (rc == 0) {
		rpc_audit_object(call, sandbox->id, NULL);
		rc = validate_start(request, &err);
	}
	if (rc == 0) {
		list = process_list_get(sandbox);
		if (!list)
			rc = fail_ask(-ENOMEM, &err);
		else if (list->running >= PROCESSES_RUNNING_MAX)
			rc = pdk_fail(&err, -EAGAIN, PDK_RESOURCE_EXHAUSTED,
				      "1024 processes of this sandbox are running already");
	}
	if (rc == 0)
		rc = start_process(call, list, request, interactive, &err);
	if (rc < 0)
		rpc_fail(call, &err);
}

void processes_start(struct rpc_call *call, const ProtobufCMessage *request)
{
	process_start_call(call, (const Paddock__V1__StartProcessRequest *)request, false);
}
