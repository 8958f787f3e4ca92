#include "sandbox/init/process.h"

#include "sandbox/init/account.h"
#include "sandbox/init/session.h"
#include "sandbox/init/spare.h"
#include "sandbox/init/sudo.h"
#include "sandbox/init/terminal.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <time.h>

#define GRACE_DEFAULT_MS 5000u
#define GRACE_MAX_MS 60000u
#define TERMINAL_SIZE_MAX 4096u
#define ARGV_MAX 4096u
#define TIMEOUT_MAX_MS 86400000u

static void report_ready(struct init *init, struct source *source, uint32_t events);

static struct process *find(const struct init *init, uint64_t handle)
{
	struct process *process = init->processes;

	while (process && (process->sudo || process->handle != handle))
		process = process->next;
	return process;
}

/* The process of a handle that still runs, or an error. */
static struct process *find_running(const struct init *init, uint64_t handle, struct pdk_error *err)
{
	struct process *process = find(init, handle);

	if (!process || !process->pid) {
		pdk_fail(err, -ESRCH, PDK_NOT_FOUND, process ? "the process has ended" : "no such process");
		return NULL;
	}
	return process;
}

static struct process *process_create(struct init *init)
{
	struct process *process = calloc(1, sizeof(*process));

	if (!process)
		return NULL;
	process->last_report = calloc(1, sizeof(*process->last_report));
	if (!process->last_report) {
		free(process);
		return NULL;
	}
	process->report.fd = -1;
	for (int i = 0; i < 3; i++)
		process->ends[i] = -1;
	process->next = init->processes;
	init->processes = process;
	init->n_handles++;
	return process;
}

static void process_free(struct init *init, struct process *process)
{
	struct process **at = &init->processes;

	while (*at != process)
		at = &(*at)->next;
	*at = process->next;
	init->n_handles--;
	if (process->pid)
		init->n_running--;
	source_close(init, &process->report);
	terminal_free(init, process->terminal);
	for (int i = 0; i < 3; i++)
		cleanup_fd(&process->ends[i]);
	free(process->last_report);
	free(process->cwd);
	free(process);
}

static void reply_started(struct init *init, struct process *process)
{
	guest_message(Started) started = PADDOCK__INTERNAL__GUEST_STARTED__INIT;
	guest_reply reply = GUEST_REPLY_INIT;
	int fds[3];
	unsigned int n_fds = 0;

	started.handle = process->handle;
	started.pid = (uint32_t)process->shown_pid;
	started.has_stdin = process->ends[0] >= 0;
	started.has_stdout = process->ends[1] >= 0;
	started.has_stderr = process->ends[2] >= 0;
	if (process->cwd)
		started.cwd = process->cwd;
	for (int i = 0; i < 3; i++) {
		if (process->ends[i] >= 0)
			fds[n_fds++] = process->ends[i];
	}
	reply.result_case = GUEST_RESULT(STARTED);
	reply.started = &started;
	session_reply(init, process->stream, &reply, fds, n_fds);
}

static void reply_exited(struct init *init, struct process *process)
{
	guest_message(Exited) exited = PADDOCK__INTERNAL__GUEST_EXITED__INIT;
	guest_reply reply = GUEST_REPLY_INIT;

	exited.handle = process->handle;
	if (WIFSIGNALED(process->status)) {
		exited.signal = (uint32_t)WTERMSIG(process->status);
		exited.core_dumped = WCOREDUMP(process->status);
	} else {
		exited.exit_code = (uint32_t)WEXITSTATUS(process->status);
	}
	exited.timed_out = process->timed_out;
	exited.ended_unix_ms = process->ended_unix_ms;
	reply.result_case = GUEST_RESULT(EXITED);
	reply.exited = &exited;
	session_reply_last(init, process->stream, &reply);
	process->stream = 0;
}

/* Starting */

