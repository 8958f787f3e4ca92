#include "fixture.h"

#include "server/sandboxes.h"
#include "server/status.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STATE(name) PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_##name
#define REASON(name) PADDOCK__V1__END_REASON__END_REASON_##name

typedef Paddock__V1__CreateSandboxRequest request_t;

static void create_fills_every_field(void **state)
{
	request_t request = PADDOCK__V1__CREATE_SANDBOX_REQUEST__INIT;
	Paddock__V1__CreateSandboxRequest__MetadataEntry pair =
		PADDOCK__V1__CREATE_SANDBOX_REQUEST__METADATA_ENTRY__INIT;
	Paddock__V1__CreateSandboxRequest__MetadataEntry *pairs[] = {&pair};
	Paddock__V1__Sandbox *sandbox;

	pair.key = (char *)"who";
	pair.value = (char *)"me";
	request.metadata = pairs;
	request.n_metadata = 1;
	request.timeout_ms = 5000;
	sandbox = life_sandbox(life_create_with("a", &request));
	assert_int_equal(sandbox->state, STATE(RUNNING));
	assert_true(sandbox_id_valid(sandbox->id));
	assert_string_equal(sandbox->tenant, "a");
	assert_string_equal(sandbox->template_, BASE_ID);
	assert_string_equal(sandbox->template_name, "base");
	assert_string_equal(sandbox->hostname, "paddock");
	assert_int_equal(sandbox->n_metadata, 1);
	assert_string_equal(sandbox->metadata[0]->value, "me");
	assert_int_equal(sandbox->resources->memory_bytes, 512 << 20);
	assert_in_range(sandbox->expires_unix_ms - sandbox->created_unix_ms, 5000, 5500);
	assert_true(fake_warden_has(sandbox->id));
	assert_int_equal(fake_store_count(STORE_SANDBOXES), 1);
	life_free(sandbox);
}

static void bad_fields_are_named(void **state)
{
	static char long_key[200];
	request_t request = PADDOCK__V1__CREATE_SANDBOX_REQUEST__INIT;
	Paddock__V1__Resources resources = PADDOCK__V1__RESOURCES__INIT;
	Paddock__V1__CreateSandboxRequest__EnvEntry env = PADDOCK__V1__CREATE_SANDBOX_REQUEST__ENV_ENTRY__INIT;
	Paddock__V1__CreateSandboxRequest__EnvEntry *envs[] = {&env};

	request.timeout_ms = 999;
	life_expect(life_create_with("a", &request), PDK_INVALID_ARGUMENT, "timeout_ms:");
	request.timeout_ms = UINT64_MAX;
	life_expect(life_create_with("a", &request), PDK_INVALID_ARGUMENT, "timeout_ms:");
	request.timeout_ms = 0;
	request.resources = &resources;
	resources.memory_bytes = (16 << 20) - 1;
	life_expect(life_create_with("a", &request), PDK_INVALID_ARGUMENT, "resources.memory_bytes:");
	resources.memory_bytes = UINT64_MAX;
	life_expect(life_create_with("a", &request), PDK_INVALID_ARGUMENT, "resources.memory_bytes:");
	resources.memory_bytes = 0;
	resources.cpu_millis = UINT32_MAX;
	life_expect(life_create_with("a", &request), PDK_INVALID_ARGUMENT, "resources.cpu_millis:");
	resources.cpu_millis = 0;
	resources.max_pids = 15;
	life_expect(life_create_with("a", &request), PDK_INVALID_ARGUMENT, "resources.max_pids:");
	request.resources = NULL;
	request.hostname = (char *)"-x";
	life_expect(life_create_with("a", &request), PDK_INVALID_ARGUMENT, "hostname:");
	request.hostname = (char *)"";
	memset(long_key, 'k', sizeof(long_key) - 1);
	request.idempotency_key = long_key;
	life_expect(life_create_with("a", &request), PDK_INVALID_ARGUMENT, "idempotency_key:");
	request.idempotency_key = (char *)"";
	env.key = (char *)"1BAD";
	request.env = envs;
	request.n_env = 1;
	life_expect(life_create_with("a", &request), PDK_INVALID_ARGUMENT, "env:");
	request.n_env = 0;
	request.template_ = (char *)"nothing";
	life_expect(life_create_with("a", &request), PDK_NOT_FOUND, "template not found");
	assert_int_equal(fake_warden_requests(WARDEN_CREATE), 0);
}

