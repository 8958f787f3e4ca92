#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cgroup.h"
#include "checkpoint_private.h"
#include "kernel.h"
#include "log.h"
#include "netns.h"
#include "pool.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/fault.h"
#include "sandbox_private.h"
#include "template.h"
#include "tools.h"
#include "userns.h"

/*
 * Checkpoints, from the side of the warden's loop: CHECKPOINT (freeze, dump, stay frozen), RELEASE (end the frozen
 * processes, keep layer and checkpoint), RESTORE. The commit is paddockd's, between the first two: until it asks for
 * RELEASE nothing is lost by THAW, and after a crash of either its record decides which of the two comes.
 *
 * A dump and a restore are children; each answers with one struct on a pipe and ends.
 */

#define RESTORE_TIMEOUT_MS 120000

static void close_watch(struct watch *watch)
{
	int fd = watch->fd;

	loop_remove(watch);
	if (fd >= 0)
		close(fd);
	watch->fd = -1;
}

void sandbox_job_cancel(struct sandbox *s)
{
	struct pdk_error err;

	if (s->job_watch.fd >= 0)
		pidfd_send_signal(s->job_watch.fd, SIGKILL, NULL, 0);
	if (!s->dumper.connection)
		return;
	pdk_fail(&err, -ECANCELED, PDK_ABORTED, "the sandbox has ended");
	serve_status(s->dumper, s->id, -ECANCELED, &err);
	s->dumper.connection = 0;
}

static void dump_done(struct sandbox *s, int rc, const struct checkpoint_result *result, const struct pdk_error *err)
{
	struct warden_reply reply = {.status = rc, .value = result->bytes};

	if (s->state != SANDBOX_RUNNING)
		return;
	if (rc < 0) {
		/* It runs on as if nothing had been asked. */
		log_error("checkpoint_failed", s->id, err);
		checkpoint_set_layer_token(s->id, 0);
		checkpoint_discard(s->id);
		cgroup_freeze(s->id, false);
		snprintf(reply.text, sizeof(reply.text), "%.255s", err->text);
	}
	memcpy(reply.id, s->id, SANDBOX_ID_SIZE);
	serve_reply(s->dumper, &reply, -1);
	s->dumper.connection = 0;
}

void sandbox_restore_failed(struct sandbox *s, int rc, const char *text)
{
	s->failure_rc = pdk_fail(&s->failure, rc, pdk_code_of_errno(rc), "%s", text);
	s->keep = checkpoint_layer_token(s->id) != 0;
	sandbox_begin_removal(s);
}

static void restore_done(struct sandbox *s, int rc, const struct pdk_error *err)
{
	if (s->state != SANDBOX_RESTORING)
		return;
	if (rc == 0)
		rc = sandbox_watch_init(s) < 0 ? -ESRCH : sandbox_record(s, true, record_update);
	if (rc < 0) {
		log_error("restore_failed", s->id, err);
		sandbox_restore_failed(s, rc, err->code ? err->text : "the restored sandbox ended at once");
		return;
	}
	/* What runs now is newer than its checkpoint. */
	checkpoint_discard(s->id);
	FAULT("restore_recorded");
	log_info("sandbox_restored", s->id, "init is process %d", s->pid);
	sandbox_started(s);
}

static void on_job(struct watch *watch, uint32_t events)
{
	struct sandbox *s = CONTAINER_OF(watch, struct sandbox, job_watch);
	struct checkpoint_result result = {.error = EIO};
	struct pdk_error err = {.code = PDK_OK};
	bool restoring = s->state == SANDBOX_RESTORING;
	siginfo_t info;
	int rc = 0;

	waitid(P_PIDFD, (id_t)watch->fd, &info, WEXITED);
	if (read(s->job_status_watch.fd, &result, sizeof(result)) != (ssize_t)sizeof(result))
		rc = pdk_fail(&err, -EIO, PDK_UNAVAILABLE, "the work ended without a result");
	else if (result.error)
		rc = pdk_fail(&err, -result.error, (enum pdk_code)result.code, "%.239s", result.text);
	close_watch(&s->job_watch);
	close(STEAL_FD(s->job_status_watch.fd));
	if (restoring)
		restore_done(s, rc, &err);
	else
		dump_done(s, rc, &result, &err);
	if (s->state == SANDBOX_DYING && !sandbox_has_process(s))
		sandbox_try_remove(s);
}

/* Run one of the two in a child. The pipe is read when the child has ended: what it says fits. */
static int start_job(struct sandbox *s, struct checkpoint_plan *plan, void (*run)(const struct checkpoint_plan *),
		     struct pdk_error *err)
{
	int status[2], pidfd, rc;
	pid_t pid;

