#include "fixture.h"

#include "paddock/internal/store.pb-c.h"
#include "server/sandbox_internal.h"
#include "server/sandboxes.h"
#include "server/templates.h"
#include "server/warden_client.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char runtime_dir[64];

static void defaults(void)
{
	server_config = (struct config){
		.default_timeout_ms = 300000,
		.default_memory_bytes = 512ull << 20,
		.default_cpu_millis = 1000,
		.default_max_pids = 512,
		.default_disk_bytes = 2ull << 30,
		.default_max_inodes = 200000,
		.retention_ms = 3600000,
		.default_template = "base",
		.max_sandboxes = 4096,
		.memory_overcommit = 1e6,
		.disk_overcommit = 4,
		.template_max_bytes = 16ull << 30,
	};
	fake_quota = (struct tenant_quota){
		.max_sandboxes = 1000,
		.max_templates = 4,
		.max_memory_bytes = 4ull << 30,
		.max_disk_bytes = 16ull << 30,
	};
}

void life_add_base_record(void)
{
	Paddock__Internal__StoredTemplate record = PADDOCK__INTERNAL__STORED_TEMPLATE__INIT;
	struct store_batch *batch = store_batch_create();
	uint8_t packed[512];
	size_t length;

	record.name = (char *)"base";
	record.id = (char *)BASE_ID;
	length = paddock__internal__stored_template__pack(&record, packed);
	store_put(batch, STORE_TEMPLATES, "/base", 5, packed, length);
	store_commit(batch, NULL, NULL);
	fake_loop_turn(0);
	fake_warden_add_template(BASE_ID);
}

void life_start(void)
{
	static const struct warden_events events = {.on_exited = sandbox_exited, .on_reconnect = sandbox_reconcile};
	struct pdk_error err;

	if (warden_client_start(runtime_dir, &events, &err) < 0 || templates_start(&err) < 0 ||
	    sandboxes_start(&err) < 0)
		fail_msg("%s", err.text);
}

void life_stop(void)
{
	sandboxes_stop();
	warden_client_stop();
	templates_stop();
}

int life_setup(void **state)
{
	strcpy(runtime_dir, "/tmp/paddock-life-XXXXXX");
	assert(mkdtemp(runtime_dir));
	defaults();
	fake_store_reset();
	fake_guest_silent = fake_guest_refuses = false;
	fake_guest_resumed = 0;
	fake_previews_ended = fake_previews_suspended = 0;
	fake_guest_setups = fake_processes_ended = fake_processes_forgotten = fake_processes_adopted = 0;
	fake_warden_start(runtime_dir);
	life_add_base_record();
	life_start();
	return 0;
}

int life_teardown(void **state)
{
	life_stop();
	fake_loop_settle();
	assert_int_equal(fake_guests, 0);
	assert_int_equal(fake_loop_timers(), 0);
	assert_int_equal(fake_loop_watches(), 0);
	fake_warden_stop();
	fake_store_reset();
	rmdir(runtime_dir);
	return 0;
}

void life_restart(void (*between)(void))
{
	fake_loop_settle();
	life_stop();
	fake_loop_settle();
	if (between)
		between();
	life_start();
}

struct rpc_call *life_create_with(const char *tenant, const Paddock__V1__CreateSandboxRequest *request)
{
	struct rpc_call *call = fake_call(tenant);

	sandboxes_create(call, &request->base);
	return call;
}

struct rpc_call *life_create(const char *tenant)
{
	Paddock__V1__CreateSandboxRequest request = PADDOCK__V1__CREATE_SANDBOX_REQUEST__INIT;

	return life_create_with(tenant, &request);
}

struct rpc_call *life_kill(const char *tenant, const char *id)
{
	Paddock__V1__KillSandboxRequest request = PADDOCK__V1__KILL_SANDBOX_REQUEST__INIT;
	struct rpc_call *call = fake_call(tenant);

	request.sandbox_id = (char *)id;
	sandboxes_kill(call, &request.base);
	return call;
}

