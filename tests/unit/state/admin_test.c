#include "fake_rpc.h"

#include "faults.h"
#include "paddock/v1/admin.pb-c.h"
#include "server/admin.h"
#include "server/auth.h"
#include "server/config.h"
#include "server/keys.h"
#include "server/tenants.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *dir;

static int open_store(void **state)
{
	dir = fake_make_dir();
	server_config.quota_max_sandboxes = 1000;
	server_config.quota_creates_per_minute = 600;
	fake_sandboxes = 0;
	fake_kill_waits = false;
	assert_int_equal(store_open(dir, &(struct pdk_error){0}), 0);
	loop_lock();
	assert_int_equal(auth_load(&(struct pdk_error){0}), 0);
	return 0;
}

/* Memory is forgotten, as by a restart. */
static void forget_all(void)
{
	assert_int_equal(commit_wait(store_batch_create()), 0);
	while (tenants) {
		keys_forget(tenants->name);
		tenant_forget(tenants);
	}
	loop_unlock();
	store_close();
}

static void restart(void)
{
	forget_all();
	assert_int_equal(store_open(dir, &(struct pdk_error){0}), 0);
	loop_lock();
	assert_int_equal(auth_load(&(struct pdk_error){0}), 0);
}

static int close_store(void **state)
{
	fault_data_errno = 0;
	fake_wall_offset_ms = 0;
	fake_boot_offset_ns = 0;
	forget_all();
	fake_remove_dir(dir);
	return 0;
}

/* ---- calls ---- */

static struct rpc_call *create_tenant(const char *name, uint32_t max_sandboxes)
{
	Paddock__V1__CreateTenantRequest request = PADDOCK__V1__CREATE_TENANT_REQUEST__INIT;
	Paddock__V1__Quota quota = PADDOCK__V1__QUOTA__INIT;
	struct rpc_call *call = fake_call();

	request.name = (char *)name;
	quota.max_sandboxes = max_sandboxes;
	request.quota = max_sandboxes ? &quota : NULL;
	admin_create_tenant(call, &request.base);
	return call;
}

static void make_tenant(const char *name)
{
	struct rpc_call *call = create_tenant(name, 0);

	fake_expect(call, PDK_OK);
	fake_call_free(call);
}

static struct rpc_call *create_key(const char *tenant, const char *scope, uint64_t ttl_ms)
{
	Paddock__V1__CreateKeyRequest request = PADDOCK__V1__CREATE_KEY_REQUEST__INIT;
	struct rpc_call *call = fake_call();

	request.tenant = (char *)tenant;
	request.name = (char *)"a test's";
	request.scopes = (char **)&scope;
	request.n_scopes = scope ? 1 : 0;
	request.ttl_ms = ttl_ms;
	admin_create_key(call, &request.base);
	return call;
}

/* "Bearer pdk_..." */
static char *make_key(const char *tenant, const char *scope, uint64_t ttl_ms, char id[KEY_ID_LEN + 1])
{
	struct rpc_call *call = create_key(tenant, scope, ttl_ms);
	Paddock__V1__CreateKeyResponse *reply;
	char *header;

	fake_expect(call, PDK_OK);
	reply = (void *)fake_reply(call, &paddock__v1__create_key_response__descriptor);
	assert_true(asprintf(&header, "Bearer %s", reply->secret) > 0);
	if (id)
		strcpy(id, reply->key->id);
	assert_string_equal(reply->key->id, call->object);
	protobuf_c_message_free_unpacked(&reply->base, NULL);
	fake_call_free(call);
	return header;
}

static struct rpc_call *revoke_key(const char *id)
{
	Paddock__V1__RevokeKeyRequest request = PADDOCK__V1__REVOKE_KEY_REQUEST__INIT;
	struct rpc_call *call = fake_call();

	request.key_id = (char *)id;
	admin_revoke_key(call, &request.base);
	return call;
}

static struct rpc_call *remove_tenant(const char *name, bool force)
{
	Paddock__V1__RemoveTenantRequest request = PADDOCK__V1__REMOVE_TENANT_REQUEST__INIT;
	struct rpc_call *call = fake_call();

	request.tenant = (char *)name;
	request.force = force;
	admin_remove_tenant(call, &request.base);
	return call;
}

static void assert_opens(const char *header, bool opens)
{
	struct principal principal = {0};
	struct pdk_error err;
	int rc = auth_check(header, &principal, &err);

	if (opens) {
		assert_int_equal(rc, 0);
		return;
	}
	assert_true(rc < 0);
	assert_int_equal(err.code, PDK_UNAUTHENTICATED);
	assert_string_equal(err.text, "a valid API key is needed");
	assert_int_equal(principal.scopes, 0);
}

