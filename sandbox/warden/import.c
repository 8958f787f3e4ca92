#include "import.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "btrfs.h"
#include "cgroup.h"
#include "child.h"
#include "kernel.h"
#include "log.h"
#include "loop.h"
#include "pool.h"
#include "sandbox.h"
#include "sandbox/base/cleanup.h"
#include "template.h"
#include "userns.h"

/*
 * One job at a time, as a small state machine:
 *
 *	IDLE -> EXTRACT -> DIGEST -> IDLE	an import: the tar is unpacked, then its content is digested and committed
 *	IDLE -> DIGEST -> IDLE			a verification of a template that was there at the start
 *
 * Each step is a fresh confined child (namespaces, uid range, cgroup with limits, seccomp) that sees one directory of
 * the pool and nothing else; what it prints is short and checked, because it has looked at hostile bytes.
 */
enum job_state { JOB_IDLE, JOB_EXTRACT, JOB_DIGEST };

#define JOB_CGROUP "import"
#define MAX_ENTRIES "4000000"
#define EXTRACT_TIMEOUT_MS 3600000ull
#define PROGRESS_MS 1000
#define VERIFY_ATTEMPTS 3
#define EXIT_LIMIT 3 /* of paddock-archive: a limit of ours was reached */
#define RETRY_MS 2

static int program = -1;
static struct {
	enum job_state state;
	bool verifying;
	bool exited, removing;
	char name[TEMPLATE_ID_SIZE]; /* below import/, or a template's id */
	struct ticket ticket;
	uint64_t max_bytes;
	int pidfd, wait_status;
	uint32_t slot;
	struct watch exit_watch, output_watch, status_watch;
	char output[256];
	size_t output_length;
	struct child_failure failure;
	unsigned long long deadline_ms, progress_ms;
} job = {.pidfd = -1, .exit_watch.fd = -1, .output_watch.fd = -1, .status_watch.fd = -1};

int import_setup(struct pdk_error *err)
{
	program = child_load_program("paddock-archive", 0555, err);
	return program < 0 ? program : 0;
}

static void close_watch(struct watch *watch)
{
	int fd = watch->fd;

	loop_remove(watch);
	if (fd >= 0)
		close(fd);
}

static void step_done(void);

static void on_status(struct watch *watch, uint32_t events)
{
	struct child_failure word;

	if (read(watch->fd, &word, sizeof(word)) != (ssize_t)sizeof(word))
		close_watch(watch);
	else if (word.error)
		job.failure = word;
}

/* The child, its cgroup and its range are gone; now the step's result counts. */
static void try_end_step(void)
{
	int rc;

	if (!job.exited || job.output_watch.fd >= 0)
		return;
	while (job.status_watch.fd >= 0) /* the child is gone: this ends with the pipe */
		on_status(&job.status_watch, 0);
	rc = cgroup_remove(JOB_CGROUP);
	if (rc == -EBUSY && clock_ms() < job.deadline_ms) {
		job.removing = true;
		return;
	}
	job.removing = false;
	userns_release(job.slot, rc == 0);
	if (job.pidfd >= 0)
		close(STEAL_FD(job.pidfd));
	step_done();
}

static void on_exit_of_job(struct watch *watch, uint32_t events)
{
	siginfo_t info;

	loop_remove(watch);
	job.wait_status = waitid(P_PIDFD, (id_t)job.pidfd, &info, WEXITED) == 0 && info.si_code == CLD_EXITED
				  ? info.si_status
				  : 255;
	job.exited = true;
	try_end_step();
}

static void on_output(struct watch *watch, uint32_t events)
{
	size_t most = sizeof(job.output) - 1, room = job.output_length < most ? most - job.output_length : 0;
	ssize_t n = room ? read(watch->fd, job.output + job.output_length, room) : 0;

	if (n < 0 && errno == EINTR)
		return;
	if (n > 0) {
		job.output_length += (size_t)n;
		return;
	}
	job.output[job.output_length] = '\0';
	close_watch(watch);
	try_end_step();
}

/* Memory for page cache it does not need, no more processes than one program has. */
static const struct warden_limits job_limits = {
	.memory_bytes = 1ull << 30, .cpu_millis = 1000, .max_pids = 16, .disk_bytes = 1ull << 40};

