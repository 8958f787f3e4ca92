#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bootid.h"
#include "cgroup.h"
#include "child.h"
#include "handover.h"
#include "kernel.h"
#include "netns.h"
#include "options.h"
#include "pool.h"
#include "record.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/fault.h"
#include "sandbox_private.h"
#include "snapshot.h"
#include "template.h"
#include "tools.h"
#include "userns.h"

/* The beginning of a sandbox, from CREATE to RUNNING. */

#define START_TIMEOUT_MS 10000
#define SANDBOXES_MAX 9000 /* a pidfd and, while starting, three descriptors of 20,000 */

/* By slot: the first process of a sandbox that is starting, written by the kernel (child.h). Shared with builders. */
static pid_t *first_processes;

int sandbox_start_setup(struct pdk_error *err)
{
	first_processes =
		mmap(NULL, USERNS_SLOTS * sizeof(pid_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (first_processes == MAP_FAILED)
		return pdk_fail_errno(err, -errno, "share memory with builders");
	return 0;
}

/* Find the process that the builder has cloned, if it has. It is our child and nobody else waits for it, so its number
 * stays its own until sandbox_on_exit_of_init(). */
void sandbox_find_first(struct sandbox *s)
{
	pid_t pid = s->has_slot ? first_processes[s->slot] : 0;

	if (s->pid || pid <= 0)
		return;
	s->pid = pid;
	s->child = true;
	s->pidfd = pidfd_open(pid, 0);
	if (s->pidfd >= 0 && loop_add(&s->exit_watch, s->pidfd, EPOLLIN, sandbox_on_exit_of_init) == 0)
		return;
	/* Out of descriptors or memory: no way to watch it, so it ends here. */
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

void sandbox_create_failed(struct sandbox *s, int rc, const struct pdk_error *err)
{
	s->failure_rc = rc;
	s->failure = *err;
	sandbox_begin_removal(s);
}

int sandbox_record(const struct sandbox *s, enum record_ready ready, int (*store)(const struct record *))
{
	struct record record = {.magic = RECORD_MAGIC,
				.slot = s->slot,
				.range_base = options.range_base,
				.ready = ready,
				.limits = s->limits};

	memcpy(record.id, s->id, SANDBOX_ID_SIZE);
	memcpy(record.template_id, s->template_id, TEMPLATE_ID_SIZE);
	return store(&record);
}

void sandbox_started(struct sandbox *s)
{
	struct warden_reply reply = {.value = (uint64_t)(unsigned int)s->pid};

	s->state = SANDBOX_RUNNING;
	s->snapshot_id[0] = '\0';
	inodes_reset(&s->inodes); /* it is looked at from now on */
	s->announce = true;
	sandbox_set_busy(s, false);
	sandbox_worked();
	memcpy(reply.id, s->id, SANDBOX_ID_SIZE);
	serve_reply(s->creator, &reply, s->link);
	s->creator.connection = 0;
	close(STEAL_FD(s->link));
}

/* What the pipe says: 1 the end without a failure, 0 not yet the end, or the failure. */
static int read_status(struct sandbox *s, struct pdk_error *err)
{
	struct child_failure word;
	ssize_t n;

	while ((n = read(s->status_watch.fd, &word, sizeof(word))) == (ssize_t)sizeof(word)) {
		if (word.error)
			return pdk_fail_errno(err, -word.error, "%.50s", word.step);
		s->executing = true;
	}
	return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : 1;
}

void sandbox_read_status(struct sandbox *s)
{
	struct pdk_error err;
	int rc = read_status(s, &err);

	if (rc == 0)
		return;
	sandbox_close_status(s);
	if (s->state != SANDBOX_STARTING)
		return;
	sandbox_find_first(s);
	if (rc > 0 && (!s->executing || s->exit_watch.fd < 0))
		rc = pdk_fail(&err, -EIO, PDK_INTERNAL, "the sandbox ended while it started");
	FAULT("create_started");
	if (rc > 0 && (rc = sandbox_record(s, RECORD_READY, record_update)) < 0)
		pdk_fail_errno(&err, rc, "write the sandbox's state");
	if (rc < 0) {
		sandbox_create_failed(s, rc, &err);
		return;
	}
	FAULT("create_recorded");
	sandbox_started(s);
}

static void on_status(struct watch *watch, uint32_t events)
{
	sandbox_read_status(CONTAINER_OF(watch, struct sandbox, status_watch));
}

/* Descriptors that live as long as the call to start(). */
struct start_fds {
	int cgroup, listener, builder, status[2];
};

static void start_fds_close(struct start_fds *fds)
{
	const int all[] = {fds->cgroup, fds->listener, fds->builder, fds->status[0], fds->status[1]};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		if (all[i] >= 0)
			close(all[i]);
}

static int prepare(struct sandbox *s, struct start_fds *fds, int netns, struct pdk_error *err)
{
	int rc = s->snapshot_id[0] ? snapshot_give_bare_layer(s->snapshot_id, s->id, s->limits.disk_bytes, err)
				   : pool_layer_take(s->id, s->limits.disk_bytes, err);

	if (rc < 0)
		return rc;
	FAULT("create_limited");
	rc = cgroup_create(s->id, &s->limits, &fds->cgroup, err);
	if (rc < 0)
		return rc;
	FAULT("create_cgroup");
	/* In the sandbox's network: a checkpoint knows only the sockets of that. */
	fds->listener = netns_inside(netns, record_listen, s->id);
	s->link = fds->listener < 0 ? fds->listener : record_connect(s->id);
	if (s->link < 0)
		return pdk_fail_errno(err, s->link, "make the sandbox's socket");
	FAULT("create_socket");
	return pipe2(fds->status, O_CLOEXEC | O_NONBLOCK) < 0 ? pdk_fail_errno(err, -errno, "make a pipe") : 0;
}

/*
 * Safe with a hostile paddockd: of what it said only the checked id, the template (found in our own list), the host
 * name (letters, digits, `-`, `.`) and numbers within bounds take part. The child never sees a path of its choosing.
 */
static int spawn(struct sandbox *s, struct start_fds *fds, const struct userns *userns, struct pdk_error *err)
{
	const int handed[HANDOVER_FDS] = {[HANDOVER_STATUS] = fds->status[1],
					  [HANDOVER_LISTENER] = fds->listener,
					  [HANDOVER_USERNS] = userns->fd,
					  [HANDOVER_NETNS] = userns->netns};
	struct child_plan plan = {
		.id = s->id,
		.hostname = s->hostname,
		.rootfs = {.id = s->id,
			   .template_id = s->template_id,
			   .tools = tools_layer(),
			   .userns = userns->fd,
			   .base = userns->base,
			   .memory_bytes = s->limits.memory_bytes,
			   .max_inodes = s->limits.max_inodes},
		.first = &first_processes[s->slot],
		.netns = userns->netns,
		.status = fds->status[1],
		.listener = fds->listener,
		.place = handover_take(handed),
	};
	struct clone_args args = {
		.flags = CLONE_NEWNS | CLONE_PIDFD | CLONE_INTO_CGROUP,
		.pidfd = (uint64_t)(uintptr_t)&fds->builder,
		.exit_signal = SIGCHLD,
		.cgroup = (uint64_t)fds->cgroup,
	};
	pid_t pid;
	int rc = bootid_make(s->id, userns->base);

	if (rc < 0) {
		handover_release(plan.place);
		return pdk_fail_errno(err, rc, "make the sandbox's boot id");
	}
	if (plan.place >= 0) {
		args.flags |= CLONE_FILES;
		plan.status = handover_fd(plan.place, HANDOVER_STATUS);
		plan.listener = handover_fd(plan.place, HANDOVER_LISTENER);
		plan.rootfs.userns = handover_fd(plan.place, HANDOVER_USERNS);
		plan.netns = handover_fd(plan.place, HANDOVER_NETNS);
	}
	pid = kernel_clone3(&args);
	if (pid == 0)
		child_run_builder(&plan);
	if (pid < 0) {
		handover_release(plan.place);
		return pdk_fail_errno(err, -errno, "clone the sandbox's builder");
	}
	s->place = plan.place;
	FAULT("create_cloned");
	return 0;
}

static int watch_builder(struct sandbox *s, struct start_fds *fds, struct pdk_error *err)
{
	int rc = loop_add(&s->builder_watch, fds->builder, EPOLLIN, sandbox_on_exit_of_builder);

	if (rc < 0) {
		cgroup_kill(s->id);
		waitid(P_PIDFD, (id_t)fds->builder, &(siginfo_t){0}, WEXITED);
		handover_release(STEAL_FD(s->place));
		sandbox_find_first(s);
	} else {
		(void)STEAL_FD(fds->builder);
		rc = loop_add(&s->status_watch, fds->status[0], EPOLLIN, on_status);
	}
	if (rc < 0)
		return pdk_fail_errno(err, rc, "watch the sandbox");
	(void)STEAL_FD(fds->status[0]);
	return 0;
}

static int start(struct sandbox *s, struct pdk_error *err)
{
	struct start_fds fds __attribute__((cleanup(start_fds_close))) = {-1, -1, -1, {-1, -1}};
	_cleanup_(userns_close) struct userns userns = USERNS_NONE;
	int rc = userns_take(&userns, err);

	if (rc < 0)
		return rc;
	s->slot = userns.slot;
	s->has_slot = true;
	first_processes[s->slot] = 0;
	rc = sandbox_record(s, RECORD_UNREADY, record_create);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "write the sandbox's state");
	FAULT("create_record");
	rc = prepare(s, &fds, userns.netns, err);
	if (rc == 0)
		rc = spawn(s, &fds, &userns, err);
	return rc < 0 ? rc : watch_builder(s, &fds, err);
}

static void start_or_fail(struct sandbox *s)
{
	struct pdk_error err;
	int rc;

	s->state = SANDBOX_STARTING;
	s->deadline_ms = clock_ms() + START_TIMEOUT_MS;
	sandbox_set_busy(s, true);
	rc = start(s, &err);
	if (rc < 0)
		sandbox_create_failed(s, rc, &err);
}

int sandbox_check_new(const char *id, struct pdk_error *err)
{
	if (sandbox_find(id))
		return pdk_fail(err, -EEXIST, PDK_ALREADY_EXISTS, "a sandbox with this id exists");
	if (sandbox_count() >= SANDBOXES_MAX)
		return pdk_fail(err, -EAGAIN, PDK_RESOURCE_EXHAUSTED, "the host holds %u sandboxes", sandbox_count());
	return 0;
}

static int check_layer(const char *snapshot_id, const char *template_id, struct pdk_error *err)
{
	char below[TEMPLATE_ID_SIZE];

	if (!snapshot_id[0] || (snapshot_exists(snapshot_id, below) && strcmp(below, template_id) == 0))
		return 0;
	return pdk_fail(err, -ENOENT, PDK_NOT_FOUND, "no such layer of this template");
}

void sandbox_create(const char *id, const char *template_id, const char *snapshot_id, const char *hostname,
		    const struct warden_limits *limits, struct ticket ticket)
{
	struct template_info *info = template_find(template_id);
	struct sandbox *s = NULL;
	struct pdk_error err;
	int rc = sandbox_check_new(id, &err);

	if (rc == 0 && (!info || info->state == TEMPLATE_DAMAGED))
		rc = pdk_fail(&err, -ENOENT, PDK_NOT_FOUND, info ? "the template is damaged" : "no such template");
	if (rc == 0)
		rc = check_layer(snapshot_id, template_id, &err);
	if (rc == 0 && !(s = sandbox_new(id, template_id)))
		rc = pdk_fail_errno(&err, -ENOMEM, "hold another sandbox");
	if (rc < 0) {
		serve_status(ticket, id, rc, &err);
		return;
	}
	s->limits = *limits;
	s->creator = ticket;
	snprintf(s->hostname, sizeof(s->hostname), "%s", hostname);
	snprintf(s->snapshot_id, sizeof(s->snapshot_id), "%s", snapshot_id);
	if (info->state == TEMPLATE_READY)
		start_or_fail(s);
}

/* A WAITING sandbox holds nothing but its struct. */
void sandbox_drop_waiting(struct sandbox *s, int rc, const struct pdk_error *err)
{
	s->failure_rc = rc;
	s->failure = *err;
	sandbox_answer_all(s, 0, NULL);
	sandbox_free(s);
}

void sandbox_template_ready(const char *template_id, int rc)
{
	struct pdk_error err;

	pdk_fail(&err, -EBADMSG, PDK_DATA_LOSS, "the template is damaged");
	for (struct sandbox *s = sandbox_newest(), *next; s; s = next) {
		next = s->older; /* it may end here */
		if (s->state != SANDBOX_WAITING || strcmp(s->template_id, template_id) != 0)
			continue;
		if (rc < 0)
			sandbox_drop_waiting(s, -EBADMSG, &err);
		else
			start_or_fail(s);
	}
}