static void parallel_creates_never_pass_the_quota(void **state)
{
	struct rpc_call *calls[100];
	unsigned int ok = 0;

	fake_quota.max_sandboxes = 7;
	fake_warden_hold(WARDEN_CREATE);
	for (unsigned int i = 0; i < 100; i++)
		calls[i] = life_create("a");
	fake_warden_hold(0);
	for (unsigned int i = 0; i < 100; i++) {
		RUN_UNTIL(calls[i]->finished);
		ok += calls[i]->code == PDK_OK;
		if (calls[i]->code != PDK_OK) {
			assert_int_equal(calls[i]->code, PDK_RESOURCE_EXHAUSTED);
			assert_non_null(strstr(calls[i]->text, "max_sandboxes exhausted: 7 of 7"));
		}
		fake_call_free(calls[i]);
	}
	assert_int_equal(ok, 7);
	assert_int_equal(sandboxes_of_tenant("a"), 7);
	life_free(life_sandbox(life_create("b")));
}

static void a_full_box_says_what_is_full(void **state)
{
	server_config.max_sandboxes = 1;
	life_free(life_sandbox(life_create("a")));
	life_expect(life_create("b"), PDK_RESOURCE_EXHAUSTED, "server max_sandboxes exhausted: 1 of 1");
	server_config.max_sandboxes = 100;
	fake_quota.total_memory_bytes = 1ull << 30;
	life_free(life_sandbox(life_create("a")));
	life_expect(life_create("a"), PDK_RESOURCE_EXHAUSTED, "tenant quota total_memory_bytes exhausted");
	fake_quota.total_memory_bytes = 0;
	fake_quota.total_disk_bytes = 1ull << 30;
	life_expect(life_create("b"), PDK_RESOURCE_EXHAUSTED, "tenant quota total_disk_bytes exhausted");
}

static void the_disk_is_reserved_too(void **state)
{
	fake_warden_set_disk(1ull << 30); /* times 4: room for two of 2 GiB */
	life_restart(NULL);
	life_free(life_sandbox(life_create("a")));
	life_free(life_sandbox(life_create("a")));
	life_expect(life_create("a"), PDK_RESOURCE_EXHAUSTED, "server disk exhausted");
}

static request_t with_key(const char *key)
{
	request_t request = PADDOCK__V1__CREATE_SANDBOX_REQUEST__INIT;

	request.idempotency_key = (char *)key;
	return request;
}

static void the_same_key_gives_the_same_sandbox(void **state)
{
	request_t request = with_key("k"), other = with_key("k");
	struct rpc_call *calls[100];
	Paddock__V1__Sandbox *first, *again;

	fake_warden_hold(WARDEN_CREATE);
	for (unsigned int i = 0; i < 100; i++)
		calls[i] = life_create_with("a", &request);
	other.timeout_ms = 7000;
	life_expect(life_create_with("a", &other), PDK_ABORTED, "idempotency_key:");
	fake_warden_hold(0);
	first = life_sandbox(calls[0]);
	for (unsigned int i = 1; i < 100; i++) {
		again = life_sandbox(calls[i]);
		assert_string_equal(again->id, first->id);
		life_free(again);
	}
	assert_int_equal(fake_warden_living(), 1);
	again = life_sandbox(life_create_with("b", &request));
	assert_string_not_equal(again->id, first->id);
	life_free(again);

	life_restart(NULL);
	again = life_sandbox(life_create_with("a", &request));
	assert_string_equal(again->id, first->id);
	life_free(again);
	life_expect(life_create_with("a", &other), PDK_ABORTED, "idempotency_key: was used");

	fake_loop_advance_ms(2 * 3600 * 1000); /* it expires */
	fake_loop_settle();
	fake_loop_advance_ms(2 * 3600 * 1000); /* and is forgotten */
	fake_loop_settle();
	life_expect(life_create_with("a", &request), PDK_ABORTED, "idempotency_key: its sandbox");
	fake_loop_advance_ms(25 * 3600 * 1000);
	fake_loop_settle();
	assert_int_equal(fake_store_count(STORE_IDEMPOTENCY), 0);
	again = life_sandbox(life_create_with("a", &request));
	assert_string_not_equal(again->id, first->id);
	life_free(again);
	life_free(first);
}

