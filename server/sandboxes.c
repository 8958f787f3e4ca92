#include "sandboxes.h"

#include "metrics.h"
#include "rpc.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/hash.h"
#include "sandbox_internal.h"
#include "status.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * The table: every sandbox by id, the owners by name, and for each owner its sandboxes, newest first. All of
 * it is intrusive, so 2,000 live sandboxes cost 2,000 small allocations and no lookup depends on their number.
 * Creation times order the lists; the id breaks ties, so that a page token is a place in the list even after
 * the sandbox that it names was forgotten.
 */

#define BUCKETS 8192
#define OWNER_BUCKETS 256
#define MOVED_BUCKETS 1024

struct whole_sandbox {
	struct sandbox sandbox;
	struct sandbox_private private;
};

/* Living sandboxes of one template; a box has a few dozen of these. */
struct template_use {
	struct template_use *next;
	uint32_t count;
	char id[TEMPLATE_ID_SIZE];
};

static struct sandbox *bucket[BUCKETS];
static struct sandbox_owner *owner_bucket[OWNER_BUCKETS];
static struct sandbox *moved_bucket[MOVED_BUCKETS]; /* those that were reset, by kernel_id */
static struct template_use *template_uses;
static uint32_t living_count;
struct sandbox *sandbox_newest;

static struct sandbox **table_slot(const char *id)
{
	struct sandbox **slot = &bucket[hash_text(id) % BUCKETS];

	while (*slot && strcmp((*slot)->id, id) != 0)
		slot = &(*slot)->private->next_bucket;
	return slot;
}

struct sandbox *sandbox_get(const char *id)
{
	return *table_slot(id);
}

static struct sandbox **moved_slot(const char *kernel_id)
{
	struct sandbox **slot = &moved_bucket[hash_text(kernel_id) % MOVED_BUCKETS];

	while (*slot && strcmp((*slot)->kernel_id, kernel_id) != 0)
		slot = &(*slot)->private->next_moved;
	return slot;
}

struct sandbox *sandbox_get_kernel(const char *kernel_id)
{
	struct sandbox *sandbox = sandbox_get(kernel_id);

	return sandbox && strcmp(sandbox->kernel_id, kernel_id) == 0 ? sandbox : *moved_slot(kernel_id);
}

static bool is_moved(const struct sandbox *sandbox)
{
	return strcmp(sandbox->kernel_id, sandbox->id) != 0;
}

static void unlist_moved(struct sandbox *sandbox)
{
	if (is_moved(sandbox))
		*moved_slot(sandbox->kernel_id) = sandbox->private->next_moved;
}

static void list_moved(struct sandbox *sandbox)
{
	if (!is_moved(sandbox))
		return;
	sandbox->private->next_moved = NULL;
	*moved_slot(sandbox->kernel_id) = sandbox;
}

void sandbox_set_kernel(struct sandbox *sandbox, const char *kernel_id)
{
	unlist_moved(sandbox);
	memcpy(sandbox->kernel_id, kernel_id, SANDBOX_ID_SIZE);
	list_moved(sandbox);
}

void sandbox_swap_kernels(struct sandbox *a, struct sandbox *b)
{
	char of_a[SANDBOX_ID_SIZE];

	unlist_moved(a);
	unlist_moved(b);
	memcpy(of_a, a->kernel_id, SANDBOX_ID_SIZE);
	memcpy(a->kernel_id, b->kernel_id, SANDBOX_ID_SIZE);
	memcpy(b->kernel_id, of_a, SANDBOX_ID_SIZE);
	list_moved(a);
	list_moved(b);
}

int64_t sandbox_generation(const struct sandbox *sandbox)
{
	return sandbox->reset_unix_ms ? sandbox->reset_unix_ms : sandbox->created_unix_ms;
}

struct sandbox *sandbox_new(const char *id)
{
	struct whole_sandbox *whole = calloc(1, sizeof(*whole));

	if (!whole)
		return NULL;
	whole->sandbox.private = &whole->private;
	memcpy(whole->sandbox.id, id, SANDBOX_ID_SIZE);
	memcpy(whole->sandbox.kernel_id, id, SANDBOX_ID_SIZE);
	whole->sandbox.state = PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_CREATING;
	*table_slot(id) = &whole->sandbox;
	return &whole->sandbox;
}