	if (pipe2(status, O_CLOEXEC) < 0)
		return pdk_fail_errno(err, -errno, "make a pipe");
	plan->status = status[1];
	pid = fork();
	if (pid == 0)
		run(plan);
	close(status[1]);
	pidfd = pid < 0 ? -1 : pidfd_open(pid, 0);
	rc = pidfd < 0 ? -errno : loop_add(&s->job_watch, pidfd, EPOLLIN, on_job);
	if (rc == 0) {
		s->job_status_watch.fd = status[0];
		return 0;
	}
	if (pid > 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	if (pidfd >= 0)
		close(pidfd);
	close(status[0]);
	return pdk_fail_errno(err, rc, "start a child");
}

/* --- checkpoint --- */

static int begin_dump(struct sandbox *s, uint64_t token, struct pdk_error *err)
{
	_cleanup_fd_ int leaf = cgroup_open_leaf(s->id);
	struct checkpoint_plan plan = {
		.id = s->id, .token = token, .cgroup = leaf, .pid = s->pid, .rootfs = {.template_id = s->template_id}};
	int rc = leaf < 0 ? leaf : cgroup_freeze(s->id, true);

	if (rc < 0)
		return pdk_fail_errno(err, rc, "freeze the sandbox");
	rc = start_job(s, &plan, checkpoint_run_dump, err);
	if (rc < 0)
		cgroup_freeze(s->id, false);
	return rc;
}

void sandbox_checkpoint(const char *id, uint64_t token, struct ticket ticket)
{
	struct sandbox *s = sandbox_find(id);
	struct pdk_error err;
	int rc = 0;

	if (!s || s->state != SANDBOX_RUNNING)
		rc = pdk_fail(&err, -ENOENT, PDK_NOT_FOUND, "no such sandbox");
	else if (checkpoint_missing())
		rc = pdk_fail(&err, -ENOSYS, PDK_FAILED_PRECONDITION, "%s on this host", checkpoint_missing());
	else if (s->job_watch.fd >= 0 || s->freezer.connection)
		rc = pdk_fail(&err, -EBUSY, PDK_ABORTED, "a checkpoint is being made already");
	else
		rc = begin_dump(s, token, &err);
	if (rc < 0)
		serve_status(ticket, id, rc, &err);
	else
		s->dumper = ticket;
}

void sandbox_release(const char *id, uint64_t token, struct ticket ticket)
{
	struct sandbox *s = sandbox_find(id);
	struct pdk_error err;

	if (s && s->state == SANDBOX_STORED) {
		serve_status(ticket, id, 0, NULL);
		return;
	}
	if (!s || s->state != SANDBOX_RUNNING || s->job_watch.fd >= 0 || !cgroup_freezing(id) ||
	    !checkpoint_exists(id, NULL) || checkpoint_layer_token(id) != token) {
		serve_status(ticket, id,
			     pdk_fail(&err, -EINVAL, PDK_FAILED_PRECONDITION, "there is no such checkpoint"), &err);
		return;
	}
	s->keep = true;
	s->killers[s->n_killers++] = ticket;
	sandbox_begin_removal(s);
}

/* --- restore --- */

/* Where a new sandbox has its own /proc for this. */
static int open_low_ports(const char *unused)
{
	_cleanup_fd_ int proc = open("/proc", O_DIRECTORY | O_PATH | O_CLOEXEC);

	return proc < 0 ? -errno : netns_open_low_ports(proc);
}

static int begin_restore(struct sandbox *s, uint64_t token, struct pdk_error *err)
{
	_cleanup_(userns_close) struct userns userns = USERNS_NONE;
	_cleanup_fd_ int listener = -1, leaf = -1;
	struct checkpoint_plan plan = {.id = s->id, .hostname = s->hostname, .token = token};
	int rc = userns_take(&userns, err);

	if (rc < 0)
		return rc;
	s->slot = userns.slot;
	s->has_slot = true;
	rc = sandbox_record(s, false, record_create);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "write the sandbox's state");
	rc = cgroup_create(s->id, &s->limits, &leaf, err);
	if (rc < 0)
		return rc;
	rc = netns_inside(userns.netns, open_low_ports, NULL);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "set up the sandbox's network");
	listener = netns_inside(userns.netns, record_listen, s->id);
	s->link = listener < 0 ? listener : record_connect(s->id);
	if (s->link < 0)
		return pdk_fail_errno(err, s->link, "make the sandbox's socket");
	FAULT("restore_prepared");
	plan.cgroup = leaf;
	plan.listener = listener;
	plan.netns = userns.netns;
	plan.rootfs = (struct rootfs_plan){.id = s->id,
					   .template_id = s->template_id,
					   .tools = tools_layer(),
					   .userns = userns.fd,
					   .base = userns.base,
					   .memory_bytes = s->limits.memory_bytes,
					   .max_inodes = s->limits.max_inodes};
	return start_job(s, &plan, checkpoint_run_restore, err);
}

static int check_restore(const struct sandbox *s, struct pdk_error *err)
{
	const struct template_info *info;

	if (!s || s->state != SANDBOX_STORED)
		return pdk_fail(err, -ENOENT, PDK_NOT_FOUND, "no such checkpoint");
	if (checkpoint_missing())
		return pdk_fail(err, -ENOSYS, PDK_FAILED_PRECONDITION, "%s on this host", checkpoint_missing());
	info = template_find(s->template_id);
	if (!info || info->state == TEMPLATE_DAMAGED)
		return pdk_fail(err, -EBADMSG, PDK_DATA_LOSS, "the template is %s", info ? "damaged" : "gone");
	if (info->state != TEMPLATE_READY)
		return pdk_fail(err, -EAGAIN, PDK_UNAVAILABLE, "the template is being verified; try again");
	return 0;
}

void sandbox_restore(const char *id, const char *hostname, const struct warden_limits *limits, uint64_t token,
		     struct ticket ticket)
{
	struct sandbox *s = sandbox_find(id);
	struct pdk_error err;
	int rc = check_restore(s, &err);

	if (rc < 0) {
		serve_status(ticket, id, rc, &err);
		return;
	}
	s->state = SANDBOX_RESTORING;
	s->deadline_ms = clock_ms() + RESTORE_TIMEOUT_MS;
	s->limits = *limits;
	s->creator = ticket;
	snprintf(s->hostname, sizeof(s->hostname), "%s", hostname);
	sandbox_set_busy(s, true);
	rc = begin_restore(s, token, &err);
	if (rc < 0)
		sandbox_restore_failed(s, rc, err.text);
}
