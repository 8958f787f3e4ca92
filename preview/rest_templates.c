#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "json_time.h"
#include "paddock/v1/snapshots.pb-c.h"
#include "paddock/v1/templates.pb-c.h"
#include "rest_internal.h"
#include "sandbox/base/cleanup.h"

/* Templates, their aliases and tags. The id of one that was imported is that of its content; of one that was built here
 * it is its name, which stays the same over builds. */

#define TAGS_MAX 64

char **rest_strings(struct rest *rest, json_t *array, size_t *ret_count)
{
	size_t count = json_is_array(array) ? json_array_size(array) : 0;
	char **strings = arena_alloc(&rest->arena, (count + 1) * sizeof(*strings));

	if (!strings || (array && !json_is_null(array) && !json_is_array(array)))
		return NULL;
	for (size_t i = 0; i < count; i++) {
		strings[i] = (char *)(uintptr_t)json_string_value(json_array_get(array, i));
		if (!strings[i])
			return NULL;
	}
	*ret_count = count;
	return strings;
}

static void put_string(struct buffer *out, const char *before, const char *value)
{
	json_put(out, before);
	json_put_string(out, value, strlen(value));
}

static size_t base_length(const char *name)
{
	return strcspn(name, ":");
}

static void put_id(struct buffer *out, const Paddock__V1__Template *template)
{
	if (template->digest[0])
		json_put_string(out, template->id, strlen(template->id));
	else
		json_put_string(out, template->name, base_length(template->name));
}

/* --- aliases --- */

static void alias_found(struct rest *rest, const ProtobufCMessage *reply)
{
	const Paddock__V1__Template *template = (const Paddock__V1__Template *)reply;
	struct buffer out = BUFFER(1024);

	json_put(&out, "{\"templateID\":");
	put_id(&out, template);
	json_put_format(&out, ",\"public\":%s}", template->tenant[0] ? "false" : "true");
	rest_answer(rest, 200, &out);
}

void rest_template_alias(struct rest *rest)
{
	Paddock__V1__GetTemplateRequest request = PADDOCK__V1__GET_TEMPLATE_REQUEST__INIT;

	request.template_ = rest->id;
	rest_call(rest, "/paddock.v1.Templates/Get", &request.base, &paddock__v1__template__descriptor, alias_found);
}

/* --- the list --- */

static bool same_template(const Paddock__V1__Template *a, const Paddock__V1__Template *b)
{
	size_t length = base_length(a->name);

	return strcmp(a->tenant, b->tenant) == 0 && base_length(b->name) == length &&
	       strncmp(a->name, b->name, length) == 0;
}

/* With all its tags as names. */
static void put_template(struct buffer *out, const Paddock__V1__ListTemplatesResponse *list, size_t index)
{
	const Paddock__V1__Template *template = list->templates[index];
	char text[JSON_TIME_SIZE];

	json_time_format_ms(template->created_unix_ms, text);
	json_put(out, "{\"templateID\":");
	put_id(out, template);
	json_put(out, ",\"aliases\":[");
	json_put_string(out, template->name, base_length(template->name));
	json_put(out, "],\"names\":[");
	for (size_t i = index, n = 0; i < list->n_templates; i++)
		if (same_template(template, list->templates[i]))
			put_string(out, n++ ? "," : "", list->templates[i]->name);
	put_string(out, "],\"buildID\":", template->build_id);
	json_put_format(out, ",\"public\":%s,\"createdAt\":\"%s\",\"buildStatus\":\"ready\"}",
			template->tenant[0] ? "false" : "true", text);
}

static void listed(struct rest *rest, const ProtobufCMessage *reply)
{
	const Paddock__V1__ListTemplatesResponse *list = (const Paddock__V1__ListTemplatesResponse *)reply;
	struct buffer out = BUFFER(4 << 20);
	bool first = true;

	json_put(&out, "[");
	for (size_t i = 0; i < list->n_templates; i++) {
		bool seen = false;

		for (size_t j = 0; j < i && !seen; j++)
			seen = same_template(list->templates[j], list->templates[i]);
		if (seen)
			continue;
		json_put(&out, first ? "" : ",");
		put_template(&out, list, i);
		first = false;
	}
	json_put(&out, "]");
	rest_answer(rest, 200, &out);
}

static void call_list(struct rest *rest, rest_reply then)
{
	Paddock__V1__ListTemplatesRequest request = PADDOCK__V1__LIST_TEMPLATES_REQUEST__INIT;

	rest_call(rest, "/paddock.v1.Templates/List", &request.base, &paddock__v1__list_templates_response__descriptor,
		  then);
}

void rest_template_list(struct rest *rest)
{
	call_list(rest, listed);
}

/* --- tags --- */

/* Its tag, if it is one of the template that the path names; of the caller, as a public one has none. */
static const char *tag_of(const struct rest *rest, const Paddock__V1__Template *template)
{
	size_t length = base_length(template->name);

	if (strlen(rest->id) != length || strncmp(template->name, rest->id, length) != 0 || !template->tenant[0])
		return NULL;
	return template->name[length] ? template->name + length + 1 : "default";
}