static struct sandbox_owner **owner_slot(const char *name)
{
	struct sandbox_owner **slot = &owner_bucket[hash_text(name) % OWNER_BUCKETS];

	while (*slot && strcmp((*slot)->name, name) != 0)
		slot = &(*slot)->next_bucket;
	return slot;
}

struct sandbox_owner *sandbox_owner_find(const char *tenant)
{
	return *owner_slot(tenant);
}

struct sandbox_owner *sandbox_owner_get(const char *tenant)
{
	struct sandbox_owner **slot = owner_slot(tenant);

	if (!*slot) {
		*slot = calloc(1, sizeof(**slot));
		if (*slot)
			snprintf((*slot)->name, sizeof((*slot)->name), "%s", tenant);
	}
	return *slot;
}

void sandbox_owner_put(struct sandbox_owner *owner)
{
	if (!owner || owner->known > 0 || owner->keys > 0 || owner->snapshots > 0 || owner->snapshot_bytes > 0)
		return;
	*owner_slot(owner->name) = owner->next_bucket;
	free(owner);
}

/* Order of the lists: newer first. */
static bool is_newer(const struct sandbox *a, const struct sandbox *b)
{
	if (a->created_unix_ms != b->created_unix_ms)
		return a->created_unix_ms > b->created_unix_ms;
	return strcmp(a->id, b->id) > 0;
}

#define LINK(sandbox, member) (&(sandbox)->private->member)

/* Almost always a few steps from the head; more only when the wall clock was set back. */
#define LIST_INSERT(head, sandbox, member)                                                                             \
	do {                                                                                                           \
		struct sandbox *older_ = (head), *newer_ = NULL;                                                       \
		while (older_ && is_newer(older_, (sandbox))) {                                                        \
			newer_ = older_;                                                                               \
			older_ = LINK(older_, member)->older;                                                          \
		}                                                                                                      \
		LINK(sandbox, member)->newer = newer_;                                                                 \
		LINK(sandbox, member)->older = older_;                                                                 \
		if (older_)                                                                                            \
			LINK(older_, member)->newer = (sandbox);                                                       \
		if (newer_)                                                                                            \
			LINK(newer_, member)->older = (sandbox);                                                       \
		else                                                                                                   \
			(head) = (sandbox);                                                                            \
	} while (0)

#define LIST_REMOVE(head, sandbox, member)                                                                             \
	do {                                                                                                           \
		struct sandbox *older_ = LINK(sandbox, member)->older, *newer_ = LINK(sandbox, member)->newer;         \
		if (older_)                                                                                            \
			LINK(older_, member)->newer = newer_;                                                          \
		if (newer_)                                                                                            \
			LINK(newer_, member)->older = older_;                                                          \
		else                                                                                                   \
			(head) = older_;                                                                               \
	} while (0)

int sandbox_own(struct sandbox *sandbox)
{
	struct sandbox_owner *owner = sandbox_owner_get(sandbox->tenant);

	if (!owner)
		return -ENOMEM;
	owner->known++;
	sandbox->private->owner = owner;
	LIST_INSERT(owner->newest, sandbox, by_owner);
	LIST_INSERT(sandbox_newest, sandbox, by_server);
	return 0;
}

static void disown(struct sandbox *sandbox)
{
	struct sandbox_owner *owner = sandbox->private->owner;

	if (!owner)
		return;
	LIST_REMOVE(owner->newest, sandbox, by_owner);
	LIST_REMOVE(sandbox_newest, sandbox, by_server);
	owner->known--;
	sandbox_owner_put(owner);
}

void sandbox_drop(struct sandbox *sandbox)
{
	struct sandbox_private *private = sandbox->private;

	sandbox_uncount(sandbox);
	loop_timer_cancel(&private->timer);
	loop_timer_cancel(&private->detach_timer);
	sandbox_idle_stop(sandbox);
	sandbox_metrics_stop(sandbox);
	sandbox_copy_over(sandbox);
	disown(sandbox);
	unlist_moved(sandbox);
	*table_slot(sandbox->id) = private->next_bucket;
	free(private->metadata);
	free(private->env);
	free(private->end_text);
	free(private->default_cwd);
	free((struct whole_sandbox *)sandbox);
}

