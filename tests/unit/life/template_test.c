#include "fixture.h"

#include "server/sandboxes.h"
#include "server/status.h"
#include "server/templates.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ONE_ID "t1111111111111111111111111111111111111111"
#define TWO_ID "t2222222222222222222222222222222222222222"

typedef Paddock__V1__BuildTemplateHeader header_t;

static struct rpc_call *build_start(struct rpc_call *call, const header_t *header)
{
	Paddock__V1__BuildTemplateRequest message = PADDOCK__V1__BUILD_TEMPLATE_REQUEST__INIT;

	templates_build(call, NULL);
	message.message_case = PADDOCK__V1__BUILD_TEMPLATE_REQUEST__MESSAGE_HEADER;
	message.header = (header_t *)header;
	call->reads = 0;
	if (!call->finished)
		call->events->on_message(call, &message.base);
	return call;
}

static void build_data(struct rpc_call *call, size_t length)
{
	Paddock__V1__BuildTemplateRequest message = PADDOCK__V1__BUILD_TEMPLATE_REQUEST__INIT;

	message.message_case = PADDOCK__V1__BUILD_TEMPLATE_REQUEST__MESSAGE_DATA;
	message.data.len = length;
	message.data.data = calloc(1, length + 1);
	call->reads = 0;
	call->events->on_message(call, &message.base);
	free(message.data.data);
}

static struct rpc_call *build(const char *tenant, const header_t *header, const char *id)
{
	struct rpc_call *call = strcmp(tenant, "operator") == 0 ? fake_call_operator() : fake_call(tenant);

	fake_warden_next_template(id);
	build_start(call, header);
	if (call->finished)
		return call;
	build_data(call, 1000);
	call->events->on_half_close(call);
	RUN_UNTIL(call->finished);
	return call;
}

static void build_ok(const char *tenant, const header_t *header, const char *id)
{
	struct rpc_call *call = build(tenant, header, id);
	Paddock__V1__BuildTemplateProgress *last;

	if (call->code != PDK_OK)
		fail_msg("%s", call->text);
	last = paddock__v1__build_template_progress__unpack(NULL, call->sent_length[call->n_sent - 1],
							    call->sent[call->n_sent - 1]);
	assert_string_equal(last->phase, "done");
	assert_string_equal(last->template_->id, id);
	assert_string_equal(last->template_->name, header->name);
	paddock__v1__build_template_progress__free_unpacked(last, NULL);
	fake_loop_settle(); /* on_sent of a call that has ended */
	fake_call_free(call);
}

static header_t named(const char *name)
{
	header_t header = PADDOCK__V1__BUILD_TEMPLATE_HEADER__INIT;

	header.name = (char *)name;
	return header;
}

static Paddock__V1__ListTemplatesResponse *list(const char *tenant)
{
	Paddock__V1__ListTemplatesRequest request = PADDOCK__V1__LIST_TEMPLATES_REQUEST__INIT;
	struct rpc_call *call = fake_call(tenant);
	Paddock__V1__ListTemplatesResponse *reply;

	templates_list(call, &request.base);
	reply = paddock__v1__list_templates_response__unpack(NULL, call->reply_length, call->reply);
	fake_call_free(call);
	return reply;
}

static void expect_names(const char *tenant, const char *joined)
{
	Paddock__V1__ListTemplatesResponse *reply = list(tenant);
	char names[256] = "";

	for (size_t i = 0; i < reply->n_templates; i++) {
		strcat(names, reply->templates[i]->name);
		strcat(names, " ");
	}
	paddock__v1__list_templates_response__free_unpacked(reply, NULL);
	assert_string_equal(names, joined);
}

static struct rpc_call *call_remove(const char *tenant, const char *name, bool force)
{
	Paddock__V1__RemoveTemplateRequest request = PADDOCK__V1__REMOVE_TEMPLATE_REQUEST__INIT;
	struct rpc_call *call = strcmp(tenant, "operator") == 0 ? fake_call_operator() : fake_call(tenant);

	request.template_ = (char *)name;
	request.force = force;
	templates_remove(call, &request.base);
	RUN_UNTIL(call->finished);
	return call;
}

static struct rpc_call *call_get(const char *tenant, const char *name)
{
	Paddock__V1__GetTemplateRequest request = PADDOCK__V1__GET_TEMPLATE_REQUEST__INIT;
	struct rpc_call *call = fake_call(tenant);

	request.template_ = (char *)name;
	templates_get(call, &request.base);
	return call;
}