static int check_start(const struct init *init, const guest_message(Start) * start, struct pdk_error *err)
{
	if (!start->handle || find(init, start->handle))
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "handle: already used");
	if (!start->n_argv || start->n_argv > ARGV_MAX)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "argv: 1 to %u arguments", ARGV_MAX);
	if (start->cwd[0] && start->cwd[0] != '/')
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "cwd: must be absolute");
	if (start->columns > TERMINAL_SIZE_MAX || start->rows > TERMINAL_SIZE_MAX || !start->columns != !start->rows)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "terminal: 1 to %u columns and rows",
				TERMINAL_SIZE_MAX);
	for (size_t i = 0; i < start->n_env; i++) {
		if (start->env[i][0] == '=' || !strchr(start->env[i], '='))
			return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "env: an entry is not NAME=value");
	}
	if (init->n_running >= PROCESS_RUNNING_MAX || init->n_handles >= PROCESS_HANDLES_MAX)
		return pdk_fail(err, -EAGAIN, PDK_RESOURCE_EXHAUSTED, "%u processes are running already",
				init->n_running);
	return 0;
}

/* A pipe between init and the child: our end does not block, the child's does. */
static int open_pipe(int *ours, int *theirs, bool we_write)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	*ours = ends[we_write ? 1 : 0];
	*theirs = ends[we_write ? 0 : 1];
	return fcntl(*ours, F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

static int open_streams(struct init *init, struct process *process, const guest_message(Start) * start, uid_t uid,
			int theirs[3])
{
	int rc;

	if (start->columns) {
		rc = terminal_open(init, process, uid, start->columns, start->rows, &process->terminal, &theirs[0],
				   &process->ends[0], &process->ends[1]);
		theirs[1] = theirs[2] = -1;
		return rc;
	}
	rc = open_pipe(&process->ends[1], &theirs[1], false);
	if (rc == 0)
		rc = open_pipe(&process->ends[2], &theirs[2], false);
	if (rc == 0 && start->open_stdin)
		rc = open_pipe(&process->ends[0], &theirs[0], true);
	return rc;
}

static int launch(struct init *init, struct process *process, const struct spawn_plan *plan, struct pdk_error *err)
{
	int report = -1;
	int rc = spawn(init, plan, &report);

	if (rc < 0 && rc == -EAGAIN)
		return pdk_fail(err, rc, PDK_RESOURCE_EXHAUSTED, "the limit of processes is reached");
	if (rc < 0)
		return pdk_fail_errno(err, rc, "cannot start a process");
	process->pid = process->shown_pid = rc;
	init->n_running++;
	/* Only its end is waited for (a hang-up is always told): by then every report is in the pipe. */
	rc = source_add(init, &process->report, report, EPOLLPRI, report_ready);
	if (rc == 0)
		return 0;
	kill(process->pid, SIGKILL);
	process->pid = 0;
	init->n_running--;
	return pdk_fail_errno(err, rc, "cannot wait for a process");
}

int process_start(struct init *init, uint32_t stream, const guest_message(Start) * start, struct pdk_error *err)
{
	_cleanup_free_ char **argv = calloc(start->n_argv + 1, sizeof(*argv));
	struct spawn_plan plan = {.argv = argv,
				  .sandbox_env = init->env,
				  .env = start->env,
				  .n_env = start->n_env,
				  .cwd = start->cwd,
				  .terminal = start->columns != 0,
				  .nofile = init->nofile};
	int theirs[3] = {-1, -1, -1};
	struct process *process;
	int rc = check_start(init, start, err);

	if (rc == 0)
		rc = account_uid(start->user, &plan.uid, err);
	if (rc < 0)
		return rc;
	process = argv ? process_create(init) : NULL;
	if (!process)
		return pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "out of memory");
	memcpy(argv, start->argv, start->n_argv * sizeof(*argv));
	process->handle = start->handle;
	process->stream = stream;
	process->timeout_ms = start->timeout_ms < TIMEOUT_MAX_MS ? start->timeout_ms : TIMEOUT_MAX_MS;
	process->grace_ms = start->grace_ms ? start->grace_ms : GRACE_DEFAULT_MS;
	if (process->grace_ms > GRACE_MAX_MS)
		process->grace_ms = GRACE_MAX_MS;
	rc = open_streams(init, process, start, plan.uid, theirs);
	if (rc < 0) {
		pdk_fail_errno(err, rc, "cannot open pipes");
	} else {
		plan.fds[0] = theirs[0] >= 0 ? theirs[0] : 0;
		plan.fds[1] = plan.terminal ? theirs[0] : theirs[1];
		plan.fds[2] = plan.terminal ? theirs[0] : theirs[2];
		rc = launch(init, process, &plan, err);
	}
	for (int i = 0; i < 3; i++)
		cleanup_fd(&theirs[i]);
	if (rc < 0)
		process_free(init, process);
	return rc;
}

