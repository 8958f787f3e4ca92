#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cgroup.h"
#include "checkpoint_private.h"
#include "child.h"
#include "kernel.h"
#include "log.h"
#include "netns.h"
#include "options.h"
#include "pool.h"
#include "record.h"
#include "sandbox/base/cleanup.h"
#include "sandbox/base/fault.h"
#include "sandbox_private.h"
#include "template.h"
#include "tools.h"
#include "userns.h"

#define BUCKETS 4096
#define START_TIMEOUT_MS 10000
#define REMOVE_TIMEOUT_MS 10000
#define RETRY_MS 2
#define REFILL_PAUSE_MS 10
#define KILL_AGAIN_MS 500
#define FREEZE_TIMEOUT_MS 10000
#define FREEZE_SPINS 20    /* of 50 us: most sandboxes stand still by then, and nobody else waits noticeably */
#define SANDBOXES_MAX 9000 /* a pidfd and, while starting, three descriptors of 20,000 */

static struct sandbox *table[BUCKETS];
static unsigned int count;
static unsigned int busy; /* in STARTING or DYING, or freezing: these have deadlines */
static unsigned int stock_wanted;
static unsigned long long walk_ms;   /* when deadlines and retries are looked at next */
static unsigned long long worked_ms; /* when a create or kill was last done */
/* By slot: the first process of a sandbox that is starting, written by the kernel (child.h). Shared with builders. */
static pid_t *first_processes;

static unsigned int bucket(const char *id)
{
	uint32_t hash = 2166136261u;

	for (; *id; id++)
		hash = (hash ^ (unsigned char)*id) * 16777619u;
	return hash % BUCKETS;
}

struct sandbox *sandbox_find(const char *id)
{
	struct sandbox *s = table[bucket(id)];

	while (s && strcmp(s->id, id) != 0)
		s = s->next;
	return s;
}

static struct sandbox *sandbox_new(const char *id, const char *template_id)
{
	struct sandbox *s = calloc(1, sizeof(*s));
	unsigned int i = bucket(id);

	if (!s)
		return NULL;
	snprintf(s->id, sizeof(s->id), "%s", id);
	snprintf(s->template_id, sizeof(s->template_id), "%s", template_id);
	s->pidfd = s->link = s->exit_watch.fd = s->builder_watch.fd = s->status_watch.fd = -1;
	inodes_reset(&s->inodes);
	s->job_watch.fd = s->job_status_watch.fd = -1;
	s->next = table[i];
	table[i] = s;
	count++;
	return s;
}

static void close_status(struct sandbox *s)
{
	int fd = s->status_watch.fd;

	loop_remove(&s->status_watch);
	if (fd >= 0)
		close(fd);
}

static void sandbox_free(struct sandbox *s)
{
	struct sandbox **at = &table[bucket(s->id)];

	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	count--;
	close_status(s);
	if (s->pidfd >= 0)
		close(s->pidfd);
	if (s->link >= 0)
		close(s->link);
	free(s);
}

