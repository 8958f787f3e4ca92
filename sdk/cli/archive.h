#ifndef PADDOCK_CLI_ARCHIVE_H
#define PADDOCK_CLI_ARCHIVE_H

#include <paddock/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Trees of the local machine as tar streams, by libarchive. */

/* Called with each piece of a tar stream; a negative errno (with err set) ends the packing. */
typedef int (*archive_sink)(void *arg, const void *data, size_t length, struct pdk_error *err);
/* Brings the next piece: > 0 its length, 0 the end, or a negative errno with err set. */
typedef ssize_t (*archive_source)(void *arg, const void **ret_data, struct pdk_error *err);

/* Pack what is below the directory `path` (the names do not contain it). */
int archive_pack(const char *path, archive_sink sink, void *arg, struct pdk_error *err);

/*
 * Unpack a stream that a sandbox made, so a hostile one, into the local directory `directory`. The first component of
 * each name is replaced by `rename` (NULL: kept). Nothing is written outside: names that are absolute or have "..", and
 * names behind a symbolic link, are refused; devices and FIFOs are skipped; set-user-id bits and owners are not kept.
 */
int archive_unpack(const char *directory, const char *rename, archive_source source, void *arg, uint64_t *ret_entries,
		   struct pdk_error *err);

#endif
