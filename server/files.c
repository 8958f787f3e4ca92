#include "files.h"

#include "file_internal.h"
#include "file_token.h"
#include "validate.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The calls of Files that are one question to init: Stat, List, MakeDir, Move, Remove. */

#define DEPTH_MAX 64u
#define PAGE_DEFAULT 1000u
#define PAGE_MAX 10000u

int file_begin(struct rpc_call *call, const char *sandbox_id, const ProtobufCBinaryData *path, const char *user,
	       struct sandbox **ret, struct pdk_error *err)
{
	struct sandbox *sandbox;
	char object[VALIDATE_PATH_MAX + 1];
	size_t length = path->len < VALIDATE_PATH_MAX ? path->len : VALIDATE_PATH_MAX;
	int rc;

	if (rpc_is_signed_file(call) && !sandbox_id[0])
		sandbox_id = rpc_principal(call)->sandbox_id;
	rc = sandbox_find_running(call, sandbox_id, &sandbox, err);

	if (rc < 0)
		return rc;
	if (length)
		memcpy(object, path->data, length);
	object[length] = '\0';
	rpc_audit_object(call, sandbox->id, object);
	rc = validate_path("path", path, err);
	if (rc == 0)
		rc = validate_user("user", user, err);
	if (rc == 0 && !rpc_file_allowed(call, path, user))
		rc = pdk_fail(err, -EACCES, PDK_PERMISSION_DENIED, "the signature is for another file");
	if (rc == 0)
		*ret = sandbox;
	return rc;
}

char *file_user(const struct sandbox *sandbox, const char *user)
{
	return (char *)(uintptr_t)(user[0] ? user : sandbox_default_user(sandbox));
}

/* A name that init read from the sandbox's passwd file; what is no text becomes the number. */
static char *clean_name(struct rpc_call *call, char *name, uint32_t number)
{
	char *text;

	if (name[0] && utf8_valid(name, strlen(name)))
		return name;
	text = rpc_alloc(call, 11);
	if (!text)
		return (char *)protobuf_c_empty_string;
	snprintf(text, 11, "%u", number);
	return text;
}

/* Bytes of the sandbox as text in the arena; NULL: they are none. */
static char *text_of(struct rpc_call *call, const ProtobufCBinaryData *bytes)
{
	const char *data = bytes->len ? (const char *)bytes->data : "";
	char *text;

	if (memchr(data, '\0', bytes->len) || !utf8_valid(data, bytes->len))
		return NULL;
	text = rpc_alloc(call, bytes->len + 1);
	if (text)
		memcpy(text, data, bytes->len);
	return text;
}

static int fill_metadata(struct rpc_call *call, const Paddock__Internal__GuestFile *file, Paddock__V1__FileInfo *ret)
{
	Paddock__V1__FileInfo__MetadataEntry *entries;

	if (!file->n_metadata)
		return 0;
	entries = rpc_alloc(call, file->n_metadata * sizeof(*entries));
	ret->metadata = rpc_alloc(call, file->n_metadata * sizeof(*ret->metadata));
	if (!entries || !ret->metadata)
		return -ENOMEM;
	for (size_t i = 0; i < file->n_metadata; i++) {
		Paddock__V1__FileInfo__MetadataEntry *entry = &entries[i];

		paddock__v1__file_info__metadata_entry__init(entry);
		entry->key = text_of(call, &file->metadata[i]->name);
		entry->value = text_of(call, &file->metadata[i]->value);
		if (entry->key && entry->value)
			ret->metadata[ret->n_metadata++] = entry;
	}
	return 0;
}

int file_fill_info(struct rpc_call *call, const Paddock__Internal__GuestFile *file, Paddock__V1__FileInfo *ret)
{
	paddock__v1__file_info__init(ret);
	ret->path = file->path;
	ret->type = (Paddock__V1__FileType)file->type;
	ret->mode = file->mode;
	ret->size = file->size;
	ret->uid = file->uid;
	ret->gid = file->gid;
	ret->user = clean_name(call, file->user, file->uid);
	ret->group = clean_name(call, file->group, file->gid);
	ret->modified_unix_ms = file->modified_unix_ms;
	ret->symlink_target = file->symlink_target;
	ret->inode = file->inode;
	ret->links = file->links;
	return fill_metadata(call, file, ret);
}

void file_finish(struct rpc_call *call, const Paddock__Internal__GuestFile *file)
{
	Paddock__V1__FileInfo info;
	struct pdk_error err;

	if (file_fill_info(call, file, &info) == 0) {
		rpc_finish(call, &info.base);
		return;
	}
	pdk_fail(&err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "the server is out of memory");
	rpc_fail(call, &err);
}

