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

/* With all its tags as names; the object stays open. */
static void put_template(struct buffer *out, const Paddock__V1__ListTemplatesResponse *list, size_t index)
{
	const Paddock__V1__Template *template = list->templates[index];

	json_put(out, "{\"templateID\":");
	put_id(out, template);
	json_put(out, ",\"aliases\":[");
	json_put_string(out, template->name, base_length(template->name));
	json_put(out, "],\"names\":[");
	for (size_t i = index, n = 0; i < list->n_templates; i++)
		if (same_template(template, list->templates[i]))
			put_string(out, n++ ? "," : "", list->templates[i]->name);
	put_string(out, "],\"buildID\":", template->build_id);
	json_put_format(out, ",\"public\":%s,\"buildStatus\":\"ready\"", template->tenant[0] ? "false" : "true");
	rest_put_time(out, "createdAt", template->created_unix_ms);
	rest_put_time(out, "updatedAt", template->created_unix_ms);
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
		json_put(&out, "}");
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

/* --- Novita's pages: of those that were imported or built, or of those that were made of a sandbox --- */

#define PAGE_DEFAULT 20
#define PAGE_MOST 100

struct page {
	bool of_snapshots;
	int64_t number, limit;
};

static bool is_of_snapshot(const Paddock__V1__Template *template)
{
	return !template->digest[0] && !template->build_id[0];
}

/* The first of its tags stands for them all. */
static bool is_shown(const struct page *page, const Paddock__V1__ListTemplatesResponse *list, size_t index)
{
	const Paddock__V1__Template *template = list->templates[index];

	for (size_t i = 0; i < index; i++)
		if (same_template(list->templates[i], template))
			return false;
	return is_of_snapshot(template) == page->of_snapshots;
}

static void paged(struct rest *rest, const ProtobufCMessage *reply)
{
	const Paddock__V1__ListTemplatesResponse *list = (const Paddock__V1__ListTemplatesResponse *)reply;
	const struct page *page = rest->state;
	int64_t first = (page->number - 1) * page->limit, total = 0;
	struct buffer out = BUFFER(4 << 20);

	json_put(&out, "{\"templates\":[");
	for (size_t i = 0; i < list->n_templates; i++) {
		if (!is_shown(page, list, i))
			continue;
		if (total >= first && total < first + page->limit) {
			json_put(&out, total > first ? "," : "");
			put_template(&out, list, i);
			json_put(&out, "}");
		}
		total++;
	}
	json_put_format(&out, "],\"total\":%lld,\"page\":%lld,\"limit\":%lld,\"totalPages\":%lld}", (long long)total,
			(long long)page->number, (long long)page->limit,
			(long long)((total + page->limit - 1) / page->limit));
	rest_answer(rest, 200, &out);
}

void rest_template_page(struct rest *rest)
{
	struct page *page = arena_alloc(&rest->arena, sizeof(*page));
	const char *type = rest_query_text(rest, "template_type");

	if (!page) {
		rest_fail(rest->exchange, 503, "out of memory");
		return;
	}
	*page = (struct page){.number = 1, .limit = PAGE_DEFAULT};
	page->of_snapshots = type && strcmp(type, "snapshot_template") == 0;
	rest->state = page;
	if (!type || (*type && !page->of_snapshots && strcmp(type, "template_build") != 0))
		rest_fail(rest->exchange, 400, "template_type: template_build or snapshot_template");
	else if (rest_query_number(rest, "page", 1, 1000000, &page->number) < 0)
		rest_fail(rest->exchange, 400, "page: 1 or more");
	else if (rest_query_number(rest, "limit", 1, PAGE_MOST, &page->limit) < 0)
		rest_fail(rest->exchange, 400, "limit: 1 to 100");
	else
		call_list(rest, paged);
}

/* --- one --- */

static void shown(struct rest *rest, const ProtobufCMessage *reply)
{
	const Paddock__V1__Template *template = (const Paddock__V1__Template *)reply;
	Paddock__V1__Template *only[] = {(Paddock__V1__Template *)(uintptr_t) template};
	Paddock__V1__ListTemplatesResponse list = PADDOCK__V1__LIST_TEMPLATES_RESPONSE__INIT;
	struct buffer out = BUFFER(16384);

	list.templates = only;
	list.n_templates = 1;
	put_template(&out, &list, 0);
	/* With its one build, as a list of builds. */
	put_string(&out, ",\"builds\":[{\"buildID\":", template->build_id);
	json_put(&out, ",\"status\":\"ready\"");
	rest_put_time(&out, "createdAt", template->created_unix_ms);
	rest_put_time(&out, "updatedAt", template->created_unix_ms);
	json_put(&out, "}]}");
	rest_answer(rest, 200, &out);
}

void rest_template_get(struct rest *rest)
{
	Paddock__V1__GetTemplateRequest request = PADDOCK__V1__GET_TEMPLATE_REQUEST__INIT;

	request.template_ = rest->id;
	rest_call(rest, "/paddock.v1.Templates/Get", &request.base, &paddock__v1__template__descriptor, shown);
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
