#include "build_log.h"

#include "build_internal.h"
#include "log.h"
#include "loop.h"
#include "rpc.h"
#include "sandbox/base/cleanup.h"
#include "validate.h"
#include "worker.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* See build_log.h. What a command prints is shown to people: bytes that are no text, and control characters, become
 * '?'. */

struct log_entry {
	int64_t unix_ms;
	bool is_error;
	char step[BUILD_STEP_LABEL];
	char message[];
};

struct build_log {
	struct worker_job job; /* writes `writing`, or removes the file */
	char id[SANDBOX_ID_SIZE];
	struct log_entry **entries; /* in memory: all, or none */
	size_t n, bytes;
	bool is_stored; /* none: they are in the file */
	bool ended;
	bool broken; /* the file lacks some */
	bool busy;   /* the job is the worker's */
	bool freed, remove;
	uint8_t *pending, *writing;
	size_t pending_length, writing_length;
	int rc; /* of the job */
};

struct build_log *build_log_create(const char *id, bool is_stored)
{
	struct build_log *log = calloc(1, sizeof(*log));

	if (!log)
		return NULL;
	snprintf(log->id, sizeof(log->id), "%s", id);
	log->is_stored = is_stored;
	return log;
}

static void drop_entries(struct build_log *log)
{
	for (size_t i = 0; i < log->n; i++)
		free(log->entries[i]);
	free(STEAL_PTR(log->entries));
	log->n = 0;
}

/* --- the file --- */

static void go_on(struct build_log *log);

static void write_work(struct worker_job *job)
{
	struct build_log *log = (struct build_log *)job;

	log->rc = build_log_file_append(log->id, log->writing, log->writing_length);
}

static void remove_work(struct worker_job *job)
{
	build_log_file_remove(((struct build_log *)job)->id);
}

static void job_done(struct worker_job *job)
{
	struct build_log *log = (struct build_log *)job;

	log->busy = false;
	free(STEAL_PTR(log->writing));
	if (log->rc < 0 && !log->broken) {
		log->broken = true;
		log_event(LOG_WARN, "build.log_unwritten", "build", log->id, "error", strerror(-log->rc), NULL);
	}
	go_on(log);
}

static void submit(struct build_log *log, void (*work)(struct worker_job *job))
{
	log->rc = 0;
	log->job.work = work;
	log->job.done = job_done;
	log->busy = true;
	worker_submit(&log->job);
}

/* The next thing that is due for it. */
static void go_on(struct build_log *log)
{
	if (log->busy)
		return;
	if (log->freed && log->remove) {
		log->remove = false;
		submit(log, remove_work);
	} else if (log->pending && !log->broken) {
		log->writing = STEAL_PTR(log->pending);
		log->writing_length = log->pending_length;
		log->pending_length = 0;
		submit(log, write_work);
	} else if (log->freed) {
		drop_entries(log);
		free(log->pending);
		free(log);
	} else if (log->ended && !log->broken) {
		drop_entries(log);
		log->is_stored = true;
	}
}

static void write_later(struct build_log *log, const struct log_entry *entry)
{
	Paddock__V1__TemplateBuildLog message = PADDOCK__V1__TEMPLATE_BUILD_LOG__INIT;
	_cleanup_free_ uint8_t *packed = NULL;
	uint8_t *grown = NULL;
	size_t length = 0;

	if (log->broken)
		return;
	message.unix_ms = entry->unix_ms;
	message.level = (char *)(entry->is_error ? "error" : "info");
	message.message = (char *)(uintptr_t)entry->message;
	message.step = (char *)(uintptr_t)entry->step;
	packed = build_log_file_pack(&message, &length);
	if (packed)
		grown = realloc(log->pending, log->pending_length + length);
	if (!grown) {
		log->broken = true;
		return;
	}
	memcpy(grown + log->pending_length, packed, length);
	log->pending = grown;
	log->pending_length += length;
	go_on(log);
}

void build_log_end(struct build_log *log)
{
	log->ended = true;
	go_on(log);
}

void build_log_free(struct build_log *log, bool remove)
{
	if (!log)
		return;
	log->freed = true;
	log->remove = remove;
	if (remove)
		free(STEAL_PTR(log->pending));
	go_on(log);
}

/* --- entries --- */

static void clean(char *text)
{
	bool valid = utf8_valid(text, strlen(text));

	for (; *text; text++)
		if ((unsigned char)*text < 32 ? *text != '\t' : *text == 127 || (!valid && (unsigned char)*text > 126))
			*text = '?';
}

/* Room for it, in powers of two. */
static int grow(struct build_log *log)
{
	struct log_entry **entries;

	if (log->n & (log->n - 1))
		return 0;
	entries = realloc(log->entries, (log->n ? 2 * log->n : 1) * sizeof(*entries));
	if (!entries)
		return -ENOMEM;
	log->entries = entries;
	return 0;
}

