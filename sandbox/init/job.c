#include "sandbox/init/job.h"

#include "sandbox/init/session.h"
#include "sandbox/init/worker.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define JOB_TIME_MS 120000u /* for operations that are not paced by paddockd */
#define STOP_TIME_MS 3000u  /* to tidy up after being told to stop */
#define PIPE_SIZE (256 << 10)

enum job_state {
	JOB_RUNNING,  /* the worker works; replies go to `stream` */
	JOB_STOPPING, /* nobody listens any more; the worker tidies up until the deadline */
	JOB_DONE,     /* the worker said END; only its exit is missing */
};

struct job {
	struct job *next;
	struct init *init;
	enum job_state state;
	int op; /* op_case of the request */
	uint32_t stream;
	pid_t pid;
	struct source channel; /* its descriptor is the link's */
	struct link *link;
	int pipe_end; /* for paddockd; -1: none, or given */
	uint32_t credit;
	unsigned int n_replies;
	uint64_t deadline; /* 0: none */
};

static bool is_upload(int op)
{
	return op == GUEST_OP(WRITE) || op == GUEST_OP(UNPACK);
}

static bool is_download(int op)
{
	return op == GUEST_OP(READ) || op == GUEST_OP(PACK);
}

static bool is_transfer(const struct job *job)
{
	return is_upload(job->op) || is_download(job->op);
}

static void close_channel(struct job *job)
{
	if (!job->link)
		return;
	source_set(job->init, &job->channel, 0);
	link_free(STEAL_PTR(job->link));
}

static void job_free(struct job *job)
{
	struct job **at = &job->init->jobs;

	while (*at != job)
		at = &(*at)->next;
	*at = job->next;
	job->init->n_jobs--;
	close_channel(job);
	cleanup_fd(&job->pipe_end);
	free(job);
}

struct job *job_of_stream(const struct init *init, uint32_t stream)
{
	struct job *job = init->jobs;

	while (job && (job->state != JOB_RUNNING || job->stream != stream))
		job = job->next;
	return job;
}

static void set_deadline(struct job *job, uint64_t after_ms)
{
	job->deadline = init_now() + after_ms;
	init_wake_at(job->init, job->deadline);
}

static bool is_held(const struct job *job)
{
	return job->op == GUEST_OP(WATCH) && job->state == JOB_RUNNING && !job->credit;
}

static void await(struct job *job)
{
	uint32_t events = job->link ? link_events(job->link) : 0;

	source_set(job->init, &job->channel, is_held(job) ? events & (uint32_t)~EPOLLIN : events);
}

static void stop(struct job *job)
{
	job->state = JOB_STOPPING;
	job->stream = 0;
	set_deadline(job, STOP_TIME_MS);
	cleanup_fd(&job->pipe_end);
	job->pipe_end = -1;
	if (job->link) {
		link_send(job->link, JOB_STREAM_PLAIN, LINK_END, NULL, 0, NULL, 0);
		await(job);
	}
}

/* A frame of the worker goes to paddockd as it is. */
static int pass_on(struct link *link, struct link_frame *frame, void *arg)
{
	struct job *job = arg;
	bool with_pipe = frame->stream == JOB_STREAM_PIPE && job->pipe_end >= 0;

	if (job->state != JOB_RUNNING)
		return 0;
	if (frame->kind == LINK_END) {
		session_end(job->init, job->stream);
		job->state = JOB_DONE;
		set_deadline(job, STOP_TIME_MS);
		return 0;
	}
	if (frame->kind != LINK_REPLY && frame->kind != LINK_EVENT)
		return -EPROTO;
	if (frame->kind == LINK_EVENT && job->credit)
		job->credit--;
	job->n_replies += frame->kind == LINK_REPLY;
	session_send(job->init, job->stream, frame->kind, frame->payload, frame->length, &job->pipe_end,
		     with_pipe ? 1 : 0);
	if (with_pipe) {
		cleanup_fd(&job->pipe_end);
		job->pipe_end = -1;
	}
	return 0;
}

static void read_channel(struct job *job)
{
	int rc = 1;

	while (rc > 0 && !is_held(job))
		rc = link_input(job->link, 1);
	if (rc < 0)
		close_channel(job);
	else
		await(job);
}

static void channel_ready(struct init *init, struct source *source, uint32_t events)
{
	struct job *job = CONTAINER_OF(source, struct job, channel);

	if (link_flush(job->link) < 0)
		close_channel(job);
	else
		read_channel(job);
}

/* What a worker gets: a channel, and for a transfer its end of the pipe. paddockd's end does not block. */
struct ends {
	int channel;
	int pipe;
};

