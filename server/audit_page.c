#include "audit_page.h"

#include "rpc.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_BYTES_MAX (1u << 20) /* of stored records; a reply carries them twice */

void audit_page_clear(struct audit_page *page)
{
	for (size_t i = 0; i < page->count; i++)
		paddock__v1__audit_record__free_unpacked(page->records[i], NULL);
	page->count = page->bytes = 0;
}

void audit_page_free(struct audit_page *page)
{
	audit_page_clear(page);
	free(page->records);
	page->records = NULL;
}

int audit_page_create(struct audit_page *page, size_t capacity)
{
	*page = (struct audit_page){.capacity = capacity};
	page->records = calloc(capacity, sizeof(page->records[0]));
	return page->records ? 0 : -ENOMEM;
}

static int copy_bytes(ProtobufCBinaryData *to, const uint8_t *from, size_t length)
{
	to->data = malloc(length);
	if (!to->data)
		return -ENOMEM;
	memcpy(to->data, from, length);
	to->len = length;
	return 0;
}

int audit_page_add(struct audit_page *page, const struct audit_view *view)
{
	Paddock__V1__AuditRecord *record = paddock__v1__audit_record__unpack(NULL, view->stored_length, view->stored);

	if (!record)
		return -EBADMSG;
	if (copy_bytes(&record->previous_hash, view->previous, AUDIT_HASH_SIZE) < 0 ||
	    copy_bytes(&record->hash, view->hash, AUDIT_HASH_SIZE) < 0 ||
	    copy_bytes(&record->stored, view->stored, view->stored_length) < 0) {
		paddock__v1__audit_record__free_unpacked(record, NULL);
		return -ENOMEM;
	}
	page->records[page->count++] = record;
	page->bytes += view->stored_length;
	return 0;
}

bool audit_page_is_full(const struct audit_page *page)
{
	return page->count == page->capacity || page->bytes >= PAGE_BYTES_MAX;
}

void audit_fail_read(struct rpc_call *call, int rc)
{
	struct pdk_error err;

	if (rc == -EBADMSG)
		pdk_fail(&err, rc, PDK_DATA_LOSS, "an audit record cannot be read: run Verify");
	else
		pdk_fail_errno(&err, rc, "reading the audit log");
	rpc_fail(call, &err);
}
