#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_time.h"
#include "paddock/v1/processes.pb-c.h"
#include "rest_sandbox.h"

/*
 * The log of a sandbox: when its processes were started and how they ended, from Processes.List, so of those that the
 * server still keeps. What they printed is theirs (commands.connect, or Processes.Attach).
 */

#define LINES_MAX 1000
#define COMMAND_MAX 200 /* bytes of a command that are shown */
#define SIZE_MAX_JSON (4u << 20)
#define LINE_ROOM 8192u /* a command and a tag, each byte escaped twice */

enum level { DEBUG, INFO, WARN, ERROR };

static const char *const level_names[] = {"debug", "info", "warn", "error"};

struct line {
	int64_t at_ms;
	const Paddock__V1__ProcessInfo *process;
	bool is_end;
};

/* What is asked for. */
struct selection {
	int64_t from_ms, until_ms; /* both included */
	uint32_t limit;
	bool backward, structured; /* the newer path */
	enum level level;
	const char *search;
};

static bool failed(const struct line *line)
{
	const Paddock__V1__ProcessExit *exit = line->is_end ? line->process->exit : NULL;

	return exit && (exit->signal || exit->exit_code);
}

static enum level level_of(const struct line *line)
{
	return failed(line) ? WARN : INFO;
}

static void make_message(const struct line *line, char text[64])
{
	const Paddock__V1__ProcessExit *exit = line->process->exit;

	if (!line->is_end)
		strcpy(text, "process started");
	else if (exit->sandbox_ended)
		strcpy(text, "process ended with its sandbox");
	else if (exit->signal)
		snprintf(text, 64, "process was ended by signal %u", exit->signal);
	else
		snprintf(text, 64, "process exited with status %u", exit->exit_code);
}

static void make_command(const Paddock__V1__ProcessInfo *process, char text[COMMAND_MAX + 1])
{
	size_t length = 0;

	for (size_t i = 0; i < process->n_argv && length < COMMAND_MAX; i++)
		length += (size_t)snprintf(text + length, COMMAND_MAX + 1 - length, i ? " %s" : "%s", process->argv[i]);
	/* A last character of several bytes goes: it may be cut. */
	if (length >= COMMAND_MAX) {
		for (length = COMMAND_MAX; length && ((unsigned char)text[length - 1] & 0xc0) == 0x80;)
			length--;
		if (length && (unsigned char)text[length - 1] >= 0xc0)
			length--;
	}
	text[length] = '\0';
}

static void put_pair(struct buffer *out, const char *name, const char *value)
{
	json_put_format(out, ",\"%s\":", name);
	json_put_string(out, value, strlen(value));
}

/* The fields as members of an object that has one already. */
static void put_fields(struct buffer *out, const struct line *line)
{
	const Paddock__V1__ProcessInfo *process = line->process;
	char command[COMMAND_MAX + 1];

	make_command(process, command);
	json_put_format(out, ",\"pid\":\"%u\"", process->pid);
	put_pair(out, "cmd", command);
	put_pair(out, "user", process->user);
	if (process->tag[0])
		put_pair(out, "tag", process->tag);
}

static void put_entry(struct buffer *out, const struct line *line, const char *timestamp)
{
	char message[64];

	make_message(line, message);
	json_put_format(out,
			"{\"timestamp\":\"%s\",\"level\":\"%s\",\"message\":\"%s\",\"fields\":{\"logger\":\"process\"",
			timestamp, level_names[level_of(line)], message);
	put_fields(out, line);
	json_put(out, "}}");
}

/* The older form: a text that is JSON itself. */
static void put_line(struct buffer *out, const struct line *line, const char *timestamp)
{
	struct buffer text = BUFFER(64u << 10);
	char message[64];

	make_message(line, message);
	json_put_format(&text, "{\"level\":\"%s\",\"logger\":\"process\",\"message\":\"%s\"",
			level_names[level_of(line)], message);
	put_fields(&text, line);
	json_put(&text, "}");
	json_put_format(out, "{\"timestamp\":\"%s\",\"line\":", timestamp);
	json_put_string(out, (const char *)buffer_data(&text), buffer_length(&text));
	json_put(out, "}");
	buffer_free(&text);
}

static int put_lines(struct buffer *out, const struct line *lines, size_t n, bool as_text)
{
	char timestamp[JSON_TIME_SIZE];
	int rc = json_put(out, "[");

	for (size_t i = 0; rc == 0 && i < n; i++) {
		/* What one line needs at most is looked for before, so that none is cut. */
		if (buffer_room(out) < LINE_ROOM)
			return -ENOBUFS;
		json_time_format_ms(lines[i].at_ms, timestamp);
		if (i)
			json_put(out, ",");
		if (as_text)
			put_line(out, &lines[i], timestamp);
		else
			put_entry(out, &lines[i], timestamp);
	}
	return rc < 0 ? rc : json_put(out, "]");
}

static int compare(const void *a, const void *b)
{
	const struct line *left = a, *right = b;

	if (left->at_ms != right->at_ms)
		return left->at_ms < right->at_ms ? -1 : 1;
	if (left->process->process_id != right->process->process_id)
		return left->process->process_id < right->process->process_id ? -1 : 1;
	return (int)left->is_end - (int)right->is_end;
}

static bool selected(const struct selection *selection, const struct line *line)
{
	char message[64], command[COMMAND_MAX + 1];

	if (line->at_ms < selection->from_ms || line->at_ms > selection->until_ms || level_of(line) < selection->level)
		return false;
	make_message(line, message);
	make_command(line->process, command);
	return strstr(message, selection->search) || strstr(command, selection->search);
}

