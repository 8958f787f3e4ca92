#include "admin.h"

#include "audit_page.h"
#include "loop.h"
#include "rpc.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Audit.Export: the log as it is stored, a page read at a time, a record sent at a time. */

#define EXPORT_PAGE 64

struct export
{
	uint64_t next;
	struct audit_head end; /* as the writer knows it, whatever the store says */
	size_t sent;           /* of the page */
	struct audit_page page;
};

static int export_record(const void *key, size_t key_length, const void *value, size_t value_length, void *arg)
{
	struct export *export = arg;
	struct audit_view view;
	int rc = audit_view(key, key_length, value, value_length, &view);

	if (rc < 0)
		return rc;
	if (view.sequence > export->end.count)
		return 1;
	rc = audit_page_add(&export->page, &view);
	export->next = view.sequence + 1;
	return rc < 0 ? rc : audit_page_is_full(&export->page);
}

static int set_checkpoint(Paddock__V1__AuditRecord *record, const char *text, size_t length)
{
	char *copy = strndup(text, length);

	if (!copy)
		return -ENOMEM;
	if (record->checkpoint != protobuf_c_empty_string)
		free(record->checkpoint);
	record->checkpoint = copy;
	return 0;
}

static int add_checkpoint(const void *key, size_t key_length, const void *value, size_t value_length, void *arg)
{
	struct audit_page *page = arg;
	uint64_t sequence = 0;

	for (size_t i = 0; i < key_length; i++)
		sequence = sequence << 8 | ((const uint8_t *)key)[i];
	for (size_t i = 0; i < page->count; i++)
		if (page->records[i]->sequence == sequence)
			return set_checkpoint(page->records[i], value, value_length);
	return 1; /* behind this page */
}

/* Sign where the log ends. Only what the writer itself wrote: nobody gets a signature for what was put into the store
 * behind its back. */
static int sign_end(struct export *export)
{
	Paddock__V1__AuditRecord *record = export->page.records[export->page.count - 1];
	char checkpoint[AUDIT_CHECKPOINT_MAX];
	int rc;

	if (record->sequence != export->end.count || record->checkpoint[0] || !store_audit_trusted() ||
	    memcmp(record->hash.data, export->end.hash, AUDIT_HASH_SIZE))
		return 0;
	rc = audit_checkpoint_make(&export->end, loop_wall_ms(), checkpoint);
	return rc < 0 ? rc : set_checkpoint(record, checkpoint, strlen(checkpoint));
}

static int read_page(struct export *export)
{
	uint8_t key[8];
	int rc;

	audit_page_clear(&export->page);
	export->sent = 0;
	if (export->next > export->end.count)
		return 0;
	audit_key(export->next, key);
	rc = store_each(STORE_AUDIT, key, sizeof(key), export_record, export);
	if (!rc)
		rc = store_each(STORE_CHECKPOINTS, key, sizeof(key), add_checkpoint, &export->page);
	return rc || !export->page.count ? rc : sign_end(export);
}

static void export_free(struct export *export)
{
	audit_page_free(&export->page);
	free(export);
}

/* Send the next record, reading a page when none is left. */
static void export_step(struct rpc_call *call)
{
	struct export *export = rpc_user(call);
	int rc = export->sent == export->page.count ? read_page(export) : 0;

	if (!rc && export->page.count) {
		rpc_send(call, &export->page.records[export->sent++]->base);
		return;
	}
	export_free(export);
	if (rc < 0)
		audit_fail_read(call, rc);
	else
		rpc_finish(call, NULL);
}

static void export_cancelled(struct rpc_call *call, const struct pdk_error *why)
{
	export_free(rpc_user(call));
	rpc_fail(call, why);
}

void audit_export(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	static const struct rpc_events events = {.on_sent = export_step, .on_cancel = export_cancelled};
	const Paddock__V1__ExportAuditRequest *request = (const void *)message;
	struct export *export = calloc(1, sizeof(*export));

	if (!export || audit_page_create(&export->page, EXPORT_PAGE) < 0) {
		free(export);
		audit_fail_read(call, -ENOMEM);
		return;
	}
	store_audit_head(&export->end);
	export->next = (request->after_sequence < export->end.count ? request->after_sequence : export->end.count) + 1;
	rpc_set_events(call, &events, export);
	export_step(call);
}
