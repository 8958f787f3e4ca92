#ifndef PADDOCK_SERVER_STORE_BATCH_H
#define PADDOCK_SERVER_STORE_BATCH_H

#include "store.h"
#include <stdint.h>

/* A batch on its way to the writer thread. Private to store*.c. */

enum store_op_kind { STORE_OP_PUT, STORE_OP_DELETE, STORE_OP_AUDIT };

/* An operation; its key and value follow each other in the batch's bytes. */
struct store_op {
	uint8_t kind;
	uint8_t db;
	uint32_t key_length;
	uint32_t value_length;
};

struct store_batch {
	struct store_batch *next; /* in the queue */
	void (*done)(int rc, void *arg);
	void *arg;
	int error;       /* sticky: an operation that was lost fails the whole batch */
	int64_t wall_ms; /* when it was queued: the time of its audit records */
	uint64_t boot_ns;
	uint32_t audit_records;
	uint64_t sequence; /* in the journal: it was acknowledged already; 0: it is not there */
	uint8_t *bytes;    /* struct store_op, key, value; struct store_op, ... */
	size_t length;
	size_t capacity;
};

/* The operation at `*offset`, which moves behind it. False at the end. */
int store_batch_next(const struct store_batch *batch, size_t *offset, struct store_op *ret_op, const uint8_t **ret_key,
		     const uint8_t **ret_value);

#endif