static int template_use_add(const char *id)
{
	struct template_use *use;

	for (use = template_uses; use; use = use->next) {
		if (strcmp(use->id, id) == 0) {
			use->count++;
			return 0;
		}
	}
	use = calloc(1, sizeof(*use));
	if (!use)
		return -ENOMEM;
	memcpy(use->id, id, TEMPLATE_ID_SIZE);
	use->count = 1;
	use->next = template_uses;
	template_uses = use;
	return 0;
}

static void template_use_remove(const char *id)
{
	for (struct template_use **slot = &template_uses; *slot; slot = &(*slot)->next) {
		struct template_use *use = *slot;

		if (strcmp(use->id, id) != 0)
			continue;
		if (--use->count == 0) {
			*slot = use->next;
			free(use);
		}
		return;
	}
}

void sandbox_template_use(const char *template_id, int delta)
{
	if (delta > 0)
		(void)template_use_add(template_id);
	else
		template_use_remove(template_id);
}

void sandbox_count(struct sandbox *sandbox)
{
	struct sandbox_private *private = sandbox->private;

	if (private->counted)
		return;
	private->counted = true;
	/* The box holds a twin beside what it is for: nobody may count on that room. */
	admission_reserve(&sandbox->limits, private->pooled && !private->twin);
	if (private->pooled)
		return;
	/* A missing entry only makes a template's count too low; the warden refuses to remove one in use. */
	(void)template_use_add(sandbox->template_id);
	private->owner->living++;
	private->owner->memory_bytes += sandbox->limits.memory_bytes;
	private->owner->disk_bytes += sandbox->limits.disk_bytes;
	metric_set(METRIC_SANDBOXES, ++living_count);
}

void sandbox_give_memory(struct sandbox *sandbox)
{
	struct sandbox_private *private = sandbox->private;

	if (!private->counted || private->memory_given)
		return;
	private->memory_given = true;
	private->owner->memory_bytes -= sandbox->limits.memory_bytes;
	admission_hold_memory(-(int64_t)sandbox->limits.memory_bytes);
}

void sandbox_hold_memory(struct sandbox *sandbox)
{
	struct sandbox_private *private = sandbox->private;

	if (!private->memory_given)
		return;
	private->memory_given = false;
	private->owner->memory_bytes += sandbox->limits.memory_bytes;
	admission_hold_memory((int64_t)sandbox->limits.memory_bytes);
}

int sandbox_take_memory(struct sandbox *sandbox, struct pdk_error *err)
{
	const struct sandbox_private *private = sandbox->private;
	uint64_t wanted = sandbox->limits.memory_bytes;
	struct tenant_quota quota;
	int rc;

	if (!private->memory_given)
		return 0;
	tenant_get_quota(sandbox->tenant, &quota);
	if (quota.total_memory_bytes &&
	    (wanted > quota.total_memory_bytes || private->owner->memory_bytes > quota.total_memory_bytes - wanted))
		return pdk_fail(err, -EDQUOT, PDK_RESOURCE_EXHAUSTED,
				"tenant quota total_memory_bytes exhausted: %llu of %llu in use, %llu more asked for; "
				"retry in 1000 ms",
				(unsigned long long)private->owner->memory_bytes,
				(unsigned long long)quota.total_memory_bytes, (unsigned long long)wanted);
	rc = admission_check_memory(wanted, err);
	if (rc >= 0)
		sandbox_hold_memory(sandbox);
	return rc;
}

void sandbox_uncount(struct sandbox *sandbox)
{
	struct sandbox_private *private = sandbox->private;

	if (!private->counted)
		return;
	sandbox_hold_memory(sandbox);
	private->counted = false;
	admission_release(&sandbox->limits, private->pooled && !private->twin);
	if (private->pooled)
		return;
	template_use_remove(sandbox->template_id);
	private->owner->living--;
	private->owner->memory_bytes -= sandbox->limits.memory_bytes;
	private->owner->disk_bytes -= sandbox->limits.disk_bytes;
	metric_set(METRIC_SANDBOXES, --living_count);
}

void sandbox_each(void (*visit)(struct sandbox *sandbox, void *arg), void *arg)
{
	for (unsigned int i = 0; i < BUCKETS; i++) {
		for (struct sandbox *sandbox = bucket[i], *next; sandbox; sandbox = next) {
			next = sandbox->private->next_bucket;
			visit(sandbox, arg);
		}
	}
}

