#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bootid.h"
#include "cgroup.h"
#include "checkpoint_private.h"
#include "handover.h"
#include "kernel.h"
#include "lazy.h"
#include "log.h"
#include "pool.h"
#include "record.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/fault.h"
#include "sandbox_private.h"
#include "userns.h"

/*
 * The end of a sandbox: a signal to its cgroup, the ends of its processes, and then what is left of it, in an order in
 * which a warden that dies in between leaves something to find.
 */

#define REMOVE_TIMEOUT_MS 10000
#define RETRY_MS 2
#define KILL_AGAIN_MS 500

/* RUNNING, and at its end: its memory could not be given back to it. Then it did not end by itself. */
static void find_reason(struct sandbox *s)
{
	char reason[160];

	lazy_read_reason(s->id, reason);
	s->memory_lost = s->state == SANDBOX_RUNNING && reason[0];
	if (s->memory_lost)
		s->failure_rc = pdk_fail(&s->failure, -EIO, PDK_DATA_LOSS, "%s", reason);
}

void sandbox_answer_all(struct sandbox *s, int rc, const struct pdk_error *err)
{
	struct warden_reply event = {.op = WARDEN_EVENT_EXITED, .value = (uint64_t)(unsigned int)s->wait_status};

	if (s->creator.connection) {
		if (s->failure_rc == 0)
			s->failure_rc = pdk_fail(&s->failure, -ECANCELED, PDK_CANCELLED, "the sandbox was killed");
		serve_status(s->creator, s->id, s->failure_rc, &s->failure);
	}
	for (unsigned int i = 0; i < s->n_killers; i++) {
		struct warden_reply reply = {.status = rc, .value = 1};

		memcpy(reply.id, s->id, SANDBOX_ID_SIZE);
		if (rc < 0 || s->memory_lost)
			snprintf(reply.text, sizeof(reply.text), "%.255s", rc < 0 ? err->text : s->failure.text);
		serve_reply(s->killers[i], &reply, -1);
	}
	if (s->announce && s->n_killers == 0) {
		if (s->memory_lost)
			snprintf(event.text, sizeof(event.text), "%.159s", s->failure.text);
		memcpy(event.id, s->id, SANDBOX_ID_SIZE);
		serve_event(&event);
	}
}

/* Everything that is not a process. -EBUSY: try again. */
static int remove_remains(struct sandbox *s)
{
	int rc = cgroup_remove(s->id);

	if (rc < 0)
		return rc;
	FAULT("kill_layer");
	/* The checkpoint first: without its layer it is nothing. */
	rc = s->keep ? 0 : checkpoint_discard(s->id);
	if (rc == 0 && !s->keep)
		rc = pool_discard(POOL_SANDBOXES, s->id);
	if (rc < 0)
		return rc;
	FAULT("kill_record");
	bootid_remove(s->id);
	return record_remove(s->id);
}

static void become_stored(struct sandbox *s)
{
	if (s->pidfd >= 0)
		close(STEAL_FD(s->pidfd));
	if (s->link >= 0)
		close(STEAL_FD(s->link));
	s->creator.connection = 0;
	s->n_killers = 0;
	s->failure_rc = 0;
	s->pid = 0;
	s->has_slot = s->child = s->executing = s->announce = s->keep = false;
	s->state = SANDBOX_STORED;
}

/* The cgroups are gone or will not go: end the object either way. */
static void finish(struct sandbox *s, int rc)
{
	struct pdk_error err = {.code = PDK_OK};

	if (rc < 0) {
		pdk_fail_errno(&err, rc, "remove what is left of the sandbox");
		log_error("sandbox_remove_failed", s->id, &err);
	}
	/* The cgroups could be removed, so no process with an id of the range is left. */
	if (s->has_slot)
		userns_release(s->slot, rc == 0);
	sandbox_set_busy(s, false);
	sandbox_worked();
	sandbox_answer_all(s, rc, &err);
	if (s->keep && rc == 0)
		become_stored(s);
	else
		sandbox_free(s);
}

void sandbox_try_remove(struct sandbox *s)
{
	int rc = remove_remains(s);

	if (rc == 0 || clock_ms() > s->deadline_ms)
		finish(s, rc);
	else
		s->retry_ms = clock_ms() + RETRY_MS;
}

bool sandbox_has_process(const struct sandbox *s)
{
	return s->exit_watch.fd >= 0 || s->builder_watch.fd >= 0 || s->job_watch.fd >= 0;
}

void sandbox_on_exit_of_init(struct watch *watch, uint32_t events)
{
	struct sandbox *s = CONTAINER_OF(watch, struct sandbox, exit_watch);
	siginfo_t info = {.si_pid = 0};

	loop_remove(watch);
	if (s->child && waitid(P_PIDFD, (id_t)s->pidfd, &info, WEXITED) == 0)
		s->wait_status = info.si_code == CLD_EXITED ? info.si_status << 8 : info.si_status;
	FAULT("kill_reaped");
	if (s->state == SANDBOX_STARTING) {
		/* It may have died of a failure that it wrote down: that is the better story. It also ends `s`. */
		sandbox_read_status(s);
		return;
	}
	if (s->state != SANDBOX_DYING) {
		sandbox_cancel_freezer(s);
		sandbox_job_cancel(s);
		find_reason(s);
		if (s->announce)
			log_info("sandbox_exited", s->id, "wait status %d%s%s", s->wait_status,
				 s->memory_lost ? ": " : "", s->memory_lost ? s->failure.text : "");
		s->state = SANDBOX_DYING;
		s->deadline_ms = clock_ms() + REMOVE_TIMEOUT_MS;
		sandbox_set_busy(s, true);
	}
	if (!sandbox_has_process(s))
		sandbox_try_remove(s);
}

void sandbox_on_exit_of_builder(struct watch *watch, uint32_t events)
{
	struct sandbox *s = CONTAINER_OF(watch, struct sandbox, builder_watch);
	int fd = watch->fd;
	siginfo_t info;

	loop_remove(watch);
	waitid(P_PIDFD, (id_t)fd, &info, WEXITED);
	close(fd);
	handover_release(STEAL_FD(s->place));
	sandbox_find_first(s);
	if (s->state == SANDBOX_DYING && !sandbox_has_process(s))
		sandbox_try_remove(s);
}

void sandbox_begin_removal(struct sandbox *s)
{
	find_reason(s);
	sandbox_cancel_freezer(s);
	sandbox_job_cancel(s);
	sandbox_set_busy(s, true);
	s->dump_ends = false;
	s->state = SANDBOX_DYING;
	s->deadline_ms = clock_ms() + REMOVE_TIMEOUT_MS;
	s->retry_ms = clock_ms() + KILL_AGAIN_MS;
	/* Kills frozen processes too, and forks that are under way. */
	cgroup_kill(s->id);
	FAULT("kill_signalled");
	if (!sandbox_has_process(s))
		sandbox_try_remove(s);
}

void sandbox_remove_again(struct sandbox *s, unsigned long long now)
{
	if (sandbox_has_process(s)) {
		cgroup_kill(s->id); /* the first may have failed */
		s->retry_ms = now + KILL_AGAIN_MS;
	} else {
		sandbox_try_remove(s);
	}
}
