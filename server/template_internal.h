#ifndef PADDOCK_SERVER_TEMPLATE_INTERNAL_H
#define PADDOCK_SERVER_TEMPLATE_INTERNAL_H

#include "paddock/internal/store.pb-c.h"
#include "paddock/v1/templates.pb-c.h"
#include "sandbox/warden/protocol.h"
#include "sandbox_internal.h"
#include "templates.h"

/* What templates.c and template_build.c share. */

#define TEMPLATE_NAME_SIZE 64
#define TEMPLATE_REF_SIZE (2 * TEMPLATE_NAME_SIZE) /* a name with its tag */
#define PUBLIC_TEMPLATES_MAX 256                   /* a list of them fits a reply */

/* One root file system in the warden's pool. Lives while it has a name, or the warden is asked to remove it. */
struct template_content {
	struct template_content *next;
	uint64_t size_bytes;
	uint64_t files;
	uint32_t names;
	uint32_t users; /* scratch: living sandboxes of whoever is asking */
	bool removing;  /* WARDEN_TEMPLATE_REMOVE is on its way */
	char id[TEMPLATE_ID_SIZE];
	char digest[80];
};

struct snapshot;

/* One name of one owner. Either it is a content, or it is made of a snapshot. */
struct template_name {
	struct template_name *next;
	struct template_content *content;
	struct snapshot *snapshot;
	struct text_list *labels; /* key, value, ... */
	int64_t created_unix_ms;
	char tenant[TENANT_NAME_MAX + 1]; /* empty: public */
	char name[TEMPLATE_REF_SIZE];     /* with its tag, but for "default" */
};

/* Check "name" or "name:tag" and write it as names are kept: without ":default". `field` is what a refusal names. */
int template_ref(const char *field, const char *text, char ret[TEMPLATE_REF_SIZE], struct pdk_error *err);
int template_tag_ref(const char *field, const char *name, const char *tag, char ret[TEMPLATE_REF_SIZE],
		     struct pdk_error *err);
/* All of them, with their records; -ENOMEM: none is. */
int templates_remove_names(struct template_name *const *entries, size_t count, struct store_batch *batch);
/* May the tenant have that many more names? RESOURCE_EXHAUSTED. */
int template_check_room(const char *tenant, unsigned int more, struct pdk_error *err);
/* Make the name, or move it to this snapshot, with its record added to `batch`. */
int template_name_set_snapshot(const char *tenant, const char *name, struct snapshot *snapshot,
			       struct store_batch *batch);
struct template_name *template_name_find(const char *tenant, const char *name);
uint32_t template_name_count(const char *tenant);
/* Make the name, or move it, with its record added to `batch`. Takes over `labels` on success. */
int template_name_set(const char *tenant, const char *name, struct template_content *content, struct text_list *labels,
		      struct store_batch *batch);
struct template_content *template_content_find(const char *id);
/* From a successful import; NULL when out of memory. */
struct template_content *template_content_get(const struct warden_reply *reply);
/* Remove it from the pool if no name and no sandbox is left. */
void template_content_release(struct template_content *content);
/* The API message in the call's arena; NULL when that is full. */
Paddock__V1__Template *template_message(struct rpc_call *call, const struct template_name *name);

#endif
