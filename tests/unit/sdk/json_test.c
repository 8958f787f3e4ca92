#include "test.h"

#include "paddock.h"
#include "sdk/cli/json.h"
#include <stdlib.h>
#include <string.h>

static char *dump(const void *message)
{
	json_t *json = json_of_message(message);
	char *text = json_dumps(json, JSON_COMPACT);

	json_decref(json);
	return text;
}

static void fields_enums_and_maps(void **state)
{
	Paddock__V1__Sandbox sandbox = PADDOCK__V1__SANDBOX__INIT;
	Paddock__V1__Sandbox__MetadataEntry entry = PADDOCK__V1__SANDBOX__METADATA_ENTRY__INIT;
	Paddock__V1__Sandbox__MetadataEntry *entries[] = {&entry};
	json_t *json;

	sandbox.id = (char *)"i123";
	sandbox.state = PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_RUNNING;
	sandbox.end_reason = 77;
	sandbox.created_unix_ms = INT64_C(1700000000123);
	entry.key = (char *)"task";
	entry.value = (char *)"7 \"quoted\"";
	sandbox.metadata = entries;
	sandbox.n_metadata = 1;
	json = json_of_message(&sandbox.base);
	assert_string_equal(json_string_value(json_object_get(json, "id")), "i123");
	assert_string_equal(json_string_value(json_object_get(json, "state")), "running");
	assert_int_equal(json_integer_value(json_object_get(json, "end_reason")), 77);
	assert_true(json_integer_value(json_object_get(json, "created_unix_ms")) == INT64_C(1700000000123));
	assert_true(json_is_null(json_object_get(json, "resources")));
	assert_string_equal(json_string_value(json_object_get(json_object_get(json, "metadata"), "task")),
			    "7 \"quoted\"");
	json_decref(json);
}

static void nested_enums_lose_their_prefix(void **state)
{
	Paddock__V1__WatchEvent event = PADDOCK__V1__WATCH_EVENT__INIT;
	char *text;

	event.type = PADDOCK__V1__WATCH_EVENT__TYPE__TYPE_OVERFLOW;
	event.file_type = PADDOCK__V1__FILE_TYPE__FILE_TYPE_SYMLINK;
	text = dump(&event);
	assert_non_null(strstr(text, "\"type\":\"overflow\""));
	assert_non_null(strstr(text, "\"file_type\":\"symlink\""));
	free(text);
}

static void bytes_are_text_or_base64(void **state)
{
	Paddock__V1__FileInfo info = PADDOCK__V1__FILE_INFO__INIT;
	char *text;

	info.path = (ProtobufCBinaryData){.len = 5, .data = (uint8_t *)"caf\xc3\xa9"};
	info.symlink_target = (ProtobufCBinaryData){.len = 4, .data = (uint8_t *)"\xff\xfe\x00z"};
	text = dump(&info);
	assert_non_null(strstr(text, "\"path\":\"caf\xc3\xa9\""));
	assert_non_null(strstr(text, "\"symlink_target\":{\"base64\":\"//4Aeg==\"}"));
	free(text);
}

static void hashes_are_hexadecimal(void **state)
{
	Paddock__V1__AuditRecord record = PADDOCK__V1__AUDIT_RECORD__INIT;
	char *text;

	record.hash = (ProtobufCBinaryData){.len = 2, .data = (uint8_t *)"\x0a\xff"};
	record.stored = (ProtobufCBinaryData){.len = 3, .data = (uint8_t *)"abc"};
	text = dump(&record);
	assert_non_null(strstr(text, "\"hash\":\"0aff\""));
	assert_non_null(strstr(text, "\"stored\":{\"base64\":\"YWJj\"}"));
	assert_non_null(strstr(text, "\"previous_hash\":\"\""));
	free(text);
}

static void only_the_chosen_alternative_is_there(void **state)
{
	Paddock__V1__ProcessExit ended = PADDOCK__V1__PROCESS_EXIT__INIT;
	Paddock__V1__ProcessEvent event = PADDOCK__V1__PROCESS_EVENT__INIT;
	char *text;

	ended.exit_code = 3;
	event.event_case = PADDOCK__V1__PROCESS_EVENT__EVENT_EXITED;
	event.exited = &ended;
	text = dump(&event);
	assert_non_null(strstr(text, "\"exit_code\":3"));
	assert_null(strstr(text, "output\":{"));
	assert_null(strstr(text, "started\""));
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fields_enums_and_maps),
		cmocka_unit_test(nested_enums_lose_their_prefix),
		cmocka_unit_test(bytes_are_text_or_base64),
		cmocka_unit_test(hashes_are_hexadecimal),
		cmocka_unit_test(only_the_chosen_alternative_is_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
