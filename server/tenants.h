#ifndef PADDOCK_SERVER_TENANTS_H
#define PADDOCK_SERVER_TENANTS_H

#include "auth.h"
#include "store.h"
#include <stdbool.h>
#include <stdint.h>

/* The tenants in memory. Lock held. */

#define TENANT_DEFAULT "default"

struct tenant {
	struct tenant *next;
	char name[TENANT_NAME_MAX + 1];
	struct tenant_quota quota;   /* as stored: 0 = the server's default */
	struct tenant_quota written; /* as it will be when what is being committed is durable */
	int64_t created_unix_ms;
	bool pending;  /* its creation is not durable yet */
	bool removing; /* nothing may use it any more */
	double tokens; /* creates that it may make right now */
	uint64_t refilled_ns;
};

/* All tenants, in no order. */
extern struct tenant *tenants;

/* A tenant that may be used, or NULL. */
struct tenant *tenant_find(const char *name);
/* Any, pending and removing ones too. */
struct tenant *tenant_find_any(const char *name);
struct tenant *tenant_add(const char *name); /* NULL: out of memory */
void tenant_forget(struct tenant *tenant);
/* Put the record, with the quota `written`. */
int tenant_write(const struct tenant *tenant, struct store_batch *batch);

/* Load from the store; "default" is made if it is not there. Unfinished removals go on when the loop runs. */
int tenants_load(struct pdk_error *err);

/* tenant_remove.c: go on with a removal that a restart interrupted. */
void tenant_resume_removal(struct tenant *tenant);

#endif
