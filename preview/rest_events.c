#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "paddock/v1/admin.pb-c.h"
#include "rest_internal.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/id.h"

/*
 * GET /sandboxes/events: what the audit log of the caller's tenant has of the lives of its sandboxes, newest first, in the form
 * that Novita's SDK reads. It is read in pages until as many as are asked for are found, and one more that says so.
 */

#define LIMIT_DEFAULT 20
#define LIMIT_MOST 100
#define OFFSET_MOST 10000
#define PAGE 1000
#define PAGES_MOST 64 /* of one request; what is behind them is told as `hasMore` */

static const struct {
	const char *action;
	const char *name;
} kinds[] = {
	{"paddock.v1.Sandboxes/Create", "create"},
	{"paddock.v1.Sandboxes/Kill", "kill"},
	{"paddock.v1.Sandboxes/Pause", "pause"},
	{"paddock.v1.Sandboxes/Resume", "resume"},
	{"paddock.v1.Sandboxes/Reset", "reset"},
	{"paddock.v1.Sandboxes/SetTimeout", "timeout"},
	{"paddock.v1.Snapshots/Create", "snapshot"},
	{"paddock.v1.Snapshots/Fork", "fork"},
	/* what no call asked for */
	{"sandbox.killed", "kill"},
	{"sandbox.paused", "pause"},
	{"sandbox.resumed", "resume"},
	{"sandbox.expired", "expire"},
	{"sandbox.failed", "fail"},
};

struct event {
	uint64_t sequence;
	int64_t time_unix_ms;
	const char *name;
	enum pdk_code code;
	char sandbox_id[SANDBOX_ID_SIZE];
};

struct events {
	char *sandbox_id, *names, *state;
	int64_t start_ms, end_ms, offset, limit;
	bool ascending;
	unsigned int pages;
	int64_t found; /* that match, as far as was looked */
	size_t count;
	struct event items[LIMIT_MOST];
};

static const char *name_of(const char *action)
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (strcmp(kinds[i].action, action) == 0)
			return kinds[i].name;
	return NULL;
}

static enum pdk_code code_of(const char *outcome)
{
	for (int code = PDK_OK; code <= PDK_UNAUTHENTICATED; code++)
		if (strcmp(pdk_code_name(code), outcome) == 0)
			return code;
	return PDK_UNKNOWN;
}

/* The end of a sandbox that failed is none that worked. */
static bool is_success(const struct event *event)
{
	return event->code == PDK_OK && strcmp(event->name, "fail") != 0;
}

static const char *state_of(const struct event *event)
{
	return is_success(event) ? "success" : "failed";
}

static bool matches(const struct events *events, const struct event *event)
{
	return (!events->names[0] || http_list_has(events->names, event->name)) &&
	       (!events->state[0] || strcmp(events->state, state_of(event)) == 0) &&
	       event->time_unix_ms >= events->start_ms && event->time_unix_ms <= events->end_ms;
}

static void put_string(struct buffer *out, const char *before, const char *value)
{
	json_put(out, before);
	json_put_string(out, value, strlen(value));
}

static void put_event(struct buffer *out, const struct event *event)
{
	json_put_format(out, "{\"eventID\":\"%llu\",\"recordAt\":%lld", (unsigned long long)event->sequence,
			(long long)event->time_unix_ms);
	put_string(out, ",\"sandboxID\":", event->sandbox_id);
	put_string(out, ",\"eventName\":", event->name);
	put_string(out, ",\"state\":", state_of(event));
	put_string(out, ",\"errorMsg\":", event->code == PDK_OK ? "" : pdk_code_name(event->code));
	json_put_format(out, ",\"statusCode\":%d,\"templateID\":\"\",\"templateName\":\"\"}",
			event->code == PDK_OK ? 200 : rest_status_of(event->code));
}

static void answer(struct rest *rest, bool has_more)
{
	const struct events *events = rest->state;
	struct buffer out = BUFFER(1 << 20);

	json_put(&out, "{\"items\":[");
	for (size_t i = 0; i < events->count; i++) {
		json_put(&out, i ? "," : "");
		put_event(&out, &events->items[i]);
	}
	json_put_format(&out, "],\"total\":%lld,\"hasMore\":%s}", (long long)events->found,
			has_more ? "true" : "false");
	rest_answer(rest, 200, &out);
}

