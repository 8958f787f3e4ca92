#ifndef PADDOCK_SERVER_BUILD_LOG_H
#define PADDOCK_SERVER_BUILD_LOG_H

#include "paddock/v1/templates.pb-c.h"
#include "sandbox/base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The log of a build: the first entries, up to its bounds. While the build runs they are in memory, and on their way to
 * a file of the data directory; when it has ended and all is written, they are in the file alone. A log that cannot be
 * written stays in memory, and a restart loses it.
 *
 * With the loop lock, except where it says "for the worker".
 */

#define BUILD_LOG_PAGE 100
#define BUILD_LOG_ENTRIES_MAX 10000
#define BUILD_LOG_BYTES_MAX (1u << 20)
#define BUILD_LOG_MESSAGE_MAX 4096
#define BUILD_STEP_LABEL 16

struct build_log;
struct rpc_call;

/* --- build_log.c --- */
/* An empty one; with `is_stored`, one whose entries are in the file. NULL: out of memory. */
struct build_log *build_log_create(const char *id, bool is_stored);
/* Let go of it; with `remove`, of its file too. NULL is fine. */
void build_log_free(struct build_log *log, bool remove);
/* One line; what does not fit is left out. `step` as TemplateBuildLog.step. */
void build_log_add(struct build_log *log, const char *step, bool is_error, const char *text, size_t length);
/* Nothing more is added. */
void build_log_end(struct build_log *log);

struct build_log_page {
	Paddock__V1__TemplateBuildLog *entries[BUILD_LOG_PAGE];
	size_t n;
	uint64_t total;
	char last_step[BUILD_STEP_LABEL]; /* of the last entry of all; "" */
};
/* The entries from `offset` on, now (true: `done` has run) or when they are read. `done` runs once, unless the call
 * ends before; the page is valid until it returns. */
void build_log_show(struct rpc_call *call, const struct build_log *log, uint64_t offset,
		    void (*done)(struct rpc_call *call, const char *id, const struct build_log_page *page));

/* --- build_log_file.c --- */
/* Make the folder; files of which `is_known` says no are removed. */
int build_log_files_start(bool (*is_known)(const char *id), struct pdk_error *err);
void build_log_files_stop(void);
/* One entry as in the file, allocated. NULL: out of memory. */
uint8_t *build_log_file_pack(const Paddock__V1__TemplateBuildLog *entry, size_t *ret_length);
/* For the worker. */
int build_log_file_append(const char *id, const uint8_t *bytes, size_t length);
void build_log_file_remove(const char *id);
/* What is torn at the end is left out. No file: an empty page. */
int build_log_file_read(const char *id, uint64_t offset, struct build_log_page *page);
void build_log_page_clear(struct build_log_page *page);

#endif
