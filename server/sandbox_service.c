#include "rpc.h"
#include "sandbox/base/cleanup.h"
#include "sandbox_internal.h"
#include "validate.h"
#include "warden_client.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The calls on existing sandboxes: Get, List, Kill, GetUsage. */

#define PAGE_DEFAULT 100
#define PAGE_MAX 1000
#define PAGE_BYTES_MAX (2u << 20) /* a page that would be larger is cut short: clients accept 4 MiB */

void sandboxes_get(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__V1__GetSandboxRequest *request = (const void *)message;
	struct sandbox *sandbox;
	struct pdk_error err;
	Paddock__V1__Sandbox *reply;

	if (sandbox_find(call, request->sandbox_id, &sandbox, &err) < 0) {
		rpc_fail(call, &err);
		return;
	}
	rpc_audit_object(call, sandbox->id, NULL);
	reply = sandbox_reply(call, sandbox);
	if (reply)
		rpc_finish(call, &reply->base);
}

void sandboxes_kill(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__V1__KillSandboxRequest *request = (const void *)message;
	struct sandbox *sandbox;
	struct pdk_error err;

	if (sandbox_find(call, request->sandbox_id, &sandbox, &err) < 0) {
		rpc_fail(call, &err);
		return;
	}
	rpc_audit_object(call, sandbox->id, NULL);
	sandbox_kill_for(call, sandbox);
}

/* --- List --- */

static int validate_list(const struct rpc_call *call, const Paddock__V1__ListSandboxesRequest *request,
			 struct pdk_error *err)
{
	int rc = validate_count("states", request->n_states, 8, err);

	for (size_t i = 0; rc >= 0 && i < request->n_states; i++)
		rc = validate_range("states", (uint64_t)request->states[i], 1, 8, err);
	if (rc >= 0)
		rc = validate_map("metadata", (const struct validate_entry *const *)request->metadata,
				  request->n_metadata, 16, 128, 1024, err);
	if (rc >= 0)
		rc = validate_label("template", request->template_, 128, err);
	if (rc >= 0)
		rc = validate_optional_range("page_size", request->page_size, 1, PAGE_MAX, err);
	if (rc >= 0 && request->all_tenants && !rpc_principal(call)->is_operator)
		return pdk_fail(err, -EPERM, PDK_PERMISSION_DENIED, "all_tenants: is for the operator only");
	return rc;
}

static bool has_pair(const struct sandbox *sandbox, const char *key, const char *value)
{
	const struct text_list *metadata = sandbox->private->metadata;

	for (size_t i = 0; metadata && i + 1 < metadata->count; i += 2) {
		if (strcmp(metadata->item[i], key) == 0)
			return strcmp(metadata->item[i + 1], value) == 0;
	}
	return false;
}

static bool state_matches(const Paddock__V1__ListSandboxesRequest *request, const struct sandbox *sandbox)
{
	for (size_t i = 0; i < request->n_states; i++) {
		if (request->states[i] == sandbox->state)
			return true;
	}
	return request->n_states == 0 && sandbox_is_living(sandbox);
}

static bool matches(const Paddock__V1__ListSandboxesRequest *request, const struct sandbox *sandbox)
{
	if (sandbox->private->discard || !state_matches(request, sandbox))
		return false;
	if (request->template_[0] && strcmp(request->template_, sandbox->template_id) != 0 &&
	    strcmp(request->template_, sandbox->template_name) != 0)
		return false;
	for (size_t i = 0; i < request->n_metadata; i++) {
		if (!has_pair(sandbox, request->metadata[i]->key, request->metadata[i]->value))
			return false;
	}
	return true;
}

struct listing {
	const Paddock__V1__ListSandboxesRequest *request;
	struct rpc_call *call;
	const char *binding; /* what page tokens are bound to */
	bool all;
	Paddock__V1__ListSandboxesResponse reply;
	size_t room, bytes;
};

static struct sandbox *next_of(const struct listing *listing, const struct sandbox *sandbox)
{
	return listing->all ? sandbox->private->by_server.older : sandbox->private->by_owner.older;
}

static bool is_after(const struct sandbox *sandbox, const struct page_cursor *cursor)
{
	if (sandbox->created_unix_ms != cursor->created_unix_ms)
		return sandbox->created_unix_ms < cursor->created_unix_ms;
	return strcmp(sandbox->id, cursor->id) < 0;
}

/* The first sandbox of the page, or NULL. */
static int find_start(const struct listing *listing, struct sandbox **ret, struct pdk_error *err)
{
	const struct sandbox_owner *owner = sandbox_owner_find(rpc_principal(listing->call)->tenant);
	struct sandbox *sandbox = listing->all ? sandbox_newest : owner ? owner->newest : NULL;
	struct page_cursor cursor;
	int rc;

	if (listing->request->page_token[0]) {
		rc = page_token_read(listing->binding, listing->request->page_token, &cursor, err);
		if (rc < 0)
			return rc;
		while (sandbox && !is_after(sandbox, &cursor))
			sandbox = next_of(listing, sandbox);
	}
	*ret = sandbox;
	return 0;
}

/* 1 = added, 0 = the page is full, or -ENOMEM. */
static int add(struct listing *listing, const struct sandbox *sandbox)
{
	Paddock__V1__Sandbox *message;
	void *block;

	if (listing->reply.n_sandboxes == listing->room)
		return 0;
	block = rpc_alloc(listing->call, sandbox_message_size(sandbox));
	if (!block)
		return listing->reply.n_sandboxes > 0 ? 0 : -ENOMEM;
	message = sandbox_message(sandbox, block);
	listing->bytes += paddock__v1__sandbox__get_packed_size(message);
	if (listing->bytes > PAGE_BYTES_MAX && listing->reply.n_sandboxes > 0)
		return 0;
	listing->reply.sandboxes[listing->reply.n_sandboxes++] = message;
	return 1;
}

