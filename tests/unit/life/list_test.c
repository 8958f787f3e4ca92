#include "fixture.h"

#include "server/sandbox_internal.h"
#include "server/sandboxes.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* List with its page tokens, and WatchEvents. */

typedef Paddock__V1__ListSandboxesRequest request_t;
typedef Paddock__V1__ListSandboxesResponse response_t;

static response_t *list(const char *tenant, const request_t *request)
{
	struct rpc_call *call = life_list(tenant, request);
	response_t *reply;

	RUN_UNTIL(call->finished);
	if (call->code != PDK_OK)
		fail_msg("%s", call->text);
	reply = paddock__v1__list_sandboxes_response__unpack(NULL, call->reply_length, call->reply);
	fake_call_free(call);
	return reply;
}

static void list_free(response_t *reply)
{
	paddock__v1__list_sandboxes_response__free_unpacked(reply, NULL);
}

static void pages_hold_everything_once(void **state)
{
	request_t request = PADDOCK__V1__LIST_SANDBOXES_REQUEST__INIT;
	char id[25][32], token[PAGE_TOKEN_SIZE] = "";
	unsigned int n = 0;

	for (unsigned int i = 0; i < 25; i++)
		life_make(id[i]);
	life_free(life_sandbox(life_create("b")));
	request.page_size = 7;
	do {
		response_t *reply;

		request.page_token = token;
		reply = list("a", &request);
		assert_true(reply->n_sandboxes <= 7);
		for (size_t i = 0; i < reply->n_sandboxes; i++)
			assert_string_equal(reply->sandboxes[i]->id, id[24 - n++]);
		snprintf(token, sizeof(token), "%s", reply->next_page_token);
		list_free(reply);
		/* A sandbox made meanwhile is newer than any later page. */
		if (n == 7)
			life_free(life_sandbox(life_create("a")));
	} while (token[0]);
	assert_int_equal(n, 25);
}

static void tokens_are_bound_to_their_tenant(void **state)
{
	request_t request = PADDOCK__V1__LIST_SANDBOXES_REQUEST__INIT;
	char id[32], token[PAGE_TOKEN_SIZE];
	response_t *reply;

	life_make(id);
	life_make(id);
	life_free(life_sandbox(life_create("b")));
	request.page_size = 1;
	reply = list("a", &request);
	snprintf(token, sizeof(token), "%s", reply->next_page_token);
	list_free(reply);
	request.page_token = token;
	life_expect(life_list("b", &request), PDK_INVALID_ARGUMENT, "page_token:");
	life_restart(NULL);
	reply = list("a", &request);
	assert_int_equal(reply->n_sandboxes, 1);
	list_free(reply);
	token[5] ^= 1;
	life_expect(life_list("a", &request), PDK_INVALID_ARGUMENT, "page_token:");
	request.page_token = (char *)"x";
	life_expect(life_list("a", &request), PDK_INVALID_ARGUMENT, "page_token:");
	token[5] ^= 1;
	request.page_token = token;
	request.all_tenants = true;
	life_expect(life_list("operator", &request), PDK_INVALID_ARGUMENT, "page_token:");
	life_expect(life_list("a", &request), PDK_PERMISSION_DENIED, "all_tenants:");
	request.page_token = (char *)"";
	request.page_size = 0;
	reply = list("operator", &request);
	assert_int_equal(reply->n_sandboxes, 3);
	list_free(reply);
}