/* ---- keys ---- */

static void test_key_opens(void **state)
{
	struct principal principal;
	char id[KEY_ID_LEN + 1], *header = make_key("", NULL, 0, id);

	assert_int_equal(strlen(header), 7 + KEY_TEXT_LEN);
	assert_int_equal(auth_check(header, &principal, NULL), 0);
	assert_string_equal(principal.tenant, "default");
	assert_string_equal(principal.key_id, id);
	assert_string_equal(principal_actor(&principal), id);
	assert_int_equal(principal.scopes, SCOPE_ANY | SCOPE_READ | SCOPE_SANDBOX);
	assert_false(principal.is_operator);
	restart();
	assert_opens(header, true);
	free(header);
	header = make_key("", "admin", 0, NULL);
	assert_int_equal(auth_check(header, &principal, NULL), 0);
	assert_true(principal.is_operator);
	free(header);
}

static void test_other_texts_do_not_open(void **state)
{
	char *header = make_key("", NULL, 0, NULL), changed[160];

	assert_opens(NULL, false);
	assert_opens("", false);
	assert_opens("Bearer ", false);
	assert_opens("Bearer pdk_", false);
	assert_opens(header + 7, false);
	for (unsigned int i = 0; i < strlen(header); i++) {
		strcpy(changed, header);
		changed[i] = changed[i] == 'x' ? 'y' : 'x';
		assert_opens(changed, false);
		changed[i] = '\0';
		assert_opens(changed, false);
	}
	strcat(strcpy(changed, header), "A");
	assert_opens(changed, false);
	strcat(strcpy(changed, "bearer "), header + 7); /* the scheme has no case */
	assert_opens(changed, true);
	free(header);
}

/* The secret is nowhere in the data directory. */
static void test_secret_is_not_stored(void **state)
{
	char *header = make_key("", NULL, 0, NULL), command[512];

	snprintf(command, sizeof(command), "grep -rqF -e %s %s", header + 7 + 4 + KEY_ID_LEN + 1, dir);
	assert_int_not_equal(system(command), 0);
	header[7 + 4 + KEY_ID_LEN] = '\0';
	snprintf(command, sizeof(command), "grep -rqF -e %s %s", header + 7 + 4, dir); /* but the id is */
	assert_int_equal(system(command), 0);
	free(header);
}

static void test_expiry(void **state)
{
	char *header = make_key("", NULL, 60000, NULL);

	assert_opens(header, true);
	fake_wall_offset_ms = 61000;
	assert_opens(header, false);
	fake_wall_offset_ms = 0;
	assert_opens(header, true);
	free(header);
}

/* What is open when a key expires is ended, also where the clock was set forward. */
static void test_expiry_cuts(void **state)
{
	char first[KEY_ID_LEN + 1], second[KEY_ID_LEN + 1];
	char *one = make_key("", NULL, 60000, first), *two = make_key("", NULL, 3600000, second);

	fake_cancelled_key[0] = '\0';
	fake_boot_offset_ns += 5000000000;
	fake_run();
	assert_string_equal(fake_cancelled_key, "");
	fake_wall_offset_ms = 61000;
	fake_boot_offset_ns += 5000000000;
	fake_run();
	assert_string_equal(fake_cancelled_key, first);
	fake_cancelled_key[0] = '\0';
	fake_boot_offset_ns += 5000000000;
	fake_run();
	assert_string_equal(fake_cancelled_key, ""); /* once */
	/* Set back, it is valid again; what is opened then is ended again. */
	fake_wall_offset_ms = 0;
	assert_opens(one, true);
	fake_boot_offset_ns += 5000000000;
	fake_run();
	fake_wall_offset_ms = 61000;
	fake_boot_offset_ns += 5000000000;
	fake_run();
	assert_string_equal(fake_cancelled_key, first);
	fake_wall_offset_ms = 3601000;
	restart(); /* those that expired meanwhile have nothing open, and are looked at all the same */
	fake_boot_offset_ns += 5000000000;
	fake_run();
	assert_opens(two, false);
	free(one);
	free(two);
}

