#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "preview_internal.h"
#include "rpc.h"
#include "sandbox/base/cleanup.h"
#include "sandbox_internal.h"
#include "validate.h"

/* The Previews service: grant, list, revoke, extend. */

#define TTL_DEFAULT_MS 3600000u
#define TTL_MIN_MS 1000u
#define TTL_MAX_MS 604800000u
#define OF_SANDBOX_MAX 100u
#define OF_SERVER_MAX 20000u
#define LIST_MAX 1000u

#define ACTIVE PADDOCK__V1__PREVIEW_STATE__PREVIEW_STATE_ACTIVE

/* A grant as the API shows it. */
struct shown {
	Paddock__V1__Preview message;
	char host[PREVIEW_ID_SIZE + CONFIG_PATH_MAX];
	char url[PREVIEW_ID_SIZE + CONFIG_PATH_MAX + PREVIEW_TOKEN_LEN + 32];
};

/* "http://localhost:7413" -> "<id>.localhost" */
static void make_host(struct shown *shown, const struct preview *preview)
{
	const char *domain = strstr(server_config.preview_url, "://") + 3;

	snprintf(shown->host, sizeof(shown->host), "%s.%.*s", preview->id, (int)strcspn(domain, ":"), domain);
}

static void make_url(struct shown *shown, const struct preview *preview)
{
	const char *domain = strstr(server_config.preview_url, "://") + 3;
	char token[PREVIEW_TOKEN_LEN + 1];

	if (!preview_make_token(preview, token))
		return;
	snprintf(shown->url, sizeof(shown->url), "%.*s%s.%s/?paddock_token=%s",
		 (int)(domain - server_config.preview_url), server_config.preview_url, preview->id, domain, token);
	explicit_bzero(token, sizeof(token));
}

static void show(struct shown *shown, const struct preview *preview, bool with_url)
{
	Paddock__V1__Preview *message = &shown->message;

	paddock__v1__preview__init(message);
	make_host(shown, preview);
	shown->url[0] = '\0';
	if (with_url && preview->state == ACTIVE)
		make_url(shown, preview);
	message->id = (char *)preview->id;
	message->sandbox_id = (char *)preview->sandbox_id;
	message->port = preview->port;
	message->url = shown->url;
	message->host = shown->host;
	message->state = preview->state;
	message->created_unix_ms = preview->created_unix_ms;
	message->expires_unix_ms = preview->expires_unix_ms;
	message->ended_unix_ms = preview->ended_unix_ms;
	message->read_only = preview->read_only;
	message->one_visitor = preview->one_visitor;
	message->counts_as_activity = preview->counts_as_activity;
	message->resumes = preview->resumes;
	message->host_header = (char *)preview->host_header;
	message->visitors = preview->visitors;
	message->last_visit_unix_ms = preview->last_visit_unix_ms;
}

/* Store the grant as it is now, and answer with it. */
static void finish_with(struct rpc_call *call, const struct preview *preview, bool with_url)
{
	struct store_batch *batch = store_batch_create();
	struct pdk_error err;
	struct shown shown;

	if (!batch || preview_store(batch, preview) < 0) {
		store_batch_free(batch);
		pdk_fail_errno(&err, -ENOMEM, "storing the preview");
		rpc_fail(call, &err);
		return;
	}
	show(&shown, preview, with_url);
	rpc_finish_commit(call, batch, &shown.message.base);
	explicit_bzero(shown.url, sizeof(shown.url));
}

/* Grant */

static int check_port(const char *field, uint32_t port, struct pdk_error *err)
{
	int rc = validate_range(field, port, 1, 65535, err);

	if (rc >= 0 && !preview_port_valid(port))
		rc = pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "%s: 22 and 49983 are never opened", field);
	return rc;
}

static int check_room(const struct sandbox *sandbox, struct pdk_error *err)
{
	unsigned int n = 0;

	for (const struct preview *preview = sandbox->previews; preview; preview = preview->next)
		n++;
	if (n >= OF_SANDBOX_MAX)
		return pdk_fail(err, -EDQUOT, PDK_RESOURCE_EXHAUSTED, "previews: the sandbox has %u already", n);
	if (preview_count() >= OF_SERVER_MAX)
		return pdk_fail(err, -EDQUOT, PDK_RESOURCE_EXHAUSTED, "previews: the server has too many already");
	return 0;
}

static int check_grant(struct rpc_call *call, const Paddock__V1__GrantPreviewRequest *request, struct sandbox **ret,
		       struct pdk_error *err)
{
	int rc = check_port("port", request->port, err);

	if (rc >= 0)
		rc = validate_optional_range("ttl_ms", request->ttl_ms, TTL_MIN_MS, TTL_MAX_MS, err);
	if (rc >= 0)
		rc = validate_host_pattern("host_header", request->host_header, err);
	if (rc >= 0)
		rc = sandbox_find(call, request->sandbox_id, ret, err);
	if (rc < 0)
		return rc;
	rpc_audit_object(call, (*ret)->id, NULL);
	rc = sandbox_check_living(*ret, err);
	return rc < 0 ? rc : check_room(*ret, err);
}

static void record_grant(struct rpc_call *call, const struct preview *preview)
{
	char detail[160];

	snprintf(detail, sizeof(detail), "{\"port\":%u,\"expires_unix_ms\":%lld,\"read_only\":%s,\"one_visitor\":%s}",
		 preview->port, (long long)preview->expires_unix_ms, preview->read_only ? "true" : "false",
		 preview->one_visitor ? "true" : "false");
	rpc_audit_object(call, preview->sandbox_id, preview->id);
	rpc_audit_detail(call, detail);
}