static void a_build_makes_a_template(void **state)
{
	header_t header = named("mine");

	build_ok("a", &header, ONE_ID);
	expect_names("a", "base mine ");
	expect_names("b", "base ");
	life_expect(call_get("a", ONE_ID), PDK_OK, "");
	life_expect(call_get("b", ONE_ID), PDK_NOT_FOUND, "template not found");
	life_expect(call_get("b", "mine"), PDK_NOT_FOUND, "template not found");
	life_expect(call_get("b", BASE_ID), PDK_OK, "");
	assert_int_equal(fake_store_count(STORE_TEMPLATES), 2);
	life_restart(NULL);
	expect_names("a", "base mine ");
}

static void bad_headers_are_named(void **state)
{
	header_t header = named("Upper");

	life_expect(build("a", &header, ONE_ID), PDK_INVALID_ARGUMENT, "name:");
	header = named("");
	life_expect(build("a", &header, ONE_ID), PDK_INVALID_ARGUMENT, "name:");
	header = named(ONE_ID);
	life_expect(build("a", &header, ONE_ID), PDK_INVALID_ARGUMENT, "name:");
	header = named("x");
	header.max_bytes = UINT64_MAX;
	life_expect(build("a", &header, ONE_ID), PDK_INVALID_ARGUMENT, "max_bytes:");
	header.max_bytes = 0;
	header.public_ = true;
	life_expect(build("a", &header, ONE_ID), PDK_PERMISSION_DENIED, "public:");
	assert_int_equal(fake_warden_requests(WARDEN_TEMPLATE_IMPORT), 0);
}

static void the_header_comes_first(void **state)
{
	struct rpc_call *call = fake_call("a");
	header_t header = named("x");

	templates_build(call, NULL);
	build_data(call, 1);
	life_expect(call, PDK_INVALID_ARGUMENT, "header:");
	call = fake_call("a");
	templates_build(call, NULL);
	call->events->on_half_close(call);
	life_expect(call, PDK_INVALID_ARGUMENT, "header:");
	call = build_start(fake_call("a"), &header);
	build_data(call, (1 << 20) + 1);
	life_expect(call, PDK_INVALID_ARGUMENT, "data:");
	fake_loop_settle();
}

static void names_are_replaced_only_when_asked(void **state)
{
	header_t header = named("mine");

	build_ok("a", &header, ONE_ID);
	life_expect(build("a", &header, TWO_ID), PDK_ALREADY_EXISTS, "name:");
	header.replace = true;
	build_ok("a", &header, TWO_ID);
	RUN_UNTIL(!fake_warden_has_template(ONE_ID));
	assert_int_equal(fake_store_count(STORE_TEMPLATES), 2);
	header = named("twin");
	build_ok("a", &header, TWO_ID);
	life_expect(call_remove("a", "mine", false), PDK_OK, "");
	fake_loop_settle();
	assert_true(fake_warden_has_template(TWO_ID));
	life_expect(call_remove("a", "twin", false), PDK_OK, "");
	RUN_UNTIL(!fake_warden_has_template(TWO_ID));
}

static void the_quota_counts_names(void **state)
{
	header_t header = named("one");

	fake_quota.max_templates = 1;
	build_ok("a", &header, ONE_ID);
	header = named("two");
	life_expect(build("a", &header, TWO_ID), PDK_RESOURCE_EXHAUSTED,
		    "tenant quota max_templates exhausted: 1 of 1");
	build_ok("b", &header, TWO_ID);
}

static void a_refused_archive_is_the_clients_error(void **state)
{
	header_t header = named("x");

	fake_warden_fail(WARDEN_TEMPLATE_IMPORT, 1, -EINVAL, "no /bin/sh");
	life_expect(build("a", &header, ONE_ID), PDK_INVALID_ARGUMENT, "data: no /bin/sh");
	fake_warden_fail(WARDEN_TEMPLATE_IMPORT, 1, -EDQUOT, "too large");
	life_expect(build("a", &header, ONE_ID), PDK_RESOURCE_EXHAUSTED, "data: too large");
	expect_names("a", "base ");
	fake_loop_settle();
}

static void a_full_pipe_holds_the_client(void **state)
{
	header_t header = named("big");
	struct rpc_call *call = fake_call("a");
	unsigned int sent = 0;

	fake_warden_next_template(ONE_ID);
	fake_warden_stall_import(true);
	build_start(call, &header);
	assert_int_equal(call->reads, 1);
	do {
		build_data(call, 1 << 20);
		sent++;
	} while (call->reads == 1 && sent < 10);
	assert_in_range(sent, 1, 3);
	fake_loop_settle();
	assert_int_equal(call->reads, 0);
	call->events->on_half_close(call);
	fake_warden_stall_import(false);
	RUN_UNTIL(call->finished);
	assert_int_equal(call->code, PDK_OK);
	assert_int_equal(fake_warden_imported_bytes(), (uint64_t)sent << 20);
	fake_loop_settle();
	fake_call_free(call);
}

