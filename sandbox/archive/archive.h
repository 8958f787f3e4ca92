#ifndef PADDOCK_ARCHIVE_ARCHIVE_H
#define PADDOCK_ARCHIVE_ARCHIVE_H

#include "sandbox/base/cleanup.h"
#include <stdbool.h>
#include <stdint.h>

/* Exit codes of paddock-archive. */
enum archive_exit {
	ARCHIVE_EXIT_OK = 0,
	ARCHIVE_EXIT_SYSTEM = 1,  /* the system, or the command line */
	ARCHIVE_EXIT_REFUSED = 2, /* what the archive holds */
	ARCHIVE_EXIT_LIMIT = 3,   /* --max-bytes, --max-entries, or no space is left */
};

struct extract_options {
	uint64_t max_bytes;
	uint64_t max_entries;
	bool keep_owner;
	bool is_template;
	const char *directory;
};

#define CREATE_EXCLUDES_MAX 64

struct create_options {
	const char *excludes[CREATE_EXCLUDES_MAX];
	unsigned int n_excludes;
	const char *compress; /* NULL, "gzip" or "zstd" */
	const char *path;
};

/* The three commands. They return an exit code, after one line on stderr if it is not 0. */
int archive_extract(const struct extract_options *options);
int archive_create(const struct create_options *options);
int archive_digest(const char *directory);

/* Print "paddock-archive: text" as one line without control characters and return the code. */
int archive_fail(enum archive_exit code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* As above with strerror(), and the code that fits the errno. */
int archive_fail_errno(int error, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
