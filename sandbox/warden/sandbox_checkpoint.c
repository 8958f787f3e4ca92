#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bootid.h"
#include "cgroup.h"
#include "checkpoint_private.h"
#include "kernel.h"
#include "lazy.h"
#include "log.h"
#include "netns.h"
#include "options.h"
#include "pool.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/fault.h"
#include "sandbox_private.h"
#include "snapshot.h"
#include "template.h"
#include "tools.h"
#include "userns.h"

/*
 * Checkpoints, from the side of the warden's loop: CHECKPOINT (freeze, dump, stay frozen), RELEASE (end the frozen
 * processes, keep layer and checkpoint), RESTORE. The commit is paddockd's, between the first two: until it asks for
 * RELEASE nothing is lost by THAW, and after a crash of either its record decides which of the two comes.
 *
 * SNAPSHOT is a dump into a place of its own, which lets the sandbox go on by itself as soon as it is copied; COPY is a
 * restore from there, into a new layer. LAYER is the same without the dump.
 *
 * A dump and a restore are children; each answers with one struct on a pipe and ends (a snapshot with two).
 */

#define BYTES_PER_MS (16u << 10) /* a slow disk: 16 MiB in a second */

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

bool sandbox_is_unsettled(const struct sandbox *s)
{
	return s->state == SANDBOX_RESTORING ||
	       (s->state == SANDBOX_RUNNING && (s->job_watch.fd >= 0 || record_locked(s->id))) ||
	       (s->state == SANDBOX_DYING && s->keep);
}

/* A limit that cannot be set again would leave it without one: then it stands still, and a resume tries that once more. */
static void run_on(struct sandbox *s)
{
	struct pdk_error err;
	int rc = sandbox_thaw(s);

	if (rc < 0) {
		pdk_fail_errno(&err, rc, "let the sandbox go on");
		log_error("thaw_failed", s->id, &err);
	}
}

/* It runs on as if nothing had been asked. */
static void dump_failed(struct sandbox *s, const struct pdk_error *err)
{
	log_error(s->job == SANDBOX_JOB_DUMP ? "checkpoint_failed" : "snapshot_failed", s->id, err);
	if (s->job != SANDBOX_JOB_DUMP) {
		snapshot_discard(s->snapshot_id);
	} else {
		checkpoint_set_layer_token(s->id, 0);
		checkpoint_discard(s->id);
	}
	run_on(s);
}

static void dump_done(struct sandbox *s, int rc, const struct checkpoint_result *result, const struct pdk_error *err)
{
	struct warden_reply reply = {.status = rc,
				     .value = result->bytes,
				     .size_bytes = result->layer_bytes,
				     .stored_bytes = result->stored_bytes,
				     .stopped_usec = result->stopped_usec};

	if (s->state != SANDBOX_RUNNING) {
		/* Nobody was told of it. */
		if (s->job != SANDBOX_JOB_DUMP)
			snapshot_discard(s->snapshot_id);
		return;
	}
	if (rc < 0 && record_locked(s->id)) {
		/* Its own code may still be in the processes; sandbox_dump_over() comes when it is not. */
		s->failure = *err;
		s->failure_rc = rc;
		s->dump_ends = true;
		sandbox_set_busy(s, true);
		return;
	}
	if (rc < 0) {
		dump_failed(s, err);
		snprintf(reply.text, sizeof(reply.text), "%.255s", err->text);
	}
	if (rc == 0 && s->job == SANDBOX_JOB_SNAPSHOT && !serve_waits(s->dumper))
		snapshot_discard(s->snapshot_id); /* nobody will ever know of it */
	s->snapshot_id[0] = '\0';
	memcpy(reply.id, s->id, SANDBOX_ID_SIZE);
	serve_reply(s->dumper, &reply, -1);
	s->dumper.connection = 0;
}

