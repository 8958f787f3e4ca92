#ifndef PADDOCK_SERVER_STATUS_H
#define PADDOCK_SERVER_STATUS_H

#include <stdint.h>

/* What the Admin service asks of the modules that own sandboxes and templates. Lock held. */

struct store_batch;

struct server_status_numbers {
	uint32_t sandboxes; /* living: CREATING, RUNNING, KILLING; pre-made ones not counted */
	uint32_t pooled;    /* pre-made, waiting */
	uint64_t reserved_memory_bytes;
	uint64_t reservable_memory_bytes;
	uint64_t reserved_disk_bytes;
	uint64_t reservable_disk_bytes;
};
/* sandboxes.c */
void sandboxes_status(struct server_status_numbers *ret);

/* templates.c: forget every template name that the tenant owns (RemoveTenant; none of its sandboxes lives any more),
 * and add the deletion of their records to `batch`. Content that has no name left goes as in Templates.Remove.
 * -ENOMEM: nothing was forgotten. */
int templates_remove_tenant(const char *tenant, struct store_batch *batch);

#endif