struct rpc_call *life_set_timeout(const char *tenant, const char *id, uint64_t timeout_ms)
{
	Paddock__V1__SetTimeoutRequest request = PADDOCK__V1__SET_TIMEOUT_REQUEST__INIT;
	struct rpc_call *call = fake_call(tenant);

	request.sandbox_id = (char *)id;
	request.timeout_ms = timeout_ms;
	sandboxes_set_timeout(call, &request.base);
	return call;
}

struct rpc_call *life_pause(const char *tenant, const char *id)
{
	Paddock__V1__PauseSandboxRequest request = PADDOCK__V1__PAUSE_SANDBOX_REQUEST__INIT;
	struct rpc_call *call = fake_call(tenant);

	request.sandbox_id = (char *)id;
	sandboxes_pause(call, &request.base);
	return call;
}

struct rpc_call *life_resume(const char *tenant, const char *id, uint64_t timeout_ms)
{
	Paddock__V1__ResumeSandboxRequest request = PADDOCK__V1__RESUME_SANDBOX_REQUEST__INIT;
	struct rpc_call *call = fake_call(tenant);

	request.sandbox_id = (char *)id;
	request.timeout_ms = timeout_ms;
	sandboxes_resume(call, &request.base);
	return call;
}

struct rpc_call *life_reset(const char *tenant, const char *id)
{
	Paddock__V1__ResetSandboxRequest request = PADDOCK__V1__RESET_SANDBOX_REQUEST__INIT;
	struct rpc_call *call = fake_call(tenant);

	request.sandbox_id = (char *)id;
	sandboxes_reset(call, &request.base);
	return call;
}

struct rpc_call *life_get(const char *tenant, const char *id)
{
	Paddock__V1__GetSandboxRequest request = PADDOCK__V1__GET_SANDBOX_REQUEST__INIT;
	struct rpc_call *call = fake_call(tenant);

	request.sandbox_id = (char *)id;
	sandboxes_get(call, &request.base);
	return call;
}

struct rpc_call *life_list(const char *tenant, const Paddock__V1__ListSandboxesRequest *request)
{
	struct rpc_call *call = strcmp(tenant, "operator") == 0 ? fake_call_operator() : fake_call(tenant);

	sandboxes_list(call, &request->base);
	return call;
}

struct rpc_call *life_watch(const char *tenant, const char *id, uint64_t after)
{
	Paddock__V1__WatchEventsRequest request = PADDOCK__V1__WATCH_EVENTS_REQUEST__INIT;
	struct rpc_call *call = fake_call(tenant);

	request.sandbox_id = (char *)id;
	request.after_sequence = after;
	sandboxes_watch_events(call, &request.base);
	return call;
}

Paddock__V1__Sandbox *life_sandbox(struct rpc_call *call)
{
	Paddock__V1__Sandbox *sandbox;

	RUN_UNTIL(call->finished);
	if (call->code != PDK_OK)
		fail_msg("%s: %s", pdk_code_name(call->code), call->text);
	sandbox = paddock__v1__sandbox__unpack(NULL, call->reply_length, call->reply);
	assert_non_null(sandbox);
	fake_call_free(call);
	return sandbox;
}

void life_free(Paddock__V1__Sandbox *sandbox)
{
	paddock__v1__sandbox__free_unpacked(sandbox, NULL);
}

void life_expect(struct rpc_call *call, enum pdk_code code, const char *text_start)
{
	RUN_UNTIL(call->finished);
	if (call->code != code || strncmp(call->text, text_start, strlen(text_start)) != 0)
		fail_msg("%s: %s", pdk_code_name(call->code), call->text);
	fake_call_free(call);
}

void life_make(char id[32])
{
	Paddock__V1__Sandbox *sandbox = life_sandbox(life_create("a"));

	assert_int_equal(sandbox->state, PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_RUNNING);
	snprintf(id, 32, "%s", sandbox->id);
	life_free(sandbox);
}

Paddock__V1__SandboxState life_state(const char *tenant, const char *id)
{
	Paddock__V1__Sandbox *sandbox = life_sandbox(life_get(tenant, id));
	Paddock__V1__SandboxState state = sandbox->state;

	life_free(sandbox);
	return state;
}