static int make(const Paddock__V1__GrantPreviewRequest *request, const struct sandbox *sandbox, struct preview **ret)
{
	_cleanup_free_ struct preview *preview = calloc(1, sizeof(*preview));
	uint64_t ttl = request->ttl_ms ? request->ttl_ms : TTL_DEFAULT_MS;

	if (!preview)
		return -ENOMEM;
	do
		preview_make_id(preview->id);
	while (preview_get(preview->id));
	strcpy(preview->tenant, sandbox->tenant);
	strcpy(preview->sandbox_id, sandbox->id);
	strcpy(preview->host_header, request->host_header);
	preview->generation = sandbox_generation(sandbox);
	preview->port = (uint16_t)request->port;
	preview->state = ACTIVE;
	preview->created_unix_ms = loop_wall_ms();
	preview->expires_unix_ms = preview->created_unix_ms + (int64_t)ttl;
	preview->read_only = request->read_only;
	preview->one_visitor = request->one_visitor;
	preview->counts_as_activity = request->counts_as_activity;
	preview->resumes = request->resumes;
	preview_insert(preview);
	*ret = STEAL_PTR(preview);
	return 0;
}

void previews_grant(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__V1__GrantPreviewRequest *request = (const void *)message;
	struct preview *preview;
	struct sandbox *sandbox;
	struct pdk_error err;
	int rc = check_grant(call, request, &sandbox, &err);

	if (rc >= 0) {
		rc = make(request, sandbox, &preview);
		if (rc < 0)
			pdk_fail_errno(&err, rc, "making the preview");
	}
	if (rc < 0) {
		rpc_fail(call, &err);
		return;
	}
	record_grant(call, preview);
	finish_with(call, preview, true);
}

/* List */

static bool wanted(const struct rpc_call *call, const Paddock__V1__ListPreviewsRequest *request,
		   const struct preview *preview)
{
	if (request->sandbox_id[0])
		return strcmp(preview->sandbox_id, request->sandbox_id) == 0;
	return strcmp(preview->tenant, rpc_principal(call)->tenant) == 0;
}

void previews_list(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__V1__ListPreviewsRequest *request = (const void *)message;
	Paddock__V1__ListPreviewsResponse reply = PADDOCK__V1__LIST_PREVIEWS_RESPONSE__INIT;
	struct sandbox *sandbox;
	struct pdk_error err;

	if (request->sandbox_id[0] && sandbox_find(call, request->sandbox_id, &sandbox, &err) < 0) {
		rpc_fail(call, &err);
		return;
	}
	if (request->sandbox_id[0])
		rpc_audit_object(call, sandbox->id, NULL);
	reply.previews = rpc_alloc(call, LIST_MAX * sizeof(*reply.previews));
	for (struct preview *preview = preview_oldest(); reply.previews && preview && reply.n_previews < LIST_MAX;
	     preview = preview->newer) {
		struct shown *shown;

		if (!wanted(call, request, preview) || (request->active_only && preview->state != ACTIVE))
			continue;
		shown = rpc_alloc(call, sizeof(*shown));
		if (!shown)
			reply.previews = NULL;
		else
			show(shown, preview, false);
		if (shown)
			reply.previews[reply.n_previews++] = &shown->message;
	}
	if (reply.previews) {
		rpc_finish(call, &reply.base);
		return;
	}
	pdk_fail_errno(&err, -ENOMEM, "listing the previews");
	rpc_fail(call, &err);
}

/* Revoke, Extend */

/* The caller's grant, or NOT_FOUND for ids that do not parse, do not exist or are another tenant's. */
static int find(struct rpc_call *call, const char *id, struct preview **ret, struct pdk_error *err)
{
	const struct principal *principal = rpc_principal(call);
	struct preview *preview = preview_get(id);

	if (!preview || (!principal->is_operator && strcmp(principal->tenant, preview->tenant) != 0))
		return pdk_fail(err, -ENOENT, PDK_NOT_FOUND, "preview not found");
	rpc_audit_object(call, preview->sandbox_id, preview->id);
	*ret = preview;
	return 0;
}

void previews_revoke(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__V1__RevokePreviewRequest *request = (const void *)message;
	struct preview *preview;
	struct pdk_error err;

	if (find(call, request->preview_id, &preview, &err) < 0) {
		rpc_fail(call, &err);
		return;
	}
	preview_finish(preview, PADDOCK__V1__PREVIEW_STATE__PREVIEW_STATE_REVOKED);
	finish_with(call, preview, false);
}

void previews_extend(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Paddock__V1__ExtendPreviewRequest *request = (const void *)message;
	struct preview *preview;
	struct pdk_error err;
	int rc = validate_range("ttl_ms", request->ttl_ms, TTL_MIN_MS, TTL_MAX_MS, &err);

	if (rc >= 0)
		rc = find(call, request->preview_id, &preview, &err);
	if (rc >= 0 && preview->state != ACTIVE)
		rc = pdk_fail(&err, -EINVAL, PDK_FAILED_PRECONDITION, "preview was revoked, or has expired");
	if (rc < 0) {
		rpc_fail(call, &err);
		return;
	}
	preview->expires_unix_ms = loop_wall_ms() + (int64_t)request->ttl_ms;
	preview_arm(preview);
	finish_with(call, preview, true);
}
