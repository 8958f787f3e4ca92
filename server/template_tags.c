#include "rpc.h"
#include "sandbox/base/cleanup.h"
#include "snapshot_internal.h"
#include "template_internal.h"
#include "validate.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Names with tags, and templates that are made of snapshots: CreateFromSnapshot, SetTags, RemoveTags. */

#define TAGS_MAX 16
#define REMOVED_MAX 64

int template_ref(const char *field, const char *text, char ret[TEMPLATE_REF_SIZE], struct pdk_error *err)
{
	const char *colon = strchr(text, ':');
	char name[TEMPLATE_NAME_SIZE];
	int rc;

	if (!colon)
		rc = validate_template_name(field, text, err);
	else if (colon - text >= TEMPLATE_NAME_SIZE)
		rc = pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "%s: a name is at most 63 bytes", field);
	else {
		snprintf(name, sizeof(name), "%.*s", (int)(colon - text), text);
		rc = validate_template_name(field, name, err);
	}
	if (rc >= 0 && colon)
		rc = validate_template_name(field, colon + 1, err);
	if (rc < 0)
		return rc;
	if (colon && strcmp(colon, ":default") == 0)
		snprintf(ret, TEMPLATE_REF_SIZE, "%s", name);
	else
		snprintf(ret, TEMPLATE_REF_SIZE, "%s", text);
	return 0;
}

int template_tag_ref(const char *field, const char *name, const char *tag, char ret[TEMPLATE_REF_SIZE],
		     struct pdk_error *err)
{
	char text[TEMPLATE_REF_SIZE];
	int rc = validate_template_name(field, tag, err);

	if (rc < 0)
		return rc;
	snprintf(text, sizeof(text), "%.63s:%.63s", name, tag);
	return template_ref(field, text, ret, err);
}

int template_check_room(const char *tenant, unsigned int more, struct pdk_error *err)
{
	uint32_t used = template_name_count(tenant);
	struct tenant_quota quota;

	tenant_get_quota(tenant, &quota);
	if (more <= quota.max_templates && used <= quota.max_templates - more)
		return 0;
	return pdk_fail(err, -EDQUOT, PDK_RESOURCE_EXHAUSTED,
			"tenant quota max_templates exhausted: %u of %u in use, %u more asked for", used,
			quota.max_templates, more);
}

/* --- CreateFromSnapshot --- */

static int check_create(const Paddock__V1__CreateTemplateFromSnapshotRequest *request, struct rpc_call *call,
			char ref[TEMPLATE_REF_SIZE], struct snapshot **ret, struct pdk_error *err)
{
	const char *tenant;
	int rc = validate_label("snapshot", request->snapshot, 128, err);

	if (rc >= 0)
		rc = template_ref("name", request->name, ref, err);
	if (rc >= 0 && (template_id_valid(ref) || snapshot_id_valid(ref)))
		rc = pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "name: must not look like an id");
	if (rc >= 0)
		rc = snapshot_find(rpc_principal(call), request->snapshot, ret, err);
	if (rc < 0)
		return rc;
	tenant = (*ret)->stored->tenant;
	rpc_audit_object(call, NULL, ref);
	if (!template_name_find(tenant, ref))
		return template_check_room(tenant, 1, err);
	return request->replace ? 0
				: pdk_fail(err, -EEXIST, PDK_ALREADY_EXISTS,
					   "name: exists; set replace to move it to the snapshot");
}

void templates_create_from_snapshot(struct rpc_call *call, const ProtobufCMessage *message)
{
	const Paddock__V1__CreateTemplateFromSnapshotRequest *request = (const void *)message;
	struct store_batch *batch = NULL;
	Paddock__V1__Template *reply = NULL;
	char ref[TEMPLATE_REF_SIZE];
	struct snapshot *snapshot;
	struct pdk_error err;
	int rc = check_create(request, call, ref, &snapshot, &err);

	if (rc >= 0) {
		batch = store_batch_create();
		rc = batch ? template_name_set_snapshot(snapshot->stored->tenant, ref, snapshot, batch) : -ENOMEM;
		if (rc >= 0)
			reply = template_message(call, template_name_find(snapshot->stored->tenant, ref));
		if (!reply)
			rc = pdk_fail_errno(&err, -ENOMEM, "keeping the template");
	}
	if (rc < 0) {
		store_batch_free(batch);
		rpc_fail(call, &err);
		return;
	}
	rpc_finish_commit(call, batch, &reply->base);
}

/* --- SetTags, RemoveTags --- */

static int check_tags(size_t count, size_t max, struct pdk_error *err)
{
	if (!count)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "tags: at least one");
	return validate_count("tags", count, max, err);
}

/* The caller's own; a public one is the operator's to change, by importing it anew. */
static int find_own(struct rpc_call *call, const char *field, const char *text, struct template_name **ret,
		    struct pdk_error *err)
{
	char ref[TEMPLATE_REF_SIZE];
	int rc = template_ref(field, text, ref, err);