static void filters_match(void **state)
{
	request_t request = PADDOCK__V1__LIST_SANDBOXES_REQUEST__INIT;
	Paddock__V1__CreateSandboxRequest create = PADDOCK__V1__CREATE_SANDBOX_REQUEST__INIT;
	Paddock__V1__CreateSandboxRequest__MetadataEntry pair =
		PADDOCK__V1__CREATE_SANDBOX_REQUEST__METADATA_ENTRY__INIT;
	Paddock__V1__CreateSandboxRequest__MetadataEntry *pairs[] = {&pair};
	Paddock__V1__ListSandboxesRequest__MetadataEntry wanted =
		PADDOCK__V1__LIST_SANDBOXES_REQUEST__METADATA_ENTRY__INIT;
	Paddock__V1__ListSandboxesRequest__MetadataEntry *wanteds[] = {&wanted};
	Paddock__V1__SandboxState states[] = {PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_KILLED, 9};
	char id[32];
	response_t *reply;

	pair.key = wanted.key = (char *)"task";
	pair.value = wanted.value = (char *)"7";
	create.metadata = pairs;
	create.n_metadata = 1;
	life_free(life_sandbox(life_create_with("a", &create)));
	life_make(id);
	life_free(life_sandbox(life_kill("a", id)));
	request.metadata = wanteds;
	request.n_metadata = 1;
	reply = list("a", &request);
	assert_int_equal(reply->n_sandboxes, 1);
	list_free(reply);
	wanted.value = (char *)"8";
	reply = list("a", &request);
	assert_int_equal(reply->n_sandboxes, 0);
	list_free(reply);
	request.n_metadata = 0;
	request.states = states;
	request.n_states = 1;
	request.template_ = (char *)"base";
	reply = list("a", &request);
	assert_int_equal(reply->n_sandboxes, 1);
	assert_string_equal(reply->sandboxes[0]->id, id);
	list_free(reply);
	request.template_ = (char *)"other";
	reply = list("a", &request);
	assert_int_equal(reply->n_sandboxes, 0);
	list_free(reply);
	request.n_states = 2;
	life_expect(life_list("a", &request), PDK_INVALID_ARGUMENT, "states:");
	request.n_states = 0;
	request.page_size = 1001;
	life_expect(life_list("a", &request), PDK_INVALID_ARGUMENT, "page_size:");
}

static void large_pages_are_cut_short(void **state)
{
	static char value[1025];
	request_t request = PADDOCK__V1__LIST_SANDBOXES_REQUEST__INIT;
	Paddock__V1__CreateSandboxRequest create = PADDOCK__V1__CREATE_SANDBOX_REQUEST__INIT;
	Paddock__V1__CreateSandboxRequest__MetadataEntry pair[64], *pairs[64];
	char keys[64][8];
	response_t *reply;

	memset(value, 'v', 1024);
	for (unsigned int i = 0; i < 64; i++) {
		paddock__v1__create_sandbox_request__metadata_entry__init(&pair[i]);
		snprintf(keys[i], sizeof(keys[i]), "k%u", i);
		pair[i].key = keys[i];
		pair[i].value = value;
		pairs[i] = &pair[i];
	}
	create.metadata = pairs;
	create.n_metadata = 64;
	for (unsigned int i = 0; i < 40; i++)
		life_free(life_sandbox(life_create_with("a", &create)));
	reply = list("a", &request);
	assert_in_range(reply->n_sandboxes, 20, 35);
	assert_true(reply->next_page_token[0]);
	list_free(reply);
}

/* --- WatchEvents --- */

static Paddock__V1__SandboxEvent *event(struct rpc_call *call, unsigned int i)
{
	Paddock__V1__SandboxEvent *unpacked;

	RUN_UNTIL(call->n_sent > i);
	unpacked = paddock__v1__sandbox_event__unpack(NULL, call->sent_length[i], call->sent[i]);
	assert_non_null(unpacked);
	return unpacked;
}

static uint64_t expect_event(struct rpc_call *call, unsigned int i, Paddock__V1__SandboxEvent__Type type,
			     const char *id)
{
	Paddock__V1__SandboxEvent *unpacked = event(call, i);
	uint64_t sequence = unpacked->sequence;

	assert_int_equal(unpacked->type, type);
	assert_string_equal(unpacked->sandbox->id, id);
	paddock__v1__sandbox_event__free_unpacked(unpacked, NULL);
	return sequence;
}