void sandbox_dump_over(struct sandbox *s)
{
	const struct checkpoint_result nothing = {0};
	struct pdk_error err = s->failure;
	int rc = s->failure_rc;

	if (record_locked(s->id))
		return;
	s->dump_ends = false;
	s->failure_rc = 0;
	sandbox_set_busy(s, false);
	dump_done(s, rc, &nothing, &err);
}

static void tell_runs_on(struct sandbox *s, const struct checkpoint_result *result)
{
	struct warden_reply reply = {.flags = WARDEN_MORE, .stopped_usec = result->stopped_usec};

	if (s->state != SANDBOX_RUNNING)
		return;
	memcpy(reply.id, s->id, SANDBOX_ID_SIZE);
	serve_reply(s->dumper, &reply, -1);
}

void sandbox_restore_failed(struct sandbox *s, int rc, const char *text)
{
	s->failure_rc = pdk_fail(&s->failure, rc, pdk_code_of_errno(rc), "%s", text);
	/* Of a copy nothing is worth keeping. */
	s->keep = !s->snapshot_id[0] && checkpoint_layer_token(s->id) != 0;
	sandbox_begin_removal(s);
}

/*
 * What runs from now on is newer than its checkpoint. Nothing is waited for: the layer lies on the file system of the
 * images, whose commits keep the order, and as it is mounted "volatile" nothing of it gets to the disk in another way.
 * So whatever of the run is found after a loss of power, the token is gone.
 */
static int forget_token(const char *id)
{
	_cleanup_fd_ int layer = pool_open_directory(POOL_SANDBOXES, id);

	return layer < 0 ? layer : checkpoint_put_token(layer, 0);
}

/*
 * At no point is neither of the two sure. Up to the record, the end of anybody leaves the checkpoint as it was; from then on
 * a warden that finds the frozen tree goes on from here, and one that finds it dead, with the token there, has the checkpoint.
 * Only then is the token removed, and only then can anything in the tree run.
 */
int sandbox_take_restored(struct sandbox *s)
{
	int rc = sandbox_record(s, RECORD_RESTORED, record_update);

	FAULT("restore_recorded");
	if (rc == 0)
		rc = forget_token(s->id);
	FAULT("restore_taken");
	if (rc == 0)
		rc = cgroup_freeze(s->id, false);
	FAULT("restore_thawed");
	/* Without this the next warden does the same again, which changes nothing. */
	if (rc == 0)
		(void)sandbox_record(s, RECORD_READY, record_update);
	return rc;
}

static void restore_done(struct sandbox *s, int rc, bool lazy, const struct pdk_error *err)
{
	if (s->state != SANDBOX_RESTORING)
		return;
	if (rc == 0)
		rc = sandbox_watch_init(s) < 0 ? -ESRCH : sandbox_take_restored(s);
	if (rc < 0) {
		log_error("restore_failed", s->id, err);
		sandbox_restore_failed(s, rc, err->code ? err->text : "the restored sandbox ended at once");
		return;
	}
	if (!s->snapshot_id[0])
		checkpoint_discard(s->id);
	FAULT("restore_discarded");
	log_info("sandbox_restored", s->id, "init is process %d%s", s->pid, lazy ? "; its memory follows" : "");
	sandbox_started(s);
}

/* What the child has said by now. */
static void read_words(struct sandbox *s)
{
	struct checkpoint_result word;

	while (read(s->job_status_watch.fd, &word, sizeof(word)) == (ssize_t)sizeof(word))
		if (word.runs_on)
			tell_runs_on(s, &word);
		else
			*s->job_result = word;
}

static void on_job_status(struct watch *watch, uint32_t events)
{
	struct sandbox *s = CONTAINER_OF(watch, struct sandbox, job_status_watch);
	int fd = watch->fd;

	read_words(s);
	/* The end of the pipe stays readable: what follows is the end of the child. */
	if (events & EPOLLHUP) {
		loop_remove(watch);
		watch->fd = fd;
	}
}

