#include "rpc_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "metrics.h"
#include "ration.h"
#include "sandbox/base/cleanup.h"

/* The end of a call: audit, durability, the one log line, counters, status. */

#define ANONYMOUS_RECORDS_PER_SECOND 10
#define AUDIT_OBJECT_MAX 256
#define AUDIT_DETAIL_MAX 4096

static const struct pdk_error no_error = {.code = PDK_OK};

/* Log and count. Once for each call. */
static void report(const struct rpc_call *call)
{
	uint64_t took_ns = loop_now_ns() - call->arrived_ns;
	const char *code = pdk_code_name(call->end.code);
	bool broken = call->end.code == PDK_INTERNAL || call->end.code == PDK_UNKNOWN;
	bool known = call->method != NULL;

	metric_add(call->end.code == PDK_OK ? METRIC_CALLS_OK : METRIC_CALLS_FAILED, 1);
	if (known)
		metric_call(call->method->path, code, took_ns);
	log_event(broken ? LOG_INFO : LOG_DEBUG, "call", "method", known ? call->method->path : "unknown", "code", code,
		  "us", log_u64(took_ns / 1000), "tenant", call->principal.tenant[0] ? call->principal.tenant : NULL,
		  "actor", call->principal.tenant[0] ? principal_actor(&call->principal) : NULL, "sandbox",
		  call->audit_sandbox[0] ? call->audit_sandbox : NULL, "error",
		  call->end.code == PDK_OK ? NULL : call->end.text, NULL);
}

/* The status is decided: send it. A call that was cancelled ends with the reason, whatever its handler says. */
static void end(struct rpc_call *call, const struct pdk_error *err)
{
	call->state = RPC_ENDED;
	call->end = call->cancelled ? call->why : *err;
	if (call->end.code == PDK_OK && call->reply_lost)
		pdk_fail(&call->end, 0, PDK_RESOURCE_EXHAUSTED, "the reply is too large for this connection");
	loop_timer_cancel(&call->timer);
	if (call->end.code != PDK_OK && call->reply)
		call->transport->drop(STEAL_PTR(call->reply));
	if (call->release_held)
		call->release_held(call->held);
	report(call);
	rpc_send_end(call);
	rpc_call_settle(call);
}

/* Audit */

/* The handler's detail, and whom the ingress made the call for. */
static const char *detail_of(struct rpc_call *call)
{
	const char *rest = call->audit_detail && call->audit_detail[0] == '{' ? call->audit_detail + 1 : "}";
	size_t size;
	char *both;

	if (!call->client_address)
		return call->audit_detail;
	size = strlen(rest) + strlen(call->client_address) + 32;
	both = rpc_alloc(call, size);
	if (!both)
		return call->audit_detail;
	snprintf(both, size, "{\"client\":\"%s\"%s%s", call->client_address, rest[0] == '}' ? "" : ",", rest);
	return both;
}

static struct audit_entry audit_entry_of(struct rpc_call *call, enum pdk_code code)
{
	return (struct audit_entry){
		.tenant = call->principal.tenant[0] ? call->principal.tenant : NULL,
		.actor = call->principal.tenant[0] ? principal_actor(&call->principal) : "anonymous",
		.action = call->method->path + 1,
		.sandbox_id = call->audit_sandbox[0] ? call->audit_sandbox : NULL,
		.object = call->audit_object,
		.outcome = pdk_code_name(code),
		.detail = detail_of(call),
	};
}

/* Records of callers without a key are rationed: they must not fill the disk. */
static bool anonymous_allowed(void)
{
	static struct ration ration;

	return ration_take(&ration, ANONYMOUS_RECORDS_PER_SECOND);
}

/* A record that is not waited for. */
static void record(struct rpc_call *call, enum pdk_code code)
{
	struct audit_entry entry;

	if (call->recorded || !call->method || call->method->audit == RPC_AUDIT_NONE)
		return;
	if (code == PDK_UNAUTHENTICATED && !call->principal.tenant[0] && !anonymous_allowed())
		return;
	entry = audit_entry_of(call, code);
	audit_event(&entry);
	call->recorded = true;
}

bool rpc_hold(struct rpc_call *call, const char *id, void (*release)(const char *id))
{
	if (call->release_held || call->state == RPC_ENDED)
		return false;
	snprintf(call->held, sizeof(call->held), "%s", id);
	call->release_held = release;
	return true;
}

void rpc_audit_object(struct rpc_call *call, const char *sandbox_id, const char *object)
{
	if (sandbox_id)
		snprintf(call->audit_sandbox, sizeof(call->audit_sandbox), "%s", sandbox_id);
	if (object && strlen(object) <= AUDIT_OBJECT_MAX) {
		call->audit_object = rpc_strdup(call, object);
	} else if (object) {
		call->audit_object = rpc_alloc(call, AUDIT_OBJECT_MAX + 1);
		if (call->audit_object)
			memcpy(call->audit_object, object, AUDIT_OBJECT_MAX);
	}
}

