#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_time.h"
#include "paddock/v1/templates.pb-c.h"
#include "rest_internal.h"
#include "sandbox/base/cleanup.h"

/* Builds of templates: what the SDKs send becomes the calls of the same names. */

#define MIB (1ull << 20)

static void put_string(struct buffer *out, const char *before, const char *value)
{
	json_put(out, before);
	json_put_string(out, value, strlen(value));
}

static void put_strings(struct buffer *out, const char *before, char *const *values, size_t count)
{
	json_put(out, before);
	for (size_t i = 0; i < count; i++)
		put_string(out, i ? "," : "", values[i]);
	json_put(out, "]");
}

/* A string of the body; "" if it is not there. NULL: it is something else. */
static char *text_of(json_t *object, const char *name)
{
	json_t *value = json_object_get(object, name);

	if (!value || json_is_null(value))
		return (char *)"";
	return (char *)(uintptr_t)json_string_value(value);
}

/* 0 if it is not there; -EINVAL. */
static int number_of(json_t *object, const char *name, uint64_t unit, uint64_t *ret)
{
	json_t *value = json_object_get(object, name);

	*ret = 0;
	if (!value || json_is_null(value))
		return 0;
	if (!json_is_integer(value) || json_integer_value(value) < 1 || json_integer_value(value) > INT32_MAX)
		return -EINVAL;
	*ret = (uint64_t)json_integer_value(value) * unit;
	return 0;
}

/* --- POST /v3/templates --- */

static void created(struct rest *rest, const ProtobufCMessage *reply)
{
	const Paddock__V1__TemplateBuild *build = (const Paddock__V1__TemplateBuild *)reply;
	struct buffer out = BUFFER(16384);

	put_string(&out, "{\"templateID\":", build->name);
	put_string(&out, ",\"buildID\":", build->id);
	put_strings(&out, ",\"public\":false,\"aliases\":[", (char *const *)&build->name, 1);
	put_strings(&out, ",\"names\":[", (char *const *)&build->name, 1);
	put_strings(&out, ",\"tags\":[", build->tags, build->n_tags);
	json_put(&out, "}");
	rest_answer(rest, 202, &out);
}

void rest_build_create(struct rest *rest)
{
	Paddock__V1__CreateTemplateBuildRequest request = PADDOCK__V1__CREATE_TEMPLATE_BUILD_REQUEST__INIT;
	Paddock__V1__Resources resources = PADDOCK__V1__RESOURCES__INIT;
	uint64_t cpu_millis, free_disk;
	const char *why = NULL;

	request.name = text_of(rest->json, json_object_get(rest->json, "name") ? "name" : "alias");
	request.tags = rest_strings(rest, json_object_get(rest->json, "tags"), &request.n_tags);
	request.resources = &resources;
	if (!request.name)
		why = "name: not a string";
	else if (!request.tags)
		why = "tags: not a list of strings";
	else if (number_of(rest->json, "cpuCount", 1000, &cpu_millis) < 0)
		why = "cpuCount: not a positive number";
	else if (number_of(rest->json, "memoryMB", MIB, &resources.memory_bytes) < 0)
		why = "memoryMB: not a positive number";
	else if (number_of(rest->json, "minFreeDiskMb", MIB, &free_disk) < 0 || free_disk)
		why = "minFreeDiskMb: is not available: a sandbox has a limit of what it may add to its template";
	if (why) {
		rest_fail(rest->exchange, 400, why);
		return;
	}
	resources.cpu_millis = (uint32_t)cpu_millis;
	rest_call(rest, "/paddock.v1.Templates/CreateBuild", &request.base, &paddock__v1__template_build__descriptor,
		  created);
}

/* --- GET /templates/{id}/files/{hash} --- */

static void files_found(struct rest *rest, const ProtobufCMessage *reply)
{
	const Paddock__V1__BuildFiles *files = (const Paddock__V1__BuildFiles *)reply;
	const char *scheme = http_is_tls(rest->exchange) ? "https" : "http";
	struct buffer out = BUFFER(4096);
	char url[1024];

	/* Where the client has reached us is where it reaches us again. */
	snprintf(url, sizeof(url), "%s://%.255s/templates/files/%s?upload=%s", scheme,
		 http_request(rest->exchange)->host, rest->what, files->upload_token);
	json_put_format(&out, "{\"present\":%s", files->present ? "true" : "false");
	put_string(&out, ",\"url\":", url);
	json_put(&out, "}");
	rest_answer(rest, 201, &out);
}

void rest_build_files(struct rest *rest)
{
	Paddock__V1__GetBuildFilesRequest request = PADDOCK__V1__GET_BUILD_FILES_REQUEST__INIT;

	request.hash = rest->what;
	rest_call(rest, "/paddock.v1.Templates/GetBuildFiles", &request.base, &paddock__v1__build_files__descriptor,
		  files_found);
}

/* --- POST /v2/templates/{id}/builds/{build} --- */

static const char *read_step(struct rest *rest, json_t *from, Paddock__V1__TemplateBuildStep *step)
{
	if (!json_is_object(from))
		return "steps: not a list of steps";
	step->type = text_of(from, "type");
	step->files_hash = text_of(from, "filesHash");
	step->args = rest_strings(rest, json_object_get(from, "args"), &step->n_args);
	step->force = json_is_true(json_object_get(from, "force"));
	if (!step->type || !step->files_hash)
		return "steps: type or filesHash is not a string";
	return step->args ? NULL : "steps: args is not a list of strings";
}