static void tags_listed(struct rest *rest, const ProtobufCMessage *reply)
{
	const Paddock__V1__ListTemplatesResponse *list = (const Paddock__V1__ListTemplatesResponse *)reply;
	struct buffer out = BUFFER(1 << 20);
	char text[JSON_TIME_SIZE];
	bool first = true;

	for (size_t i = 0; i < list->n_templates; i++) {
		const char *tag = tag_of(rest, list->templates[i]);

		if (!tag)
			continue;
		json_time_format_ms(list->templates[i]->created_unix_ms, text);
		put_string(&out, first ? "[{\"tag\":" : ",{\"tag\":", tag);
		put_string(&out, ",\"buildID\":", list->templates[i]->build_id);
		put_string(&out, ",\"createdAt\":", text);
		json_put(&out, "}");
		first = false;
	}
	if (first) {
		buffer_free(&out);
		rest_fail(rest->exchange, 404, "template not found");
		return;
	}
	json_put(&out, "]");
	rest_answer(rest, 200, &out);
}

void rest_template_tags(struct rest *rest)
{
	call_list(rest, tags_listed);
}

static void tags_set(struct rest *rest, const ProtobufCMessage *reply)
{
	const Paddock__V1__SetTemplateTagsResponse *set = (const Paddock__V1__SetTemplateTagsResponse *)reply;
	struct buffer out = BUFFER(16384);

	put_string(&out, "{\"buildID\":", set->build_id);
	json_put(&out, ",\"tags\":[");
	for (size_t i = 0; i < set->n_tags; i++)
		put_string(&out, i ? "," : "", set->tags[i]);
	json_put(&out, "]}");
	rest_answer(rest, 201, &out);
}

void rest_template_set_tags(struct rest *rest)
{
	Paddock__V1__SetTemplateTagsRequest request = PADDOCK__V1__SET_TEMPLATE_TAGS_REQUEST__INIT;
	json_t *target = json_object_get(rest->json, "target");

	request.target = (char *)(uintptr_t)json_string_value(target);
	request.tags = rest_strings(rest, json_object_get(rest->json, "tags"), &request.n_tags);
	if (!request.target || !request.tags)
		rest_fail(rest->exchange, 400, request.target ? "tags: not a list of strings" : "target: missing");
	else
		rest_call(rest, "/paddock.v1.Templates/SetTags", &request.base,
			  &paddock__v1__set_template_tags_response__descriptor, tags_set);
}

static void removed(struct rest *rest, const ProtobufCMessage *reply)
{
	rest_answer_empty(rest, 204);
}

static void remove_tags(struct rest *rest, Paddock__V1__RemoveTemplateTagsRequest *request)
{
	rest_call(rest, "/paddock.v1.Templates/RemoveTags", &request->base,
		  &paddock__v1__remove_template_tags_response__descriptor, removed);
}

void rest_template_remove_tags(struct rest *rest)
{
	Paddock__V1__RemoveTemplateTagsRequest request = PADDOCK__V1__REMOVE_TEMPLATE_TAGS_REQUEST__INIT;

	request.name = (char *)(uintptr_t)json_string_value(json_object_get(rest->json, "name"));
	request.tags = rest_strings(rest, json_object_get(rest->json, "tags"), &request.n_tags);
	if (!request.name || !request.tags)
		rest_fail(rest->exchange, 400, request.name ? "tags: not a list of strings" : "name: missing");
	else
		remove_tags(rest, &request);
}

/* --- removal: a snapshot, an imported template by its id, or a name with all its tags --- */

static void remove_listed(struct rest *rest, const ProtobufCMessage *reply)
{
	const Paddock__V1__ListTemplatesResponse *list = (const Paddock__V1__ListTemplatesResponse *)reply;
	Paddock__V1__RemoveTemplateTagsRequest request = PADDOCK__V1__REMOVE_TEMPLATE_TAGS_REQUEST__INIT;
	char *tags[TAGS_MAX];

	request.name = rest->id;
	request.tags = tags;
	for (size_t i = 0; i < list->n_templates && request.n_tags < TAGS_MAX; i++) {
		tags[request.n_tags] = (char *)(uintptr_t)tag_of(rest, list->templates[i]);
		request.n_tags += tags[request.n_tags] != NULL;
	}
	if (request.n_tags)
		remove_tags(rest, &request);
	else
		rest_fail(rest->exchange, 404, "template not found");
}

void rest_template_remove(struct rest *rest)
{
	Paddock__V1__RemoveTemplateRequest request = PADDOCK__V1__REMOVE_TEMPLATE_REQUEST__INIT;
	char *tag = strchr(rest->id, ':');

	if (tag && strcmp(tag, ":default") == 0)
		*tag = '\0';
	if (snapshot_id_valid(rest->id)) {
		rest_snapshot_remove(rest);
		return;
	}
	if (!template_id_valid(rest->id)) {
		call_list(rest, remove_listed);
		return;
	}
	request.template_ = rest->id;
	rest_call(rest, "/paddock.v1.Templates/Remove", &request.base,
		  &paddock__v1__remove_template_response__descriptor, removed);
}