void sandbox_each_living(const char *tenant, void (*visit)(const struct sandbox *sandbox, void *arg), void *arg)
{
	const struct sandbox_owner *owner = tenant ? sandbox_owner_find(tenant) : NULL;
	struct sandbox *sandbox = !tenant ? sandbox_newest : owner ? owner->newest : NULL;

	while (sandbox) {
		if (sandbox_is_living(sandbox))
			visit(sandbox, arg);
		sandbox = tenant ? sandbox->private->by_owner.older : sandbox->private->by_server.older;
	}
}

bool sandbox_is_living(const struct sandbox *sandbox)
{
	return sandbox->state != PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_KILLED &&
	       sandbox->state != PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_FAILED;
}

int sandbox_check_living(const struct sandbox *sandbox, struct pdk_error *err)
{
	if (sandbox->state == PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_KILLING || !sandbox_is_living(sandbox))
		return pdk_fail(err, -EINVAL, PDK_FAILED_PRECONDITION, "sandbox has ended");
	return 0;
}

bool sandbox_visible(const struct principal *principal, const struct sandbox *sandbox)
{
	if (sandbox->private->pooled || sandbox->private->discard)
		return false;
	if (principal->sandbox_id[0] && strcmp(principal->sandbox_id, sandbox->id) != 0)
		return false;
	return principal->is_operator || strcmp(principal->tenant, sandbox->tenant) == 0;
}

int sandbox_find(const struct rpc_call *call, const char *id, struct sandbox **ret, struct pdk_error *err)
{
	struct sandbox *sandbox = sandbox_id_valid(id) ? sandbox_get(id) : NULL;

	if (!sandbox || !sandbox_visible(rpc_principal(call), sandbox))
		return pdk_fail(err, -ENOENT, PDK_NOT_FOUND, "sandbox not found");
	*ret = sandbox;
	return 0;
}

int sandbox_find_running(const struct rpc_call *call, const char *id, struct sandbox **ret, struct pdk_error *err)
{
	struct sandbox *sandbox;
	int rc = sandbox_find(call, id, &sandbox, err);

	if (rc < 0)
		return rc;
	if (sandbox->state == PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_CREATING)
		return pdk_fail(err, -EINVAL, PDK_FAILED_PRECONDITION, "sandbox is still being created");
	rc = sandbox_check_living(sandbox, err);
	if (rc < 0)
		return rc;
	if (sandbox->state != PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_RUNNING && !sandbox->private->auto_resume)
		return pdk_fail(err, -EINVAL, PDK_FAILED_PRECONDITION, "sandbox is paused; resume it first");
	if (sandbox->state != PADDOCK__V1__SANDBOX_STATE__SANDBOX_STATE_RUNNING) {
		bool parked = sandbox_park(call, sandbox);

		sandbox_wake(sandbox);
		return pdk_fail(err, parked ? -EINPROGRESS : -EAGAIN, PDK_UNAVAILABLE,
				"the sandbox is being resumed; try again");
	}
	if (!sandbox->guest || sandbox->private->adopting)
		return pdk_fail(err, sandbox_park(call, sandbox) ? -EINPROGRESS : -EAGAIN, PDK_UNAVAILABLE,
				sandbox->private->snapshot ? "a snapshot of the sandbox is being taken; try again"
							   : "the link to the sandbox is being made again; try again");
	sandbox_use(call, sandbox);
	*ret = sandbox;
	return 0;
}

uint32_t sandboxes_of_tenant(const char *tenant)
{
	const struct sandbox_owner *owner = sandbox_owner_find(tenant);

	return owner ? owner->living : 0;
}

uint32_t sandboxes_of_template(const char *template_id)
{
	for (const struct template_use *use = template_uses; use; use = use->next) {
		if (strcmp(use->id, template_id) == 0)
			return use->count;
	}
	return 0;
}

const char *sandbox_default_user(const struct sandbox *sandbox)
{
	return sandbox->private->default_user ? sandbox->private->default_user : "user";
}

const char *sandbox_default_cwd(const struct sandbox *sandbox)
{
	return sandbox->private->default_cwd ? sandbox->private->default_cwd : "";
}
