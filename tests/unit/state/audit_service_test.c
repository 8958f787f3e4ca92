#include "fake_rpc.h"

#include "paddock/v1/admin.pb-c.h"
#include "server/admin.h"
#include "server/audit.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* 3,000 records: tenant "a" and "b" in turn, sandbox "i...", every hundredth action is "rare". */

#define RECORDS 3000
#define SANDBOX_OF_A "iaaaaaaaaaaaaaaaaaaaa"
#define SANDBOX_OF_B "ibbbbbbbbbbbbbbbbbbbb"

static char *dir;

static int open_full(void **state)
{
	struct store_batch *batch = store_batch_create();

	dir = fake_make_dir();
	assert_int_equal(store_open(dir, &(struct pdk_error){0}), 0);
	loop_lock();
	for (int i = 1; i <= RECORDS; i++)
		store_audit(batch, &(struct audit_entry){.tenant = i % 2 ? "a" : "b",
							 .sandbox_id = i % 2 ? SANDBOX_OF_A : SANDBOX_OF_B,
							 .action = i % 100 ? "common.thing" : "rare.thing"});
	assert_int_equal(commit_wait(batch), 0);
	return 0;
}

static int close_full(void **state)
{
	loop_unlock();
	store_close();
	fake_remove_dir(dir);
	return 0;
}

static struct rpc_call *call_of(const char *tenant)
{
	struct rpc_call *call = fake_call();

	if (tenant) {
		call->principal = (struct principal){.scopes = SCOPE_READ | SCOPE_ANY};
		strcpy(call->principal.tenant, tenant);
	}
	return call;
}

struct query {
	const char *tenant; /* NULL: the operator */
	const char *sandbox_id;
	const char *action_prefix;
	uint32_t page_size;
	bool newest_first;
};

static Paddock__V1__ListAuditResponse *list(const struct query *query, uint64_t after)
{
	Paddock__V1__ListAuditRequest request = PADDOCK__V1__LIST_AUDIT_REQUEST__INIT;
	struct rpc_call *call = call_of(query->tenant);
	Paddock__V1__ListAuditResponse *reply;

	request.after_sequence = after;
	request.sandbox_id = (char *)(query->sandbox_id ? query->sandbox_id : "");
	request.action_prefix = (char *)(query->action_prefix ? query->action_prefix : "");
	request.page_size = query->page_size;
	request.newest_first = query->newest_first;
	audit_list(call, &request.base);
	fake_expect(call, PDK_OK);
	reply = (void *)fake_reply(call, &paddock__v1__list_audit_response__descriptor);
	fake_call_free(call);
	return reply;
}

/* Walk all pages: how many records, in order, none twice. */
static unsigned int walk(const struct query *query)
{
	uint64_t after = 0, last = query->newest_first ? UINT64_MAX : 0;
	unsigned int found = 0, pages = 0;

	do {
		Paddock__V1__ListAuditResponse *reply = list(query, after);

		assert_true(reply->n_records <= (query->page_size ? query->page_size : 100));
		for (size_t i = 0; i < reply->n_records; i++) {
			const Paddock__V1__AuditRecord *record = reply->records[i];

			assert_true(query->newest_first ? record->sequence < last : record->sequence > last);
			last = record->sequence;
			if (query->tenant)
				assert_string_equal(record->tenant, query->tenant);
			if (query->sandbox_id)
				assert_string_equal(record->sandbox_id, query->sandbox_id);
			if (query->action_prefix)
				assert_memory_equal(record->action, query->action_prefix, strlen(query->action_prefix));
		}
		found += (unsigned int)reply->n_records;
		after = reply->next_after_sequence;
		protobuf_c_message_free_unpacked(&reply->base, NULL);
		assert_true(++pages < 1000);
	} while (after);
	return found;
}

static void test_list_finds_each_once(void **state)
{
	for (int newest_first = 0; newest_first < 2; newest_first++) {
		bool newest = newest_first;

		assert_int_equal(walk(&(struct query){.newest_first = newest}), RECORDS);
		assert_int_equal(
			walk(&(struct query){.page_size = 7, .newest_first = newest, .sandbox_id = SANDBOX_OF_A}),
			RECORDS / 2);
		assert_int_equal(walk(&(struct query){.page_size = 1000, .newest_first = newest}), RECORDS);
		assert_int_equal(walk(&(struct query){.action_prefix = "rare.", .newest_first = newest}),
				 RECORDS / 100);
		assert_int_equal(
			walk(&(struct query){.page_size = 1, .action_prefix = "rare.", .newest_first = newest}),
			RECORDS / 100);
		assert_int_equal(walk(&(struct query){.action_prefix = "none", .newest_first = newest}), 0);
		assert_int_equal(walk(&(struct query){.sandbox_id = "not an id", .newest_first = newest}), 0);
	}
}

static void test_tenants_see_their_own(void **state)
{
	assert_int_equal(walk(&(struct query){.tenant = "a"}), RECORDS / 2);
	assert_int_equal(walk(&(struct query){.tenant = "b", .newest_first = true}), RECORDS / 2);
	assert_int_equal(walk(&(struct query){.tenant = "c"}), 0);
	/* rare ones are all of b's */
	assert_int_equal(walk(&(struct query){.tenant = "b", .action_prefix = "rare"}), RECORDS / 100);
	assert_int_equal(walk(&(struct query){.tenant = "a", .action_prefix = "rare"}), 0);
}

