#ifndef PADDOCK_SERVER_OUTPUT_H
#define PADDOCK_SERVER_OUTPUT_H

#include "sandbox/base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The kept output of one process: the first head_bytes and the last tail_bytes of one sequence of bytes, in a file
 * that is made with the first byte. See output.c.
 */

#define OUTPUT_PIECE_MAX (128u << 10)

struct output;

/* `sandbox_id` and `process_id` name the file below DIR/output. No file is touched yet. NULL: out of memory. */
struct output *output_create(const char *dir, const char *sandbox_id, uint64_t process_id, uint64_t head_bytes,
			     uint64_t tail_bytes);
/* Close; the file stays. NULL is fine. */
void output_free(struct output *output);
/* Give the descriptor back until the next read or append. */
void output_rest(struct output *output);

/* Read back what an earlier daemon kept. 0 also when there is nothing; a damaged file counts as nothing kept. */
int output_load(struct output *output);
/* For a record in the store that says more was produced than the file holds. */
void output_set_total(struct output *output, uint64_t total);

/* Add bytes of a stream (paddock.v1.Stream). What cannot be kept (no space) is counted as dropped. */
void output_append(struct output *output, unsigned int stream, const void *data, size_t length);

/* From here on nothing more is kept, only counted. */
void output_stop(struct output *output);

uint64_t output_total(const struct output *output);
uint64_t output_dropped(const struct output *output);

/* Where a reader is. Start with {.sequence = first byte wanted}. */
struct output_cursor {
	uint64_t sequence;
	uint64_t position; /* of the record that holds it; valid when `placed` */
	unsigned int area;
	bool placed;
};

struct output_piece {
	uint64_t sequence;
	uint64_t dropped; /* > 0: these bytes are missing; no data */
	unsigned int stream;
	size_t length;
};

/* The next piece at the cursor, at most OUTPUT_PIECE_MAX bytes into `data`; the cursor moves on. 1 = a piece, 0 = the
 * end, or a negative errno. */
int output_read(struct output *output, struct output_cursor *cursor, uint8_t *data, struct output_piece *ret);

/* Remove all kept output of a sandbox, or of one process. */
void output_remove(const char *dir, const char *sandbox_id, uint64_t process_id);
void output_remove_sandbox(const char *dir, const char *sandbox_id);

#endif
