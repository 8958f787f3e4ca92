#include "fake.h"
#include "sandbox/base/cleanup.h"
#include "server/config.h"
#include "server/loop.h"
#include "server/processes.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define QUEUE_MAX 4096

struct link *fake_link;
int fake_link_fd;

static struct request queue[QUEUE_MAX];
static unsigned int queue_first, queue_end;
static int ready_rc;

static int on_frame(struct link *link, struct link_frame *frame, void *arg)
{
	struct request *request = &queue[queue_end++];

	assert_true(queue_end < QUEUE_MAX);
	*request = (struct request){.stream = frame->stream, .kind = frame->kind, .credit = frame->credit};
	if (frame->kind == LINK_REQUEST)
		request->message = paddock__internal__guest_request__unpack(NULL, frame->length, frame->payload);
	return 0;
}

static void read_frames(void)
{
	if (fake_link)
		link_input(fake_link, 0);
}

static bool wait_frame(int turns)
{
	for (int i = 0; i < turns && queue_first == queue_end; i++) {
		read_frames();
		if (queue_first == queue_end)
			fake_turn(1);
	}
	return queue_first != queue_end;
}

struct request fake_next_frame(void)
{
	assert_true(wait_frame(1000));
	return queue[queue_first++];
}

struct request fake_next(void)
{
	struct request request;

	do {
		request = fake_next_frame();
	} while (request.kind != LINK_REQUEST);
	return request;
}

bool fake_nothing(void)
{
	while (wait_frame(5)) {
		if (queue[queue_first].kind == LINK_REQUEST)
			return false;
		queue_first++;
	}
	return true;
}

void fake_request_free(struct request *request)
{
	if (request->message)
		paddock__internal__guest_request__free_unpacked(request->message, NULL);
}

void fake_reply(uint32_t stream, enum link_kind kind, const Paddock__Internal__GuestReply *reply, const int *fds,
		unsigned int n_fds)
{
	size_t length = paddock__internal__guest_reply__get_packed_size(reply);
	uint8_t *bytes = malloc(length + 1);

	paddock__internal__guest_reply__pack(reply, bytes);
	link_send(fake_link, stream, kind, bytes, length, fds, n_fds);
	free(bytes);
}

void fake_end(uint32_t stream)
{
	link_send(fake_link, stream, LINK_END, NULL, 0, NULL, 0);
}

void fake_ok(uint32_t stream)
{
	Paddock__Internal__GuestReply reply = PADDOCK__INTERNAL__GUEST_REPLY__INIT;

	fake_reply(stream, LINK_REPLY, &reply, NULL, 0);
	fake_end(stream);
}

void fake_error(uint32_t stream, enum pdk_code code, const char *text)
{
	Paddock__Internal__GuestReply reply = PADDOCK__INTERNAL__GUEST_REPLY__INIT;

	reply.code = code;
	reply.text = (char *)text;
	fake_reply(stream, LINK_REPLY, &reply, NULL, 0);
	fake_end(stream);
}

static void on_ready(struct guest *guest, int rc, void *arg)
{
	ready_rc = rc;
}

static void answer_hello(void)
{
	Paddock__Internal__GuestHelloResult hello = PADDOCK__INTERNAL__GUEST_HELLO_RESULT__INIT;
	Paddock__Internal__GuestReply reply = PADDOCK__INTERNAL__GUEST_REPLY__INIT;
	struct request request = fake_next();

	assert_int_equal(request.message->op_case, PADDOCK__INTERNAL__GUEST_REQUEST__OP_HELLO);
	hello.version = GUEST_VERSION;
	reply.result_case = PADDOCK__INTERNAL__GUEST_REPLY__RESULT_HELLO;
	reply.hello = &hello;
	fake_reply(request.stream, LINK_REPLY, &reply, NULL, 0);
	fake_end(request.stream);
	fake_request_free(&request);
	request = fake_next();
	assert_int_equal(request.message->op_case, PADDOCK__INTERNAL__GUEST_REQUEST__OP_SETUP);
	fake_ok(request.stream);
	fake_request_free(&request);
}

void fake_connect(void)
{
	char *env[] = {(char *)"A=b"};
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	queue_first = queue_end = 0;
	ready_rc = 1;
	fake_link_fd = pair[1];
	fake_link = link_create(pair[1], LINK_PAYLOAD_MAX, on_frame, NULL);
	fake_sandbox.guest = guest_create(&fake_sandbox, pair[0], env, 1, "box", on_ready, NULL);
	assert_non_null(fake_sandbox.guest);
	answer_hello();
	fake_settle();
	assert_int_equal(ready_rc, 0);
}

void fake_disconnect(void)
{
	guest_free(STEAL_PTR(fake_sandbox.guest));
	link_free(STEAL_PTR(fake_link));
	while (queue_first < queue_end)
		fake_request_free(&queue[queue_first++]);
}