static void on_job(struct watch *watch, uint32_t events)
{
	struct sandbox *s = CONTAINER_OF(watch, struct sandbox, job_watch);
	_cleanup_free_ struct checkpoint_result *result = NULL;
	struct pdk_error err = {.code = PDK_OK};
	bool dying = s->state == SANDBOX_DYING;
	siginfo_t info;
	int rc = 0;

	waitid(P_PIDFD, (id_t)watch->fd, &info, WEXITED);
	read_words(s);
	result = STEAL_PTR(s->job_result);
	close_watch(&s->job_watch);
	close_watch(&s->job_status_watch);
	if (result->error)
		rc = pdk_fail(&err, -result->error, (enum pdk_code)result->code, "%.239s", result->text);
	if (s->job == SANDBOX_JOB_RESTORE) {
		if (rc == 0 && s->snapshot_id[0])
			snapshot_set_checked(s->snapshot_id, result->generation);
		restore_done(s, rc, result->lazy, &err);
	} else {
		dump_done(s, rc, result, &err);
	}
	/* What a failure has just ended may be freed already. */
	if (dying && !sandbox_has_process(s))
		sandbox_try_remove(s);
}

static void (*const job_runs[])(const struct checkpoint_plan *plan) = {
	[SANDBOX_JOB_DUMP] = checkpoint_run_dump,
	[SANDBOX_JOB_SNAPSHOT] = checkpoint_run_snapshot,
	[SANDBOX_JOB_LAYER] = checkpoint_run_layer,
	[SANDBOX_JOB_RESTORE] = checkpoint_run_restore,
};

static struct checkpoint_result *no_result(void)
{
	struct checkpoint_result *result = calloc(1, sizeof(*result));

	if (!result)
		return NULL;
	result->error = EAGAIN;
	result->code = PDK_UNAVAILABLE;
	snprintf(result->text, sizeof(result->text), "the work ended without a result");
	return result;
}

