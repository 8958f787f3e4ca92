#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "e2b.h"
#include "e2b_entry.h"
#include "e2b_process.h"
#include "sandbox/base/cleanup.h"

/*
 * filesystem.Filesystem, but for its watches (e2b_watch.c). Where the two contracts differ, one call becomes several:
 * each step is a call of paddock.v1.Files whose outcome decides on the next.
 */

#define FILES "/paddock.v1.Files/"
#define PAGE 1000u

struct step {
	struct e2b_call *e2b;
	/* The outcome: a reply, or NULL and why. */
	void (*then)(struct step *step, const ProtobufCMessage *reply, const struct pdk_error *err);
	const char *path; /* as the client named it */
	const char *destination;
	struct e2b_entry *entry;
	/* ListDir */
	uint32_t depth;
	Filesystem__EntryInfo **entries;
	size_t n_entries, room, resolved;
	char *page_token;
};

/* Calls */

static void on_reply(void *arg, const ProtobufCMessage *message)
{
	static const struct pdk_error none = {.code = PDK_OK};
	struct e2b_call *e2b = arg;
	struct step *step = e2b->state;

	rpc_local_cancel(STEAL_PTR(e2b->inner));
	step->then(step, message, &none);
}

static void on_end(void *arg, const struct pdk_error *end)
{
	struct e2b_call *e2b = arg;
	struct step *step = e2b->state;

	e2b->inner = NULL;
	step->then(step, NULL, end);
}

static void next(struct step *step, const char *path, const ProtobufCMessage *request,
		 void (*then)(struct step *step, const ProtobufCMessage *reply, const struct pdk_error *err))
{
	static const struct rpc_local_events events = {.on_message = on_reply, .on_end = on_end};

	step->then = then;
	e2b_call_inner(step->e2b, path, request, &events);
}

static void fail(struct step *step, const struct pdk_error *err)
{
	struct pdk_error mapped = *err;

	/* "not a directory" and the like are the request's fault in this contract. */
	if (err->code == PDK_FAILED_PRECONDITION && !e2b_is_about_sandbox(err))
		mapped.code = PDK_INVALID_ARGUMENT;
	e2b_fail_with(step->e2b, &mapped);
}

static struct step *begin(struct rpc_call *call)
{
	struct e2b_call *e2b = e2b_begin(call);
	struct step *step = e2b ? rpc_alloc(call, sizeof(*step)) : NULL;

	if (e2b && !step)
		e2b_fail(e2b, PDK_RESOURCE_EXHAUSTED, "the server is out of memory");
	if (!step)
		return NULL;
	step->e2b = e2b;
	e2b->state = step;
	return step;
}

/* Below the home folder is how Files takes relative paths already. False: the call has failed. */
static bool expand(struct step *step, const char **path)
{
	if ((*path)[0] != '~') {
		*path = (*path)[0] ? *path : ".";
		return true;
	}
	if ((*path)[1] && (*path)[1] != '/') {
		e2b_fail(step->e2b, PDK_INVALID_ARGUMENT, "path: the home of another user");
		return false;
	}
	*path += strspn(*path, "~/");
	if (!(*path)[0])
		*path = ".";
	return true;
}

static ProtobufCBinaryData bytes_of(const char *text)
{
	return (ProtobufCBinaryData){.len = strlen(text), .data = (uint8_t *)(uintptr_t)text};
}

static void call_stat(struct step *step, const char *path, bool follow,
		      void (*then)(struct step *step, const ProtobufCMessage *reply, const struct pdk_error *err))
{
	Paddock__V1__StatRequest request = PADDOCK__V1__STAT_REQUEST__INIT;

	request.sandbox_id = step->e2b->sandbox_id;
	request.path = bytes_of(path);
	request.user = (char *)(uintptr_t)rpc_client_user(step->e2b->call);
	request.follow = follow;
	next(step, FILES "Stat", &request.base, then);
}

static void call_make_dir(struct step *step, const char *path,
			  void (*then)(struct step *step, const ProtobufCMessage *reply, const struct pdk_error *err))
{
	Paddock__V1__MakeDirRequest request = PADDOCK__V1__MAKE_DIR_REQUEST__INIT;

	request.sandbox_id = step->e2b->sandbox_id;
	request.path = bytes_of(path);
	request.user = (char *)(uintptr_t)rpc_client_user(step->e2b->call);
	request.parents = true;
	next(step, FILES "MakeDir", &request.base, then);
}