static void test_revocation(void **state)
{
	char id[KEY_ID_LEN + 1], *header = make_key("", NULL, 0, id);
	struct rpc_call *call = revoke_key(id);
	Paddock__V1__Key *reply;

	assert_opens(header, true); /* not durable yet */
	fake_expect(call, PDK_OK);
	reply = (void *)fake_reply(call, &paddock__v1__key__descriptor);
	assert_true(reply->revoked_unix_ms > 0);
	protobuf_c_message_free_unpacked(&reply->base, NULL);
	fake_call_free(call);
	assert_string_equal(fake_cancelled_key, id);
	assert_opens(header, false);
	/* noting an earlier use does not bring it back */
	fake_boot_offset_ns = 60000000000;
	fake_run();
	restart();
	assert_opens(header, false);
	call = revoke_key(id);
	fake_expect(call, PDK_OK);
	fake_call_free(call);
	fake_expect_error(revoke_key("aaaaaaaaaaaaaaaa"), PDK_NOT_FOUND, "key not found");
	fake_expect_error(revoke_key("a"), PDK_NOT_FOUND, "key not found");
	free(header);
}

/* The use of a key is noted while its revocation is on its way to the disk. */
static void test_use_and_revocation(void **state)
{
	char id[KEY_ID_LEN + 1], *header = make_key("", NULL, 0, id);
	struct rpc_call *call;

	assert_opens(header, true);
	fake_boot_offset_ns = 60000000000;
	call = revoke_key(id);
	fake_run();
	fake_expect(call, PDK_OK);
	fake_call_free(call);
	restart();
	assert_opens(header, false);
	free(header);
}

static void test_last_use_is_kept(void **state)
{
	Paddock__V1__ListKeysRequest request = PADDOCK__V1__LIST_KEYS_REQUEST__INIT;
	char *header = make_key("", "template", 0, NULL);
	Paddock__V1__ListKeysResponse *reply;
	struct rpc_call *call = fake_call();

	assert_opens(header, true);
	fake_boot_offset_ns = 60000000000;
	fake_run();
	restart();
	admin_list_keys(call, &request.base);
	fake_expect(call, PDK_OK);
	reply = (void *)fake_reply(call, &paddock__v1__list_keys_response__descriptor);
	assert_int_equal(reply->n_keys, 1);
	assert_true(reply->keys[0]->last_used_unix_ms > loop_wall_ms() - 70000);
	assert_int_equal(reply->keys[0]->last_used_unix_ms % 60000, 0);
	assert_string_equal(reply->keys[0]->name, "a test's");
	assert_int_equal(reply->keys[0]->n_scopes, 1);
	assert_string_equal(reply->keys[0]->scopes[0], "template");
	protobuf_c_message_free_unpacked(&reply->base, NULL);
	fake_call_free(call);
	free(header);
}

static void test_key_limits(void **state)
{
	Paddock__V1__CreateKeyRequest request = PADDOCK__V1__CREATE_KEY_REQUEST__INIT;
	char name[200] = "";
	struct rpc_call *call = fake_call();

	fake_expect_error(create_key("", "root", 0), PDK_INVALID_ARGUMENT, "scopes: ");
	fake_expect_error(create_key("nobody", NULL, 0), PDK_NOT_FOUND, "tenant not found");
	fake_expect_error(create_key("", NULL, UINT64_MAX), PDK_INVALID_ARGUMENT, "ttl_ms: ");
	memset(name, 'n', 129);
	request.name = name;
	admin_create_key(call, &request.base);
	fake_expect_error(call, PDK_INVALID_ARGUMENT, "name: ");
}

static void test_key_is_not_made_without_the_store(void **state)
{
	fault_data_errno = ENOSPC;
	fake_expect_error(create_key("", NULL, 0), PDK_UNAVAILABLE, "the change could not be stored");
	fault_data_errno = 0;
}

/* ---- tenants ---- */

static void test_tenant(void **state)
{
	struct tenant_quota quota;
	struct rpc_call *call = create_tenant("acme", 3);
	Paddock__V1__Tenant *reply;

	assert_false(tenant_exists("acme")); /* not durable yet */
	fake_expect_error(create_tenant("acme", 0), PDK_ALREADY_EXISTS, "");
	fake_expect(call, PDK_OK);
	reply = (void *)fake_reply(call, &paddock__v1__tenant__descriptor);
	assert_string_equal(reply->name, "acme");
	assert_int_equal(reply->quota->max_sandboxes, 3);
	assert_int_equal(reply->quota->creates_per_minute, 600);
	protobuf_c_message_free_unpacked(&reply->base, NULL);
	fake_call_free(call);
	restart();
	assert_true(tenant_exists("acme"));
	tenant_get_quota("acme", &quota);
	assert_int_equal(quota.max_sandboxes, 3);
	tenant_get_quota("default", &quota);
	assert_int_equal(quota.max_sandboxes, 1000);
	tenant_get_quota("nobody", &quota);
	assert_int_equal(quota.max_sandboxes, 0);
}