static void reverse(struct line *lines, size_t n)
{
	for (size_t i = 0; i < n / 2; i++) {
		struct line other = lines[i];

		lines[i] = lines[n - 1 - i];
		lines[n - 1 - i] = other;
	}
}

/* The lines that are asked for, in order. */
static size_t collect(const struct selection *selection, const Paddock__V1__ListProcessesResponse *list,
		      struct line *lines)
{
	size_t n = 0;

	for (size_t i = 0; i < list->n_processes; i++) {
		const Paddock__V1__ProcessInfo *process = list->processes[i];
		struct line line = {.at_ms = process->started_unix_ms, .process = process};

		if (selected(selection, &line))
			lines[n++] = line;
		line = (struct line){.process = process, .is_end = true};
		if (!process->exit)
			continue;
		line.at_ms = process->exit->ended_unix_ms;
		if (selected(selection, &line))
			lines[n++] = line;
	}
	if (n)
		qsort(lines, n, sizeof(*lines), compare);
	if (selection->backward)
		reverse(lines, n);
	return n < selection->limit ? n : selection->limit;
}

static void listed(struct rest *rest, const ProtobufCMessage *reply)
{
	const Paddock__V1__ListProcessesResponse *list = (const Paddock__V1__ListProcessesResponse *)reply;
	const struct selection *selection = rest->state;
	struct line *lines = arena_alloc(&rest->arena, (2 * list->n_processes + 1) * sizeof(*lines));
	struct buffer out = BUFFER(SIZE_MAX_JSON);
	size_t n;
	int rc;

	if (!lines) {
		rest_fail(rest->exchange, 503, "out of memory");
		return;
	}
	n = collect(selection, list, lines);
	json_put(&out, "{\"logs\":");
	rc = put_lines(&out, lines, n, !selection->structured);
	if (rc == 0 && !selection->structured) {
		json_put(&out, ",\"logEntries\":");
		rc = put_lines(&out, lines, n, false);
	}
	if (rc == 0)
		rc = json_put(&out, "}");
	if (rc == 0) {
		rest_answer(rest, 200, &out);
		return;
	}
	buffer_free(&out);
	rest_fail(rest->exchange, 400, "limit: the answer would be too large; ask for fewer lines");
}

static void list_processes(struct rest *rest, const ProtobufCMessage *reply)
{
	Paddock__V1__ListProcessesRequest request = PADDOCK__V1__LIST_PROCESSES_REQUEST__INIT;

	if (!rest_sandbox_lives((const Paddock__V1__Sandbox *)reply)) {
		rest_sandbox_not_found(rest);
		return;
	}
	request.sandbox_id = rest->id;
	request.include_ended = true;
	rest_call(rest, "/paddock.v1.Processes/List", &request.base, &paddock__v1__list_processes_response__descriptor,
		  listed);
}

/* A number of the query, 0 or more, which stays as it is when there is none. False: it has been refused. */
static bool read_number(struct rest *rest, const char *name, int64_t max, int64_t *ret)
{
	const char *text = rest_query_text(rest, name);
	char message[64], *end;
	int64_t value;

	if (text && !text[0])
		return true;
	value = text ? strtoll(text, &end, 10) : -1;
	if (value >= 0 && value <= max && !*end) {
		*ret = value;
		return true;
	}
	snprintf(message, sizeof(message), "%s: 0 to %lld", name, (long long)max);
	rest_fail(rest->exchange, 400, message);
	return false;
}

static bool read_structured(struct rest *rest, struct selection *selection)
{
	const char *direction = rest_query_text(rest, "direction"), *level = rest_query_text(rest, "level");

	selection->structured = true;
	selection->search = rest_query_text(rest, "search");
	selection->backward = direction && strcmp(direction, "backward") == 0;
	if (!selection->search || !direction ||
	    (direction[0] && !selection->backward && strcmp(direction, "forward") != 0)) {
		rest_fail(rest->exchange, 400, "search, direction: malformed; a direction is forward or backward");
		return false;
	}
	while (level && level[0] && selection->level <= ERROR && strcmp(level_names[selection->level], level) != 0)
		selection->level++;
	if (!level || selection->level > ERROR) {
		rest_fail(rest->exchange, 400, "level: debug, info, warn or error");
		return false;
	}
	return true;
}

static void serve(struct rest *rest, bool structured)
{
	struct selection *selection = arena_alloc(&rest->arena, sizeof(*selection));
	int64_t at = -1, limit = LINES_MAX;

	if (!selection) {
		rest_fail(rest->exchange, 503, "out of memory");
		return;
	}
	*selection = (struct selection){.until_ms = INT64_MAX, .search = ""};
	rest->state = selection;
	if (structured && !read_structured(rest, selection))
		return;
	if (!read_number(rest, structured ? "cursor" : "start", INT64_MAX, &at) ||
	    !read_number(rest, "limit", LINES_MAX, &limit))
		return;
	selection->limit = (uint32_t)limit;
	if (at >= 0 && selection->backward)
		selection->until_ms = at;
	else if (at >= 0)
		selection->from_ms = at;
	rest_get_first(rest, list_processes);
}

void rest_logs(struct rest *rest)
{
	serve(rest, false);
}

void rest_logs_v2(struct rest *rest)
{
	serve(rest, true);
}