/* One entry as the reply: Stat, MakeDir, Move (whose replies are the same on the wire) */

static void finish_entry(struct step *step)
{
	Filesystem__StatResponse reply = FILESYSTEM__STAT_RESPONSE__INIT;

	reply.entry = &step->entry->info;
	rpc_finish(step->e2b->call, &reply.base);
}

static void entry_resolved(struct step *step, const ProtobufCMessage *reply, const struct pdk_error *err)
{
	e2b_entry_resolve(step->entry, (const void *)reply);
	finish_entry(step);
}

static void entry_known(struct step *step, const ProtobufCMessage *reply, const struct pdk_error *err)
{
	struct rpc_call *call = step->e2b->call;
	int rc;

	if (!reply) {
		fail(step, err);
		return;
	}
	step->entry = rpc_alloc(call, sizeof(*step->entry));
	rc = step->entry ? e2b_entry_fill(rpc_arena(call), step->entry, (const void *)reply) : -ENOMEM;
	if (rc < 0)
		e2b_fail(step->e2b, rc == -ENOMEM ? PDK_RESOURCE_EXHAUSTED : PDK_INVALID_ARGUMENT,
			 rc == -ENOMEM ? "the server is out of memory" : "path: is not UTF-8");
	else if (e2b_entry_is_link(step->entry))
		call_stat(step, step->entry->info.path, true, entry_resolved);
	else
		finish_entry(step);
}

void e2b_filesystem_stat(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	struct step *step = begin(call);

	if (!step)
		return;
	step->path = ((const Filesystem__StatRequest *)(const void *)message)->path;
	if (expand(step, &step->path))
		call_stat(step, step->path, false, entry_known);
}

/* MakeDir: what is there already is an error of two sorts. */

static void make_dir_checked(struct step *step, const ProtobufCMessage *reply, const struct pdk_error *err)
{
	const Paddock__V1__FileInfo *file = (const void *)reply;

	if (!reply && err->code == PDK_NOT_FOUND && !e2b_is_about_sandbox(err))
		call_make_dir(step, step->path, entry_known);
	else if (!reply)
		fail(step, err);
	else if (file->type == PADDOCK__V1__FILE_TYPE__FILE_TYPE_DIRECTORY)
		e2b_fail(step->e2b, PDK_ALREADY_EXISTS, "directory already exists");
	else
		e2b_fail(step->e2b, PDK_INVALID_ARGUMENT, "path already exists but it is not a directory");
}

void e2b_filesystem_make_dir(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	struct step *step = begin(call);

	if (!step)
		return;
	step->path = ((const Filesystem__MakeDirRequest *)(const void *)message)->path;
	if (expand(step, &step->path))
		call_stat(step, step->path, true, make_dir_checked);
}

/* Move */

static void move_prepared(struct step *step, const ProtobufCMessage *reply, const struct pdk_error *err)
{
	Paddock__V1__MoveRequest request = PADDOCK__V1__MOVE_REQUEST__INIT;

	if (!reply) {
		fail(step, err);
		return;
	}
	request.sandbox_id = step->e2b->sandbox_id;
	request.from = bytes_of(step->path);
	request.to = bytes_of(step->destination);
	request.user = (char *)(uintptr_t)rpc_client_user(step->e2b->call);
	next(step, FILES "Move", &request.base, entry_known);
}

static void move_checked(struct step *step, const ProtobufCMessage *reply, const struct pdk_error *err)
{
	const char *slash = strrchr(step->destination, '/');
	char *parent;

	if (!reply || !slash || slash == step->destination) {
		move_prepared(step, reply, err);
		return;
	}
	parent = rpc_strdup(step->e2b->call, step->destination);
	if (!parent) {
		e2b_fail(step->e2b, PDK_RESOURCE_EXHAUSTED, "the server is out of memory");
		return;
	}
	parent[slash - step->destination] = '\0';
	call_make_dir(step, parent, move_prepared);
}

void e2b_filesystem_move(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Filesystem__MoveRequest *request = (const void *)message;
	struct step *step = begin(call);

	if (!step)
		return;
	step->path = request->source;
	step->destination = request->destination;
	if (expand(step, &step->path) && expand(step, &step->destination))
		call_stat(step, step->path, false, move_checked);
}

/* Remove */