static void test_tenant_names(void **state)
{
	static const char *const bad[] = {
		"",    "-a",       "A",   "a_b",
		"a b", "\xc3\xbc", "a/b", "1234567890123456789012345678901234567890123456789012345678901234"};

	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		fake_expect_error(create_tenant(bad[i], 0), PDK_INVALID_ARGUMENT, "name: ");
	fake_expect_error(create_tenant("ok", UINT32_MAX), PDK_INVALID_ARGUMENT, "quota.max_sandboxes: ");
	fake_expect_error(create_tenant("default", 0), PDK_ALREADY_EXISTS, "");
	make_tenant("123456789012345678901234567890123456789012345678901234567890123");
}

static void test_tenant_is_not_made_without_the_store(void **state)
{
	fault_data_errno = ENOSPC;
	fake_expect_error(create_tenant("acme", 0), PDK_UNAVAILABLE, "the change could not be stored");
	fault_data_errno = 0;
	assert_false(tenant_exists("acme"));
	make_tenant("acme");
}

static struct rpc_call *set_quota(const char *tenant, uint32_t max_sandboxes, uint64_t max_disk_bytes)
{
	Paddock__V1__SetQuotaRequest request = PADDOCK__V1__SET_QUOTA_REQUEST__INIT;
	Paddock__V1__Quota quota = PADDOCK__V1__QUOTA__INIT;
	struct rpc_call *call = fake_call();

	request.tenant = (char *)tenant;
	request.quota = &quota;
	quota.max_sandboxes = max_sandboxes;
	quota.max_disk_bytes = max_disk_bytes;
	admin_set_quota(call, &request.base);
	return call;
}

static void test_quota_is_merged(void **state)
{
	struct rpc_call *first, *second;
	struct tenant_quota quota;

	make_tenant("acme");
	first = set_quota("acme", 5, 0);
	second = set_quota("acme", 0, 1 << 30); /* before the first is durable */
	fake_expect(first, PDK_OK);
	fake_expect(second, PDK_OK);
	fake_call_free(first);
	fake_call_free(second);
	restart();
	tenant_get_quota("acme", &quota);
	assert_int_equal(quota.max_sandboxes, 5);
	assert_int_equal(quota.max_disk_bytes, 1 << 30);
	fake_expect_error(set_quota("nobody", 1, 0), PDK_NOT_FOUND, "tenant not found");
	fake_expect_error(set_quota("acme", 0, UINT64_MAX), PDK_INVALID_ARGUMENT, "quota.max_disk_bytes: ");
	fault_data_errno = ENOSPC;
	fake_expect_error(set_quota("acme", 9, 0), PDK_UNAVAILABLE, "");
	fault_data_errno = 0;
	tenant_get_quota("acme", &quota);
	assert_int_equal(quota.max_sandboxes, 5);
}

static void test_creates_per_minute(void **state)
{
	struct pdk_error err;

	for (int i = 0; i < 600; i++)
		assert_int_equal(tenant_take_create("default", &err), 0);
	assert_int_equal(tenant_take_create("default", &err), -EDQUOT);
	assert_int_equal(err.code, PDK_RESOURCE_EXHAUSTED);
	assert_non_null(strstr(err.text, "creates_per_minute exhausted: 600 of 600 in use; retry in 1"));
	fake_boot_offset_ns = 1000000000; /* ten a second */
	for (int i = 0; i < 10; i++)
		assert_int_equal(tenant_take_create("default", &err), 0);
	assert_int_equal(tenant_take_create("default", &err), -EDQUOT);
	assert_int_equal(tenant_take_create("nobody", &err), -ENOENT);
}

static void test_remove_tenant(void **state)
{
	char id[KEY_ID_LEN + 1], *header;
	struct rpc_call *call;

	make_tenant("acme");
	header = make_key("acme", NULL, 0, id);
	assert_opens(header, true);
	fake_expect_error(remove_tenant("nobody", true), PDK_NOT_FOUND, "tenant not found");
	fake_expect_error(remove_tenant("default", true), PDK_FAILED_PRECONDITION, "");
	fake_sandboxes = 2;
	fake_expect_error(remove_tenant("acme", false), PDK_FAILED_PRECONDITION, "the tenant has 2 living sandboxes");
	assert_opens(header, true);
	fake_kill_waits = true;
	call = remove_tenant("acme", true);
	assert_opens(header, false);
	fake_expect_error(remove_tenant("acme", true), PDK_ABORTED, "");
	fake_expect_error(create_tenant("acme", 0), PDK_ALREADY_EXISTS, "");
	fake_expect_error(create_key("acme", NULL, 0), PDK_NOT_FOUND, "");
	assert_int_equal(commit_wait(store_batch_create()), 0);
	assert_string_equal(fake_cancelled_key, id);
	assert_false(call->finished);
	fake_templates_removed = 0;
	fake_kill_done();
	fake_expect(call, PDK_OK);
	fake_call_free(call);
	assert_int_equal(fake_templates_removed, 1);
	restart();
	assert_false(tenant_exists("acme"));
	make_tenant("acme");
	assert_opens(header, false); /* a new tenant of that name is another one */
	free(header);
}