static int clone_job(int input, int output, int status, int cgroup, const struct userns *userns, char *const *argv)
{
	struct child_job child = {
		.id = JOB_CGROUP,
		.name = job.name,
		.is_template = job.verifying,
		.userns = userns->fd,
		.netns = userns->netns,
		.status = status,
		.input = input,
		.output = output,
		.program = program,
		.argv = argv,
	};
	struct clone_args args = {
		.flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_PIDFD | CLONE_INTO_CGROUP,
		.pidfd = (uint64_t)(uintptr_t)&job.pidfd,
		.exit_signal = SIGCHLD,
		.cgroup = (uint64_t)cgroup,
	};
	pid_t pid = kernel_clone3(&args);

	if (pid == 0)
		child_run_job(&child);
	return pid < 0 ? -errno : 0;
}

static int watch_job(int *output, int *status)
{
	int rc = loop_add(&job.exit_watch, job.pidfd, EPOLLIN, on_exit_of_job);

	if (rc == 0)
		rc = loop_add(&job.output_watch, *output, EPOLLIN, on_output);
	if (rc == 0) {
		(void)STEAL_FD(*output);
		rc = loop_add(&job.status_watch, *status, EPOLLIN, on_status);
	}
	if (rc == 0)
		(void)STEAL_FD(*status);
	return rc;
}

/* Start one confined child. On failure nothing of it is left. */
static int run(int input, char *const *argv, struct pdk_error *err)
{
	struct userns userns = USERNS_NONE;
	int out[2] = {-1, -1}, status[2] = {-1, -1};
	_cleanup_fd_ int cgroup = -1;
	int rc = userns_take(&userns, err);

	if (rc < 0)
		return rc;
	job.slot = userns.slot;
	job.exited = false;
	job.output_length = 0;
	job.failure.error = 0;
	job.deadline_ms = clock_ms() + EXTRACT_TIMEOUT_MS;
	rc = cgroup_create(JOB_CGROUP, &job_limits, &cgroup, err);
	if (rc == 0 && (pipe2(out, O_CLOEXEC) < 0 || pipe2(status, O_CLOEXEC) < 0))
		rc = pdk_fail_errno(err, -errno, "make a pipe");
	if (rc == 0 && (rc = clone_job(input, out[1], status[1], cgroup, &userns, argv)) < 0)
		pdk_fail_errno(err, rc, "clone the import's process");
	if (rc == 0 && (rc = watch_job(&out[0], &status[0])) < 0) {
		pdk_fail_errno(err, rc, "watch the import");
		cgroup_kill(JOB_CGROUP);
	}
	for (int i = 0; i < 2; i++) {
		if (out[i] >= 0)
			close(out[i]);
		if (status[i] >= 0)
			close(status[i]);
	}
	userns_close(&userns);
	if (rc < 0 && job.exit_watch.fd < 0) {
		cgroup_remove(JOB_CGROUP);
		userns_release(userns.slot, true);
	}
	return rc < 0 && job.exit_watch.fd >= 0 ? 0 : rc;
}

/* A verification that could not be done is tried again; what cannot be read three times over is damaged. */
static void end_verification(int rc)
{
	struct template_info *info = template_find(job.name);

	if (info && rc < 0 && info->state == TEMPLATE_UNVERIFIED) {
		if (++info->attempts < VERIFY_ATTEMPTS)
			return;
		info->state = TEMPLATE_DAMAGED;
	}
	sandbox_template_ready(job.name, rc);
}

static void end_job(int rc, struct pdk_error *err, const struct template_info *info)
{
	struct warden_reply reply = {.status = rc};

	job.state = JOB_IDLE;
	if (rc < 0) {
		log_error(job.verifying ? "template_verify" : "template_import", job.name, err);
		snprintf(reply.text, sizeof(reply.text), "%.255s", err->text);
	}
	if (job.verifying) {
		end_verification(rc);
		return;
	}
	if (rc < 0)
		pool_discard(POOL_IMPORT, job.name);
	if (info) {
		memcpy(reply.template_id, info->id, TEMPLATE_ID_SIZE);
		memcpy(reply.digest, info->digest, sizeof(reply.digest));
		reply.size_bytes = info->bytes;
		reply.files = info->files;
		log_info("template_imported", info->id, "%" PRIu64 " files, %" PRIu64 " bytes", info->files,
			 info->bytes);
	}
	serve_reply(job.ticket, &reply, -1);
}