static void removed(struct step *step, const ProtobufCMessage *reply, const struct pdk_error *err)
{
	Filesystem__RemoveResponse empty = FILESYSTEM__REMOVE_RESPONSE__INIT;

	if (reply || (err->code == PDK_NOT_FOUND && !e2b_is_about_sandbox(err)))
		rpc_finish(step->e2b->call, &empty.base);
	else
		fail(step, err);
}

void e2b_filesystem_remove(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	Paddock__V1__RemoveRequest request = PADDOCK__V1__REMOVE_REQUEST__INIT;
	struct step *step = begin(call);

	if (!step)
		return;
	step->path = ((const Filesystem__RemoveRequest *)(const void *)message)->path;
	if (!expand(step, &step->path))
		return;
	request.sandbox_id = step->e2b->sandbox_id;
	request.path = bytes_of(step->path);
	request.user = (char *)(uintptr_t)rpc_client_user(call);
	request.recursive = true;
	next(step, FILES "Remove", &request.base, removed);
}

/* ListDir: all pages, then what each symbolic link leads to */

static void call_list(struct step *step);
static void resolve_links(struct step *step);

static void link_resolved(struct step *step, const ProtobufCMessage *reply, const struct pdk_error *err)
{
	e2b_entry_resolve((struct e2b_entry *)step->entries[step->resolved], (const void *)reply);
	resolve_links(step);
}

static void resolve_links(struct step *step)
{
	Filesystem__ListDirResponse reply = FILESYSTEM__LIST_DIR_RESPONSE__INIT;

	while (step->resolved < step->n_entries &&
	       !e2b_entry_is_link((struct e2b_entry *)step->entries[step->resolved]))
		step->resolved++;
	if (step->resolved < step->n_entries) {
		call_stat(step, step->entries[step->resolved]->path, true, link_resolved);
		return;
	}
	if (step->n_entries)
		qsort(step->entries, step->n_entries, sizeof(*step->entries), e2b_entry_compare);
	reply.n_entries = step->n_entries;
	reply.entries = step->entries;
	rpc_finish(step->e2b->call, &reply.base);
}

static int add_entry(struct step *step, const Paddock__V1__FileInfo *file)
{
	struct rpc_call *call = step->e2b->call;
	struct e2b_entry *entry;
	int rc;

	if (step->n_entries == step->room) {
		size_t room = step->room ? 2 * step->room : 64;
		Filesystem__EntryInfo **grown = rpc_alloc(call, room * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		if (step->n_entries)
			memcpy(grown, step->entries, step->n_entries * sizeof(*grown));
		step->entries = grown;
		step->room = room;
	}
	entry = rpc_alloc(call, sizeof(*entry));
	rc = entry ? e2b_entry_fill(rpc_arena(call), entry, file) : -ENOMEM;
	if (rc == -EILSEQ) /* this contract has no name for it */
		return 0;
	if (rc == 0)
		step->entries[step->n_entries++] = &entry->info;
	return rc;
}

static void listed(struct step *step, const ProtobufCMessage *reply, const struct pdk_error *err)
{
	const Paddock__V1__ListFilesResponse *list = (const void *)reply;
	int rc = 0;

	if (!reply) {
		fail(step, err);
		return;
	}
	for (size_t i = 0; rc == 0 && i < list->n_files; i++)
		rc = add_entry(step, list->files[i]);
	step->page_token = rc == 0 ? rpc_strdup(step->e2b->call, list->next_page_token) : NULL;
	if (!step->page_token)
		e2b_fail(step->e2b, PDK_RESOURCE_EXHAUSTED, "the directory has too many entries");
	else if (step->page_token[0])
		call_list(step);
	else
		resolve_links(step);
}

static void call_list(struct step *step)
{
	Paddock__V1__ListFilesRequest request = PADDOCK__V1__LIST_FILES_REQUEST__INIT;

	request.sandbox_id = step->e2b->sandbox_id;
	request.path = bytes_of(step->path);
	request.user = (char *)(uintptr_t)rpc_client_user(step->e2b->call);
	request.depth = step->depth;
	request.page_size = PAGE;
	if (step->page_token)
		request.page_token = step->page_token;
	next(step, FILES "List", &request.base, listed);
}

void e2b_filesystem_list_dir(struct rpc_call *call, const struct ProtobufCMessage *message)
{
	const Filesystem__ListDirRequest *request = (const void *)message;
	struct step *step = begin(call);

	if (!step)
		return;
	step->path = request->path;
	step->depth = request->depth ? request->depth : 1;
	if (expand(step, &step->path))
		call_list(step);
}
