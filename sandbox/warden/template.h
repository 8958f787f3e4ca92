#ifndef PADDOCK_WARDEN_TEMPLATE_H
#define PADDOCK_WARDEN_TEMPLATE_H

#include "protocol.h"
#include "sandbox/base/error.h"
#include "serve.h"
#include <stdbool.h>
#include <stdint.h>

/*
 * Templates: read-only subvolumes named by the digest of their content. A template that was there when the warden
 * started is UNVERIFIED until a confined helper has computed its digest again and found it equal; a sandbox
 * that asks for it waits for that. One that is DAMAGED is never used again.
 */
enum template_state { TEMPLATE_UNVERIFIED, TEMPLATE_READY, TEMPLATE_DAMAGED };

struct template_info {
	struct template_info *next;
	char id[TEMPLATE_ID_SIZE];
	char digest[80];
	uint64_t files, bytes;
	enum template_state state;
	unsigned int attempts; /* failed verifications that said nothing about the content */
};

/* Read the pool's templates; half-made ones go to the trash. */
void template_reconcile(void);
struct template_info *template_find(const char *id);
void template_each(void (*visit)(const struct template_info *info, void *arg), void *arg);
/* Take the finished import `name` in under its digest, or find that the same content is there already. */
int template_commit(const char *name, const char *digest, uint64_t files, uint64_t bytes, struct template_info **ret,
		    struct pdk_error *err);
int template_remove(const char *id, struct pdk_error *err);
unsigned int template_count(void);

#endif
