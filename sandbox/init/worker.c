#include "sandbox/init/worker.h"

#include "sandbox/init/job.h"
#include "sandbox/init/spawn.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

#define CHANNEL_FD 3
#define ARCHIVE_FD 4
#define PIPE_FD 5

static int take_order(struct link *link, struct link_frame *frame, void *arg)
{
	struct worker *worker = arg;

	if (frame->kind == LINK_REQUEST)
		worker->committed = true;
	if (frame->kind == LINK_END)
		worker->stopped = true;
	return 0;
}

static void exchange(struct worker *worker)
{
	if (link_flush(worker->link) < 0 || link_input(worker->link, 0) < 0)
		worker->stopped = true;
}

int worker_wait(struct worker *worker, int fd, short events, int timeout_ms)
{
	bool writing = link_events(worker->link) & EPOLLOUT;
	struct pollfd wanted[2] = {{.fd = CHANNEL_FD, .events = (short)(POLLIN | (writing ? POLLOUT : 0))},
				   {.fd = fd, .events = events}};

	if (worker->stopped)
		return -ECANCELED;
	if (poll(wanted, 2, timeout_ms) < 0)
		return errno == EINTR ? 0 : -errno;
	if (wanted[0].revents)
		exchange(worker);
	if (worker->stopped)
		return -ECANCELED;
	return wanted[1].revents != 0;
}

int worker_wait_commit(struct worker *worker)
{
	while (!worker->committed) {
		int rc = worker_wait(worker, -1, 0, -1);

		if (rc < 0)
			return rc;
	}
	return 0;
}

bool worker_is_flushed(const struct worker *worker)
{
	return !(link_events(worker->link) & EPOLLOUT);
}

static void send_packed(struct worker *worker, enum link_kind kind, const guest_reply *reply, bool with_pipe)
{
	size_t length = paddock__internal__guest_reply__get_packed_size(reply);
	_cleanup_free_ uint8_t *bytes = malloc(length ? length : 1);

	if (!bytes) {
		worker->stopped = true;
		return;
	}
	paddock__internal__guest_reply__pack(reply, bytes);
	if (link_send(worker->link, with_pipe ? JOB_STREAM_PIPE : JOB_STREAM_PLAIN, kind, bytes, length, NULL, 0) < 0)
		worker->stopped = true;
}

void worker_reply(struct worker *worker, const guest_reply *reply, bool with_pipe)
{
	send_packed(worker, LINK_REPLY, reply, with_pipe);
}

void worker_reply_file(struct worker *worker, guest_message(File) * file, bool with_pipe)
{
	guest_reply reply = GUEST_REPLY_INIT;

	reply.result_case = GUEST_RESULT(FILE);
	reply.file = file;
	worker_reply(worker, &reply, with_pipe);
}

void worker_reply_count(struct worker *worker, uint64_t entries, uint64_t bytes)
{
	guest_message(Count) count = PADDOCK__INTERNAL__GUEST_COUNT__INIT;
	guest_reply reply = GUEST_REPLY_INIT;

	count.entries = entries;
	count.bytes = bytes;
	reply.result_case = GUEST_RESULT(COUNT);
	reply.count = &count;
	worker_reply(worker, &reply, false);
}

void worker_event(struct worker *worker, const guest_message(WatchEvent) * event)
{
	guest_reply reply = GUEST_REPLY_INIT;

	reply.result_case = GUEST_RESULT(WATCH);
	reply.watch = (guest_message(WatchEvent) *)(uintptr_t)event;
	send_packed(worker, LINK_EVENT, &reply, false);
}

static void reply_error(struct worker *worker, const struct pdk_error *err)
{
	guest_reply reply = GUEST_REPLY_INIT;

	reply.code = err->code ? err->code : PDK_INTERNAL;
	reply.text = (char *)(uintptr_t)err->text;
	worker_reply(worker, &reply, false);
}

