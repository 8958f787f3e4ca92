#ifndef PADDOCK_CLI_AUDIT_VERIFY_H
#define PADDOCK_CLI_AUDIT_VERIFY_H

#include "cli.h"
#include <stdio.h>

struct audit_export_report {
	bool ok;
	uint64_t first, last;  /* good records */
	uint64_t covered;      /* the last one with a checkpoint */
	uint64_t checkpoints;  /* good ones */
	uint64_t bad_sequence; /* 0: the fault is not in a record */
	char text[128];
};

/* Check what `paddock audit export` wrote, offline. `checkpoints` (or NULL): lines that were kept elsewhere, which must
 * all be met. -EKEYREJECTED: no Ed25519 public key; other negative errno: nothing could be said. */
int audit_verify_export(FILE *in, FILE *key, FILE *checkpoints, struct audit_export_report *ret);

#endif