int file_fail_ask(int64_t rc, struct pdk_error *err)
{
	if (rc == -EAGAIN)
		return pdk_fail(err, (int)rc, PDK_RESOURCE_EXHAUSTED,
				"too many operations of this sandbox are under way");
	if (rc == -ENOMEM)
		return pdk_fail(err, (int)rc, PDK_UNAVAILABLE, "the server is out of memory");
	return pdk_fail(err, (int)rc, PDK_UNAVAILABLE, "the sandbox does not answer");
}

static void ask(struct rpc_call *call, struct sandbox *sandbox, const Paddock__Internal__GuestRequest *request,
		uint64_t note, question_answer answer)
{
	struct pdk_error err;
	int rc = question_ask(call, sandbox->guest, request, answer, note);

	if (rc >= 0)
		return;
	file_fail_ask(rc, &err);
	rpc_fail(call, &err);
}

static void answer_file(struct rpc_call *call, const Paddock__Internal__GuestReply *reply, uint64_t note)
{
	file_finish(call, reply->file);
}

void files_stat(struct rpc_call *call, const ProtobufCMessage *message)
{
	const Paddock__V1__StatRequest *request = (const Paddock__V1__StatRequest *)message;
	Paddock__Internal__GuestStat stat = PADDOCK__INTERNAL__GUEST_STAT__INIT;
	Paddock__Internal__GuestRequest question = PADDOCK__INTERNAL__GUEST_REQUEST__INIT;
	struct sandbox *sandbox;
	struct pdk_error err;

	if (file_begin(call, request->sandbox_id, &request->path, request->user, &sandbox, &err) < 0) {
		rpc_fail(call, &err);
		return;
	}
	stat.path = request->path;
	stat.user = file_user(sandbox, request->user);
	stat.follow = request->follow;
	question.op_case = PADDOCK__INTERNAL__GUEST_REQUEST__OP_STAT;
	question.stat = &stat;
	ask(call, sandbox, &question, 0, answer_file);
}

void files_make_dir(struct rpc_call *call, const ProtobufCMessage *message)
{
	const Paddock__V1__MakeDirRequest *request = (const Paddock__V1__MakeDirRequest *)message;
	Paddock__Internal__GuestMakeDir make_dir = PADDOCK__INTERNAL__GUEST_MAKE_DIR__INIT;
	Paddock__Internal__GuestRequest question = PADDOCK__INTERNAL__GUEST_REQUEST__INIT;
	struct sandbox *sandbox;
	struct pdk_error err;

	if (file_begin(call, request->sandbox_id, &request->path, request->user, &sandbox, &err) < 0 ||
	    validate_range("mode", request->mode, 0, 0777, &err) < 0) {
		rpc_fail(call, &err);
		return;
	}
	make_dir.path = request->path;
	make_dir.user = file_user(sandbox, request->user);
	make_dir.mode = request->mode ? request->mode : 0755;
	make_dir.parents = request->parents;
	question.op_case = PADDOCK__INTERNAL__GUEST_REQUEST__OP_MAKE_DIR;
	question.make_dir = &make_dir;
	ask(call, sandbox, &question, 0, answer_file);
}

void files_move(struct rpc_call *call, const ProtobufCMessage *message)
{
	const Paddock__V1__MoveRequest *request = (const Paddock__V1__MoveRequest *)message;
	Paddock__Internal__GuestMove move = PADDOCK__INTERNAL__GUEST_MOVE__INIT;
	Paddock__Internal__GuestRequest question = PADDOCK__INTERNAL__GUEST_REQUEST__INIT;
	struct sandbox *sandbox;
	struct pdk_error err;
	int rc;

	rc = file_begin(call, request->sandbox_id, &request->from, request->user, &sandbox, &err);
	if (rc < 0 && err.code == PDK_INVALID_ARGUMENT && strncmp(err.text, "path:", 5) == 0)
		rc = validate_path("from", &request->from, &err);
	if (rc == 0)
		rc = validate_path("to", &request->to, &err);
	if (rc < 0) {
		rpc_fail(call, &err);
		return;
	}
	move.from = request->from;
	move.to = request->to;
	move.user = file_user(sandbox, request->user);
	move.no_replace = request->no_replace;
	question.op_case = PADDOCK__INTERNAL__GUEST_REQUEST__OP_MOVE;
	question.move = &move;
	ask(call, sandbox, &question, 0, answer_file);
}

