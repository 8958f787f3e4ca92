#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "cgroup.h"
#include "checkpoint_private.h"
#include "kernel.h"
#include "log.h"
#include "options.h"
#include "pool.h"
#include "record.h"
#include "sandbox/base/cleanup.h"
#include "sandbox_private.h"
#include "userns.h"

/* After a restart: what an earlier warden left is adopted or removed, and either is said. */

/* The process of a leaf's list, as a pidfd, if it is pid 1 of its pid namespace. */
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

/* Look for one number in the leaf's list; 0: the first that is pid 1, as a pidfd. */
static int find_in_leaf(const char *id, int wanted, pid_t *ret_pid, int *ret_pidfd)
{
	int fd = cgroup_open_procs(id);
	_cleanup_file_ FILE *procs = fd < 0 ? NULL : fdopen(fd, "re");
	int pid;

	while (procs && fscanf(procs, "%d", &pid) == 1) {
		if (wanted ? pid == wanted : pid > 0 && pid_one(pid, ret_pidfd) == 0) {
			*ret_pid = pid;
			return 0;
		}
	}
	return -ESRCH;
}

/* Between the list and the pidfd the number may have become another sandbox's init. If the process of the pidfd lives
 * and the number is in the list now, it is the one. */
static int find_init(const char *id, pid_t *ret_pid, int *ret_pidfd)
{
	_cleanup_fd_ int pidfd = -1;
	pid_t pid;
	int rc = find_in_leaf(id, 0, &pid, &pidfd);

	if (rc == 0)
		rc = find_in_leaf(id, pid, &pid, NULL);
	if (rc == 0 && pidfd_send_signal(pidfd, 0, NULL, 0) < 0)
		rc = -errno;
	if (rc < 0)
		return rc;
	*ret_pid = pid;
	*ret_pidfd = STEAL_FD(pidfd);
	return 0;
}

int sandbox_watch_init(struct sandbox *s)
{
	int rc = find_init(s->id, &s->pid, &s->pidfd);

	return rc < 0 ? rc : loop_add(&s->exit_watch, s->pidfd, EPOLLIN, sandbox_on_exit_of_init);
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
	if (rc == 0) /* which a dump may have lifted */
		rc = cgroup_limit_cpu(s->id, s->limits.cpu_millis);
	/* Where it cannot go on, it cannot be trusted to run; what it was restored from may still count. */
	if (rc == 0 && record->ready == RECORD_RESTORED)
		rc = sandbox_take_restored(s);
	if (rc < 0) {
		loop_remove(&s->exit_watch);
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
	bool has_slot = false;

	if (sandbox_find(id))
		return;
	if (sandbox_id_valid(id) && record_load(id, &record) == 0 && record.range_base == options.range_base)
		has_slot = userns_reserve(record.slot);
	if (has_slot && record.ready && adopt(&record) == 0)
		return;
	s = sandbox_id_valid(id) ? sandbox_new(id, "") : NULL;
	if (!s) {
		/* Not a name we make as a sandbox: a job's leaf. Only our own groups are ever enumerated. */
		cgroup_kill(id);
		cgroup_remove(id);
		return;
	}
	s->has_slot = has_slot;
	if (has_slot)
		s->slot = record.slot;
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