	if (rc < 0)
		return rc;
	*ret = template_name_find(rpc_principal(call)->tenant, ref);
	if (*ret)
		return 0;
	if (template_name_find("", ref))
		return pdk_fail(err, -EPERM, PDK_PERMISSION_DENIED, "%s: a public template has no other tags", field);
	return pdk_fail(err, -ENOENT, PDK_NOT_FOUND, "template not found");
}

static int set_tags(struct rpc_call *call, const Paddock__V1__SetTemplateTagsRequest *request,
		    const struct template_name *target, struct store_batch *batch, struct pdk_error *err)
{
	const char *tenant = rpc_principal(call)->tenant;
	struct template_content *content = target->content;
	struct snapshot *snapshot = target->snapshot;
	char name[TEMPLATE_NAME_SIZE], ref[TAGS_MAX][TEMPLATE_REF_SIZE];
	unsigned int more = 0;
	int rc = 0;

	snprintf(name, sizeof(name), "%.*s", (int)strcspn(target->name, ":"), target->name);
	for (size_t i = 0; i < request->n_tags && rc >= 0; i++) {
		rc = template_tag_ref("tags", name, request->tags[i], ref[i], err);
		more += rc >= 0 && !template_name_find(tenant, ref[i]);
	}
	if (rc >= 0)
		rc = template_check_room(tenant, more, err);
	for (size_t i = 0; i < request->n_tags && rc >= 0; i++) {
		struct text_list *labels = NULL;

		if (snapshot)
			rc = template_name_set_snapshot(tenant, ref[i], snapshot, batch);
		else if (!(labels = text_list_copy(NULL, 0)) ||
			 (rc = template_name_set(tenant, ref[i], content, labels, batch)) < 0)
			free(labels);
		if (rc < 0 || (!snapshot && !labels))
			return pdk_fail_errno(err, -ENOMEM, "keeping the tags");
	}
	return rc;
}

void templates_set_tags(struct rpc_call *call, const ProtobufCMessage *message)
{
	const Paddock__V1__SetTemplateTagsRequest *request = (const void *)message;
	Paddock__V1__SetTemplateTagsResponse reply = PADDOCK__V1__SET_TEMPLATE_TAGS_RESPONSE__INIT;
	struct store_batch *batch = NULL;
	struct template_name *target;
	struct pdk_error err;
	int rc = check_tags(request->n_tags, TAGS_MAX, &err);

	if (rc >= 0)
		rc = find_own(call, "target", request->target, &target, &err);
	if (rc >= 0) {
		rpc_audit_object(call, NULL, target->name);
		if (target->snapshot)
			reply.build_id = target->snapshot->stored->build_id;
		batch = store_batch_create();
		rc = batch ? set_tags(call, request, target, batch, &err)
			   : pdk_fail_errno(&err, -ENOMEM, "keeping the tags");
	}
	if (rc < 0) {
		store_batch_free(batch);
		rpc_fail(call, &err);
		return;
	}
	reply.n_tags = request->n_tags;
	reply.tags = request->tags;
	rpc_finish_commit(call, batch, &reply.base);
}

void templates_remove_tags(struct rpc_call *call, const ProtobufCMessage *message)
{
	const Paddock__V1__RemoveTemplateTagsRequest *request = (const void *)message;
	Paddock__V1__RemoveTemplateTagsResponse reply = PADDOCK__V1__REMOVE_TEMPLATE_TAGS_RESPONSE__INIT;
	struct template_name *found[REMOVED_MAX];
	struct store_batch *batch = NULL;
	char ref[TEMPLATE_REF_SIZE];
	struct pdk_error err;
	int rc = check_tags(request->n_tags, REMOVED_MAX, &err);

	if (rc >= 0)
		rc = validate_template_name("name", request->name, &err);
	for (size_t i = 0; i < request->n_tags && rc >= 0; i++) {
		rc = template_tag_ref("tags", request->name, request->tags[i], ref, &err);
		if (rc >= 0)
			rc = find_own(call, "name", ref, &found[i], &err);
		for (size_t j = 0; j < i && rc >= 0; j++)
			if (found[j] == found[i])
				rc = pdk_fail(&err, -EINVAL, PDK_INVALID_ARGUMENT, "tags: one is named twice");
	}
	if (rc >= 0) {
		rpc_audit_object(call, NULL, request->name);
		batch = store_batch_create();
		rc = batch ? templates_remove_names(found, request->n_tags, batch) : -ENOMEM;
		if (rc < 0)
			pdk_fail_errno(&err, rc, "removing the tags");
	}
	if (rc < 0) {
		store_batch_free(batch);
		rpc_fail(call, &err);
		return;
	}
	rpc_finish_commit(call, batch, &reply.base);
}