static void a_failed_create_frees_its_key(void **state)
{
	request_t request = with_key("k");
	struct rpc_call *first, *second;
	Paddock__V1__Sandbox *sandbox;

	fake_warden_fail(WARDEN_CREATE, 1, -ENOSPC, "the pool is full");
	first = life_create_with("a", &request);
	second = life_create_with("a", &request);
	life_expect(first, PDK_UNAVAILABLE, "sandbox could not be created: the pool is full");
	life_expect(second, PDK_UNAVAILABLE, "sandbox could not be created: the pool is full");
	fake_loop_settle();
	assert_int_equal(sandboxes_of_tenant("a"), 0);
	assert_int_equal(fake_audit_count("sandbox.failed"), 1);
	sandbox = life_sandbox(life_create_with("a", &request));
	life_free(sandbox);
	fake_guest_refuses = true;
	life_expect(life_create("a"), PDK_UNAVAILABLE, "sandbox could not be created");
	fake_loop_settle();
	assert_int_equal(fake_warden_living(), 1);
}

static void a_cancelled_create_leaves_nothing(void **state)
{
	struct rpc_call *call;
	request_t request = with_key("k");
	Paddock__V1__ListSandboxesRequest list = PADDOCK__V1__LIST_SANDBOXES_REQUEST__INIT;

	fake_warden_hold(WARDEN_CREATE);
	call = life_create_with("a", &request);
	fake_loop_settle();
	fake_call_cancel(call);
	assert_true(call->finished);
	fake_call_free(call);
	call = life_list("a", &list);
	assert_int_equal(call->reply_length, 0);
	fake_call_free(call);
	fake_warden_hold(0);
	RUN_UNTIL(sandboxes_of_tenant("a") == 0);
	fake_loop_settle();
	assert_int_equal(fake_warden_living(), 0);
	assert_int_equal(fake_store_count(STORE_SANDBOXES), 0);
	assert_int_equal(fake_store_count(STORE_IDEMPOTENCY), 0);

	fake_guest_silent = true;
	call = life_create("a");
	RUN_UNTIL(fake_warden_living() == 1);
	fake_loop_settle();
	fake_call_cancel(call);
	fake_call_free(call);
	RUN_UNTIL(fake_warden_living() == 0);
	fake_loop_settle();
	assert_int_equal(fake_store_count(STORE_SANDBOXES), 0);
}

static void a_store_that_fails_fails_the_create(void **state)
{
	fake_store_fails = true;
	life_expect(life_create("a"), PDK_UNAVAILABLE, "");
	fake_loop_settle();
	assert_int_equal(fake_warden_living(), 0);
}

static void without_a_warden_nothing_is_created(void **state)
{
	fake_warden_hang_up();
	fake_loop_turn(5);
	life_expect(life_create("a"), PDK_UNAVAILABLE, "sandbox could not be created: the sandbox manager is away");
	assert_int_equal(sandboxes_of_tenant("a"), 0);
	fake_loop_advance_ms(200);
	RUN_UNTIL(fake_warden_requests(WARDEN_LIST) == 2);
	life_free(life_sandbox(life_create("a")));
}

static unsigned int pooled(void)
{
	struct server_status_numbers numbers;

	sandboxes_status(&numbers);
	return numbers.pooled;
}

static void big_pool(void)
{
	server_config.pool_size = 3;
}