int sandbox_setup(struct pdk_error *err)
{
	int rc = record_setup();

	if (rc < 0)
		return pdk_fail_errno(err, rc, "make the directory of sandboxes");
	first_processes =
		mmap(NULL, USERNS_SLOTS * sizeof(pid_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (first_processes == MAP_FAILED)
		return pdk_fail_errno(err, -errno, "share memory with builders");
	return 0;
}

void sandbox_busy(int delta)
{
	busy += (unsigned int)delta;
}

static void answer_freezer(struct sandbox *s, int rc, const struct pdk_error *err)
{
	if (!s->freezer.connection)
		return;
	serve_status(s->freezer, s->id, rc, err);
	s->freezer.connection = 0;
	busy--;
}

/* A freeze that was not answered yet is answered by what ends it. */
static void cancel_freezer(struct sandbox *s)
{
	struct pdk_error err;

	pdk_fail(&err, -ECANCELED, PDK_ABORTED, "something else was asked for meanwhile");
	answer_freezer(s, -ECANCELED, &err);
}

/* --- the end --- */

static void answer_all(struct sandbox *s, int rc, const struct pdk_error *err)
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
		if (rc < 0)
			snprintf(reply.text, sizeof(reply.text), "%.255s", err->text);
		serve_reply(s->killers[i], &reply, -1);
	}
	if (s->announce && s->n_killers == 0) {
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
	busy--;
	worked_ms = clock_ms();
	answer_all(s, rc, &err);
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

static void on_status(struct watch *watch, uint32_t events);

static void on_exit_of_init(struct watch *watch, uint32_t events)
{
	struct sandbox *s = CONTAINER_OF(watch, struct sandbox, exit_watch);
	siginfo_t info = {.si_pid = 0};

	loop_remove(watch);
	if (s->child && waitid(P_PIDFD, (id_t)s->pidfd, &info, WEXITED) == 0)
		s->wait_status = info.si_code == CLD_EXITED ? info.si_status << 8 : info.si_status;
	FAULT("kill_reaped");
	if (s->state == SANDBOX_STARTING) {
		/* It may have died of a failure that it wrote down: that is the better story. It also ends `s`. */
		on_status(&s->status_watch, EPOLLIN);
		return;
	}
	if (s->state != SANDBOX_DYING) {
		cancel_freezer(s);
		sandbox_job_cancel(s);
		if (s->announce)
			log_info("sandbox_exited", s->id, "wait status %d", s->wait_status);
		s->state = SANDBOX_DYING;
		s->deadline_ms = clock_ms() + REMOVE_TIMEOUT_MS;
		busy++;
	}
	if (!sandbox_has_process(s))
		sandbox_try_remove(s);
}

/* Find the process that the builder has cloned, if it has. It is our child and nobody else waits for it, so its number
 * stays its own until on_exit_of_init(). */
static void find_first(struct sandbox *s)
{
	pid_t pid = s->has_slot ? first_processes[s->slot] : 0;

	if (s->pid || pid <= 0)
		return;
	s->pid = pid;
	s->child = true;
	s->pidfd = pidfd_open(pid, 0);
	if (s->pidfd >= 0 && loop_add(&s->exit_watch, s->pidfd, EPOLLIN, on_exit_of_init) == 0)
		return;
	/* Out of descriptors or memory: no way to watch it, so it ends here. */
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void on_exit_of_builder(struct watch *watch, uint32_t events)
{
	struct sandbox *s = CONTAINER_OF(watch, struct sandbox, builder_watch);
	int fd = watch->fd;
	siginfo_t info;

	loop_remove(watch);
	waitid(P_PIDFD, (id_t)fd, &info, WEXITED);
	close(fd);
	find_first(s);
	if (s->state == SANDBOX_DYING && !sandbox_has_process(s))
		sandbox_try_remove(s);
}

void sandbox_begin_removal(struct sandbox *s)
{
	cancel_freezer(s);
	sandbox_job_cancel(s);
	if (s->state != SANDBOX_STARTING && s->state != SANDBOX_RESTORING && s->state != SANDBOX_DYING)
		busy++;
	s->state = SANDBOX_DYING;
	s->deadline_ms = clock_ms() + REMOVE_TIMEOUT_MS;
	s->retry_ms = clock_ms() + KILL_AGAIN_MS;
	/* Kills frozen processes too, and forks that are under way. */
	cgroup_kill(s->id);
	FAULT("kill_signalled");
	if (!sandbox_has_process(s))
		sandbox_try_remove(s);
}

/* --- the beginning --- */

static void create_failed(struct sandbox *s, int rc, const struct pdk_error *err)
{
	s->failure_rc = rc;
	s->failure = *err;
	sandbox_begin_removal(s);
}

int sandbox_record(const struct sandbox *s, bool ready, int (*store)(const struct record *))
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
	inodes_reset(&s->inodes); /* it is looked at from now on */
	s->announce = true;
	busy--;
	worked_ms = clock_ms();
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

/* The builder's and the first process's words: what failed, or that it is about to execute init, and then the end of
 * the pipe. */
static void on_status(struct watch *watch, uint32_t events)
{
	struct sandbox *s = CONTAINER_OF(watch, struct sandbox, status_watch);
	struct pdk_error err;
	int rc = read_status(s, &err);

	if (rc == 0)
		return;
	close_status(s);
	if (s->state != SANDBOX_STARTING)
		return;
	find_first(s);
	if (rc > 0 && (!s->executing || s->exit_watch.fd < 0))
		rc = pdk_fail(&err, -EIO, PDK_INTERNAL, "the sandbox ended while it started");
	FAULT("create_started");
	if (rc > 0 && (rc = sandbox_record(s, true, record_update)) < 0)
		pdk_fail_errno(&err, rc, "write the sandbox's state");
	if (rc < 0) {
		create_failed(s, rc, &err);
		return;
	}
	FAULT("create_recorded");
	sandbox_started(s);
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
	int rc = pool_layer_take(s->id, s->limits.disk_bytes, err);

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
	};
	struct clone_args args = {
		.flags = CLONE_NEWNS | CLONE_PIDFD | CLONE_INTO_CGROUP,
		.pidfd = (uint64_t)(uintptr_t)&fds->builder,
		.exit_signal = SIGCHLD,
		.cgroup = (uint64_t)fds->cgroup,
	};
	pid_t pid;

	pid = kernel_clone3(&args);
	if (pid == 0)
		child_run_builder(&plan);
	if (pid < 0)
		return pdk_fail_errno(err, -errno, "clone the sandbox's builder");
	FAULT("create_cloned");
	return 0;
}

static int watch_builder(struct sandbox *s, struct start_fds *fds, struct pdk_error *err)
{
	int rc = loop_add(&s->builder_watch, fds->builder, EPOLLIN, on_exit_of_builder);

	if (rc < 0) {
		cgroup_kill(s->id);
		waitid(P_PIDFD, (id_t)fds->builder, &(siginfo_t){0}, WEXITED);
		find_first(s);
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
	rc = sandbox_record(s, false, record_create);
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
	busy++;
	rc = start(s, &err);
	if (rc < 0)
		create_failed(s, rc, &err);
}

void sandbox_create(const char *id, const char *template_id, const char *hostname, const struct warden_limits *limits,
		    struct ticket ticket)
{
	struct template_info *info = template_find(template_id);
	struct sandbox *s = NULL;
	struct pdk_error err;
	int rc = 0;

	if (sandbox_find(id))
		rc = pdk_fail(&err, -EEXIST, PDK_ALREADY_EXISTS, "a sandbox with this id exists");
	else if (!info || info->state == TEMPLATE_DAMAGED)
		rc = pdk_fail(&err, -ENOENT, PDK_NOT_FOUND, info ? "the template is damaged" : "no such template");
	else if (count >= SANDBOXES_MAX)
		rc = pdk_fail(&err, -EAGAIN, PDK_RESOURCE_EXHAUSTED, "the host holds %u sandboxes", count);
	else if (!(s = sandbox_new(id, template_id)))
		rc = pdk_fail_errno(&err, -ENOMEM, "hold another sandbox");
	if (rc < 0) {
		serve_status(ticket, id, rc, &err);
		return;
	}
	s->limits = *limits;
	s->creator = ticket;
	snprintf(s->hostname, sizeof(s->hostname), "%s", hostname);
	if (info->state == TEMPLATE_READY)
		start_or_fail(s);
}

/* A WAITING sandbox holds nothing but its struct. */
static void drop_waiting(struct sandbox *s, int rc, const struct pdk_error *err)
{
	s->failure_rc = rc;
	s->failure = *err;
	answer_all(s, 0, NULL);
	sandbox_free(s);
}

void sandbox_template_ready(const char *template_id, int rc)
{
	struct pdk_error err;

	pdk_fail(&err, -EBADMSG, PDK_DATA_LOSS, "the template is damaged");
	for (unsigned int i = 0; i < BUCKETS; i++)
		for (struct sandbox *s = table[i], *next; s; s = next) {
			next = s->next;
			if (s->state != SANDBOX_WAITING || strcmp(s->template_id, template_id) != 0)
				continue;
			if (rc < 0)
				drop_waiting(s, -EBADMSG, &err);
			else
				start_or_fail(s);
		}
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
		drop_waiting(s, -ECANCELED, &err);
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

	if (rc == 0)
		rc = cgroup_limit(id, limits, err);
	if (rc == 0)
		rc = pool_layer_limit(id, limits->disk_bytes, err);
	if (rc < 0)
		return rc;
	s->limits = *limits;
	inodes_reset(&s->inodes); /* the byte quota is open until the next look */
	rc = sandbox_record(s, true, record_update);
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

void sandbox_freeze(const char *id, bool frozen, struct ticket ticket)
{
	struct sandbox *s = NULL;
	struct pdk_error err;
	int rc = find_running(id, &s, &err);

	if (rc == 0) {
		cancel_freezer(s);
		if (s->job_watch.fd >= 0)
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
		rc = cgroup_freeze(id, frozen);
		if (rc < 0)
			pdk_fail_errno(&err, rc, frozen ? "freeze the sandbox" : "thaw the sandbox");
	}
	for (int i = 0; rc == 0 && frozen && i < FREEZE_SPINS && !cgroup_frozen(id); i++)
		usleep(50);
	if (rc < 0 || !frozen || cgroup_frozen(id)) {
		serve_status(ticket, rc == 0 ? id : NULL, rc, &err);
		return;
	}
	s->freezer = ticket;
	s->deadline_ms = clock_ms() + FREEZE_TIMEOUT_MS;
	busy++;
}

unsigned int sandbox_count(void)
{
	return count;
}

bool sandbox_uses_template(const char *template_id)
{
	for (unsigned int i = 0; i < BUCKETS; i++)
		for (struct sandbox *s = table[i]; s; s = s->next)
			if (strcmp(s->template_id, template_id) == 0)
				return true;
	return false;
}

void sandbox_each(void (*visit)(const struct sandbox *sandbox, void *arg), void *arg)
{
	for (unsigned int i = 0; i < BUCKETS; i++)
		for (struct sandbox *s = table[i], *next; s; s = next) {
			next = s->next;
			visit(s, arg);
		}
}

void sandbox_visit(void (*visit)(struct sandbox *sandbox, void *arg), void *arg)
{
	for (unsigned int i = 0; i < BUCKETS; i++)
		for (struct sandbox *s = table[i]; s; s = s->next)
			visit(s, arg);
}

/* --- time and stock --- */

static void tick_one(struct sandbox *s, unsigned long long now)
{
	struct pdk_error err;

	if (s->state == SANDBOX_STARTING && now > s->deadline_ms) {
		pdk_fail(&err, -ETIMEDOUT, PDK_DEADLINE_EXCEEDED, "the sandbox did not start in time");
		create_failed(s, -ETIMEDOUT, &err);
	} else if (s->state == SANDBOX_RUNNING && s->freezer.connection) {
		check_freezer(s, now);
	} else if (s->state == SANDBOX_RESTORING && now > s->deadline_ms) {
		sandbox_restore_failed(s, -ETIMEDOUT, "the restore did not end in time");
	} else if (s->state == SANDBOX_DYING && now >= s->retry_ms) {
		if (sandbox_has_process(s)) {
			cgroup_kill(s->id); /* the first may have failed */
			s->retry_ms = now + KILL_AGAIN_MS;
		} else {
			sandbox_try_remove(s);
		}
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

	if (busy == 0)
		return refill_waits() ? REFILL_PAUSE_MS : -1;
	/* Not in every turn of the loop: the walk passes every bucket. */
	if (now < walk_ms)
		return (int)(walk_ms - now);
	walk_ms = now + RETRY_MS;
	for (unsigned int i = 0; i < BUCKETS; i++)
		for (struct sandbox *s = table[i], *next; s; s = next) {
			next = s->next;
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

/* --- after a restart --- */

/* The pid 1 of a leaf's pid namespace, as a pidfd. The pidfd is opened first and the process looked at after, so a
 * reused number is noticed: it would not be in the leaf's list when that is read again by kill. */
static int pid_one(pid_t pid, int *ret_pidfd)
{
	_cleanup_fd_ int pidfd = pidfd_open(pid, 0);
	char path[64], text[4096], *line;

	if (pidfd < 0)
		return -errno;
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	if (file_read(AT_FDCWD, path, text, sizeof(text)) <= 0)
		return -ESRCH;
	line = strstr(text, "\nNSpid:");
	if (!line)
		return -ESRCH;
	line[1 + strcspn(line + 1, "\n")] = '\0';
	line = strrchr(line, '\t');
	if (!line || strcmp(line, "\t1") != 0)
		return -ESRCH;
	*ret_pidfd = STEAL_FD(pidfd);
	return 0;
}

static int find_init(const char *id, pid_t *ret_pid, int *ret_pidfd)
{
	int fd = cgroup_open_procs(id);
	_cleanup_file_ FILE *procs = fd < 0 ? NULL : fdopen(fd, "re");
	int pid;

	while (procs && fscanf(procs, "%d", &pid) == 1)
		if (pid > 0 && pid_one(pid, ret_pidfd) == 0) {
			*ret_pid = pid;
			return 0;
		}
	return -ESRCH;
}

int sandbox_watch_init(struct sandbox *s)
{
	int rc = find_init(s->id, &s->pid, &s->pidfd);

	return rc < 0 ? rc : loop_add(&s->exit_watch, s->pidfd, EPOLLIN, on_exit_of_init);
}

static int adopt(const struct record *record)
{
	struct sandbox *s = sandbox_new(record->id, record->template_id);
	int rc;

	if (!s)
		return -ENOMEM;
	s->limits = record->limits;
	s->slot = record->slot;
	rc = sandbox_watch_init(s);
	if (rc < 0) {
		sandbox_free(s);
		return rc;
	}
	s->has_slot = true;
	s->announce = true;
	s->state = SANDBOX_RUNNING;
	log_info("sandbox_adopted", s->id, "init is process %d", s->pid);
	return 0;
}

/* One leftover, by whatever trace it was found. Idempotent: an id comes once per trace. */
static void reconcile_one(const char *id)
{
	struct record record;
	struct sandbox *s;

	if (sandbox_find(id))
		return;
	if (sandbox_id_valid(id) && record_load(id, &record) == 0) {
		if (record.range_base == options.range_base)
			userns_reserve(record.slot);
		if (record.ready && record.range_base == options.range_base && adopt(&record) == 0)
			return;
	}
	s = sandbox_id_valid(id) ? sandbox_new(id, "") : NULL;
	if (!s) {
		/* Not a name we make as a sandbox: a job's leaf. Only our own groups are ever enumerated. */
		cgroup_kill(id);
		cgroup_remove(id);
		return;
	}
	if (record_load(id, &record) == 0 && record.range_base == options.range_base) {
		s->slot = record.slot;
		s->has_slot = true;
	}
	/* A checkpoint counts as long as nothing has run on the layer since. */
	s->keep = checkpoint_exists(id, s->template_id) && checkpoint_layer_token(id) != 0;
	log_info(s->keep ? "sandbox_stored" : "sandbox_removed", id,
		 s->keep ? "has a checkpoint" : "left half-made or dead by an earlier warden");
	sandbox_begin_removal(s);
}

static void reconcile_checkpoint(const char *name)
{
	if (sandbox_id_valid(name))
		reconcile_one(name);
}

void sandbox_reconcile(void)
{
	record_enumerate(reconcile_one);
	cgroup_enumerate(reconcile_one);
	pool_enumerate(POOL_SANDBOXES, reconcile_one);
	pool_enumerate(POOL_CHECKPOINTS, reconcile_checkpoint);
}