static void end_call(struct rpc_call *call)
{
	fake_call_cancel(call);
	fake_call_free(call);
}

#define CREATED PADDOCK__V1__SANDBOX_EVENT__TYPE__TYPE_CREATED
#define TIMEOUT_SET PADDOCK__V1__SANDBOX_EVENT__TYPE__TYPE_TIMEOUT_SET
#define ENDED PADDOCK__V1__SANDBOX_EVENT__TYPE__TYPE_ENDED

static void events_come_and_are_replayed(void **state)
{
	struct rpc_call *watch = life_watch("a", "", 0), *again, *other = life_watch("b", "", 0), *one;
	char id[32], second[32];
	uint64_t sequence;

	life_make(id);
	life_free(life_sandbox(life_create("b")));
	one = life_watch("a", id, 0);
	life_make(second);
	life_free(life_sandbox(life_set_timeout("a", id, 60000)));
	life_free(life_sandbox(life_kill("a", id)));
	sequence = expect_event(watch, 0, CREATED, id);
	assert_true(expect_event(watch, 1, CREATED, second) > sequence + 1);
	expect_event(watch, 2, TIMEOUT_SET, id);
	expect_event(watch, 3, ENDED, id);
	expect_event(one, 0, TIMEOUT_SET, id);
	expect_event(one, 1, ENDED, id);
	again = life_watch("a", "", sequence);
	expect_event(again, 0, CREATED, second);
	expect_event(again, 2, ENDED, id);
	fake_loop_settle();
	assert_int_equal(watch->n_sent, 4);
	assert_int_equal(again->n_sent, 3);
	assert_int_equal(one->n_sent, 2);
	assert_int_equal(other->n_sent, 1);
	end_call(watch);
	end_call(again);
	end_call(other);
	end_call(one);
	life_expect(life_watch("a", "", 5), PDK_OUT_OF_RANGE, "after_sequence: older");
	life_expect(life_watch("a", "", UINT64_MAX), PDK_OUT_OF_RANGE, "after_sequence:");
	life_restart(NULL);
	fake_loop_settle();
	life_expect(life_watch("a", "", sequence), PDK_OUT_OF_RANGE, "after_sequence: older");
}

static void a_slow_watcher_falls_out_of_the_ring(void **state)
{
	struct rpc_call *slow = life_watch("a", "", 0);
	char id[32];

	slow->hold_sends = true;
	life_make(id);
	for (unsigned int i = 0; i < 70000; i++)
		sandbox_event(sandbox_get(id), TIMEOUT_SET);
	assert_int_equal(slow->n_sent, 1);
	fake_call_sent(slow);
	life_expect(slow, PDK_OUT_OF_RANGE, "this stream was read too slowly");
}

static void a_long_replay_of_others_takes_turns(void **state)
{
	struct rpc_call *first = life_watch("b", "", 0), *watch;
	Paddock__V1__SandboxEvent *unpacked;
	char id[32];
	uint64_t sequence;

	life_free(life_sandbox(life_create("b")));
	RUN_UNTIL(first->n_sent == 1);
	unpacked = event(first, 0);
	sequence = unpacked->sequence;
	paddock__v1__sandbox_event__free_unpacked(unpacked, NULL);
	end_call(first);
	life_make(id);
	for (unsigned int i = 0; i < 20000; i++)
		sandbox_event(sandbox_get(id), TIMEOUT_SET);
	life_free(life_sandbox(life_create("b")));
	watch = life_watch("b", "", sequence);
	assert_int_equal(watch->n_sent, 0);
	RUN_UNTIL(watch->n_sent == 1);
	end_call(watch);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, life_setup, life_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(pages_hold_everything_once),
		TEST(tokens_are_bound_to_their_tenant),
		TEST(filters_match),
		TEST(large_pages_are_cut_short),
		TEST(events_come_and_are_replayed),
		TEST(a_slow_watcher_falls_out_of_the_ring),
		TEST(a_long_replay_of_others_takes_turns),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