int process_start_sudo(struct init *init, const struct spawn_plan *plan, struct sudo_call *sudo)
{
	struct process *process;
	int rc;

	if (init->n_running >= PROCESS_RUNNING_MAX)
		return -EAGAIN;
	process = process_create(init);
	if (!process)
		return -ENOMEM;
	process->sudo = sudo;
	rc = launch(init, process, plan, NULL);
	if (rc < 0) {
		process_free(init, process);
		return rc;
	}
	sudo_call_started(sudo, process);
	return 0;
}

/* The child executed its program. */
static void started(struct init *init, struct process *process)
{
	process->state = PROCESS_RUNNING;
	process->cwd = strdup(process->last_report->text);
	free(STEAL_PTR(process->last_report));
	if (process->timeout_ms) {
		process->deadline = init_now() + process->timeout_ms;
		init_wake_at(init, process->deadline);
	}
	if (!process->sudo)
		reply_started(init, process);
}

/* The child gave up before it could execute its program; it is reaped like any orphan. */
static void failed(struct init *init, struct process *process)
{
	struct pdk_error err = {};

	spawn_explain(process->last_report, &err);
	if (process->sudo)
		sudo_call_failed(init, process->sudo, &err);
	else
		session_fail(init, process->stream, &err);
	process_free(init, process);
}

static void report_ready(struct init *init, struct source *source, uint32_t events)
{
	struct process *process = CONTAINER_OF(source, struct process, report);

	if (!spawn_read_report(source->fd, process->last_report, &process->ready))
		return;
	source_close(init, source);
	if (process->ready && process->last_report->stage == SPAWN_READY)
		started(init, process);
	else
		failed(init, process);
}

/* Ending */

int process_kill(struct process *process, int signal, bool process_only)
{
	/* Nobody else reaps our children, so the number means this process until pid is cleared. */
	if (process->pid <= 1)
		return -ESRCH;
	if (!process_only && kill(-process->pid, signal) == 0)
		return 0;
	return kill(process->pid, signal) < 0 ? -errno : 0;
}

static void ended(struct init *init, struct process *process)
{
	process->state = PROCESS_ENDED;
	if (process->sudo) {
		sudo_call_exited(init, process->sudo, process->status);
		process_free(init, process);
		return;
	}
	if (process->stream)
		reply_exited(init, process);
	spare_prepare(init, true);
}

void process_drained(struct init *init, struct process *process)
{
	if (process->state == PROCESS_DRAINING)
		ended(init, process);
}

static int64_t wall_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

bool process_ended(struct init *init, pid_t pid, int status)
{
	struct process *process = init->processes;

	while (process && process->pid != pid)
		process = process->next;
	if (!process)
		return false;
	if (process->state == PROCESS_STARTING) {
		/* Its report pipe has ended with it: hear how it went first. */
		spawn_read_report(process->report.fd, process->last_report, &process->ready);
		source_close(init, &process->report);
		if (!process->ready || process->last_report->stage != SPAWN_READY) {
			failed(init, process);
			return true;
		}
		started(init, process);
	}
	process->pid = 0;
	init->n_running--;
	process->deadline = 0;
	process->status = status;
	process->ended_unix_ms = wall_ms();
	process->state = PROCESS_DRAINING;
	if (process->terminal)
		terminal_finish(init, process->terminal);
	else
		ended(init, process);
	return true;
}

void process_check_deadlines(struct init *init)
{
	uint64_t now = init_now();

	for (struct process *process = init->processes; process; process = process->next) {
		if (!process->deadline)
			continue;
		if (process->deadline <= now) {
			process_kill(process, process->timed_out ? SIGKILL : SIGTERM, false);
			process->deadline = process->timed_out ? 0 : now + process->grace_ms;
			process->timed_out = true;
		}
		if (process->deadline)
			init_wake_at(init, process->deadline);
	}
}