static const char *user_of(const guest_request *request)
{
	switch ((int)request->op_case) { /* job_start() is given these only */
	case GUEST_OP(STAT):
		return request->stat->user;
	case GUEST_OP(LIST):
		return request->list->user;
	case GUEST_OP(READ):
		return request->read->user;
	case GUEST_OP(WRITE):
		return request->write->user;
	case GUEST_OP(MAKE_DIR):
		return request->make_dir->user;
	case GUEST_OP(MOVE):
		return request->move->user;
	case GUEST_OP(REMOVE):
		return request->remove->user;
	case GUEST_OP(WATCH):
		return request->watch->user;
	case GUEST_OP(UNPACK):
		return request->unpack->user;
	case GUEST_OP(PACK):
		return request->pack->user;
	default:
		return "";
	}
}

static int operate(struct worker *worker, const guest_request *request, struct pdk_error *err)
{
	switch ((int)request->op_case) {
	case GUEST_OP(STAT):
		return files_stat(worker, request->stat, err);
	case GUEST_OP(LIST):
		return files_list(worker, request->list, err);
	case GUEST_OP(READ):
		return files_read(worker, request->read, err);
	case GUEST_OP(WRITE):
		return files_write(worker, request->write, err);
	case GUEST_OP(MAKE_DIR):
		return files_make_dir(worker, request->make_dir, err);
	case GUEST_OP(MOVE):
		return files_move(worker, request->move, err);
	case GUEST_OP(REMOVE):
		return files_remove(worker, request->remove, err);
	case GUEST_OP(WATCH):
		return files_watch(worker, request->watch, err);
	case GUEST_OP(UNPACK):
		return files_unpack(worker, request->unpack, err);
	case GUEST_OP(PACK):
		return files_pack(worker, request->pack, err);
	default:
		return pdk_fail(err, -EOPNOTSUPP, PDK_UNIMPLEMENTED, "not an operation on files");
	}
}

/* The worker must not hold what belongs to init: a pipe end kept here would hide the end of somebody's input. */
static void settle_descriptors(struct worker *worker, int channel, int pipe, int archive)
{
	dup3(channel, CHANNEL_FD, O_CLOEXEC);
	if (archive >= 0 && archive != ARCHIVE_FD)
		dup3(archive, ARCHIVE_FD, O_CLOEXEC);
	if (pipe >= 0)
		dup3(pipe, PIPE_FD, O_CLOEXEC);
	syscall(SYS_close_range, pipe >= 0 ? PIPE_FD + 1 : PIPE_FD, ~0u, 0);
	worker->pipe = pipe >= 0 ? PIPE_FD : -1;
	worker->archive = archive >= 0 ? ARCHIVE_FD : -1;
}

static int become_user(struct worker *worker, const guest_request *request, struct pdk_error *err)
{
	uid_t uid;
	int rc = account_uid(user_of(request), &uid, err);

	if (rc < 0)
		return rc;
	account_load(uid, &worker->account);
	account_names_load(&worker->names);
	rc = account_become(&worker->account);
	return rc < 0 ? pdk_fail_errno(err, rc, "cannot become %.60s", worker->account.name) : 0;
}

void worker_run(const guest_request *request, int channel, int pipe, int archive)
{
	static struct worker worker;
	struct pdk_error err = {};
	int rc;

	spawn_settle_child();
	signal(SIGPIPE, SIG_IGN);
	setsid();
	settle_descriptors(&worker, channel, pipe, archive);
	worker.link = link_create(CHANNEL_FD, 4096, take_order, &worker);
	if (!worker.link)
		_exit(1);
	rc = become_user(&worker, request, &err);
	if (rc == 0)
		rc = operate(&worker, request, &err);
	if (rc < 0)
		reply_error(&worker, &err);
	if (worker.pipe >= 0)
		close(worker.pipe);
	link_send(worker.link, JOB_STREAM_PLAIN, LINK_END, NULL, 0, NULL, 0);
	while (!worker_is_flushed(&worker) && worker_wait(&worker, -1, 0, -1) >= 0)
		;
	_exit(0);
}
