#ifndef PADDOCK_SERVER_AUDIT_PAGE_H
#define PADDOCK_SERVER_AUDIT_PAGE_H

#include "audit.h"
#include "paddock/v1/admin.pb-c.h"

/* Records on their way from the log to a reply. Private to audit_service.c and audit_export.c. */

struct rpc_call;

struct audit_page {
	Paddock__V1__AuditRecord **records;
	size_t count;
	size_t capacity;
	size_t bytes;
};

int audit_page_create(struct audit_page *page, size_t capacity);
void audit_page_clear(struct audit_page *page);
void audit_page_free(struct audit_page *page);
/* A record as the API shows it: the stored bytes, unpacked, and the three fields that prove them. */
int audit_page_add(struct audit_page *page, const struct audit_view *view);
bool audit_page_is_full(const struct audit_page *page);

/* End a call whose reading of the log failed. */
void audit_fail_read(struct rpc_call *call, int rc);

#endif
