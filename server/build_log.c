#include "build_internal.h"

#include "loop.h"
#include "rpc.h"
#include "validate.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The log of a build: the first entries up to its bounds, in memory. What a command prints is shown to people: bytes
 * that are no text, and control characters, become '?'. */

#define PAGE 100

static void clean(char *text)
{
	bool valid = utf8_valid(text, strlen(text));

	for (; *text; text++)
		if ((unsigned char)*text < 32 ? *text != '\t' : *text == 127 || (!valid && (unsigned char)*text > 126))
			*text = '?';
}

/* Room for it, in powers of two. */
static int grow(struct build *build)
{
	struct build_log_entry **log;

	if (build->n_log & (build->n_log - 1))
		return 0;
	log = realloc(build->log, (build->n_log ? 2 * build->n_log : 1) * sizeof(*log));
	if (!log)
		return -ENOMEM;
	build->log = log;
	return 0;
}

static void append(struct build *build, const char *step, bool is_error, const char *text, size_t length)
{
	struct build_log_entry *entry;

	if (grow(build) < 0 || !(entry = malloc(sizeof(*entry) + length + 1)))
		return;
	entry->unix_ms = loop_wall_ms();
	entry->is_error = is_error;
	snprintf(entry->step, sizeof(entry->step), "%s", step);
	memcpy(entry->message, text, length);
	entry->message[length] = '\0';
	clean(entry->message);
	build->log[build->n_log++] = entry;
	build->log_bytes += sizeof(*entry) + length;
}

/* The last entry says that others are missing. */
void build_log(struct build *build, const char *step, bool is_error, const char *text, size_t length)
{
	static const char full[] = "(the log is full: what follows is not kept)";

	length = length < BUILD_LOG_MESSAGE_MAX ? length : BUILD_LOG_MESSAGE_MAX;
	if (build->n_log >= BUILD_LOG_ENTRIES_MAX || build->log_bytes >= BUILD_LOG_BYTES_MAX)
		return;
	if (build->n_log == BUILD_LOG_ENTRIES_MAX - 1 ||
	    build->log_bytes + sizeof(struct build_log_entry) + length >= BUILD_LOG_BYTES_MAX) {
		append(build, step, false, full, strlen(full));
		build->log_bytes = BUILD_LOG_BYTES_MAX;
		return;
	}
	append(build, step, is_error, text, length);
}

void build_log_format(struct build *build, const char *step, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	build_log(build, step, false, text, strlen(text));
}

void build_log_free(struct build *build)
{
	for (size_t i = 0; i < build->n_log; i++)
		free(build->log[i]);
	free(build->log);
	build->log = NULL;
	build->n_log = 0;
}

int build_log_show(struct rpc_call *call, const struct build *build, uint64_t offset, Paddock__V1__TemplateBuild *reply)
{
	size_t left = offset < build->n_log ? build->n_log - offset : 0;
	size_t n = left < PAGE ? left : PAGE;
	Paddock__V1__TemplateBuildLog *entries = rpc_alloc(call, (n + 1) * sizeof(*entries));

	reply->log_entries = build->n_log;
	reply->log = rpc_alloc(call, (n + 1) * sizeof(*reply->log));
	if (!entries || !reply->log)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		struct build_log_entry *from = build->log[offset + i];

		paddock__v1__template_build_log__init(&entries[i]);
		entries[i].unix_ms = from->unix_ms;
		entries[i].level = (char *)(from->is_error ? "error" : "info");
		entries[i].message = from->message;
		entries[i].step = from->step;
		reply->log[i] = &entries[i];
	}
	reply->n_log = n;
	return 0;
}
