#include "snapshot_internal.h"

#include "rpc.h"
#include "sandbox/base/cleanup.h"
#include "validate.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * Fork: a snapshot of its own (in no list, in no store), copies from it, a few at a time, and away with it. Each copy is a
 * create like any other, with its own quota check; what fails is told in its result.
 *
 * A call that goes away takes its copies along, as nobody was told of them. A crash leaves those that run, and what is
 * half-made, or the snapshot, is removed at the next start.
 */

#define COUNT_MAX 100
#define PARALLEL 4

struct fork_copy {
	struct fork *fork;
	bool made;
	char id[SANDBOX_ID_SIZE];
	struct pdk_error err; /* why not */
};

struct fork {
	struct rpc_call *call; /* NULL: it went away */
	struct snapshot *snapshot;
	char tenant[TENANT_NAME_MAX + 1];
	uint64_t timeout_ms;
	Paddock__V1__TimeoutAction on_timeout; /* as the source */
	bool auto_resume;
	uint64_t idle_timeout_ms;
	Paddock__V1__PortAccess port_access; /* as the call says */
	struct text_list *metadata;          /* of the source */
	bool all;
	unsigned int count, started, ended;
	bool pumping, deferred;
	struct fork_copy copies[];
};

static void fork_free(struct fork *fork)
{
	free(fork->metadata);
	free(fork);
}

/* --- the end --- */

static void end_copies(struct fork *fork)
{
	for (unsigned int i = 0; i < fork->count; i++) {
		struct sandbox *sandbox = fork->copies[i].made ? sandbox_get(fork->copies[i].id) : NULL;

		if (sandbox)
			sandbox_end(sandbox, PADDOCK__V1__END_REASON__END_REASON_CREATE_FAILED,
				    "given up by the client");
	}
}

static Paddock__V1__ForkResult *make_result(struct rpc_call *call, const struct fork_copy *copy)
{
	Paddock__V1__ForkResult *result = rpc_alloc(call, sizeof(*result));
	const struct sandbox *sandbox = copy->made ? sandbox_get(copy->id) : NULL;
	void *block = result && sandbox ? rpc_alloc(call, sandbox_message_size(sandbox)) : NULL;

	if (!result || (sandbox && !block))
		return NULL;
	paddock__v1__fork_result__init(result);
	if (sandbox) {
		result->sandbox = sandbox_message(sandbox, block);
		result->access_token = rpc_alloc(call, SANDBOX_TOKEN_LEN + 1);
		result->traffic_token = rpc_alloc(call, SANDBOX_TOKEN_LEN + 1);
		return result->access_token && result->traffic_token &&
				       sandbox_access_token(sandbox->id, result->access_token) &&
				       sandbox_traffic_token(sandbox, result->traffic_token)
			       ? result
			       : NULL;
	}
	result->code = copy->made ? PDK_ABORTED : copy->err.code;
	result->message = copy->made ? (char *)"the copy has ended" : (char *)copy->err.text;
	return result;
}

static const struct fork_copy *find_failed(const struct fork *fork)
{
	for (unsigned int i = 0; i < fork->count; i++)
		if (!fork->copies[i].made)
			return &fork->copies[i];
	return NULL;
}

static void answer(struct fork *fork)
{
	Paddock__V1__ForkResponse reply = PADDOCK__V1__FORK_RESPONSE__INIT;
	const struct fork_copy *failed = fork->all ? find_failed(fork) : NULL;
	struct pdk_error err;

	if (failed) {
		end_copies(fork);
		rpc_fail(fork->call, &failed->err);
		return;
	}
	reply.stopped_us = fork->snapshot->stored->stopped_us;
	reply.results = rpc_alloc(fork->call, fork->count * sizeof(*reply.results));
	for (unsigned int i = 0; reply.results && i < fork->count; i++) {
		reply.results[i] = make_result(fork->call, &fork->copies[i]);
		if (!reply.results[i])
			break;
		reply.n_results++;
	}
	if (reply.n_results == fork->count) {
		rpc_finish(fork->call, &reply.base);
		return;
	}
	end_copies(fork);
	pdk_fail(&err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "the reply is too large for this call");
	rpc_fail(fork->call, &err);
}

static void finish(struct fork *fork)
{
	if (fork->call)
		answer(fork);
	else
		end_copies(fork);
	snapshot_discard(fork->snapshot);
	fork_free(fork);
}

/* --- the copies --- */

static int start_copy(struct fork *fork, struct fork_copy *copy)
{
	Paddock__V1__CreateSandboxRequest request = PADDOCK__V1__CREATE_SANDBOX_REQUEST__INIT;
	Paddock__V1__CreateSandboxRequest__MetadataEntry entries[METADATA_PAIRS_MAX], *pointers[METADATA_PAIRS_MAX];

	request.timeout_ms = fork->timeout_ms;
	request.on_timeout = fork->on_timeout;
	request.auto_resume = fork->auto_resume;
	request.idle_timeout_ms = fork->idle_timeout_ms;
	request.port_access = fork->port_access;
	request.n_metadata = fork->metadata->count / 2;
	request.metadata = pointers;
	for (size_t i = 0; i < request.n_metadata; i++) {
		paddock__v1__create_sandbox_request__metadata_entry__init(&entries[i]);
		entries[i].key = fork->metadata->item[2 * i];
		entries[i].value = fork->metadata->item[2 * i + 1];
		pointers[i] = &entries[i];
	}
	return sandbox_start_copy(fork->snapshot, fork->tenant, &request, copy, &copy->err);
}

