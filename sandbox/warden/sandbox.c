#include "sandbox.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#include "cgroup.h"
#include "checkpoint_private.h"
#include "kernel.h"
#include "pool.h"
#include "record.h"
#include "sandbox_private.h"
#include "userns.h"

/* The calls on a living sandbox, and what is done as time passes. */

#define RETRY_MS 2
#define REFILL_PAUSE_MS 10
#define FREEZE_TIMEOUT_MS 10000
#define FREEZE_LOOKS 10 /* giving way between them: ten idle processes stand still by then */
#define FREEZE_SPINS 20 /* of 50 us: most sandboxes stand still by then, and nobody else waits noticeably */

static struct sandbox *busy; /* in STARTING, RESTORING or DYING, or freezing: these have deadlines */
static unsigned int stock_wanted;
static unsigned long long walk_ms;   /* when deadlines and retries are looked at next */
static unsigned long long worked_ms; /* when a create or kill was last done */

int sandbox_setup(struct pdk_error *err)
{
	int rc = record_setup();

	if (rc < 0)
		return pdk_fail_errno(err, rc, "make the directory of sandboxes");
	return sandbox_start_setup(err);
}

void sandbox_set_busy(struct sandbox *s, bool on)
{
	struct sandbox **at = &busy;

	if (s->busy == on)
		return;
	s->busy = on;
	if (on) {
		s->next_busy = busy;
		busy = s;
		return;
	}
	while (*at != s)
		at = &(*at)->next_busy;
	*at = s->next_busy;
}

void sandbox_worked(void)
{
	worked_ms = clock_ms();
}

static void answer_freezer(struct sandbox *s, int rc, const struct pdk_error *err)
{
	if (!s->freezer.connection)
		return;
	serve_status(s->freezer, s->id, rc, err);
	s->freezer.connection = 0;
	sandbox_set_busy(s, false);
}

/* A freeze that was not answered yet is answered by what ends it. */
void sandbox_cancel_freezer(struct sandbox *s)
{
	struct pdk_error err;

	pdk_fail(&err, -ECANCELED, PDK_ABORTED, "something else was asked for meanwhile");
	answer_freezer(s, -ECANCELED, &err);
}

/* --- the calls on a living one --- */

void sandbox_kill(const char *id, struct ticket ticket)
{
	struct sandbox *s = sandbox_find(id);
	struct pdk_error err;

	if (!s) {
		serve_status(ticket, id, 0, NULL);
		return;
	}
	if (s->n_killers == SANDBOX_KILLERS_MAX) {
		serve_status(ticket, id, pdk_fail(&err, -EBUSY, PDK_ABORTED, "the sandbox is being killed already"),
			     &err);
		return;
	}
	s->killers[s->n_killers++] = ticket;
	s->keep = false;
	if (s->state == SANDBOX_WAITING) {
		pdk_fail(&err, -ECANCELED, PDK_CANCELLED, "the sandbox was killed");
		sandbox_drop_waiting(s, -ECANCELED, &err);
	} else if (s->state != SANDBOX_DYING) {
		sandbox_begin_removal(s);
	}
}

static int find_running(const char *id, struct sandbox **ret, struct pdk_error *err)
{
	struct sandbox *s = sandbox_find(id);

	if (!s || s->state != SANDBOX_RUNNING)
		return pdk_fail(err, -ENOENT, PDK_NOT_FOUND, "no such sandbox");
	*ret = s;
	return 0;
}

int sandbox_attach(const char *id, int *ret_fd, struct pdk_error *err)
{
	struct sandbox *s;
	int rc = find_running(id, &s, err);

	if (rc < 0)
		return rc;
	rc = record_connect(id);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "connect to the sandbox");
	*ret_fd = rc;
	return 0;
}

int sandbox_limit(const char *id, const struct warden_limits *limits, struct pdk_error *err)
{
	struct sandbox *s = NULL;
	int rc = find_running(id, &s, err);

	if (rc == 0 && s->job_watch.fd >= 0)
		rc = pdk_fail(err, -EBUSY, PDK_ABORTED, "a checkpoint is being made"); /* its end sets the old ones */
	if (rc == 0)
		rc = cgroup_limit(id, limits, err);
	if (rc == 0)
		rc = pool_layer_limit(id, limits->disk_bytes, err);
	if (rc < 0)
		return rc;
	s->limits = *limits;
	inodes_reset(&s->inodes); /* the byte quota is open until the next look */
	rc = sandbox_record(s, RECORD_READY, record_update);
	return rc < 0 ? pdk_fail_errno(err, rc, "write the sandbox's state") : 0;
}

int sandbox_usage(const char *id, struct warden_usage *usage, struct pdk_error *err)
{
	struct sandbox *s = NULL;
	int rc = find_running(id, &s, err);

	if (rc < 0)
		return rc;
	cgroup_usage(id, usage);
	pool_layer_usage(id, &usage->disk_bytes, &s->inodes.highest);
	usage->inodes = inodes_bound(&s->inodes);
	return 0;
}

int sandbox_sample(const char *id, struct warden_usage *usage, uint64_t *ret_cache, struct pdk_error *err)
{
	struct sandbox *s = NULL;
	int rc = find_running(id, &s, err);

	if (rc < 0)
		return rc;
	cgroup_sample(id, usage, ret_cache);
	pool_layer_usage(id, &usage->disk_bytes, &s->inodes.highest);
	return 0;
}

