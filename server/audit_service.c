#include "admin.h"

#include "admin_private.h"
#include "audit.h"
#include "audit_page.h"
#include "loop.h"
#include "paddock/v1/admin.pb-c.h"
#include "rpc.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/id.h"
#include "validate.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * The Audit service. List and Export (audit_export.c) read the log in small pieces, each a short turn of the loop, so
 * that a long search delays nobody; Verify runs on a thread of its own. All see the log as long as it was when they
 * began.
 */

#define PAGE_DEFAULT 100
#define PAGE_MAX 1000
#define SLICE_RECORDS 512  /* looked at in one turn */
#define SEARCH_MAX 2000000 /* looked at in one List; the client goes on from there */
#define ACTION_PREFIX_MAX 128

/* ---- List ---- */

static void fail_cancelled(struct rpc_call *call)
{
	struct pdk_error err;

	pdk_fail(&err, -ECANCELED, PDK_CANCELLED, "the call was cancelled");
	rpc_fail(call, &err);
}

struct search {
	struct rpc_call *call;
	char tenant[TENANT_NAME_MAX + 1]; /* empty: all */
	char sandbox_id[SANDBOX_ID_SIZE];
	char action_prefix[ACTION_PREFIX_MAX + 1];
	bool newest_first;
	uint64_t first, last; /* sequences that are still to be looked at; first > last: none */
	uint64_t block_end;   /* of the slice that is being read */
	uint64_t looked_at;
	struct audit_page page;
	struct audit_page block; /* newest first: what the slice found, in the log's order */
};

static void search_free(struct search *search)
{
	audit_page_free(&search->page);
	audit_page_free(&search->block);
	free(search);
}

static bool text_is(const struct audit_text *text, const char *wanted)
{
	return text->length == strlen(wanted) && !memcmp(text->data, wanted, text->length);
}

static bool matches(const struct search *search, const struct audit_view *view)
{
	size_t prefix = strlen(search->action_prefix);

	if (search->tenant[0] && !text_is(&view->tenant, search->tenant))
		return false;
	if (search->sandbox_id[0] && !text_is(&view->sandbox_id, search->sandbox_id))
		return false;
	return view->action.length >= prefix && !memcmp(view->action.data, search->action_prefix, prefix);
}

static int search_record(const void *key, size_t key_length, const void *value, size_t value_length, void *arg)
{
	struct search *search = arg;
	struct audit_view view;
	int rc = audit_view(key, key_length, value, value_length, &view);

	if (rc < 0)
		return rc;
	if (view.sequence > search->block_end)
		return 1;
	search->looked_at++;
	if (matches(search, &view)) {
		rc = audit_page_add(search->newest_first ? &search->block : &search->page, &view);
		if (rc < 0)
			return rc;
	}
	if (search->newest_first)
		return 0;
	search->first = view.sequence + 1;
	return audit_page_is_full(&search->page);
}

/* Move what the block found to the page, newest first, until it is full; the rest is found again later. */
static void take_block(struct search *search, uint64_t block_first)
{
	search->last = block_first - 1;
	while (search->block.count) {
		Paddock__V1__AuditRecord *record = search->block.records[--search->block.count];

		if (audit_page_is_full(&search->page)) {
			if (search->last < record->sequence)
				search->last = record->sequence;
			paddock__v1__audit_record__free_unpacked(record, NULL);
			continue;
		}
		search->page.records[search->page.count++] = record;
		search->page.bytes += record->stored.len;
	}
	search->block.bytes = 0;
}

static int search_slice(struct search *search)
{
	uint64_t first = search->first;
	uint8_t key[8];
	int rc;

	if (search->newest_first && search->last - search->first >= SLICE_RECORDS)
		first = search->last - SLICE_RECORDS + 1;
	search->block_end = search->newest_first ? search->last : search->first + SLICE_RECORDS - 1;
	if (search->block_end > search->last)
		search->block_end = search->last;
	audit_key(first, key);
	rc = store_each(STORE_AUDIT, key, sizeof(key), search_record, search);
	if (rc < 0)
		return rc;
	if (search->newest_first)
		take_block(search, first);
	else if (!audit_page_is_full(&search->page))
		search->first = search->block_end + 1; /* a hole in a damaged log must not hold the search up */
	return 0;
}

static void finish_search(struct search *search)
{
	Paddock__V1__ListAuditResponse reply = PADDOCK__V1__LIST_AUDIT_RESPONSE__INIT;

	reply.n_records = search->page.count;
	reply.records = search->page.records;
	if (search->first <= search->last)
		reply.next_after_sequence = search->newest_first ? search->last + 1 : search->first - 1;
	rpc_finish(search->call, &reply.base);
	search_free(search);
}

