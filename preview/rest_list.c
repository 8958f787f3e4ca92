#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_time.h"
#include "paddock/v1/templates.pb-c.h"
#include "rest_sandbox.h"
#include "sandbox/base/cleanup.h"
#include "url.h"

/* The lists: of sandboxes, with their filters and pages, and of templates. */

#define LIST_LIMIT 100

static void listed(struct rest *rest, const ProtobufCMessage *reply)
{
	const Paddock__V1__ListSandboxesResponse *list = (const Paddock__V1__ListSandboxesResponse *)reply;
	struct buffer out = BUFFER(4 << 20);
	const char *next = list->next_page_token;
	bool first = true;

	json_put(&out, "[");
	for (size_t i = 0; i < list->n_sandboxes; i++) {
		/* The newest come first: what follows is older still. */
		if (list->sandboxes[i]->created_unix_ms < rest->number) {
			next = "";
			break;
		}
		if (!rest_sandbox_lives(list->sandboxes[i]))
			continue;
		if (!first)
			json_put(&out, ",");
		first = false;
		rest_sandbox_put(&out, rest, list->sandboxes[i], false);
	}
	json_put(&out, "]");
	if (next[0])
		http_add_field(rest->exchange, "X-Next-Token", next);
	rest_answer(rest, 200, &out);
}

char *rest_query_text(struct rest *rest, const char *name)
{
	const char *query = http_request(rest->exchange)->query;
	char *text = arena_alloc(&rest->arena, strlen(query) + 1);
	int rc = text ? url_query(query, name, text, strlen(query) + 1) : -ENOMEM;

	/* It was zeroed. */
	return rc == 0 || rc == -ENOENT ? text : NULL;
}

int rest_query_number(struct rest *rest, const char *name, int64_t least, int64_t most, int64_t *ret)
{
	char *text = rest_query_text(rest, name);
	long long value;

	if (!text || strlen(text) > 18 || strspn(text, "0123456789") != strlen(text))
		return -EINVAL;
	if (!*text)
		return 0;
	value = strtoll(text, NULL, 10);
	if (value < least || value > most)
		return -EINVAL;
	*ret = value;
	return 0;
}

/* "k=v&k=v", encoded once more as a whole and each part again. */
static int read_metadata(struct rest *rest, Paddock__V1__ListSandboxesRequest *request)
{
	char *text = rest_query_text(rest, "metadata");
	char *pair;

	if (!text || url_decode(text, true) < 0)
		return -EINVAL;
	request->metadata = arena_alloc(&rest->arena, 16 * sizeof(void *));
	while (request->metadata && (pair = strsep(&text, "&")) && *pair) {
		Paddock__V1__ListSandboxesRequest__MetadataEntry *entry = arena_alloc(&rest->arena, sizeof(*entry));
		char *value = strchr(pair, '=');

		if (!entry || !value || request->n_metadata == 16)
			return -EINVAL;
		*value++ = '\0';
		if (url_decode(pair, true) < 0 || url_decode(value, true) < 0)
			return -EINVAL;
		paddock__v1__list_sandboxes_request__metadata_entry__init(entry);
		entry->key = pair;
		entry->value = value;
		request->metadata[request->n_metadata++] = entry;
	}
	return request->metadata ? 0 : -ENOMEM;
}

/* "running,paused"; without one: both. */
static int read_states(struct rest *rest, Paddock__V1__ListSandboxesRequest *request)
{
	char *text = rest_query_text(rest, "state");
	bool running = !text || !*text || http_list_has(text, "running");
	bool paused = !text || !*text || http_list_has(text, "paused");

	request->states = arena_alloc(&rest->arena, 4 * sizeof(*request->states));
	if (!text || !request->states || (!running && !paused))
		return -EINVAL;
	if (running) {
		request->states[request->n_states++] = PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_RUNNING;
		request->states[request->n_states++] = PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_RESUMING;
	}
	if (paused) {
		request->states[request->n_states++] = PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_PAUSED;
		request->states[request->n_states++] = PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_PAUSING;
	}
	return 0;
}

int rest_read_limit(struct rest *rest, uint32_t *ret)
{
	char *text = rest_query_text(rest, "limit");
	unsigned long limit = text && *text ? strtoul(text, NULL, 10) : LIST_LIMIT;

	if (!text || strspn(text, "0123456789") != strlen(text) || limit < 1 || limit > LIST_LIMIT)
		return -EINVAL;
	*ret = (uint32_t)limit;
	return 0;
}

static int read_started_after(struct rest *rest)
{
	char *text = rest_query_text(rest, "startedAfter");
	int64_t seconds = 0;
	int32_t nanos = 0;

	if (!text || (*text && json_time_parse(text, &seconds, &nanos) < 0))
		return -EINVAL;
	rest->number = seconds * 1000 + nanos / 1000000;
	return 0;
}

static const char *read_filters(struct rest *rest, Paddock__V1__ListSandboxesRequest *request)
{
	const char *order = rest_query_text(rest, "order");

	request->template_ = rest_query_text(rest, "template");
	request->page_token = rest_query_text(rest, "nextToken");
	if (!order || (*order && strcmp(order, "desc") != 0))
		return "order: only desc is available on this server";
	if (!request->template_ || strchr(request->template_, ':'))
		return "template: templates have no tags on this server";
	if (!request->page_token)
		return "nextToken: malformed";
	if (rest_read_limit(rest, &request->page_size) < 0)
		return "limit: 1 to 100";
	if (read_started_after(rest) < 0)
		return "startedAfter: not a time";
	if (read_metadata(rest, request) < 0)
		return "metadata: malformed, or more than 16 pairs";
	return NULL;
}

void rest_list(struct rest *rest)
{
	Paddock__V1__ListSandboxesRequest request = PADDOCK__V1__LIST_SANDBOXES_REQUEST__INIT;
	const char *why = read_filters(rest, &request);

	if (!why && read_states(rest, &request) < 0)
		why = "state: running and paused";
	if (why)
		rest_fail(rest->exchange, 400, why);
	else
		rest_call(rest, "/paddock.v1.Sandboxes/List", &request.base,
			  &paddock__v1__list_sandboxes_response__descriptor, listed);
}

void rest_list_running(struct rest *rest)
{
	Paddock__V1__ListSandboxesRequest request = PADDOCK__V1__LIST_SANDBOXES_REQUEST__INIT;
	Paddock__V1__SandboxState states[] = {PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_RUNNING};
	const char *why = read_filters(rest, &request);

	request.states = states;
	request.n_states = 1;
	if (why)
		rest_fail(rest->exchange, 400, why);
	else
		rest_call(rest, "/paddock.v1.Sandboxes/List", &request.base,
			  &paddock__v1__list_sandboxes_response__descriptor, listed);
}