static int open_ends(struct job *job, struct ends *ends)
{
	int pair[2];
	int rc;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return -errno;
	ends->channel = pair[1];
	job->link = link_create(pair[0], LINK_PAYLOAD_MAX, pass_on, job);
	if (!job->link) {
		close(pair[0]);
		return -ENOMEM;
	}
	rc = source_add(job->init, &job->channel, pair[0], EPOLLIN, channel_ready);
	if (rc < 0 || !is_transfer(job))
		return rc;
	if (pipe2(pair, O_CLOEXEC) < 0)
		return -errno;
	job->pipe_end = pair[is_upload(job->op) ? 1 : 0];
	ends->pipe = pair[is_upload(job->op) ? 0 : 1];
	fcntl(job->pipe_end, F_SETPIPE_SZ, PIPE_SIZE);
	return fcntl(job->pipe_end, F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

static int launch(struct job *job, const guest_request *request, struct pdk_error *err)
{
	struct ends ends = {-1, -1};
	int rc = open_ends(job, &ends);

	if (rc == 0) {
		job->pid = fork();
		if (job->pid == 0)
			worker_run(request, ends.channel, ends.pipe, job->init->archive_fd);
		rc = job->pid < 0 ? -errno : 0;
	}
	cleanup_fd(&ends.channel);
	cleanup_fd(&ends.pipe);
	if (rc == -EAGAIN)
		return pdk_fail(err, rc, PDK_RESOURCE_EXHAUSTED, "the limit of processes is reached");
	return rc < 0 ? pdk_fail_errno(err, rc, "cannot start the operation") : 0;
}

static unsigned int count_watches(const struct init *init)
{
	unsigned int n = 0;

	for (struct job *job = init->jobs; job; job = job->next)
		n += job->op == GUEST_OP(WATCH) && job->state == JOB_RUNNING;
	return n;
}

int job_start(struct init *init, uint32_t stream, const guest_request *request, struct pdk_error *err)
{
	struct job *job;
	int rc;

	if (request->op_case == GUEST_OP(WATCH) && count_watches(init) >= JOB_WATCHES_MAX)
		return pdk_fail(err, -EAGAIN, PDK_RESOURCE_EXHAUSTED, "%u watches are open already", JOB_WATCHES_MAX);
	if (init->n_jobs >= JOBS_MAX)
		return pdk_fail(err, -EAGAIN, PDK_RESOURCE_EXHAUSTED, "%u file operations are running already",
				init->n_jobs);
	job = calloc(1, sizeof(*job));
	if (!job)
		return pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "out of memory");
	*job = (struct job){.init = init,
			    .next = init->jobs,
			    .op = (int)request->op_case,
			    .stream = stream,
			    .channel.fd = -1,
			    .pipe_end = -1};
	init->jobs = job;
	init->n_jobs++;
	rc = launch(job, request, err);
	if (rc < 0) {
		job_free(job);
		return rc;
	}
	if (!is_transfer(job) && job->op != GUEST_OP(WATCH))
		set_deadline(job, JOB_TIME_MS);
	await(job);
	return 0;
}

/* The operation cannot go on. If its last reply has gone out already, only the END is missing. */
static void fail(struct job *job, enum pdk_code code, const char *text)
{
	struct pdk_error err;

	if (job->state != JOB_RUNNING)
		return;
	pdk_fail(&err, 0, code, "%s", text);
	if (job->n_replies < (is_transfer(job) ? 2 : 1))
		session_fail(job->init, job->stream, &err);
	else
		session_end(job->init, job->stream);
	job->state = JOB_STOPPING;
	job->stream = 0;
}

int job_finish(struct init *init, struct job *job, bool commit)
{
	if (!is_upload(job->op))
		return -EPROTO;
	if (!commit) {
		fail(job, PDK_CANCELLED, "given up, as was asked");
		stop(job);
	} else if (job->link) {
		link_send(job->link, JOB_STREAM_PLAIN, LINK_REQUEST, NULL, 0, NULL, 0);
		await(job);
	}
	return 0;
}

void job_credit(struct init *init, struct job *job, uint32_t credit)
{
	job->credit = job->credit + credit < job->credit ? UINT32_MAX : job->credit + credit;
	if (job->link)
		read_channel(job);
}

void job_cancel(struct init *init, struct job *job)
{
	session_end(init, job->stream);
	stop(job);
}

void job_cancel_all(struct init *init)
{
	for (struct job *job = init->jobs; job; job = job->next) {
		if (job->state == JOB_RUNNING)
			stop(job);
	}
}

void job_ended(struct init *init, pid_t pid, int status)
{
	struct job *job = init->jobs;

	while (job && job->pid != pid)
		job = job->next;
	if (!job)
		return;
	/* Its last words may still be in the channel. Credit no longer matters: they are few. */
	while (job->link && link_input(job->link, 0) > 0)
		;
	if (WIFSIGNALED(status))
		fail(job, PDK_ABORTED, "the operation was killed inside the sandbox");
	else
		fail(job, PDK_INTERNAL, "the operation ended without a result");
	job_free(job);
}

void job_check_deadlines(struct init *init)
{
	uint64_t now = init_now();

	for (struct job *job = init->jobs; job; job = job->next) {
		if (!job->deadline)
			continue;
		if (job->deadline > now) {
			init_wake_at(init, job->deadline);
			continue;
		}
		fail(job, PDK_DEADLINE_EXCEEDED, "the operation took too long");
		job->deadline = 0;
		kill(job->pid, SIGKILL);
	}
}

void job_postpone(struct init *init, uint64_t by_ms)
{
	for (struct job *job = init->jobs; job; job = job->next) {
		if (!job->deadline)
			continue;
		job->deadline += by_ms;
		init_wake_at(init, job->deadline);
	}
}