static void a_cancelled_build_leaves_nothing(void **state)
{
	header_t header = named("x");
	struct rpc_call *call = fake_call("a");

	fake_warden_next_template(ONE_ID);
	build_start(call, &header);
	build_data(call, 100);
	fake_loop_settle();
	fake_call_cancel(call);
	fake_loop_settle();
	fake_call_free(call);
	RUN_UNTIL(fake_warden_requests(WARDEN_TEMPLATE_REMOVE) == 1);
	fake_loop_settle();
	assert_false(fake_warden_has_template(ONE_ID));
	expect_names("a", "base ");
}

static void a_used_template_stays_until_its_last_sandbox(void **state)
{
	Paddock__V1__CreateSandboxRequest create = PADDOCK__V1__CREATE_SANDBOX_REQUEST__INIT;
	header_t header = named("mine");
	Paddock__V1__Sandbox *sandbox;

	build_ok("a", &header, ONE_ID);
	create.template_ = (char *)"mine";
	sandbox = life_sandbox(life_create_with("a", &create));
	assert_string_equal(sandbox->template_, ONE_ID);
	life_expect(call_remove("a", "mine", false), PDK_FAILED_PRECONDITION, "1 sandboxes use");
	life_expect(call_remove("b", "mine", false), PDK_NOT_FOUND, "template not found");
	life_expect(call_remove("a", "base", false), PDK_PERMISSION_DENIED, "template:");
	life_expect(call_remove("a", "mine", true), PDK_OK, "");
	fake_loop_settle();
	assert_true(fake_warden_has_template(ONE_ID));
	life_free(life_sandbox(life_kill("a", sandbox->id)));
	RUN_UNTIL(!fake_warden_has_template(ONE_ID));
	life_free(sandbox);
}

static void start_drops_what_the_warden_lacks(void **state)
{
	header_t header = named("mine");

	build_ok("a", &header, ONE_ID);
	fake_warden_forget_template(ONE_ID);
	life_restart(NULL);
	fake_loop_settle();
	expect_names("a", "base ");
	assert_int_equal(fake_store_count(STORE_TEMPLATES), 1);
	/* And what has no name. */
	fake_warden_add_template(TWO_ID);
	life_restart(NULL);
	RUN_UNTIL(!fake_warden_has_template(TWO_ID));
}

static void a_tenants_names_go_with_it(void **state)
{
	header_t header = named("one");
	struct store_batch *batch = store_batch_create();

	build_ok("a", &header, ONE_ID);
	build_ok("b", &header, TWO_ID);
	assert_int_equal(templates_remove_tenant("a", batch), 0);
	store_commit(batch, NULL, NULL);
	fake_loop_settle();
	expect_names("a", "base ");
	expect_names("b", "base one ");
	assert_false(fake_warden_has_template(ONE_ID));
	assert_int_equal(fake_store_count(STORE_TEMPLATES), 2);
}

static void own_names_come_before_public_ones(void **state)
{
	header_t header = named("base");
	char id[TEMPLATE_ID_SIZE], name[64];
	struct snapshot *snapshot;

	build_ok("a", &header, ONE_ID);
	assert_int_equal(template_find("a", "base", id, name, &snapshot, NULL), 0);
	assert_string_equal(id, ONE_ID);
	assert_int_equal(template_find("b", "base", id, name, &snapshot, NULL), 0);
	assert_string_equal(id, BASE_ID);
	header = named("shared");
	header.public_ = true;
	build_ok("operator", &header, TWO_ID);
	expect_names("b", "base shared ");
	assert_true(template_find("b", ONE_ID, id, name, &snapshot, NULL) < 0);
	assert_int_equal(template_find("b", TWO_ID, id, name, &snapshot, NULL), 0);
	assert_string_equal(name, "shared");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, life_setup, life_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_build_makes_a_template),
		TEST(bad_headers_are_named),
		TEST(the_header_comes_first),
		TEST(names_are_replaced_only_when_asked),
		TEST(the_quota_counts_names),
		TEST(a_refused_archive_is_the_clients_error),
		TEST(a_full_pipe_holds_the_client),
		TEST(a_cancelled_build_leaves_nothing),
		TEST(a_used_template_stays_until_its_last_sandbox),
		TEST(start_drops_what_the_warden_lacks),
		TEST(a_tenants_names_go_with_it),
		TEST(own_names_come_before_public_ones),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