/* Run one of them in a child. What it says fits into the pipe. */
static int start_job(struct sandbox *s, struct checkpoint_plan *plan, enum sandbox_job job, struct pdk_error *err)
{
	_cleanup_free_ struct checkpoint_result *result = no_result();
	int status[2], pidfd, rc;
	pid_t pid;

	if (!result || pipe2(status, O_CLOEXEC) < 0)
		return pdk_fail_errno(err, -errno, "make a pipe");
	plan->status = status[1];
	fcntl(status[0], F_SETFL, O_NONBLOCK);
	pid = fork();
	if (pid == 0)
		job_runs[job](plan);
	close(status[1]);
	pidfd = pid < 0 ? -1 : pidfd_open(pid, 0);
	rc = pidfd < 0 ? -errno : loop_add(&s->job_status_watch, status[0], EPOLLIN, on_job_status);
	if (rc == 0) {
		rc = loop_add(&s->job_watch, pidfd, EPOLLIN, on_job);
		if (rc == 0) {
			s->job = job;
			s->job_result = STEAL_PTR(result);
			return 0;
		}
		loop_remove(&s->job_status_watch);
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

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static bool one_is_dumped(void)
{
	for (const struct sandbox *s = sandbox_newest(); s; s = s->older)
		if (s->job_watch.fd >= 0 && s->job != SANDBOX_JOB_RESTORE)
			return true;
	return false;
}

/* How long CRIU may take: what is given to all, and time for the memory that it copies. */
static uint64_t limit_ms(uint64_t bytes)
{
	return (uint64_t)options.checkpoint_timeout * 1000 + bytes / BYTES_PER_MS;
}

static int begin_dump(struct sandbox *s, uint64_t token, enum sandbox_job job, bool brief, struct pdk_error *err)
{
	_cleanup_fd_ int leaf = cgroup_open_leaf(s->id), lock = record_lock(s->id);
	struct checkpoint_plan plan = {.id = s->id,
				       .snapshot = job == SANDBOX_JOB_DUMP ? NULL : s->snapshot_id,
				       .brief = brief,
				       .token = token,
				       .cgroup = leaf,
				       .pid = s->pid,
				       .is_lazy = job != SANDBOX_JOB_LAYER && lazy_pending(s->id),
				       .cpu_millis = s->limits.cpu_millis,
				       .limit_ms = limit_ms(s->limits.memory_bytes),
				       .frozen_ns = now_ns(),
				       .alone = !one_is_dumped(),
				       .lock = lock,
				       .rootfs = {.template_id = s->template_id}};
	int rc = leaf < 0 ? leaf : lock < 0 ? lock : plan.is_lazy ? 0 : cgroup_freeze(s->id, true);

	if (rc < 0)
		return pdk_fail_errno(err, rc, "freeze the sandbox");
	/* What it must still do before it can be stopped, and what CRIU has it do, is not to wait for the next period of a
	 * small limit. It is bounded by the time that CRIU has. */
	if (!plan.is_lazy)
		(void)cgroup_limit_cpu(s->id, 0);
	s->lifted = true;
	rc = start_job(s, &plan, job, err);
	if (rc < 0)
		run_on(s);
	return rc;
}

static int check_dump(const struct sandbox *s, enum sandbox_job job, struct pdk_error *err)
{
	if (!s || s->state != SANDBOX_RUNNING)
		return pdk_fail(err, -ENOENT, PDK_NOT_FOUND, "no such sandbox");
	if (job != SANDBOX_JOB_LAYER && checkpoint_missing())
		return pdk_fail(err, -ENOSYS, PDK_FAILED_PRECONDITION, "%s on this host", checkpoint_missing());
	if (s->job_watch.fd >= 0 || s->freezer.connection || record_locked(s->id))
		return pdk_fail(err, -EBUSY, PDK_ABORTED, "a checkpoint is being made already");
	return 0;
}

void sandbox_checkpoint(const char *id, uint64_t token, struct ticket ticket)
{
	struct sandbox *s = sandbox_find(id);
	struct pdk_error err;
	int rc = check_dump(s, SANDBOX_JOB_DUMP, &err);

	if (rc == 0)
		rc = begin_dump(s, token, SANDBOX_JOB_DUMP, false, &err);
	if (rc < 0)
		serve_status(ticket, id, rc, &err);
	else
		s->dumper = ticket;
}

static void take(const char *id, const char *snapshot_id, uint64_t token, enum sandbox_job job, bool brief,
		 struct ticket ticket)
{
	struct sandbox *s = sandbox_find(id);
	struct pdk_error err;
	int rc = check_dump(s, job, &err);

	if (rc == 0 && cgroup_freezing(id))
		rc = pdk_fail(&err, -EINVAL, PDK_FAILED_PRECONDITION, "the sandbox is frozen");
	if (rc == 0 && (snapshot_exists(snapshot_id, NULL) || sandbox_uses_snapshot(snapshot_id)))
		rc = pdk_fail(&err, -EEXIST, PDK_ALREADY_EXISTS, "a snapshot with this id exists");
	if (rc == 0) {
		snprintf(s->snapshot_id, sizeof(s->snapshot_id), "%s", snapshot_id);
		rc = begin_dump(s, token, job, brief, &err);
		if (rc < 0)
			s->snapshot_id[0] = '\0';
	}
	if (rc < 0)
		serve_status(ticket, id, rc, &err);
	else
		s->dumper = ticket;
}

void sandbox_snapshot(const char *id, const char *snapshot_id, uint64_t token, bool brief, struct ticket ticket)
{
	take(id, snapshot_id, token, SANDBOX_JOB_SNAPSHOT, brief, ticket);
}

void sandbox_layer(const char *id, const char *snapshot_id, struct ticket ticket)
{
	take(id, snapshot_id, 0, SANDBOX_JOB_LAYER, false, ticket);
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
	bool is_copy = s->snapshot_id[0];
	int rc = userns_take(&userns, err);

	if (rc < 0)
		return rc;
	s->slot = userns.slot;
	s->has_slot = true;
	rc = sandbox_record(s, RECORD_UNREADY, record_create);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "write the sandbox's state");
	FAULT("restore_record");
	if (is_copy)
		rc = snapshot_give_layer(s->snapshot_id, s->id, s->limits.disk_bytes, err);
	if (rc < 0)
		return rc;
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
	rc = bootid_make(s->id, userns.base);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "make the sandbox's boot id");
	FAULT("restore_prepared");
	if (is_copy) {
		plan.snapshot = s->snapshot_id;
		plan.checked_generation = snapshot_checked(s->snapshot_id);
	}
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
	return start_job(s, &plan, SANDBOX_JOB_RESTORE, err);
}

