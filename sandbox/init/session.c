#include "sandbox/init/session.h"

#include "sandbox/init/account.h"
#include "sandbox/init/job.h"
#include "sandbox/init/ports.h"
#include "sandbox/init/process.h"
#include "sandbox/init/spare.h"
#include "sandbox/init/sudo.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Frames handled per turn of the loop, so that a flood of requests does not starve the processes. */
#define FRAMES_PER_TURN 64u
/* protobuf-c may need far more memory than the message has bytes. */
#define UNPACK_MEMORY_MAX (32u << 20)
#define ENV_COUNT_MAX 4096u
#define ENV_BYTES_MAX (1u << 20)
#define PAUSED_MAX_MS (1ull << 40)
#define MACHINE_ID_LENGTH 32u

struct session {
	struct source source;
	struct link *link;
	uint32_t last_stream; /* the highest that was opened; a request on an older one comes too late */
	bool more;            /* frames may wait in the link's own buffer */
	bool broken;
};

struct budget {
	size_t left;
};

static void *budget_alloc(void *data, size_t size)
{
	struct budget *budget = data;

	if (size > budget->left)
		return NULL;
	budget->left -= size;
	return malloc(size);
}

static void budget_free(void *data, void *pointer)
{
	free(pointer);
}

static void session_drop(struct init *init)
{
	struct session *session = STEAL_PTR(init->session);

	if (!session)
		return;
	/* First: who sees the end of the link may take a checkpoint, which must not find it. */
	spare_dismiss(init);
	source_set(init, &session->source, 0);
	link_free(session->link);
	free(session);
	process_detach_all(init);
	job_cancel_all(init);
}

void session_send(struct init *init, uint32_t stream, enum link_kind kind, const void *payload, size_t length,
		  const int *fds, unsigned int n_fds)
{
	struct session *session = init->session;

	if (!session || session->broken)
		return;
	if (link_send(session->link, stream, kind, payload, length, fds, n_fds) < 0)
		session->broken = true;
}

/* The packed reply (free it), or NULL: there is no session, or it is broken now. */
static uint8_t *pack_reply(struct init *init, const guest_reply *reply, size_t *ret_length)
{
	size_t length = paddock__internal__guest_reply__get_packed_size(reply);
	uint8_t *bytes;

	if (!init->session)
		return NULL;
	bytes = malloc(length ? length : 1);
	if (!bytes) {
		init->session->broken = true;
		return NULL;
	}
	paddock__internal__guest_reply__pack(reply, bytes);
	*ret_length = length;
	return bytes;
}

static void send_reply(struct init *init, uint32_t stream, enum link_kind kind, const guest_reply *reply,
		       const int *fds, unsigned int n_fds)
{
	size_t length;
	_cleanup_free_ uint8_t *bytes = pack_reply(init, reply, &length);

	if (bytes)
		session_send(init, stream, kind, bytes, length, fds, n_fds);
}

void session_reply(struct init *init, uint32_t stream, const guest_reply *reply, const int *fds, unsigned int n_fds)
{
	if (stream)
		send_reply(init, stream, LINK_REPLY, reply, fds, n_fds);
}

void session_reply_last(struct init *init, uint32_t stream, const guest_reply *reply)
{
	size_t length;
	_cleanup_free_ uint8_t *bytes = stream ? pack_reply(init, reply, &length) : NULL;

	if (bytes && !init->session->broken &&
	    link_send_last(init->session->link, stream, LINK_REPLY, bytes, length) < 0)
		init->session->broken = true;
}

void session_event(struct init *init, const guest_reply *reply)
{
	send_reply(init, 0, LINK_EVENT, reply, NULL, 0);
}

void session_end(struct init *init, uint32_t stream)
{
	if (stream)
		session_send(init, stream, LINK_END, NULL, 0, NULL, 0);
}

void session_fail(struct init *init, uint32_t stream, const struct pdk_error *err)
{
	guest_reply reply = GUEST_REPLY_INIT;

	reply.code = err->code ? err->code : PDK_INTERNAL;
	reply.text = (char *)(uintptr_t)err->text;
	session_reply_last(init, stream, &reply);
}

void session_done(struct init *init, uint32_t stream)
{
	guest_reply reply = GUEST_REPLY_INIT;

	session_reply_last(init, stream, &reply);
}