static void the_pool_is_filled_and_claimed(void **state)
{
	request_t request = PADDOCK__V1__CREATE_SANDBOX_REQUEST__INIT;
	Paddock__V1__Resources resources = PADDOCK__V1__RESOURCES__INIT;
	Paddock__V1__CreateSandboxRequest__EnvEntry env = PADDOCK__V1__CREATE_SANDBOX_REQUEST__ENV_ENTRY__INIT;
	Paddock__V1__CreateSandboxRequest__EnvEntry *envs[] = {&env};
	struct rpc_call *call;
	Paddock__V1__ListSandboxesRequest list = PADDOCK__V1__LIST_SANDBOXES_REQUEST__INIT;
	unsigned int before;

	env.key = env.value = (char *)"KEY";
	life_restart(big_pool);
	RUN_UNTIL(pooled() == 3);
	fake_loop_settle();
	assert_int_equal(fake_warden_living(), 3);
	assert_int_equal(fake_store_count(STORE_SANDBOXES), 0);
	call = life_list("operator", &list);
	assert_int_equal(call->reply_length, 0);
	fake_call_free(call);

	fake_warden_hold(WARDEN_CREATE);
	life_free(life_sandbox(life_create("a")));
	assert_int_equal(fake_guest_setups, 0);
	request.env = envs;
	request.n_env = 1;
	life_free(life_sandbox(life_create_with("a", &request)));
	assert_int_equal(fake_guest_setups, 1);
	/* Only the warden gives a host name. */
	request.hostname = (char *)"other";
	call = life_create_with("a", &request);
	fake_loop_settle();
	assert_false(call->finished);
	fake_warden_hold(0);
	life_free(life_sandbox(call));
	request.hostname = (char *)"";
	RUN_UNTIL(pooled() == 3);
	before = fake_warden_requests(WARDEN_CREATE);
	resources.memory_bytes = 64 << 20;
	request.resources = &resources;
	life_free(life_sandbox(life_create_with("a", &request)));
	assert_int_equal(pooled(), 3);
	assert_int_equal(fake_warden_requests(WARDEN_CREATE), before + 1);
	assert_int_equal(sandboxes_of_tenant("a"), 4);
}

static void the_pool_makes_room_for_clients(void **state)
{
	life_restart(big_pool);
	RUN_UNTIL(pooled() == 3);
	server_config.max_sandboxes = 3;
	life_free(life_sandbox(life_create("a")));
	life_free(life_sandbox(life_create("a")));
	life_free(life_sandbox(life_create("a")));
	life_expect(life_create("a"), PDK_RESOURCE_EXHAUSTED, "server max_sandboxes");
	fake_loop_settle();
	assert_int_equal(pooled(), 0);
	RUN_UNTIL(fake_warden_living() == 3);
}

static void the_pool_backs_off(void **state)
{
	fake_warden_fail(WARDEN_CREATE, 1000, -EIO, "no");
	life_restart(big_pool);
	for (unsigned int i = 0; i < 100; i++)
		fake_loop_settle();
	assert_in_range(fake_warden_requests(WARDEN_CREATE), 2, 8);
	fake_warden_fail(WARDEN_CREATE, 0, 0, "");
	fake_loop_advance_ms(60000);
	RUN_UNTIL(pooled() == 3);
}

static void a_broken_pool_sandbox_is_replaced(void **state)
{
	life_restart(big_pool);
	RUN_UNTIL(pooled() == 3);
	fake_loop_settle();
	fake_guest_break_all("broken");
	RUN_UNTIL(pooled() == 0);
	fake_loop_advance_ms(60000);
	RUN_UNTIL(pooled() == 3);
	assert_int_equal(fake_store_count(STORE_SANDBOXES), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, life_setup, life_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(create_fills_every_field),
		TEST(bad_fields_are_named),
		TEST(parallel_creates_never_pass_the_quota),
		TEST(a_full_box_says_what_is_full),
		TEST(the_disk_is_reserved_too),
		TEST(the_same_key_gives_the_same_sandbox),
		TEST(a_failed_create_frees_its_key),
		TEST(a_cancelled_create_leaves_nothing),
		TEST(a_store_that_fails_fails_the_create),
		TEST(without_a_warden_nothing_is_created),
		TEST(the_pool_is_filled_and_claimed),
		TEST(the_pool_makes_room_for_clients),
		TEST(the_pool_backs_off),
		TEST(a_broken_pool_sandbox_is_replaced),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