void rpc_audit_detail(struct rpc_call *call, const char *json)
{
	call->audit_detail = json && strlen(json) <= AUDIT_DETAIL_MAX ? rpc_strdup(call, json) : NULL;
}

/* Commits: each keeps the call alive (`pending`) until the store has answered. */

struct commit {
	struct rpc_call *call;
	void (*done)(struct rpc_call *call, int rc);
};

static void committed(int rc, void *arg)
{
	struct commit *commit = arg;
	struct rpc_call *call = commit->call;

	commit->done(call, rc);
	free(commit);
	call->pending--;
	rpc_call_settle(call);
}

/* Consumes the batch. On failure `done` was not and will not be called. */
static int commit_with_record(struct rpc_call *call, struct store_batch *batch,
			      void (*done)(struct rpc_call *call, int rc))
{
	struct commit *commit = calloc(1, sizeof(*commit));
	struct audit_entry entry;
	int rc = commit ? 0 : -ENOMEM;

	if (rc == 0 && !batch)
		batch = store_batch_create();
	if (!batch)
		rc = -ENOMEM;
	if (rc == 0 && call->method->audit == RPC_AUDIT_CHANGE && !call->recorded) {
		entry = audit_entry_of(call, PDK_OK);
		rc = store_audit(batch, &entry);
	}
	if (rc < 0) {
		if (batch)
			store_batch_free(batch);
		free(commit);
		return rc;
	}
	call->recorded = true;
	*commit = (struct commit){.call = call, .done = done};
	call->pending++;
	store_commit(batch, committed, commit);
	return 0;
}

static void durable(struct rpc_call *call, int rc)
{
	struct pdk_error err = no_error;

	if (rc < 0)
		pdk_fail(&err, rc, PDK_UNAVAILABLE, "the change could not be stored");
	end(call, &err);
}

void rpc_commit(struct rpc_call *call, struct store_batch *batch, void (*done)(struct rpc_call *call, int rc))
{
	int rc = commit_with_record(call, batch, done);

	if (rc < 0)
		done(call, rc);
}

/* The ways to finish */

static void finish(struct rpc_call *call, const ProtobufCMessage *reply)
{
	loop_assert_locked();
	RPC_MUST(call->state == RPC_RUNNING);
	call->state = RPC_FINISHED;
	if (reply && !call->closed) {
		call->reply = call->transport->pack(reply);
		call->reply_lost = !call->reply;
	}
}

void rpc_finish_commit(struct rpc_call *call, struct store_batch *batch, const ProtobufCMessage *reply)
{
	int rc;

	finish(call, reply);
	rc = commit_with_record(call, batch, durable);
	if (rc < 0)
		durable(call, rc);
}

void rpc_finish_kept(struct rpc_call *call, struct store_batch *batch, const ProtobufCMessage *reply)
{
	struct audit_entry entry;
	int rc;

	finish(call, reply);
	if (call->method->audit == RPC_AUDIT_CHANGE && !call->recorded) {
		entry = audit_entry_of(call, PDK_OK);
		call->recorded = store_audit(batch, &entry) >= 0;
	}
	if (store_commit_kept(batch))
		end(call, &no_error);
	else if ((rc = commit_with_record(call, batch, durable)) < 0)
		durable(call, rc);
}

void rpc_finish(struct rpc_call *call, const ProtobufCMessage *reply)
{
	if (call->method->audit == RPC_AUDIT_CHANGE && !call->recorded) {
		rpc_finish_commit(call, NULL, reply);
		return;
	}
	finish(call, reply);
	record(call, call->cancelled ? call->why.code : PDK_OK);
	end(call, &no_error);
}

void rpc_finish_fd(struct rpc_call *call, const ProtobufCMessage *reply, int fd)
{
	RPC_MUST(call->method->link_only && call->reply_fd < 0);
	call->reply_fd = fd;
	rpc_finish(call, reply);
}

void rpc_fail(struct rpc_call *call, const struct pdk_error *err)
{
	if (call->parked)
		return;
	finish(call, NULL);
	record(call, call->cancelled ? call->why.code : err->code);
	end(call, err);
}

void rpc_refuse(struct rpc_call *call, const struct pdk_error *err)
{
	RPC_MUST(call->state == RPC_ARRIVED);
	if (err->code == PDK_UNAUTHENTICATED)
		metric_add(METRIC_AUTH_FAILURES, 1);
	record(call, err->code);
	end(call, err);
}
