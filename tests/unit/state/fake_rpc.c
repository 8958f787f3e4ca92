#include "fake_rpc.h"

#include "server/builds.h"
#include "server/config.h"
#include "server/sandboxes.h"
#include "server/snapshots.h"
#include "server/status.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char fake_cancelled_key[64];
uint32_t fake_sandboxes;
unsigned int fake_templates_removed;
bool fake_kill_waits;
struct config server_config;

static struct {
	void (*done)(void *arg);
	void *arg;
} killing;

struct rpc_call *fake_call(void)
{
	struct rpc_call *call = calloc(1, sizeof(*call));

	assert_non_null(call);
	call->principal =
		(struct principal){.tenant = "default", .scopes = SCOPE_ADMIN | SCOPE_ANY, .is_operator = true};
	return call;
}

void fake_call_free(struct rpc_call *call)
{
	for (unsigned int i = 0; i < call->arena_used; i++)
		free(call->arena[i]);
	free(call->reply);
	free(call);
}

void fake_expect(struct rpc_call *call, enum pdk_code code)
{
	fake_wait(&call->finished);
	if (call->code != code)
		fail_msg("%s, not %s: %s", pdk_code_name(call->code), pdk_code_name(code), call->text);
}

void fake_expect_error(struct rpc_call *call, enum pdk_code code, const char *text)
{
	fake_expect(call, code);
	if (strncmp(call->text, text, strlen(text)))
		fail_msg("\"%s\" does not begin with \"%s\"", call->text, text);
	fake_call_free(call);
}

ProtobufCMessage *fake_reply(struct rpc_call *call, const ProtobufCMessageDescriptor *descriptor)
{
	ProtobufCMessage *reply = protobuf_c_message_unpack(descriptor, NULL, call->reply_length, call->reply);

	assert_non_null(reply);
	return reply;
}

void fake_cancel(struct rpc_call *call)
{
	struct pdk_error why;

	pdk_fail(&why, -1, PDK_CANCELLED, "gone");
	call->cancelled = true;
	assert_non_null(call->events->on_cancel);
	call->events->on_cancel(call, &why);
}

void fake_sent(struct rpc_call *call)
{
	assert_true(call->sending);
	call->sending = false;
	call->events->on_sent(call);
}

/* ---- rpc.h ---- */

void rpc_set_events(struct rpc_call *call, const struct rpc_events *events, void *user)
{
	call->events = events;
	call->user = user;
}

void *rpc_user(const struct rpc_call *call)
{
	return call->user;
}

const struct principal *rpc_principal(const struct rpc_call *call)
{
	return &call->principal;
}

bool rpc_is_cancelled(const struct rpc_call *call)
{
	return call->cancelled;
}

void *rpc_alloc(struct rpc_call *call, size_t size)
{
	assert_true(call->arena_used < 16);
	return call->arena[call->arena_used++] = calloc(1, size);
}

void rpc_audit_object(struct rpc_call *call, const char *sandbox_id, const char *object)
{
	snprintf(call->object, sizeof(call->object), "%s", object ? object : "");
}

static void keep(struct rpc_call *call, const ProtobufCMessage *message)
{
	free(call->reply);
	call->reply_length = protobuf_c_message_get_packed_size(message);
	call->reply = malloc(call->reply_length + 1);
	protobuf_c_message_pack(message, call->reply);
}

void rpc_send(struct rpc_call *call, const ProtobufCMessage *message)
{
	assert_false(call->finished || call->sending);
	keep(call, message);
	call->sending = true;
	call->sent++;
}

void rpc_finish(struct rpc_call *call, const ProtobufCMessage *reply)
{
	assert_false(call->finished);
	if (reply)
		keep(call, reply);
	call->finished = true;
}

void rpc_fail(struct rpc_call *call, const struct pdk_error *err)
{
	assert_false(call->finished);
	assert_true(err->code != PDK_OK && err->text[0]);
	call->finished = true;
	call->code = err->code;
	memcpy(call->text, err->text, sizeof(call->text));
}

static void committed(int rc, void *arg)
{
	struct rpc_call *call = arg;

	assert_false(call->finished);
	call->committed(call, rc);
}

void rpc_commit(struct rpc_call *call, struct store_batch *batch, void (*done)(struct rpc_call *call, int rc))
{
	call->committed = done;
	assert_int_equal(store_audit(batch, &(struct audit_entry){.actor = principal_actor(&call->principal),
								  .action = "test.call",
								  .object = call->object,
								  .tenant = call->principal.tenant}),
			 0);
	store_commit(batch, committed, call);
}

void rpc_cancel_key(const char *key_id)
{
	snprintf(fake_cancelled_key, sizeof(fake_cancelled_key), "%s", key_id);
}

/* ---- the neighbours ---- */

uint32_t sandboxes_of_tenant(const char *tenant)
{
	return fake_sandboxes;
}

void fake_kill_done(void)
{
	killing.done(killing.arg);
}

void sandboxes_kill_tenant(const char *tenant, void (*done)(void *arg), void *arg)
{
	killing.done = done;
	killing.arg = arg;
	if (!fake_kill_waits)
		done(arg);
}

void sandboxes_status(struct server_status_numbers *ret)
{
	*ret = (struct server_status_numbers){.sandboxes = fake_sandboxes, .reserved_disk_bytes = 7};
}

int snapshots_remove_tenant(const char *tenant, struct store_batch *batch)
{
	return 0;
}

int builds_remove_tenant(const char *tenant, struct store_batch *batch)
{
	return 0;
}

int templates_remove_tenant(const char *tenant, struct store_batch *batch)
{
	fake_templates_removed++;
	return 0;
}