static void start_digest(void)
{
	static char *const argv[] = {(char *)"paddock-archive", (char *)"digest", (char *)"/target", NULL};
	struct pdk_error err;
	int rc;

	job.state = JOB_DIGEST;
	rc = run(-1, argv, &err);
	if (rc < 0)
		end_job(rc, &err, NULL);
}

/* "sha256:<64 hex> <files> <bytes>\n", nothing else. */
static int parse_digest(char digest[80], uint64_t *files, uint64_t *bytes, struct pdk_error *err)
{
	int used = 0;

	if (sscanf(job.output, "%79s %" SCNu64 " %" SCNu64 "\n%n", digest, files, bytes, &used) != 3 ||
	    (size_t)used != job.output_length || strncmp(digest, "sha256:", 7) != 0 || strlen(digest) != 71 ||
	    strspn(digest + 7, "0123456789abcdef") != 64)
		return pdk_fail(err, -EPROTO, PDK_INTERNAL, "the digest of the template could not be computed");
	return 0;
}

static int finish_digest(struct template_info **ret, struct pdk_error *err)
{
	struct template_info *info;
	uint64_t files, bytes;
	char digest[80];
	int rc = parse_digest(digest, &files, &bytes, err);

	if (rc < 0)
		return rc;
	if (!job.verifying)
		return template_commit(job.name, digest, files, bytes, ret, err);
	info = template_find(job.name);
	if (!info)
		return pdk_fail(err, -ENOENT, PDK_NOT_FOUND, "the template was removed");
	if (strcmp(info->digest, digest) != 0) {
		info->state = TEMPLATE_DAMAGED;
		return pdk_fail(err, -EBADMSG, PDK_DATA_LOSS, "the template's content does not have its digest");
	}
	info->state = TEMPLATE_READY;
	log_info("template_verified", job.name, "%s", digest);
	return 0;
}

/* Mount points that an image may lack. One component below our own new subvolume; nobody else can reach it. */
static int make_mount_points(struct pdk_error *err)
{
	static const char *const points[] = {"dev", "proc", "tmp", "run", "sys"};
	_cleanup_fd_ int fd = pool_open_directory(POOL_IMPORT, job.name);

	if (fd < 0)
		return pdk_fail_errno(err, fd, "open the imported template");
	for (size_t i = 0; i < ARRAY_SIZE(points); i++)
		if (file_mkdir(fd, points[i], 0755) < 0)
			return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "the template's /%s is not a directory",
					points[i]);
	return 0;
}

/* The helper's last words as one line of plain text: they go into a message. */
static const char *job_reason(void)
{
	job.output[strcspn(job.output, "\n")] = '\0';
	for (char *at = job.output; *at; at++)
		if ((unsigned char)*at < ' ' || *at == 0x7f)
			*at = '?';
	return job.output[0] ? job.output : "no reason was given";
}

static void step_done(void)
{
	struct template_info *info = NULL;
	struct pdk_error err;
	int rc = 0;

	if (job.failure.error)
		rc = pdk_fail_errno(&err, -job.failure.error, "%.50s", job.failure.step);
	else if (job.wait_status != 0)
		rc = pdk_fail(&err, job.wait_status == EXIT_LIMIT ? -ENOSPC : -EINVAL,
			      job.wait_status == EXIT_LIMIT ? PDK_RESOURCE_EXHAUSTED : PDK_INVALID_ARGUMENT,
			      "%s failed: %.180s",
			      job.state == JOB_EXTRACT ? "unpacking the archive" : "computing the digest",
			      job_reason());
	else if (job.state == JOB_EXTRACT)
		rc = make_mount_points(&err);
	if (rc == 0 && job.state == JOB_EXTRACT) {
		start_digest();
		return;
	}
	if (rc == 0)
		rc = finish_digest(&info, &err);
	end_job(rc, &err, info);
}

static int make_target(struct pdk_error *err)
{
	_cleanup_fd_ int fd = -1;
	int rc;

	snprintf(job.name, sizeof(job.name), "%llx", clock_ms());
	rc = btrfs_subvolume_create(pool_dir(POOL_IMPORT), job.name);
	if (rc == 0) {
		fd = pool_open_directory(POOL_IMPORT, job.name);
		rc = fd < 0                 ? fd
		     : fchmod(fd, 0755) < 0 ? -errno
					    : pool_limit(fd, job.max_bytes + (job.max_bytes >> 2) + (64u << 20));
	}
	return rc < 0 ? pdk_fail_errno(err, rc, "make room for the template") : 0;
}