static void test_removal_goes_on_after_a_restart(void **state)
{
	char *header;
	struct rpc_call *call;

	make_tenant("acme");
	header = make_key("acme", NULL, 0, NULL);
	fake_kill_waits = true;
	call = remove_tenant("acme", true);
	assert_int_equal(commit_wait(store_batch_create()), 0);
	fake_kill_waits = false;
	restart();
	assert_opens(header, false);
	assert_false(tenant_exists("acme"));
	assert_non_null(tenant_find_any("acme"));
	fake_run();
	assert_int_equal(commit_wait(store_batch_create()), 0);
	assert_null(tenant_find_any("acme"));
	restart();
	assert_null(tenant_find_any("acme"));
	free(call->user);
	fake_call_free(call);
	free(header);
}

static void test_removal_that_cannot_be_stored(void **state)
{
	char *header;

	make_tenant("acme");
	header = make_key("acme", NULL, 0, NULL);
	fault_data_errno = ENOSPC;
	fake_expect_error(remove_tenant("acme", true), PDK_UNAVAILABLE, "");
	fault_data_errno = 0;
	assert_opens(header, true);
	fake_boot_offset_ns = 60000000000;
	fake_run();
	restart();
	assert_opens(header, true);
	free(header);
}

static void test_cancelled_change_is_finished(void **state)
{
	struct rpc_call *call = create_tenant("acme", 0);

	fake_cancel(call);
	fake_expect(call, PDK_OK);
	fake_call_free(call);
	assert_true(tenant_exists("acme"));
}

static void test_list_tenants_and_status(void **state)
{
	Paddock__V1__ListTenantsRequest list = PADDOCK__V1__LIST_TENANTS_REQUEST__INIT;
	Paddock__V1__ListTenantsResponse *tenants_reply;
	Paddock__V1__ServerStatus *status;
	Paddock__V1__WhoAmIResponse *who;
	struct rpc_call *call = fake_call();

	make_tenant("zoo");
	make_tenant("acme");
	admin_list_tenants(call, &list.base);
	tenants_reply = (void *)fake_reply(call, &paddock__v1__list_tenants_response__descriptor);
	assert_int_equal(tenants_reply->n_tenants, 3);
	assert_string_equal(tenants_reply->tenants[0]->name, "acme");
	assert_string_equal(tenants_reply->tenants[2]->name, "zoo");
	protobuf_c_message_free_unpacked(&tenants_reply->base, NULL);
	fake_call_free(call);

	call = fake_call();
	admin_get_status(call, NULL);
	status = (void *)fake_reply(call, &paddock__v1__server_status__descriptor);
	assert_int_equal(status->audit_records, 2);
	assert_int_equal(status->reserved_disk_bytes, 7);
	assert_true(status->kernel[0] && status->started_unix_ms);
	protobuf_c_message_free_unpacked(&status->base, NULL);
	fake_call_free(call);

	call = fake_call();
	admin_who_am_i(call, NULL);
	who = (void *)fake_reply(call, &paddock__v1__who_am_iresponse__descriptor);
	assert_string_equal(who->tenant, "default");
	assert_true(who->operator_);
	protobuf_c_message_free_unpacked(&who->base, NULL);
	fake_call_free(call);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_store, close_store)
	const struct CMUnitTest tests[] = {
		TEST(test_key_opens),
		TEST(test_other_texts_do_not_open),
		TEST(test_secret_is_not_stored),
		TEST(test_expiry),
		TEST(test_expiry_cuts),
		TEST(test_revocation),
		TEST(test_use_and_revocation),
		TEST(test_last_use_is_kept),
		TEST(test_key_limits),
		TEST(test_key_is_not_made_without_the_store),
		TEST(test_tenant),
		TEST(test_tenant_names),
		TEST(test_tenant_is_not_made_without_the_store),
		TEST(test_quota_is_merged),
		TEST(test_creates_per_minute),
		TEST(test_remove_tenant),
		TEST(test_removal_goes_on_after_a_restart),
		TEST(test_removal_that_cannot_be_stored),
		TEST(test_cancelled_change_is_finished),
		TEST(test_list_tenants_and_status),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
