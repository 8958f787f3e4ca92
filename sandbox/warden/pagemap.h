#ifndef PADDOCK_WARDEN_PAGEMAP_H
#define PADDOCK_WARDEN_PAGEMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* CRIU's list of the pages of one process, or of one piece of shared memory: where they belong, and where in which file
 * of pages they are. Only checked images are read. */

#define PAGE_BYTES 4096u

struct pagemap_entry {
	uint64_t start, end; /* addresses */
	uint64_t offset;     /* of the first page in the file */
	bool lazy;           /* private memory without a file, which may come later */
};

struct pagemap {
	int pid;            /* as the sandbox knows it; 0: shared memory */
	unsigned int pages; /* of pages-N.img */
	size_t n;
	struct pagemap_entry *entries; /* by address */
	uint64_t lazy_bytes;
};

/* `name`: pagemap-1.img. 0, -ENOMEM or -EBADMSG. */
int pagemap_read(int dir, const char *name, struct pagemap *ret);
void pagemap_free(struct pagemap *map);

#endif
