#include "checkpoint_cure.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "checkpoint_private.h"
#include "kernel.h"
#include "sandbox/base/cleanup.h"
#include "tracee.h"

/*
 * CRIU holds the threads by ptrace and lets them run code of its own: single system calls, by an instruction that it puts
 * over the first bytes that the process may execute, then a program in a memory file that is mapped, in the first thread as
 * a server on a socket and in the others up to a trap. If CRIU ends in the middle, they would go on from where they are, and
 * die of the trap, or of the changed bytes. So the guard, before that:
 *
 *   - notes each thread's registers and blocked signals, and those bytes, while the sandbox is frozen;
 *   - freezes it again before CRIU lets go of it, and takes CRIU's place;
 *   - lets a thread that is in CRIU's program come to its end: the server puts back what it changed when its socket is
 *     closed. One alone, all others stand still;
 *   - puts registers, signals and bytes back, and has the memory file closed and unmapped.
 *
 * Everything that is changed belongs to the sandbox; a sandbox that makes itself look like such a process only gets its own
 * memory unmapped. No process is let go before all are put right, and then into the freezer.
 */

#define CODE_WORDS 4
#define THREADS_MAX 65536
#define AREA_NAME "/memfd:CRIUMFD"
#define LEFT_MAX 8
#define SWEEP_FOLDER "/tmp" /* a mount of ours: the sandbox can put nothing else in its place */
#define SWEEP_NAME "cr-tmpfs."

struct thread {
	pid_t tid, process;
	struct tracee_state state;
	uint64_t rseq_at, rseq;
	int stop_signal; /* its group was stopped by this */
	bool is_held, is_changed;
	bool is_gone; /* it was about to end already */
};

struct process {
	pid_t pid;
	uint64_t place; /* of the bytes */
	uint64_t code[CODE_WORDS];
	bool is_lost, is_changed;
};

struct cure {
	int leaf;
	char group[512]; /* its name, as its processes have it */
	struct thread *threads;
	struct process *processes;
	size_t n_threads, n_processes;
};

void cure_free(struct cure *cure)
{
	if (!cure)
		return;
	free(cure->threads);
	free(cure->processes);
	free(cure);
}

/* --- before --- */

static void *add_to(void **array, size_t *n, size_t size)
{
	char *larger = *array;

	if ((*n & (*n - 1)) == 0) { /* full at each power of two */
		larger = *n < THREADS_MAX ? reallocarray(*array, *n ? *n * 2 : 1, size) : NULL;
		if (!larger)
			return NULL;
		*array = larger;
	}
	memset(larger + *n * size, 0, size);
	return larger + (*n)++ * size;
}

static int add_threads(struct cure *cure, pid_t pid)
{
	char path[64];
	struct dirent *entry;
	struct thread *thread = NULL;
	DIR *tasks;
	int rc = 0;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	tasks = opendir(path);
	while (tasks && rc == 0 && (entry = readdir(tasks))) {
		pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);

		if (tid <= 0 || (rc = tracee_seize(tid, false)) == -ESRCH) {
			rc = 0; /* a zombie has nothing to note */
			continue;
		}
		if (rc == 0)
			thread = add_to((void **)&cure->threads, &cure->n_threads, sizeof(*thread));
		if (!thread)
			return closedir(tasks), -ENOMEM;
		thread->tid = tid;
		thread->process = pid;
		thread->is_held = true;
	}
	if (tasks)
		closedir(tasks);
	return rc;
}

static int add_processes(struct cure *cure)
{
	int fd = openat(cure->leaf, "cgroup.procs", O_RDONLY | O_CLOEXEC), pid, rc = 0;
	_cleanup_file_ FILE *procs = fd < 0 ? NULL : fdopen(fd, "re");

	while (procs && rc == 0 && fscanf(procs, "%d", &pid) == 1) {
		struct process *process;

		if (pid <= 0)
			continue;
		process = add_to((void **)&cure->processes, &cure->n_processes, sizeof(*process));
		if (!process)
			return -ENOMEM;
		process->pid = pid;
		rc = add_threads(cure, pid);
	}
	return procs ? rc : -errno;
}

/* What /proc says of its place in the v2 tree. */
static bool read_group(pid_t pid, char text[512])
{
	char path[64], all[4096], *line;

	snprintf(path, sizeof(path), "/proc/%d/cgroup", pid);
	if (file_read(AT_FDCWD, path, all, sizeof(all)) <= 0)
		return false;
	line = strstr(all, "0::");
	if (!line || (line != all && line[-1] != '\n'))
		return false;
	line[strcspn(line, "\n")] = '\0';
	snprintf(text, 512, "%.511s", line);
	return true;
}

static FILE *open_maps(pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	return fopen(path, "re");
}