int sandbox_activity(const char *id, uint64_t *ret_cpu_usec, uint64_t *ret_io_usec, struct pdk_error *err)
{
	struct sandbox *s = NULL;
	int rc = find_running(id, &s, err);

	if (rc == 0)
		cgroup_activity(id, ret_cpu_usec, ret_io_usec);
	return rc;
}

/* Processes that fork or sleep uninterruptibly stand still a little later. */
static void check_freezer(struct sandbox *s, unsigned long long now)
{
	struct pdk_error err;

	if (cgroup_frozen(s->id)) {
		answer_freezer(s, 0, NULL);
	} else if (now > s->deadline_ms) {
		cgroup_freeze(s->id, false);
		pdk_fail(&err, -ETIMEDOUT, PDK_DEADLINE_EXCEEDED, "a process in it does not stop within %u s",
			 FREEZE_TIMEOUT_MS / 1000);
		answer_freezer(s, -ETIMEDOUT, &err);
	}
}

int sandbox_thaw(struct sandbox *s)
{
	int rc = s->lifted ? cgroup_limit_cpu(s->id, s->limits.cpu_millis) : 0;

	if (rc == 0)
		rc = cgroup_freeze(s->id, false);
	if (rc == 0)
		s->lifted = false;
	return rc;
}

void sandbox_freeze(const char *id, bool frozen, struct ticket ticket)
{
	struct sandbox *s = NULL;
	struct pdk_error err;
	int rc = find_running(id, &s, &err);

	if (rc == 0) {
		sandbox_cancel_freezer(s);
		if (s->job_watch.fd >= 0 || record_locked(id))
			rc = pdk_fail(&err, -EBUSY, PDK_ABORTED, "a checkpoint is being made");
	}
	/* Going on from here, it leaves its checkpoint behind. */
	if (rc == 0 && !frozen && checkpoint_exists(id, NULL)) {
		rc = checkpoint_set_layer_token(id, 0);
		if (rc == 0)
			rc = checkpoint_discard(id);
		if (rc < 0)
			pdk_fail_errno(&err, rc, "remove the checkpoint");
	}
	if (rc == 0) {
		rc = frozen ? cgroup_freeze(id, true) : sandbox_thaw(s);
		if (rc < 0)
			pdk_fail_errno(&err, rc, frozen ? "freeze the sandbox" : "thaw the sandbox");
	}
	for (int i = 0; rc == 0 && frozen && i < FREEZE_LOOKS + FREEZE_SPINS && !cgroup_frozen(id); i++)
		if (i < FREEZE_LOOKS)
			sched_yield();
		else
			usleep(50);
	if (rc < 0 || !frozen || cgroup_frozen(id)) {
		serve_status(ticket, rc == 0 ? id : NULL, rc, &err);
		return;
	}
	s->freezer = ticket;
	s->deadline_ms = clock_ms() + FREEZE_TIMEOUT_MS;
	sandbox_set_busy(s, true);
}

/* --- time and stock --- */

static void tick_one(struct sandbox *s, unsigned long long now)
{
	struct pdk_error err;

	if (s->state == SANDBOX_STARTING && now > s->deadline_ms) {
		pdk_fail(&err, -ETIMEDOUT, PDK_DEADLINE_EXCEEDED, "the sandbox did not start in time");
		sandbox_create_failed(s, -ETIMEDOUT, &err);
	} else if (s->state == SANDBOX_RUNNING && s->dump_ends) {
		sandbox_dump_over(s);
	} else if (s->state == SANDBOX_RUNNING && s->freezer.connection) {
		check_freezer(s, now);
	} else if (s->state == SANDBOX_RESTORING && now > s->deadline_ms) {
		sandbox_restore_failed(s, -ETIMEDOUT, "the restore did not end in time");
	} else if (s->state == SANDBOX_DYING && now >= s->retry_ms) {
		sandbox_remove_again(s, now);
	}
}

/* A piece takes a millisecond or two, in which a kill or create would wait: unless little is left, the stock is
 * refilled in pauses. */
static bool refill_waits(void)
{
	unsigned int stocked = sandbox_stocked();

	return stocked < stock_wanted && stocked > stock_wanted / 4 &&
	       (busy || clock_ms() < worked_ms + REFILL_PAUSE_MS);
}

int sandbox_tick(void)
{
	unsigned long long now = clock_ms();

	if (!busy)
		return refill_waits() ? REFILL_PAUSE_MS : -1;
	/* Not in every turn of the loop: the walk passes every bucket. */
	if (now < walk_ms)
		return (int)(walk_ms - now);
	walk_ms = now + RETRY_MS;
	for (struct sandbox *s = busy, *next; s; s = next) {
		next = s->next_busy; /* it may end here */
		tick_one(s, now);
	}
	return busy ? RETRY_MS : -1;
}

void sandbox_set_stock(unsigned int wanted)
{
	stock_wanted = wanted;
}

int sandbox_refill(void)
{
	if (refill_waits())
		return 0;
	return pool_stock(stock_wanted) || userns_stock(stock_wanted);
}

unsigned int sandbox_stocked(void)
{
	unsigned int least = pool_stocked();

	return userns_stocked() < least ? userns_stocked() : least;
}