static const char *read_steps(struct rest *rest, Paddock__V1__StartTemplateBuildRequest *request)
{
	json_t *list = json_object_get(rest->json, "steps");
	size_t count = json_is_array(list) ? json_array_size(list) : 0;
	Paddock__V1__TemplateBuildStep *steps = arena_alloc(&rest->arena, (count + 1) * sizeof(*steps));
	const char *why = NULL;

	if (list && !json_is_null(list) && !json_is_array(list))
		return "steps: not a list of steps";
	request->steps = arena_alloc(&rest->arena, (count + 1) * sizeof(*request->steps));
	if (!steps || !request->steps)
		return "steps: too large";
	for (size_t i = 0; i < count && !why; i++) {
		paddock__v1__template_build_step__init(&steps[i]);
		why = read_step(rest, json_array_get(list, i), &steps[i]);
		request->steps[i] = &steps[i];
	}
	request->n_steps = count;
	return why;
}

/* What the SDKs call their own base: here it is the default template. */
static bool is_sdk_base(const char *image)
{
	size_t length = strcspn(image, ":");

	if (image[length] && strcmp(image + length, ":latest") != 0)
		return false;
	return strncmp(image, "e2bdev/base", length) == 0
		       ? length == strlen("e2bdev/base")
		       : length == strlen("novita/base") && strncmp(image, "novita/base", length) == 0;
}

static const char *read_base(struct rest *rest, Paddock__V1__StartTemplateBuildRequest *request)
{
	const char *image = text_of(rest->json, "fromImage");
	json_t *registry = json_object_get(rest->json, "fromImageRegistry");

	request->from_template = text_of(rest->json, "fromTemplate");
	if (!request->from_template || !image)
		return "fromTemplate, fromImage: not a string";
	if (registry && !json_is_null(registry))
		return "fromImageRegistry: this server reaches no registry; import the image (`paddock template "
		       "import`) and "
		       "use fromTemplate";
	if (image[0] && request->from_template[0])
		return "fromImage: not together with fromTemplate";
	if (image[0] && !is_sdk_base(image))
		return "fromImage: this server reaches no registry; import the image (`paddock template import`) and "
		       "use "
		       "fromTemplate";
	return NULL;
}

static void started(struct rest *rest, const ProtobufCMessage *reply)
{
	rest_answer_empty(rest, 202);
}

void rest_build_start(struct rest *rest)
{
	Paddock__V1__StartTemplateBuildRequest request = PADDOCK__V1__START_TEMPLATE_BUILD_REQUEST__INIT;
	const char *why = read_base(rest, &request);

	request.build_id = rest->what;
	request.force = json_is_true(json_object_get(rest->json, "force"));
	request.start_command = text_of(rest->json, "startCmd");
	request.ready_command = text_of(rest->json, "readyCmd");
	if (!why && (!request.start_command || !request.ready_command))
		why = "startCmd, readyCmd: not a string";
	if (!why)
		why = read_steps(rest, &request);
	if (why)
		rest_fail(rest->exchange, 400, why);
	else
		rest_call(rest, "/paddock.v1.Templates/StartBuild", &request.base,
			  &paddock__v1__template_build__descriptor, started);
}

/* --- GET /templates/{id}/builds/{build}/status --- */

static const char *const state_names[] = {"waiting", "waiting", "building", "ready", "error"};

static void put_entry(struct buffer *out, const Paddock__V1__TemplateBuildLog *entry)
{
	char text[JSON_TIME_SIZE];

	json_time_format_ms(entry->unix_ms, text);
	put_string(out, "{\"timestamp\":", text);
	put_string(out, ",\"level\":", entry->level);
	put_string(out, ",\"step\":", entry->step);
	put_string(out, ",\"message\":", entry->message);
	json_put(out, "}");
}

static void told(struct rest *rest, const ProtobufCMessage *reply)
{
	const Paddock__V1__TemplateBuild *build = (const Paddock__V1__TemplateBuild *)reply;
	unsigned int state = (unsigned int)build->state;
	struct buffer out = BUFFER(4 << 20);

	put_string(&out, "{\"templateID\":", build->name);
	put_string(&out, ",\"buildID\":", build->id);
	put_string(&out, ",\"status\":", state < ARRAY_SIZE(state_names) ? state_names[state] : "error");
	json_put(&out, ",\"logs\":[],\"logEntries\":[");
	for (size_t i = 0; i < build->n_log; i++) {
		json_put(&out, i ? "," : "");
		put_entry(&out, build->log[i]);
	}
	json_put(&out, "]");
	if (build->reason[0]) {
		put_string(&out, ",\"reason\":{\"message\":", build->reason);
		put_string(&out, ",\"step\":", build->reason_step);
		json_put(&out, ",\"logEntries\":[]}");
	}
	json_put(&out, "}");
	rest_answer(rest, 200, &out);
}

void rest_build_status(struct rest *rest)
{
	Paddock__V1__GetTemplateBuildRequest request = PADDOCK__V1__GET_TEMPLATE_BUILD_REQUEST__INIT;
	char *offset = rest_query_text(rest, "logsOffset");

	if (!offset || strspn(offset, "0123456789") != strlen(offset) || strlen(offset) > 9) {
		rest_fail(rest->exchange, 400, "logsOffset: not a number");
		return;
	}
	request.build_id = rest->what;
	request.log_offset = strtoull(offset, NULL, 10);
	rest_call(rest, "/paddock.v1.Templates/GetBuild", &request.base, &paddock__v1__template_build__descriptor,
		  told);
}
