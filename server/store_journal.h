#ifndef PADDOCK_SERVER_STORE_JOURNAL_H
#define PADDOCK_SERVER_STORE_JOURNAL_H

#include "store_batch.h"

/*
 * Batches that were acknowledged before they are in the store: a file in the runtime directory, that is, in the kernel's
 * memory. It outlives this process, however that ends, and not the machine; so it is for what does not either. Each batch
 * has a number; the store remembers, in the transaction that takes a batch in, the last one that it has, and
 * what is above that is read back at the start. Private to store*.c.
 */

struct store_journal {
	int fd;            /* -1: there is none */
	uint64_t sequence; /* of the last batch that was written */
	uint64_t length;   /* of the file, as far as it counts */
};

#define STORE_JOURNAL_CLOSED                                                                                           \
	{                                                                                                              \
		.fd = -1                                                                                               \
	}

/* Open, or make, DIR/store.journal; `stored` is the last number that the store has. `ret_lost`: the batches that it has not, in
 * their order, or NULL. A file of an earlier boot, or of somebody else, is made anew. */
int store_journal_open(struct store_journal *journal, const char *dir, uint64_t stored, struct store_batch **ret_lost,
		       struct pdk_error *err);
void store_journal_close(struct store_journal *journal);
/* Give the batch its number and write it down. False: it is not there, and must be waited for. */
bool store_journal_append(struct store_journal *journal, struct store_batch *batch);
/* The store has all that were written: begin again. */
void store_journal_rewind(struct store_journal *journal);

#endif