static int take_hello(struct init *init, uint32_t stream, const guest_message(Hello) * hello, struct pdk_error *err)
{
	guest_message(HelloResult) result = PADDOCK__INTERNAL__GUEST_HELLO_RESULT__INIT;
	guest_reply reply = GUEST_REPLY_INIT;

	if (hello->version != GUEST_VERSION)
		return pdk_fail(err, -EPROTO, PDK_FAILED_PRECONDITION, "init speaks version %u, not %u", GUEST_VERSION,
				hello->version);
	result.version = GUEST_VERSION;
	result.build = (char *)(uintptr_t)PADDOCK_VERSION;
	result.start_file = access("/etc/paddock/start", X_OK) == 0;
	result.ready_file = access("/etc/paddock/ready", X_OK) == 0;
	reply.result_case = GUEST_RESULT(HELLO);
	reply.hello = &result;
	session_reply_last(init, stream, &reply);
	return 0;
}

static void env_free(char **env)
{
	for (char **entry = env; entry && *entry; entry++)
		free(*entry);
	free(env);
}

/* In a copy: another number where the source has one. In a child, which becomes root for it. */
static void renew_machine_id(const char *id)
{
	struct account account;
	pid_t pid;
	int status;

	if (strlen(id) != MACHINE_ID_LENGTH || strspn(id, "0123456789abcdef") != MACHINE_ID_LENGTH)
		return;
	pid = fork();
	if (pid == 0) {
		char old[MACHINE_ID_LENGTH];
		struct stat st;
		int fd;

		account_load(0, &account);
		if (account_become(&account) < 0)
			_exit(1);
		fd = open("/etc/machine-id", O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
		if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
		    read(fd, old, sizeof(old)) == (ssize_t)sizeof(old))
			(void)!pwrite(fd, id, MACHINE_ID_LENGTH, 0);
		_exit(0);
	}
	if (pid > 0)
		waitpid(pid, &status, 0);
}

static int take_setup(struct init *init, uint32_t stream, const guest_message(Setup) * setup, struct pdk_error *err)
{
	size_t bytes = 0;
	char **env;

	for (size_t i = 0; i < setup->n_env; i++) {
		bytes += strlen(setup->env[i]) + 1;
		if (setup->env[i][0] == '=' || !strchr(setup->env[i], '='))
			return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "env: an entry is not NAME=value");
	}
	if (setup->n_env > ENV_COUNT_MAX || bytes > ENV_BYTES_MAX)
		return pdk_fail(err, -E2BIG, PDK_INVALID_ARGUMENT, "env: too large");
	env = calloc(setup->n_env + 1, sizeof(*env));
	for (size_t i = 0; env && i < setup->n_env; i++) {
		env[i] = strdup(setup->env[i]);
		if (!env[i]) {
			env_free(env);
			env = NULL;
		}
	}
	if (!env)
		return pdk_fail(err, -ENOMEM, PDK_RESOURCE_EXHAUSTED, "out of memory");
	env_free(init->env);
	init->env = env;
	init->sudo_allowed = setup->sudo;
	/* The warden has named the sandbox already; this is only for one that was made ahead, where we may. */
	if (setup->hostname[0] && strlen(setup->hostname) <= 63)
		(void)!sethostname(setup->hostname, strlen(setup->hostname));
	if (setup->machine_id[0])
		renew_machine_id(setup->machine_id);
	session_done(init, stream);
	spare_prepare(init, false);
	return 0;
}

static int take_resumed(struct init *init, uint32_t stream, uint64_t paused_ms, struct pdk_error *err)
{
	if (paused_ms > PAUSED_MAX_MS)
		return pdk_fail(err, -EINVAL, PDK_INVALID_ARGUMENT, "paused_ms: too long");
	process_postpone(init, paused_ms);
	job_postpone(init, paused_ms);
	session_done(init, stream);
	return 0;
}

static int take_request(struct init *init, uint32_t stream, const guest_request *request, struct pdk_error *err)
{
	switch (request->op_case) {
	case GUEST_OP(HELLO):
		return take_hello(init, stream, request->hello, err);
	case GUEST_OP(SETUP):
		return take_setup(init, stream, request->setup, err);
	case GUEST_OP(START):
		return process_start(init, stream, request->start, err);
	case GUEST_OP(SIGNAL):
		return process_signal(init, stream, request->signal, err);
	case GUEST_OP(RESIZE):
		return process_resize(init, stream, request->resize, err);
	case GUEST_OP(CLOSE_STDIN):
		return process_close_stdin(init, stream, request->close_stdin->handle, err);
	case GUEST_OP(ADOPT):
		return process_adopt(init, stream, request->adopt->handle, err);
	case GUEST_OP(RESUMED):
		return take_resumed(init, stream, request->resumed->paused_ms, err);
	case GUEST_OP(PORTS):
		return ports_list(init, stream, err);
	case GUEST_OP(DIAL):
		return ports_dial(init, stream, request->dial->port, err);
	case GUEST_OP(FORGET):
		return process_forget(init, stream, request->forget->handle, err);
	case GUEST_OP(STAT):
	case GUEST_OP(LIST):
	case GUEST_OP(READ):
	case GUEST_OP(WRITE):
	case GUEST_OP(MAKE_DIR):
	case GUEST_OP(MOVE):
	case GUEST_OP(REMOVE):
	case GUEST_OP(WATCH):
	case GUEST_OP(UNPACK):
	case GUEST_OP(PACK):
		return job_start(init, stream, request, err);
	case PADDOCK__INTERNAL__GUEST_REQUEST__OP__NOT_SET:
	case _PADDOCK__INTERNAL__GUEST_REQUEST__OP__CASE_IS_INT_SIZE:
		break;
	}
	return pdk_fail(err, -EOPNOTSUPP, PDK_UNIMPLEMENTED, "this init does not know the request");
}

