#ifndef PADDOCK_WARDEN_CHUNKS_H
#define PADDOCK_WARDEN_CHUNKS_H

#include "sandbox/archive/sha256.h"
#include "sandbox/base/buffer.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The digest of a file of pages, in two steps: one of each chunk, and one of all of those. The last is in the manifest;
 * the others lie beside the pages (`pages-N.sums`), so that a part of the file can be checked without the rest.
 */

#define CHUNK_BYTES 65536u

/* Made while the file is read from its first byte to its last. */
struct chunks {
	struct sha256 sha;
	size_t filled; /* bytes of the chunk that is not whole yet */
	struct buffer digests;
};

void chunks_begin(struct chunks *chunks);
/* 0, -ENOMEM or -EFBIG. */
int chunks_add(struct chunks *chunks, const uint8_t *bytes, size_t length);
/* The digest of all digests, which are in `digests` then. */
int chunks_end(struct chunks *chunks, uint8_t root[SHA256_SIZE]);
void chunks_free(struct chunks *chunks);

/* An open file of pages and its digests, which are those that were sealed. */
struct chunk_file {
	int fd;
	uint64_t size;
	size_t count;
	uint8_t *digests;
};

/* Open `name`, whose digest is `root`, by the digests in `sums`. -EBADMSG: they are not those. Nothing of the file is read. */
int chunk_file_open(int dir, const char *name, const char *sums, const uint8_t root[SHA256_SIZE], uint64_t size,
		    struct chunk_file *ret);
/* Read one chunk whole, and check it. The length, which only the last has less of, or -EBADMSG, or why it cannot be read. */
int chunk_file_read(const struct chunk_file *file, size_t number, uint8_t bytes[CHUNK_BYTES]);
void chunk_file_close(struct chunk_file *file);

#endif