/* Where CRIU will put its instructions: the first that the process may execute. */
static uint64_t find_place(pid_t pid)
{
	_cleanup_file_ FILE *maps = open_maps(pid);
	char line[512], rights[8];
	uint64_t start;

	while (maps && fgets(line, sizeof(line), maps))
		if (sscanf(line, "%" SCNx64 "-%*x %7s", &start, rights) == 2 && rights[2] == 'x')
			return start;
	return 0;
}

static int note_thread(struct thread *thread)
{
	int rc = tracee_stopped(thread->tid, &thread->stop_signal);

	if (rc == 0)
		rc = tracee_get(thread->tid, &thread->state);
	if (rc == 0)
		thread->rseq = tracee_rseq(thread->tid, &thread->rseq_at);
	return rc;
}

static void note_process(struct process *process)
{
	process->place = find_place(process->pid);
	if (process->place && tracee_peek(process->pid, process->place, process->code, CODE_WORDS) < 0)
		process->place = 0;
}

int cure_create(int leaf, struct cure **ret, struct pdk_error *err)
{
	struct cure *cure = calloc(1, sizeof(*cure));
	int rc = cure ? 0 : -ENOMEM;

	if (rc == 0) {
		cure->leaf = leaf;
		rc = add_processes(cure);
	}
	for (size_t i = 0; rc == 0 && i < cure->n_threads; i++) {
		rc = note_thread(&cure->threads[i]);
		cure->threads[i].is_gone = rc == -ESRCH;
		if (cure->threads[i].is_gone)
			rc = 0;
	}
	for (size_t i = 0; rc == 0 && i < cure->n_processes; i++)
		note_process(&cure->processes[i]);
	if (rc == 0 && (cure->n_processes == 0 || !read_group(cure->processes[0].pid, cure->group)))
		rc = -ESRCH;
	for (size_t i = 0; cure && i < cure->n_threads; i++) {
		tracee_release(cure->threads[i].tid);
		cure->threads[i].is_held = false;
	}
	if (rc == 0) {
		*ret = cure;
		return 0;
	}
	cure_free(cure);
	if (rc == -ETIMEDOUT)
		return pdk_fail(err, -EAGAIN, PDK_UNAVAILABLE, "a process of it cannot be stopped now; try again");
	return pdk_fail_errno(err, rc, "note what the processes are");
}

/* --- after --- */

/* What CRIU has mapped. False: nothing, any more. */
static bool find_area(pid_t pid, struct tracee_area *ret)
{
	_cleanup_file_ FILE *maps = open_maps(pid);
	char line[512];

	while (maps && fgets(line, sizeof(line), maps))
		if (strstr(line, AREA_NAME) && sscanf(line, "%" SCNx64 "-%" SCNx64, &ret->start, &ret->end) == 2)
			return true;
	return false;
}

static bool find_file(pid_t pid, int *ret)
{
	char path[64], target[64];
	struct dirent *entry;
	bool found = false;
	DIR *fds;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	fds = opendir(path);
	while (fds && !found && (entry = readdir(fds))) {
		ssize_t n = readlinkat(dirfd(fds), entry->d_name, target, sizeof(target) - 1);

		target[n > 0 ? n : 0] = '\0';
		found = strncmp(target, AREA_NAME, strlen(AREA_NAME)) == 0;
		if (found)
			*ret = (int)strtol(entry->d_name, NULL, 10);
	}
	if (fds)
		closedir(fds);
	return found;
}

static bool is_same(const struct tracee_state *a, const struct tracee_state *b)
{
	return a->mask == b->mask && memcmp(&a->regs, &b->regs, sizeof(a->regs)) == 0;
}

/* -ESRCH: it has ended. */
static int hold(const struct cure *cure, struct thread *thread)
{
	int rc = tracee_seize(thread->tid, true), stop_signal;
	char group[sizeof(cure->group)];

	if (rc < 0)
		return rc;
	thread->is_held = true;
	rc = tracee_stopped(thread->tid, &stop_signal);
	/* A number may be another's by now: of somebody who is not in the leaf. */
	if (rc == 0 && (!read_group(thread->tid, group) || strcmp(group, cure->group) != 0)) {
		tracee_release(thread->tid);
		rc = -ESRCH;
	}
	return rc;
}

static int put_back_thread(struct thread *thread)
{
	struct tracee_state now;
	struct tracee_area area;
	int rc = tracee_get(thread->tid, &now);

	if (rc < 0 || is_same(&now, &thread->state))
		return rc;
	thread->is_changed = true;
	rc = tracee_clear_traps(thread->tid);
	/* Where it does not come to its end, it is cut off. */
	if (rc == 0 && find_area(thread->process, &area) && tracee_run_out(thread->tid, &area) == -ESRCH)
		rc = -ESRCH;
	if (rc == 0)
		rc = tracee_clear_traps(thread->tid);
	return rc < 0 ? rc : tracee_set(thread->tid, &thread->state);
}