static int make_token(struct listing *listing)
{
	const Paddock__V1__Sandbox *last = listing->reply.sandboxes[listing->reply.n_sandboxes - 1];
	struct page_cursor cursor = {.created_unix_ms = last->created_unix_ms};

	memcpy(cursor.id, last->id, SANDBOX_ID_SIZE);
	listing->reply.next_page_token = rpc_alloc(listing->call, PAGE_TOKEN_SIZE);
	if (!listing->reply.next_page_token)
		return -ENOMEM;
	page_token_make(listing->binding, &cursor, listing->reply.next_page_token);
	return 0;
}

static int fill_page(struct listing *listing, struct pdk_error *err)
{
	struct sandbox *sandbox;
	int rc = find_start(listing, &sandbox, err);

	if (rc < 0)
		return rc;
	listing->room = listing->request->page_size ? listing->request->page_size : PAGE_DEFAULT;
	listing->reply.sandboxes = rpc_alloc(listing->call, listing->room * sizeof(*listing->reply.sandboxes));
	if (!listing->reply.sandboxes)
		return pdk_fail_errno(err, -ENOMEM, "listing");
	for (; sandbox; sandbox = next_of(listing, sandbox)) {
		if (!matches(listing->request, sandbox))
			continue;
		rc = add(listing, sandbox);
		if (rc == 0)
			rc = make_token(listing);
		else if (rc > 0)
			continue;
		break;
	}
	return rc < 0 ? pdk_fail_errno(err, rc, "listing") : 0;
}

void sandboxes_list(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	struct listing listing = {
		.request = (const void *)message,
		.call = call,
		.reply = PADDOCK__V1__LIST_SANDBOXES_RESPONSE__INIT,
	};
	struct pdk_error err;
	int rc = validate_list(call, listing.request, &err);

	listing.all = listing.request->all_tenants;
	/* No tenant's name has a '*'. */
	listing.binding = listing.all ? "*" : rpc_principal(call)->tenant;
	if (rc >= 0)
		rc = fill_page(&listing, &err);
	if (rc < 0)
		rpc_fail(call, &err);
	else
		rpc_finish(call, &listing.reply.base);
}

/* --- GetUsage --- */

/* Between the call, which may go away, and the warden's reply, which comes in any case. */
struct usage_question {
	struct rpc_call *call;
};

static void on_usage(const struct warden_reply *reply, int *fd, void *arg)
{
	_cleanup_free_ struct usage_question *question = arg;
	Paddock__V1__SandboxUsage usage = PADDOCK__V1__SANDBOX_USAGE__INIT;
	struct pdk_error err;

	if (!question->call)
		return;
	if (reply->status == -ENOENT || reply->status == -ESRCH) {
		pdk_fail(&err, -EINVAL, PDK_FAILED_PRECONDITION, "sandbox has ended");
		rpc_fail(question->call, &err);
		return;
	}
	if (reply->status < 0) {
		pdk_fail(&err, reply->status, PDK_UNAVAILABLE, "usage cannot be read: %s",
			 reply->text[0] ? reply->text : "the sandbox manager failed");
		rpc_fail(question->call, &err);
		return;
	}
	usage.memory_bytes = reply->usage.memory_bytes;
	usage.memory_peak_bytes = reply->usage.memory_peak_bytes;
	usage.cpu_usec = reply->usage.cpu_usec;
	usage.pids = reply->usage.pids;
	usage.disk_bytes = reply->usage.disk_bytes;
	usage.inodes = reply->usage.inodes;
	usage.oom_kills = reply->usage.oom_kills;
	rpc_finish(question->call, &usage.base);
}

static void on_usage_cancel(struct rpc_call *call, const struct pdk_error *why)
{
	struct usage_question *question = rpc_user(call);

	question->call = NULL;
	rpc_fail(call, why);
}

static const struct rpc_events usage_events = {.on_cancel = on_usage_cancel};

static int ask_usage(struct rpc_call *call, const struct sandbox *sandbox, struct pdk_error *err)
{
	struct warden_request request = {.op = WARDEN_USAGE};
	struct usage_question *question = calloc(1, sizeof(*question));
	int rc;

	if (!question)
		return pdk_fail_errno(err, -ENOMEM, "reading usage");
	question->call = call;
	memcpy(request.id, sandbox->kernel_id, SANDBOX_ID_SIZE);
	rpc_set_events(call, &usage_events, question);
	rc = warden_call(&request, -1, on_usage, question);
	if (rc >= 0)
		return 0;
	free(question);
	return pdk_fail(err, rc, PDK_UNAVAILABLE, "the sandbox manager is away; try again");
}

void sandboxes_get_usage(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__V1__GetUsageRequest *request = (const void *)message;
	struct sandbox *sandbox;
	struct pdk_error err;
	int rc = sandbox_find(call, request->sandbox_id, &sandbox, &err);

	if (rc >= 0) {
		rpc_audit_object(call, sandbox->id, NULL);
		if (sandbox->state != PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_RUNNING &&
		    sandbox->state != PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_PAUSED)
			rc = pdk_fail(&err, -EINVAL, PDK_FAILED_PRECONDITION, "sandbox is not running");
	}
	if (rc >= 0)
		rc = ask_usage(call, sandbox, &err);
	if (rc < 0)
		rpc_fail(call, &err);
}