static void test_list_edges(void **state)
{
	Paddock__V1__ListAuditResponse *reply = list(&(struct query){0}, UINT64_MAX);

	assert_int_equal(reply->n_records, 0);
	assert_int_equal(reply->next_after_sequence, 0);
	protobuf_c_message_free_unpacked(&reply->base, NULL);
	reply = list(&(struct query){.newest_first = true}, 1);
	assert_int_equal(reply->n_records, 0);
	assert_int_equal(reply->next_after_sequence, 0);
	protobuf_c_message_free_unpacked(&reply->base, NULL);
	reply = list(&(struct query){.newest_first = true, .page_size = 2}, 0);
	assert_int_equal(reply->records[0]->sequence, RECORDS);
	assert_int_equal(reply->next_after_sequence, RECORDS - 1);
	protobuf_c_message_free_unpacked(&reply->base, NULL);
}

static void test_list_limits(void **state)
{
	Paddock__V1__ListAuditRequest request = PADDOCK__V1__LIST_AUDIT_REQUEST__INIT;
	struct rpc_call *call = call_of(NULL);
	char prefix[200] = "";

	request.page_size = 1001;
	audit_list(call, &request.base);
	fake_expect_error(call, PDK_INVALID_ARGUMENT, "page_size: ");
	request.page_size = 0;
	memset(prefix, 'x', 129);
	request.action_prefix = prefix;
	call = call_of(NULL);
	audit_list(call, &request.base);
	fake_expect_error(call, PDK_INVALID_ARGUMENT, "action_prefix: ");
}

static void test_cancelled_list(void **state)
{
	Paddock__V1__ListAuditRequest request = PADDOCK__V1__LIST_AUDIT_REQUEST__INIT;
	struct rpc_call *call = call_of(NULL);

	request.action_prefix = (char *)"none";
	audit_list(call, &request.base);
	assert_false(call->finished);
	fake_cancel(call);
	fake_expect_error(call, PDK_CANCELLED, "");
}

static void test_verify(void **state)
{
	Paddock__V1__VerifyAuditResponse *reply;
	struct rpc_call *call = call_of(NULL), *second = call_of(NULL);

	audit_verify(call, NULL);
	audit_verify(second, NULL);
	fake_expect_error(second, PDK_RESOURCE_EXHAUSTED, "");
	fake_expect(call, PDK_OK);
	reply = (void *)fake_reply(call, &paddock__v1__verify_audit_response__descriptor);
	assert_true(reply->ok);
	assert_int_equal(reply->records, RECORDS);
	assert_int_equal(reply->head_hash.len, AUDIT_HASH_SIZE);
	protobuf_c_message_free_unpacked(&reply->base, NULL);
	fake_call_free(call);
	/* a call that went away; the check ends, or is ended by store_close() */
	call = call_of(NULL);
	audit_verify(call, NULL);
	fake_cancel(call);
	fake_expect_error(call, PDK_CANCELLED, "");
}

/* Everything that a third party needs to check the chain. */
static void test_export(void **state)
{
	Paddock__V1__ExportAuditRequest request = PADDOCK__V1__EXPORT_AUDIT_REQUEST__INIT;
	struct rpc_call *call = call_of(NULL);
	uint8_t previous[AUDIT_HASH_SIZE] = {0}, hash[AUDIT_HASH_SIZE];
	uint64_t expected = 0;

	audit_export(call, &request.base);
	while (!call->finished) {
		Paddock__V1__AuditRecord *record = (void *)fake_reply(call, &paddock__v1__audit_record__descriptor);

		assert_int_equal(record->sequence, ++expected);
		assert_memory_equal(record->previous_hash.data, previous, AUDIT_HASH_SIZE);
		audit_hash(previous, record->stored.data, record->stored.len, hash);
		assert_memory_equal(record->hash.data, hash, AUDIT_HASH_SIZE);
		memcpy(previous, hash, AUDIT_HASH_SIZE);
		protobuf_c_message_free_unpacked(&record->base, NULL);
		if (expected == 1) /* what is appended meanwhile is not in it */
			audit_event(&(struct audit_entry){.action = "later"});
		fake_sent(call);
	}
	fake_expect(call, PDK_OK);
	assert_int_equal(expected, RECORDS);
	fake_call_free(call);
}

static void test_export_edges(void **state)
{
	Paddock__V1__ExportAuditRequest request = PADDOCK__V1__EXPORT_AUDIT_REQUEST__INIT;
	struct rpc_call *call = call_of(NULL);

	request.after_sequence = UINT64_MAX;
	audit_export(call, &request.base);
	fake_expect(call, PDK_OK);
	assert_int_equal(call->sent, 0);
	fake_call_free(call);
	call = call_of(NULL);
	request.after_sequence = RECORDS - 1;
	audit_export(call, &request.base);
	assert_int_equal(call->sent, 1);
	fake_cancel(call);
	fake_expect_error(call, PDK_CANCELLED, "");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_full, close_full)
	const struct CMUnitTest tests[] = {
		TEST(test_list_finds_each_once),
		TEST(test_tenants_see_their_own),
		TEST(test_list_edges),
		TEST(test_list_limits),
		TEST(test_cancelled_list),
		TEST(test_verify),
		TEST(test_export),
		TEST(test_export_edges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
