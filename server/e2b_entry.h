#ifndef PADDOCK_SERVER_E2B_ENTRY_H
#define PADDOCK_SERVER_E2B_ENTRY_H

#include "arena.h"
#include "e2b/filesystem.pb-c.h"
#include "paddock/v1/files.pb-c.h"

/* filesystem.EntryInfo: a file as the SDKs see it. */

struct e2b_entry {
	Filesystem__EntryInfo info;
	Google__Protobuf__Timestamp time;
	char permissions[16];
};

/* Fill it, with copies in the arena. -ENOMEM; -EILSEQ: its path is not UTF-8, which this contract cannot say. */
int e2b_entry_fill(struct arena *arena, struct e2b_entry *entry, const Paddock__V1__FileInfo *file);
/* It is a symbolic link, and this is what it leads to; NULL: nothing. */
void e2b_entry_resolve(struct e2b_entry *entry, const Paddock__V1__FileInfo *target);
/* A link of which that is not known yet. */
bool e2b_entry_is_link(const struct e2b_entry *entry);
/* Order of a list: each directory before what is in it, names by their bytes. For qsort() of pointers. */
int e2b_entry_compare(const void *a, const void *b);

#endif