static void search_step(void *arg)
{
	struct search *search = arg;
	int rc = 0;

	if (rpc_is_cancelled(search->call)) {
		fail_cancelled(search->call);
		search_free(search);
		return;
	}
	if (search->first <= search->last)
		rc = search_slice(search);
	if (!rc && search->first <= search->last && !audit_page_is_full(&search->page) &&
	    search->looked_at < SEARCH_MAX) {
		rc = loop_defer(search_step, search);
		if (!rc)
			return;
	}
	if (rc < 0) {
		audit_fail_read(search->call, rc);
		search_free(search);
		return;
	}
	finish_search(search);
}

static int check_list(const Paddock__V1__ListAuditRequest *request, struct pdk_error *err)
{
	int rc = validate_range("page_size", request->page_size, 0, PAGE_MAX, err);

	if (!rc)
		rc = validate_label("sandbox_id", request->sandbox_id, 128, err);
	if (!rc)
		rc = validate_label("action_prefix", request->action_prefix, ACTION_PREFIX_MAX, err);
	return rc;
}

static struct search *search_create(struct rpc_call *call, const Paddock__V1__ListAuditRequest *request)
{
	const struct principal *principal = rpc_principal(call);
	struct search *search = calloc(1, sizeof(*search));

	if (!search)
		return NULL;
	search->call = call;
	search->newest_first = request->newest_first;
	strcpy(search->action_prefix, request->action_prefix);
	if (!principal->is_operator)
		memcpy(search->tenant, principal->tenant, sizeof(search->tenant));
	search->first = 1;
	search->last = store_audit_count();
	if (!search->newest_first)
		search->first = request->after_sequence < search->last ? request->after_sequence + 1 : search->last + 1;
	else if (request->after_sequence && request->after_sequence <= search->last)
		search->last = request->after_sequence - 1;
	if (sandbox_id_valid(request->sandbox_id))
		strcpy(search->sandbox_id, request->sandbox_id);
	else if (request->sandbox_id[0]) /* what is no id is in no record */
		search->last = 0;
	if (audit_page_create(&search->page, request->page_size ? request->page_size : PAGE_DEFAULT) < 0 ||
	    (search->newest_first && audit_page_create(&search->block, SLICE_RECORDS) < 0)) {
		search_free(search);
		return NULL;
	}
	return search;
}

void audit_list(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__V1__ListAuditRequest *request = (const void *)message;
	struct search *search;
	struct pdk_error err;

	if (check_list(request, &err) < 0) {
		rpc_fail(call, &err);
		return;
	}
	search = search_create(call, request);
	if (!search) {
		audit_fail_read(call, -ENOMEM);
		return;
	}
	admin_begin_change(call, NULL); /* the search sees a cancellation at its next step */
	search_step(search);
}

/* ---- Verify ---- */

/* malloc'ed: the check may outlast its call. */
struct verification {
	struct rpc_call *call; /* NULL: cancelled */
};

static void verified(int rc, const struct audit_report *report, void *arg)
{
	Paddock__V1__VerifyAuditResponse reply = PADDOCK__V1__VERIFY_AUDIT_RESPONSE__INIT;
	struct verification *verification = arg;

	if (verification->call && rc < 0) {
		audit_fail_read(verification->call, rc);
	} else if (verification->call) {
		reply.ok = report->ok;
		reply.records = report->records;
		reply.first_bad_sequence = report->first_bad_sequence;
		reply.text = (char *)report->text;
		reply.checkpoints = report->checkpoints;
		reply.head_hash = (ProtobufCBinaryData){AUDIT_HASH_SIZE, (uint8_t *)report->head.hash};
		rpc_finish(verification->call, &reply.base);
	}
	free(verification);
}

static void verify_cancelled(struct rpc_call *call, const struct pdk_error *why)
{
	struct verification *verification = rpc_user(call);

	verification->call = NULL;
	rpc_fail(call, why);
}

void audit_verify(struct rpc_call *call, const struct ProtobufCMessage *request)
{
	static const struct rpc_events events = {.on_cancel = verify_cancelled};
	struct verification *verification = malloc(sizeof(*verification));
	struct pdk_error err;
	int rc = verification ? audit_check_start(verified, verification) : -ENOMEM;

	if (rc < 0) {
		if (rc == -EBUSY)
			pdk_fail(&err, rc, PDK_RESOURCE_EXHAUSTED, "a verification is running already");
		else
			pdk_fail_errno(&err, rc, "starting the verification");
		free(verification);
		rpc_fail(call, &err);
		return;
	}
	verification->call = call;
	rpc_set_events(call, &events, verification);
}

/* ---- GetKey ---- */

void audit_get_key(struct rpc_call *call, const struct ProtobufCMessage *request)
{
	Paddock__V1__AuditKey reply = PADDOCK__V1__AUDIT_KEY__INIT;

	reply.public_key = (char *)audit_public_key();
	rpc_finish(call, &reply.base);
}