static int check_restore(const char *template_id, struct pdk_error *err)
{
	const struct template_info *info = template_find(template_id);

	if (checkpoint_missing())
		return pdk_fail(err, -ENOSYS, PDK_FAILED_PRECONDITION, "%s on this host", checkpoint_missing());
	if (!info || info->state == TEMPLATE_DAMAGED)
		return pdk_fail(err, -EBADMSG, PDK_DATA_LOSS, "the template is %s", info ? "damaged" : "gone");
	if (info->state != TEMPLATE_READY)
		return pdk_fail(err, -EAGAIN, PDK_UNAVAILABLE, "the template is being verified; try again");
	return 0;
}

static void start_restore(struct sandbox *s, const char *hostname, const struct warden_limits *limits, uint64_t token,
			  struct ticket ticket)
{
	struct pdk_error err;
	int rc;

	s->state = SANDBOX_RESTORING;
	s->limits = *limits;
	s->deadline_ms = clock_ms() + limit_ms(limits->memory_bytes);
	s->creator = ticket;
	snprintf(s->hostname, sizeof(s->hostname), "%s", hostname);
	sandbox_set_busy(s, true);
	rc = begin_restore(s, token, &err);
	if (rc < 0)
		sandbox_restore_failed(s, rc, err.text);
}

void sandbox_restore(const char *id, const char *hostname, const struct warden_limits *limits, uint64_t token,
		     struct ticket ticket)
{
	struct sandbox *s = sandbox_find(id);
	struct pdk_error err;
	int rc;

	if (!s || s->state != SANDBOX_STORED)
		rc = pdk_fail(&err, -ENOENT, PDK_NOT_FOUND, "no such checkpoint");
	else
		rc = check_restore(s->template_id, &err);
	if (rc < 0)
		serve_status(ticket, id, rc, &err);
	else
		start_restore(s, hostname, limits, token, ticket);
}

/*
 * Safe with a hostile paddockd: the images are those that this warden has sealed under the snapshot's id and token, and
 * what they become is confined and looked at as any other sandbox. Whose they are is for paddockd to know.
 */
void sandbox_copy(const char *id, const char *snapshot_id, const char *hostname, const struct warden_limits *limits,
		  uint64_t token, struct ticket ticket)
{
	char template_id[TEMPLATE_ID_SIZE];
	struct sandbox *s = NULL;
	struct pdk_error err;
	int rc = sandbox_check_new(id, &err);

	if (rc == 0 && !snapshot_exists(snapshot_id, template_id))
		rc = pdk_fail(&err, -ENOENT, PDK_NOT_FOUND, "no such snapshot");
	if (rc == 0)
		rc = check_restore(template_id, &err);
	if (rc == 0 && !(s = sandbox_new(id, template_id)))
		rc = pdk_fail_errno(&err, -ENOMEM, "hold another sandbox");
	if (rc < 0) {
		serve_status(ticket, id, rc, &err);
		return;
	}
	snprintf(s->snapshot_id, sizeof(s->snapshot_id), "%s", snapshot_id);
	start_restore(s, hostname, limits, token, ticket);
}