/* Start as many as may run together; what ends meanwhile is only counted. */
static void pump(struct fork *fork)
{
	fork->pumping = true;
	while (fork->started < fork->count && fork->started - fork->ended < PARALLEL) {
		struct fork_copy *copy = &fork->copies[fork->started++];

		copy->fork = fork;
		pdk_fail(&copy->err, -ECANCELED, PDK_CANCELLED, "the call went away");
		if (!fork->call || start_copy(fork, copy) < 0)
			fork->ended++;
	}
	fork->pumping = false;
	if (fork->ended == fork->count)
		finish(fork);
}

static void pump_later(void *arg)
{
	struct fork *fork = arg;

	fork->deferred = false;
	pump(fork);
}

void fork_copy_over(struct sandbox *sandbox, const struct pdk_error *err)
{
	struct fork_copy *copy = STEAL_PTR(sandbox->private->copy);
	struct fork *fork = copy ? copy->fork : NULL;

	if (!fork)
		return;
	copy->made = !err;
	memcpy(copy->id, sandbox->id, SANDBOX_ID_SIZE);
	if (err) {
		copy->err = *err;
		sandbox->private->discard = true;
	}
	fork->ended++;
	if (fork->pumping || fork->deferred)
		return;
	/* Not from inside the end of a sandbox; without memory for that, here all the same. */
	fork->deferred = loop_defer(pump_later, fork) >= 0;
	if (!fork->deferred)
		pump(fork);
}

/* --- the call --- */

static void on_cancel(struct rpc_call *call, const struct pdk_error *why)
{
	struct fork *fork = rpc_user(call);

	fork->call = NULL;
	rpc_fail(call, why);
}

static void on_taken(struct snapshot *snapshot, const struct pdk_error *err, void *arg)
{
	struct fork *fork = arg;

	if (!err) {
		fork->snapshot = snapshot;
		pump(fork);
		return;
	}
	if (fork->call)
		rpc_fail(fork->call, err);
	fork_free(fork);
}

static struct fork *fork_new(struct rpc_call *call, const Paddock__V1__ForkRequest *request,
			     const struct sandbox *source)
{
	unsigned int count = request->count ? request->count : 1;
	struct fork *fork = calloc(1, sizeof(*fork) + count * sizeof(fork->copies[0]));
	const struct text_list *metadata = source->private->metadata;

	if (!fork)
		return NULL;
	fork->metadata = text_list_copy(metadata ? metadata->item : NULL, metadata ? metadata->count : 0);
	if (!fork->metadata) {
		free(fork);
		return NULL;
	}
	fork->call = call;
	fork->count = count;
	fork->all = request->all;
	fork->port_access = request->port_access;
	fork->timeout_ms = request->timeout_ms;
	fork->on_timeout = source->private->on_timeout;
	fork->auto_resume = source->private->auto_resume;
	fork->idle_timeout_ms = source->private->idle_timeout_ms;
	snprintf(fork->tenant, sizeof(fork->tenant), "%s", source->tenant);
	return fork;
}

void snapshots_fork(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	static const struct rpc_events events = {.on_cancel = on_cancel};
	const Paddock__V1__ForkRequest *request = (const void *)message;
	struct snapshot_take take = {.done = on_taken};
	struct fork *fork = NULL;
	struct sandbox *source;
	struct pdk_error err;
	char detail[32];
	int rc = validate_optional_range("count", request->count, 1, COUNT_MAX, &err);

	if (rc >= 0)
		rc = validate_optional_range("timeout_ms", request->timeout_ms, SANDBOX_TIMEOUT_MIN_MS,
					     SANDBOX_TIMEOUT_MAX_MS, &err);
	if (rc >= 0)
		rc = validate_optional_range("port_access", (uint64_t)request->port_access, 1, 2, &err);
	if (rc >= 0)
		rc = sandbox_find_running(call, request->sandbox_id, &source, &err);
	if (rc >= 0) {
		rpc_audit_object(call, source->id, NULL);
		snprintf(detail, sizeof(detail), "{\"copies\":%u}", request->count ? request->count : 1);
		rpc_audit_detail(call, detail);
		take.arg = fork = fork_new(call, request, source);
		rc = fork ? 0 : pdk_fail_errno(&err, -ENOMEM, "forking the sandbox");
	}
	if (rc >= 0) {
		rpc_set_events(call, &events, fork);
		rc = snapshot_take(source, "", 0, true, &take, &err);
	}
	if (rc >= 0)
		return;
	if (fork)
		fork_free(fork);
	rpc_fail(call, &err);
}