static void append(struct build_log *log, const char *step, bool is_error, const char *text, size_t length)
{
	struct log_entry *entry = malloc(sizeof(*entry) + length + 1);

	if (!entry)
		return;
	entry->unix_ms = loop_wall_ms();
	entry->is_error = is_error;
	snprintf(entry->step, sizeof(entry->step), "%s", step);
	memcpy(entry->message, text, length);
	entry->message[length] = '\0';
	clean(entry->message);
	/* One that comes to those in the file goes there alone. */
	if (log->is_stored) {
		write_later(log, entry);
		free(entry);
		return;
	}
	if (grow(log) < 0) {
		free(entry);
		return;
	}
	log->entries[log->n++] = entry;
	log->bytes += sizeof(*entry) + length;
	write_later(log, entry);
}

/* The last entry says that others are missing. */
void build_log_add(struct build_log *log, const char *step, bool is_error, const char *text, size_t length)
{
	static const char full[] = "(the log is full: what follows is not kept)";

	length = length < BUILD_LOG_MESSAGE_MAX ? length : BUILD_LOG_MESSAGE_MAX;
	if (log->ended || log->n >= BUILD_LOG_ENTRIES_MAX || log->bytes >= BUILD_LOG_BYTES_MAX)
		return;
	if (log->n == BUILD_LOG_ENTRIES_MAX - 1 ||
	    log->bytes + sizeof(struct log_entry) + length >= BUILD_LOG_BYTES_MAX) {
		append(log, step, false, full, strlen(full));
		log->bytes = BUILD_LOG_BYTES_MAX;
		return;
	}
	append(log, step, is_error, text, length);
}

void build_log(struct build *build, const char *step, bool is_error, const char *text, size_t length)
{
	build_log_add(build->log, step, is_error, text, length);
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

/* --- a page of it --- */

typedef void (*page_done)(struct rpc_call *call, const char *id, const struct build_log_page *page);

static void show_memory(struct rpc_call *call, const struct build_log *log, uint64_t offset, page_done done)
{
	Paddock__V1__TemplateBuildLog messages[BUILD_LOG_PAGE];
	struct build_log_page page = {.total = log->n};
	size_t left = offset < log->n ? log->n - offset : 0;

	page.n = left < BUILD_LOG_PAGE ? left : BUILD_LOG_PAGE;
	for (size_t i = 0; i < page.n; i++) {
		struct log_entry *from = log->entries[offset + i];

		paddock__v1__template_build_log__init(&messages[i]);
		messages[i].unix_ms = from->unix_ms;
		messages[i].level = (char *)(from->is_error ? "error" : "info");
		messages[i].message = from->message;
		messages[i].step = from->step;
		page.entries[i] = &messages[i];
	}
	done(call, log->id, &page);
}

struct page_read {
	struct worker_job job;
	struct rpc_call *call; /* NULL: it has ended */
	page_done done;
	char id[SANDBOX_ID_SIZE];
	uint64_t offset;
	int rc;
	struct build_log_page page;
};

static void read_work(struct worker_job *job)
{
	struct page_read *read = (struct page_read *)job;

	read->rc = build_log_file_read(read->id, read->offset, &read->page);
}

static void read_done(struct worker_job *job)
{
	struct page_read *read = (struct page_read *)job;
	Paddock__V1__TemplateBuildLog missing = PADDOCK__V1__TEMPLATE_BUILD_LOG__INIT;

	if (read->call && read->rc < 0) {
		struct build_log_page page = {.entries = {&missing}, .n = read->offset == 0, .total = 1};

		missing.level = (char *)"error";
		missing.step = (char *)"base";
		missing.message = (char *)"(the log cannot be read)";
		log_event(LOG_ERROR, "build.log_unread", "build", read->id, "error", strerror(-read->rc), NULL);
		read->done(read->call, read->id, &page);
	} else if (read->call) {
		read->done(read->call, read->id, &read->page);
	}
	build_log_page_clear(&read->page);
	free(read);
}

static void read_cancelled(struct rpc_call *call, const struct pdk_error *why)
{
	((struct page_read *)rpc_user(call))->call = NULL;
	rpc_fail(call, why);
}

void build_log_show(struct rpc_call *call, const struct build_log *log, uint64_t offset, page_done done)
{
	static const struct rpc_events events = {.on_cancel = read_cancelled};
	struct page_read *read;
	struct pdk_error err;

	if (!log->is_stored) {
		show_memory(call, log, offset, done);
		return;
	}
	read = calloc(1, sizeof(*read));
	if (!read) {
		pdk_fail_errno(&err, -ENOMEM, "reading the log");
		rpc_fail(call, &err);
		return;
	}
	*read = (struct page_read){.job = {.work = read_work, .done = read_done}, .call = call, .done = done};
	read->offset = offset;
	snprintf(read->id, sizeof(read->id), "%s", log->id);
	rpc_set_events(call, &events, read);
	worker_submit(&read->job);
}
