#ifndef PADDOCK_SERVER_TEMPLATE_INTERNAL_H
#define PADDOCK_SERVER_TEMPLATE_INTERNAL_H

#include "paddock/internal/store.pb-c.h"
#include "paddock/v1/templates.pb-c.h"
#include "sandbox/warden/protocol.h"
#include "sandbox_internal.h"
#include "templates.h"

/* What templates.c and template_build.c share. */

#define TEMPLATE_NAME_SIZE 64
#define PUBLIC_TEMPLATES_MAX 256 /* a list of them fits a reply */

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

/* One name of one owner. */
struct template_name {
	struct template_name *next;
	struct template_content *content;
	struct text_list *labels; /* key, value, ... */
	int64_t created_unix_ms;
	char tenant[TENANT_NAME_MAX + 1]; /* empty: public */
	char name[TEMPLATE_NAME_SIZE];
};

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