/* By the first thread, whose registers are put back again. */
static int put_back_memory(const struct process *process)
{
	struct tracee_area area;
	int64_t result;
	int fd, rc = 0;

	for (int i = 0; rc == 0 && i < LEFT_MAX && find_file(process->pid, &fd); i++) {
		const uint64_t arguments[6] = {(uint64_t)fd};

		rc = tracee_call(process->pid, process->place, SYS_close, arguments, &result);
	}
	for (int i = 0; rc == 0 && i < LEFT_MAX && find_area(process->pid, &area); i++) {
		const uint64_t arguments[6] = {area.start, area.end - area.start};

		rc = tracee_call(process->pid, process->place, SYS_munmap, arguments, &result);
	}
	return rc;
}

static int put_back_code(struct process *process)
{
	uint64_t now[CODE_WORDS];
	int rc = tracee_peek(process->pid, process->place, now, CODE_WORDS);

	if (rc < 0 || memcmp(now, process->code, sizeof(now)) == 0)
		return rc;
	process->is_changed = true;
	return tracee_poke(process->pid, process->place, process->code, CODE_WORDS);
}

static int put_back_process(struct process *process, struct thread *threads, size_t n)
{
	struct tracee_area area;
	int fd, rc = 0;

	for (size_t i = 0; rc == 0 && i < n; i++) {
		rc = threads[i].is_gone ? 0 : put_back_thread(&threads[i]);
		process->is_changed |= threads[i].is_changed;
	}
	if (rc < 0 || !process->place)
		return rc;
	if (find_area(process->pid, &area) || find_file(process->pid, &fd)) {
		process->is_changed = true;
		rc = put_back_memory(process);
		if (rc == 0)
			rc = tracee_set(process->pid, &threads[0].state);
	}
	if (rc == 0)
		rc = put_back_code(process);
	/* The kernel has taken out what it thought was over. */
	for (size_t i = 0; rc == 0 && i < n; i++)
		if (threads[i].is_changed && threads[i].rseq)
			rc = tracee_poke(threads[i].tid, threads[i].rseq_at, &threads[i].rseq, 1);
	return rc;
}

static void let_go(struct thread *thread)
{
	/* CRIU takes a stop away to have its code run. */
	if (thread->is_held && thread->stop_signal && thread->tid == thread->process)
		kill(thread->process, thread->stop_signal);
	if (thread->is_held)
		tracee_release(thread->tid);
}

static void report_lost(struct cure_report *report, const struct process *process)
{
	if (report->lost++ == 0)
		checkpoint_name_process(process->pid, report->who);
}

void cure_apply(struct cure *cure, struct cure_report *ret)
{
	size_t at = 0;

	memset(ret, 0, sizeof(*ret));
	for (size_t i = 0; i < cure->n_threads; i++)
		if (!cure->threads[i].is_gone && hold(cure, &cure->threads[i]) < 0)
			cure->threads[i].is_held = false;
	(void)file_write(cure->leaf, "cgroup.freeze", "0");
	for (size_t i = 0; i < cure->n_processes; i++) {
		struct process *process = &cure->processes[i];
		size_t n = 0;
		int rc = 0;

		for (; at + n < cure->n_threads && cure->threads[at + n].process == process->pid; n++)
			if (!cure->threads[at + n].is_held && !cure->threads[at + n].is_gone)
				rc = -ESRCH;
		if (rc == 0 && n)
			rc = put_back_process(process, &cure->threads[at], n);
		at += n;
		if (rc < 0)
			report_lost(ret, process);
		else
			ret->cured += process->is_changed;
	}
	(void)file_write(cure->leaf, "cgroup.freeze", "1");
	for (size_t i = 0; i < cure->n_threads; i++)
		let_go(&cure->threads[i]);
}

/* In the sandbox's mount namespace, where nothing runs now. */
static void sweep(void)
{
	DIR *folder = opendir(SWEEP_FOLDER);
	struct dirent *entry;
	char path[300];
	struct stat st;

	while (folder && (entry = readdir(folder))) {
		snprintf(path, sizeof(path), SWEEP_FOLDER "/%.255s", entry->d_name);
		/* What the sandbox itself makes is never the host's root's. */
		if (strncmp(entry->d_name, SWEEP_NAME, strlen(SWEEP_NAME)) != 0)
			continue;
		umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW);
		if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == 0)
			rmdir(path);
	}
}

void cure_sweep(pid_t first)
{
	char path[64];
	_cleanup_fd_ int space = -1;
	pid_t pid;

	snprintf(path, sizeof(path), "/proc/%d/ns/mnt", first);
	space = open(path, O_RDONLY | O_CLOEXEC);
	if (space < 0)
		return;
	pid = fork();
	if (pid == 0) {
		if (setns(space, CLONE_NEWNS) == 0)
			sweep();
		_exit(0);
	}
	if (pid > 0)
		waitpid(pid, NULL, 0);
}