/* A second request on an open stream: only the commit or abort of a write or unpack. */
static int take_follow_up(struct init *init, struct session *session, uint32_t stream, const guest_request *request)
{
	struct job *job = job_of_stream(init, stream);

	if (!job)
		return process_has_stream(init, stream) ? -EPROTO : 0;
	if (request->op_case != GUEST_OP(FORGET))
		return -EPROTO;
	return job_finish(init, job, request->forget->handle == 1);
}

static int handle_request(struct init *init, struct session *session, struct link_frame *frame)
{
	struct budget budget = {UNPACK_MEMORY_MAX};
	ProtobufCAllocator allocator = {budget_alloc, budget_free, &budget};
	struct pdk_error err = {};
	guest_request *request;
	int rc;

	if (!(frame->stream & 1) || frame->n_fds)
		return -EPROTO;
	request = paddock__internal__guest_request__unpack(&allocator, frame->length, frame->payload);
	if (!request)
		return -EPROTO;
	if (frame->stream <= session->last_stream) {
		rc = take_follow_up(init, session, frame->stream, request);
	} else {
		session->last_stream = frame->stream;
		if (take_request(init, frame->stream, request, &err) < 0)
			session_fail(init, frame->stream, &err);
		rc = 0;
	}
	paddock__internal__guest_request__free_unpacked(request, &allocator);
	return rc;
}

static int handle_frame(struct link *link, struct link_frame *frame, void *arg)
{
	struct init *init = arg;
	struct job *job;

	switch (frame->kind) {
	case LINK_REQUEST:
		return handle_request(init, init->session, frame);
	case LINK_CREDIT:
		job = job_of_stream(init, frame->stream);
		if (job)
			job_credit(init, job, frame->credit);
		return 0;
	case LINK_END:
		job = job_of_stream(init, frame->stream);
		if (job)
			job_cancel(init, job);
		process_detach_stream(init, frame->stream);
		return 0;
	case LINK_REPLY:
	case LINK_EVENT:
		break;
	}
	return -EPROTO;
}

static void session_input(struct init *init, struct session *session)
{
	int rc = link_input(session->link, FRAMES_PER_TURN);

	session->more = rc > 0;
	if (rc < 0)
		session->broken = true;
}

static void session_ready(struct init *init, struct source *source, uint32_t events)
{
	struct session *session = CONTAINER_OF(source, struct session, source);

	if (events & EPOLLOUT && link_flush(session->link) < 0)
		session->broken = true;
	if (!session->broken && events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		session_input(init, session);
}

bool session_check(struct init *init)
{
	if (init->session && init->session->more && !init->session->broken)
		session_input(init, init->session);
	if (init->session && init->session->broken)
		session_drop(init);
	if (init->session)
		source_set(init, &init->session->source, link_events(init->session->link));
	return init->session && init->session->more;
}

bool session_is_idle(const struct init *init)
{
	const struct session *session = init->session;

	return session && !session->broken && !(link_events(session->link) & EPOLLOUT);
}

void session_accept(struct init *init, struct source *source, uint32_t events)
{
	_cleanup_fd_ int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct session *session;

	if (fd < 0)
		return;
	session_drop(init);
	session = calloc(1, sizeof(*session));
	if (!session)
		return;
	session->link = link_create(fd, LINK_PAYLOAD_MAX, handle_frame, init);
	if (!session->link) {
		free(session);
		return;
	}
	init->session = session;
	if (source_add(init, &session->source, STEAL_FD(fd), EPOLLIN, session_ready) < 0)
		session->broken = true;
	sudo_resume(init);
}

void session_catch_up(struct init *init)
{
	struct pollfd waiting = {.fd = init->listen.fd, .events = POLLIN};

	if (poll(&waiting, 1, 0) == 1)
		session_accept(init, &init->listen, EPOLLIN);
	if (init->session && !init->session->broken)
		session_input(init, init->session);
}
