/*
 * I04: a create, a list, a reset and a kill through the server's handlers, with the n-th allocation failing, for every n. The
 * call ends with OK or a clean refusal, nothing of the sandbox is left in the warden, and the next create works. That
 * no memory is lost is seen by the build with sanitizers.
 */
#define FAILING_KEEP
#include "tests/unit/malloc/failing.h"

#include "tests/unit/life/fixture.h"
#include <stdio.h>

#define N_MAX 2000

static bool is_clean(enum pdk_code code)
{
	return code == PDK_OK || code == PDK_UNAVAILABLE || code == PDK_RESOURCE_EXHAUSTED || code == PDK_INTERNAL;
}

static enum pdk_code end_of(struct rpc_call *call)
{
	enum pdk_code code;

	RUN_UNTIL(call->finished);
	code = call->code;
	if (!is_clean(code))
		fail_msg("%s: %s", pdk_code_name(code), call->text);
	fake_call_free(call);
	return code;
}

static struct rpc_call *create_rich(unsigned long n)
{
	char key[32];
	Paddock__V1__CreateSandboxRequest request = PADDOCK__V1__CREATE_SANDBOX_REQUEST__INIT;
	Paddock__V1__CreateSandboxRequest__MetadataEntry pair =
		PADDOCK__V1__CREATE_SANDBOX_REQUEST__METADATA_ENTRY__INIT;
	Paddock__V1__CreateSandboxRequest__MetadataEntry *pairs[] = {&pair};
	Paddock__V1__CreateSandboxRequest__EnvEntry env = PADDOCK__V1__CREATE_SANDBOX_REQUEST__ENV_ENTRY__INIT;
	Paddock__V1__CreateSandboxRequest__EnvEntry *envs[] = {&env};

	pair.key = env.key = (char *)"KEY";
	pair.value = env.value = (char *)"value";
	request.metadata = pairs;
	request.env = envs;
	request.n_metadata = request.n_env = 1;
	snprintf(key, sizeof(key), "key %lu", n); /* the same one would give the same sandbox */
	request.idempotency_key = key;
	return life_create_with("a", &request);
}

/* Create, list, reset and kill with allocations failing; returns how many there were. */
static unsigned long live_with(unsigned long n)
{
	Paddock__V1__ListSandboxesRequest list = PADDOCK__V1__LIST_SANDBOXES_REQUEST__INIT;
	struct rpc_call *call;
	char id[32] = "";

	failing_arm(n);
	call = create_rich(n);
	RUN_UNTIL(call->finished);
	snprintf(id, sizeof(id), "%.31s", call->object);
	if (end_of(call) == PDK_OK) {
		end_of(life_list("a", &list));
		end_of(life_reset("a", id));
		if (end_of(life_kill("a", id)) != PDK_OK) {
			failing_arm(0);
			assert_int_equal(end_of(life_kill("a", id)), PDK_OK);
			return 0;
		}
	}
	return failing_arm(0);
}

static void settle(void)
{
	failing_arm(0);
	for (int i = 0; i < 5; i++) { /* what was put off for a second */
		fake_loop_settle();
		fake_loop_advance_ms(2000);
	}
	fake_loop_settle();
	assert_int_equal(fake_warden_living(), 0);
}

static void every_allocation_of_a_life(void **state)
{
	unsigned long passed, n = 0;
	char id[32];

	do {
		n++;
		passed = live_with(n);
		settle();
		life_make(id);
		life_expect(life_kill("a", id), PDK_OK, "");
	} while (n < N_MAX && (passed == 0 || passed >= n));
	print_message("%lu allocations\n", n - 1);
	assert_in_range(n, 20, N_MAX - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(every_allocation_of_a_life, life_setup, life_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