void process_postpone(struct init *init, uint64_t by_ms)
{
	for (struct process *process = init->processes; process; process = process->next) {
		if (!process->deadline)
			continue;
		process->deadline += by_ms;
		init_wake_at(init, process->deadline);
	}
}

/* Requests about a handle */

int process_signal(struct init *init, uint32_t stream, const guest_message(Signal) * request, struct pdk_error *err)
{
	struct process *process;
	int rc;

	if (request->signal < 1 || request->signal > 64)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "signal: 1 to 64");
	process = find_running(init, request->handle, err);
	if (!process)
		return -ESRCH;
	rc = process_kill(process, (int)request->signal, request->process_only);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "cannot signal the process");
	session_done(init, stream);
	return 0;
}

int process_resize(struct init *init, uint32_t stream, const guest_message(Resize) * request, struct pdk_error *err)
{
	struct process *process = find_running(init, request->handle, err);
	int rc;

	if (!process)
		return -ESRCH;
	if (!process->terminal)
		return pdk_fail(err, -ENOTTY, PDK_FAILED_PRECONDITION, "the process has no terminal");
	if (!request->columns || !request->rows || request->columns > TERMINAL_SIZE_MAX ||
	    request->rows > TERMINAL_SIZE_MAX)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "size: 1 to %u", TERMINAL_SIZE_MAX);
	rc = terminal_resize(process->terminal, request->columns, request->rows);
	if (rc < 0)
		return pdk_fail_errno(err, rc, "cannot resize the terminal");
	session_done(init, stream);
	return 0;
}

int process_close_stdin(struct init *init, uint32_t stream, uint64_t handle, struct pdk_error *err)
{
	struct process *process = find(init, handle);

	if (!process)
		return pdk_fail(err, -ESRCH, PDK_NOT_FOUND, "no such process");
	cleanup_fd(&process->ends[0]);
	process->ends[0] = -1;
	session_done(init, stream);
	return 0;
}

static int list_handles(struct init *init, uint32_t stream, struct pdk_error *err)
{
	guest_message(Processes) processes = PADDOCK__INTERNAL__GUEST_PROCESSES__INIT;
	guest_reply reply = GUEST_REPLY_INIT;
	_cleanup_free_ uint64_t *handles = calloc(init->n_handles + 1, sizeof(*handles));

	if (!handles)
		return pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "out of memory");
	for (struct process *process = init->processes; process; process = process->next) {
		if (!process->sudo)
			handles[processes.n_handle++] = process->handle;
	}
	processes.handle = handles;
	reply.result_case = GUEST_RESULT(PROCESSES);
	reply.processes = &processes;
	session_reply(init, stream, &reply, NULL, 0);
	session_end(init, stream);
	return 0;
}

int process_adopt(struct init *init, uint32_t stream, uint64_t handle, struct pdk_error *err)
{
	struct process *process = find(init, handle);

	if (!handle)
		return list_handles(init, stream, err);
	if (!process)
		return pdk_fail(err, -ESRCH, PDK_NOT_FOUND, "no such process");
	/* The newest listener wins. */
	session_end(init, process->stream);
	process->stream = stream;
	if (process->state != PROCESS_STARTING)
		reply_started(init, process);
	if (process->state == PROCESS_ENDED)
		reply_exited(init, process);
	return 0;
}

int process_forget(struct init *init, uint32_t stream, uint64_t handle, struct pdk_error *err)
{
	struct process *process = find(init, handle);

	if (process && process->state != PROCESS_ENDED)
		return pdk_fail(err, -EBUSY, PDK_FAILED_PRECONDITION, "the process is running");
	if (process)
		process_free(init, process);
	session_done(init, stream);
	return 0;
}

bool process_has_stream(const struct init *init, uint32_t stream)
{
	for (struct process *process = init->processes; process; process = process->next) {
		if (process->stream == stream)
			return true;
	}
	return false;
}

void process_detach_stream(struct init *init, uint32_t stream)
{
	for (struct process *process = init->processes; process; process = process->next) {
		if (process->stream == stream)
			process->stream = 0;
	}
}

void process_detach_all(struct init *init)
{
	for (struct process *process = init->processes; process; process = process->next)
		process->stream = 0;
}