static void answer_remove(struct rpc_call *call, const Paddock__Internal__GuestReply *reply, uint64_t note)
{
	Paddock__V1__RemoveResponse removed = PADDOCK__V1__REMOVE_RESPONSE__INIT;

	removed.removed = reply->count->entries;
	rpc_finish(call, &removed.base);
}

void files_remove(struct rpc_call *call, const ProtobufCMessage *message)
{
	const Paddock__V1__RemoveRequest *request = (const Paddock__V1__RemoveRequest *)message;
	Paddock__Internal__GuestRemove remove = PADDOCK__INTERNAL__GUEST_REMOVE__INIT;
	Paddock__Internal__GuestRequest question = PADDOCK__INTERNAL__GUEST_REQUEST__INIT;
	struct sandbox *sandbox;
	struct pdk_error err;

	if (file_begin(call, request->sandbox_id, &request->path, request->user, &sandbox, &err) < 0) {
		rpc_fail(call, &err);
		return;
	}
	remove.path = request->path;
	remove.user = file_user(sandbox, request->user);
	remove.recursive = request->recursive;
	question.op_case = PADDOCK__INTERNAL__GUEST_REQUEST__OP_REMOVE;
	question.remove = &remove;
	ask(call, sandbox, &question, 0, answer_remove);
}

/* List */

static int fill_list(struct rpc_call *call, const Paddock__Internal__GuestFiles *files,
		     Paddock__V1__ListFilesResponse *list)
{
	Paddock__V1__FileInfo *infos = rpc_alloc(call, (files->n_file + 1) * sizeof(*infos));

	list->files = rpc_alloc(call, (files->n_file + 1) * sizeof(*list->files));
	if (!infos || !list->files)
		return -ENOMEM;
	for (size_t i = 0; i < files->n_file; i++) {
		if (file_fill_info(call, files->file[i], &infos[i]) < 0)
			return -ENOMEM;
		list->files[i] = &infos[i];
	}
	list->n_files = files->n_file;
	return 0;
}

static void answer_list(struct rpc_call *call, const Paddock__Internal__GuestReply *reply, uint64_t check)
{
	Paddock__V1__ListFilesResponse list = PADDOCK__V1__LIST_FILES_RESPONSE__INIT;
	char token[FILE_TOKEN_SIZE];
	struct pdk_error err;

	if (fill_list(call, reply->files, &list) < 0) {
		pdk_fail(&err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "the page is too large; ask for a smaller page_size");
		rpc_fail(call, &err);
		return;
	}
	if (reply->files->next.len) {
		file_token_make(token, check, &reply->files->next);
		list.next_page_token = token;
	}
	rpc_finish(call, &list.base);
}

static int begin_list(struct rpc_call *call, const Paddock__V1__ListFilesRequest *request, struct sandbox **ret,
		      struct pdk_error *err)
{
	int rc = file_begin(call, request->sandbox_id, &request->path, request->user, ret, err);

	if (rc == 0)
		rc = validate_range("depth", request->depth, 0, DEPTH_MAX, err);
	if (rc == 0)
		rc = validate_range("page_size", request->page_size, 0, PAGE_MAX, err);
	return rc;
}

void files_list(struct rpc_call *call, const ProtobufCMessage *message)
{
	const Paddock__V1__ListFilesRequest *request = (const Paddock__V1__ListFilesRequest *)message;
	Paddock__Internal__GuestList list = PADDOCK__INTERNAL__GUEST_LIST__INIT;
	Paddock__Internal__GuestRequest question = PADDOCK__INTERNAL__GUEST_REQUEST__INIT;
	uint8_t after[FILE_TOKEN_PATH_MAX];
	struct sandbox *sandbox;
	struct pdk_error err;
	uint64_t check = 0;
	int rc = begin_list(call, request, &sandbox, &err);

	if (rc == 0) {
		check = file_token_check(sandbox->id, &request->path, file_user(sandbox, request->user),
					 request->depth ? request->depth : 1);
		list.after.data = after;
		rc = file_token_parse(request->page_token, check, after, &list.after.len, &err);
	}
	if (rc < 0) {
		rpc_fail(call, &err);
		return;
	}
	list.path = request->path;
	list.user = file_user(sandbox, request->user);
	list.depth = request->depth ? request->depth : 1;
	list.limit = request->page_size ? request->page_size : PAGE_DEFAULT;
	question.op_case = PADDOCK__INTERNAL__GUEST_REQUEST__OP_LIST;
	question.list = &list;
	ask(call, sandbox, &question, check, answer_list);
}