/* Requests that came while a job ran, in their order. */
#define WAITING_MAX 8
static struct {
	int pipe;
	uint64_t max_bytes;
	struct ticket ticket;
} waiting[WAITING_MAX];
static unsigned int n_waiting;

static void import_wait(int pipe, uint64_t max_bytes, struct ticket ticket)
{
	struct pdk_error err;

	if (n_waiting == WAITING_MAX) {
		pdk_fail(&err, -EBUSY, PDK_UNAVAILABLE, "too many templates wait to be imported");
		serve_status(ticket, NULL, -EBUSY, &err);
		close(pipe);
		return;
	}
	waiting[n_waiting].pipe = pipe;
	waiting[n_waiting].max_bytes = max_bytes;
	waiting[n_waiting++].ticket = ticket;
}

static void import_begin(int pipe, uint64_t max_bytes, struct ticket ticket)
{
	_cleanup_fd_ int input = pipe;
	char bytes[32];
	char *const argv[] = {(char *)"paddock-archive",
			      (char *)"extract",
			      (char *)"--template",
			      (char *)"--max-bytes",
			      bytes,
			      (char *)"--max-entries",
			      (char *)MAX_ENTRIES,
			      (char *)"/target",
			      NULL};
	struct pdk_error err;
	int rc;

	job.verifying = false;
	job.ticket = ticket;
	job.max_bytes = max_bytes;
	job.state = JOB_EXTRACT;
	job.progress_ms = clock_ms() + PROGRESS_MS;
	snprintf(bytes, sizeof(bytes), "%" PRIu64, max_bytes);
	rc = make_target(&err);
	if (rc == 0)
		rc = run(input, argv, &err);
	if (rc < 0)
		end_job(rc, &err, NULL);
}

void import_start(int pipe, uint64_t max_bytes, struct ticket ticket)
{
	if (job.state != JOB_IDLE || n_waiting > 0)
		import_wait(pipe, max_bytes, ticket);
	else
		import_begin(pipe, max_bytes, ticket);
}

static void find_unverified(const struct template_info *info, void *arg)
{
	if (info->state == TEMPLATE_UNVERIFIED)
		*(const struct template_info **)arg = info;
}

static void import_next(void)
{
	int pipe = waiting[0].pipe;
	uint64_t max_bytes = waiting[0].max_bytes;
	struct ticket ticket = waiting[0].ticket;

	memmove(&waiting[0], &waiting[1], --n_waiting * sizeof(waiting[0]));
	import_begin(pipe, max_bytes, ticket);
}

int import_work(void)
{
	const struct template_info *info = NULL;

	if (job.state != JOB_IDLE)
		return 0;
	if (n_waiting > 0) {
		import_next();
		return 1;
	}
	template_each(find_unverified, &info);
	if (!info)
		return 0;
	job.verifying = true;
	memcpy(job.name, info->id, TEMPLATE_ID_SIZE);
	start_digest();
	return 1;
}

static void report_progress(void)
{
	struct warden_reply reply = {.flags = WARDEN_MORE};
	_cleanup_fd_ int fd = pool_open_directory(POOL_IMPORT, job.name);

	if (fd >= 0) {
		uint64_t highest = BTRFS_INODE_FIRST;

		btrfs_quota_usage(fd, &reply.size_bytes);
		if (btrfs_inode_highest(fd, &highest) == 0)
			reply.files = highest - BTRFS_INODE_FIRST;
	}
	serve_reply(job.ticket, &reply, -1);
}

void import_stop(void)
{
	unsigned long long deadline = clock_ms() + 2000;

	if (job.state == JOB_IDLE)
		return;
	cgroup_kill(JOB_CGROUP);
	if (!job.exited)
		waitid(P_PIDFD, (id_t)job.pidfd, &(siginfo_t){0}, WEXITED);
	while (cgroup_remove(JOB_CGROUP) == -EBUSY && clock_ms() < deadline)
		usleep(RETRY_MS * 1000);
}

int import_tick(void)
{
	unsigned long long now = clock_ms();

	if (job.state == JOB_IDLE)
		return -1;
	if (job.removing) {
		try_end_step();
		return RETRY_MS;
	}
	if (now > job.deadline_ms)
		cgroup_kill(JOB_CGROUP);
	if (!job.verifying && now >= job.progress_ms) {
		job.progress_ms = now + PROGRESS_MS;
		report_progress();
	}
	return PROGRESS_MS;
}