int fake_setup(void **state)
{
	signal(SIGPIPE, SIG_IGN);
	snprintf(fake_data_dir, sizeof(fake_data_dir), "/tmp/paddock-guest-XXXXXX");
	assert_non_null(mkdtemp(fake_data_dir));
	memset(&server_config, 0, sizeof(server_config));
	snprintf(server_config.data_dir, sizeof(server_config.data_dir), "%s", fake_data_dir);
	server_config.output_head_bytes = 256 << 10;
	server_config.output_tail_bytes = 1 << 20;
	server_config.output_sandbox_bytes = 64 << 20;
	server_config.sudo = true;
	memset(&fake_sandbox, 0, sizeof(fake_sandbox));
	strcpy(fake_sandbox.id, "i00000000000000000000");
	strcpy(fake_sandbox.tenant, "acme");
	fake_lost[0] = '\0';
	fake_store_holds = false;
	fake_store_rc = 0;
	fake_audits = 0;
	fake_connect();
	return 0;
}

int fake_teardown(void **state)
{
	char path[300];

	fake_store_holds = false;
	fake_disconnect();
	processes_end(&fake_sandbox);
	fake_settle();
	processes_forget(&fake_sandbox);
	fake_settle();
	assert_int_equal(fake_watches(), 0);
	assert_int_equal(fake_stored_count(), 0);
	snprintf(path, sizeof(path), "%s/output", fake_data_dir);
	rmdir(path);
	assert_int_equal(rmdir(fake_data_dir), 0);
	return 0;
}

/* Processes */

void fake_answer_start(struct job *job, bool with_stdin)
{
	Paddock__Internal__GuestStarted started = PADDOCK__INTERNAL__GUEST_STARTED__INIT;
	Paddock__Internal__GuestReply reply = PADDOCK__INTERNAL__GUEST_REPLY__INIT;
	int fds[3];
	unsigned int n = 0;

	assert_int_equal(pipe2(job->out, O_CLOEXEC), 0);
	assert_int_equal(pipe2(job->err, O_CLOEXEC), 0);
	job->in[0] = job->in[1] = -1;
	if (with_stdin) {
		assert_int_equal(pipe2(job->in, O_CLOEXEC), 0);
		fds[n++] = job->in[1];
	}
	fds[n++] = job->out[0];
	fds[n++] = job->err[0];
	started.handle = job->handle;
	started.pid = 42;
	started.has_stdin = with_stdin;
	started.has_stdout = started.has_stderr = true;
	started.cwd = (char *)"/home/user";
	reply.result_case = PADDOCK__INTERNAL__GUEST_REPLY__RESULT_STARTED;
	reply.started = &started;
	fake_reply(job->stream, LINK_REPLY, &reply, fds, n);
	close(STEAL_FD(job->out[0]));
	close(STEAL_FD(job->err[0]));
	if (with_stdin)
		close(STEAL_FD(job->in[1]));
}

void fake_start(struct rpc_call *call, struct job *job, Paddock__V1__StartProcessRequest *request)
{
	Paddock__V1__StartProcessRequest own = PADDOCK__V1__START_PROCESS_REQUEST__INIT;
	char *argv[] = {(char *)"/bin/x"};
	struct request asked;

	if (!request)
		request = &own;
	request->sandbox_id = fake_sandbox.id;
	if (!request->n_argv) {
		request->argv = argv;
		request->n_argv = 1;
	}
	processes_start(call, &request->base);
	asked = fake_next();
	assert_int_equal(asked.message->op_case, PADDOCK__INTERNAL__GUEST_REQUEST__OP_START);
	*job = (struct job){.stream = asked.stream, .handle = asked.message->start->handle};
	fake_request_free(&asked);
	fake_answer_start(job, request->open_stdin);
}

void fake_job_close(struct job *job)
{
	int *fds[] = {&job->out[1], &job->err[1], &job->in[0]};

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		if (*fds[i] > 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
}

void fake_exit(struct job *job, uint32_t exit_code, uint32_t signal)
{
	Paddock__Internal__GuestExited exited = PADDOCK__INTERNAL__GUEST_EXITED__INIT;
	Paddock__Internal__GuestReply reply = PADDOCK__INTERNAL__GUEST_REPLY__INIT;

	fake_job_close(job);
	exited.handle = job->handle;
	exited.exit_code = exit_code;
	exited.signal = signal;
	reply.result_case = PADDOCK__INTERNAL__GUEST_REPLY__RESULT_EXITED;
	reply.exited = &exited;
	fake_reply(job->stream, LINK_REPLY, &reply, NULL, 0);
	fake_end(job->stream);
}

unsigned int fake_open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}