/* False: there are more than are asked for. */
static bool add(struct events *events, const Paddock__V1__AuditRecord *record)
{
	struct event event = {
		.sequence = record->sequence,
		.time_unix_ms = record->time_unix_ms,
		.name = name_of(record->action),
		.code = code_of(record->outcome),
	};

	if (!event.name || !sandbox_id_valid(record->sandbox_id) || !matches(events, &event))
		return true;
	memcpy(event.sandbox_id, record->sandbox_id, SANDBOX_ID_SIZE);
	if (events->found++ < events->offset)
		return true;
	if (events->count == (size_t)events->limit)
		return false;
	events->items[events->count++] = event;
	return true;
}

/* Times in the log only grow, but for a clock that is set back. */
static bool is_behind(const struct events *events, const Paddock__V1__AuditRecord *record)
{
	return events->ascending ? record->time_unix_ms > events->end_ms : record->time_unix_ms < events->start_ms;
}

static void ask(struct rest *rest, uint64_t after);

static void listed(struct rest *rest, const ProtobufCMessage *reply)
{
	const Paddock__V1__ListAuditResponse *list = (const Paddock__V1__ListAuditResponse *)reply;
	struct events *events = rest->state;

	for (size_t i = 0; i < list->n_records; i++) {
		if (is_behind(events, list->records[i])) {
			answer(rest, false);
			return;
		}
		if (!add(events, list->records[i])) {
			answer(rest, true);
			return;
		}
	}
	if (!list->next_after_sequence || events->pages == PAGES_MOST)
		answer(rest, list->next_after_sequence != 0);
	else
		ask(rest, list->next_after_sequence);
}

static void ask(struct rest *rest, uint64_t after)
{
	Paddock__V1__ListAuditRequest request = PADDOCK__V1__LIST_AUDIT_REQUEST__INIT;
	struct events *events = rest->state;

	events->pages++;
	request.sandbox_id = events->sandbox_id;
	request.after_sequence = after;
	request.page_size = PAGE;
	request.newest_first = !events->ascending;
	rest_call(rest, "/paddock.v1.Audit/List", &request.base, &paddock__v1__list_audit_response__descriptor, listed);
}

static const char *read_query(struct rest *rest, struct events *events)
{
	const char *template_id = rest_query_text(rest, "templateID"), *order = rest_query_text(rest, "orderAsc");

	*events = (struct events){.end_ms = INT64_MAX, .limit = LIMIT_DEFAULT};
	events->sandbox_id = rest_query_text(rest, "sandboxID");
	events->names = rest_query_text(rest, "events");
	events->state = rest_query_text(rest, "state");
	if (!events->sandbox_id || !events->names || !events->state || !template_id || !order)
		return "the query is malformed";
	if (template_id[0])
		return "templateID: the log of this server does not have it";
	if (events->state[0] && strcmp(events->state, "success") != 0 && strcmp(events->state, "failed") != 0)
		return "state: success or failed";
	if (order[0] && strcmp(order, "true") != 0 && strcmp(order, "false") != 0)
		return "orderAsc: true or false";
	events->ascending = strcmp(order, "true") == 0;
	if (rest_query_number(rest, "startTime", 0, INT64_MAX, &events->start_ms) < 0 ||
	    rest_query_number(rest, "endTime", 0, INT64_MAX, &events->end_ms) < 0)
		return "startTime, endTime: Unix milliseconds";
	if (rest_query_number(rest, "offset", 0, OFFSET_MOST, &events->offset) < 0)
		return "offset: 0 to 10000";
	if (rest_query_number(rest, "limit", 1, LIMIT_MOST, &events->limit) < 0)
		return "limit: 1 to 100";
	return NULL;
}

void rest_events(struct rest *rest)
{
	struct events *events = arena_alloc(&rest->arena, sizeof(*events));
	const char *why = events ? read_query(rest, events) : NULL;

	rest->state = events;
	if (!events)
		rest_fail(rest->exchange, 503, "out of memory");
	else if (why)
		rest_fail(rest->exchange, 400, why);
	else
		ask(rest, 0);
}
