#include "guest_client.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "sandbox/base/cleanup.h"
#include "sandbox/base/error.h"

/* Processes of paddock-init: start, output, signals, timeouts, terminals, and the loss of the link. */

static struct client client;
static uint64_t last_handle;

static int start_client(void **state)
{
	if (geteuid() != 0) {
		print_message("skipped: needs root for namespaces\n");
		exit(77);
	}
	client_start(&client);
	return 0;
}

static int stop_client(void **state)
{
	client_stop(&client);
	return 0;
}

struct run {
	uint32_t stream;
	uint64_t handle;
	int ends[3];
	uint32_t pid;
	char cwd[256];
};

static guest_message(Start) start_of(const char *const *argv, size_t n)
{
	guest_message(Start) start = PADDOCK__INTERNAL__GUEST_START__INIT;

	start.handle = ++last_handle;
	start.argv = (char **)(uintptr_t)argv;
	start.n_argv = n;
	return start;
}

#define START(...) start_of((const char *const[]){__VA_ARGS__}, sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *))

static void take_started(struct run *run, struct client_frame *frame)
{
	const guest_message(Started) *started = frame->reply->started;
	unsigned int n = 0;

	if (frame->reply->code)
		fail_msg("not started: %s", frame->reply->text);
	assert_int_equal(frame->reply->result_case, GUEST_RESULT(STARTED));
	run->pid = started->pid;
	snprintf(run->cwd, sizeof(run->cwd), "%s", started->cwd);
	run->ends[0] = started->has_stdin ? frame->fds[n++] : -1;
	run->ends[1] = started->has_stdout ? frame->fds[n++] : -1;
	run->ends[2] = started->has_stderr ? frame->fds[n++] : -1;
	assert_int_equal(n, frame->n_fds);
	frame->n_fds = 0;
	client_frame_free(frame);
}

static struct run start(guest_message(Start) message)
{
	struct run run = {.handle = message.handle};
	struct client_frame frame;

	run.stream = client_call(&client, REQUEST(START, start, &message));
	frame = client_next(&client, run.stream);
	take_started(&run, &frame);
	return run;
}

static guest_message(Exited) finish(struct run *run)
{
	struct client_frame frame = client_next(&client, run->stream);
	guest_message(Exited) exited;
	guest_message(Forget) forget = PADDOCK__INTERNAL__GUEST_FORGET__INIT;

	assert_int_equal(frame.reply->result_case, GUEST_RESULT(EXITED));
	exited = *frame.reply->exited;
	assert_int_equal(exited.handle, run->handle);
	client_frame_free(&frame);
	client_expect_end(&client, run->stream);
	forget.handle = run->handle;
	frame = client_ask(&client, REQUEST(FORGET, forget, &forget));
	assert_int_equal(frame.reply->code, 0);
	client_frame_free(&frame);
	for (int i = 0; i < 3; i++)
		cleanup_fd(&run->ends[i]);
	return exited;
}

static void expect_output(int fd, const char *text)
{
	char bytes[4096];
	size_t n = client_read_all(fd, bytes, sizeof(bytes) - 1);

	bytes[n] = '\0';
	assert_string_equal(bytes, text);
}

static void expect_line(int fd, const char *text)
{
	char line[256];
	size_t n = 0;

	while (n < sizeof(line) - 1 && poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 10000) == 1 &&
	       read(fd, line + n, 1) == 1 && line[n] != '\n')
		n++;
	line[n] = '\0';
	assert_string_equal(line, text);
}

static void expect_refusal(guest_message(Start) message, enum pdk_code code, const char *part)
{
	struct client_frame frame = client_ask(&client, REQUEST(START, start, &message));

	if (!strstr(frame.reply->text, part))
		fail_msg("text is: %s", frame.reply->text);
	assert_int_equal(frame.reply->code, code);
	client_frame_free(&frame);
}

static void test_hello(void **state)
{
	guest_message(Hello) hello = PADDOCK__INTERNAL__GUEST_HELLO__INIT;
	struct client_frame frame;

	hello.version = GUEST_VERSION;
	frame = client_ask(&client, REQUEST(HELLO, hello, &hello));
	assert_int_equal(frame.reply->hello->version, GUEST_VERSION);
	client_frame_free(&frame);
	hello.version = 99;
	frame = client_ask(&client, REQUEST(HELLO, hello, &hello));
	assert_int_equal(frame.reply->code, PDK_FAILED_PRECONDITION);
	client_frame_free(&frame);
}

static void test_output_and_exit(void **state)
{
	struct run run = start(START("sh", "-c", "echo out; echo err >&2; exit 7"));
	guest_message(Exited) exited;

	assert_string_equal(run.cwd, "/home/user");
	assert_int_equal(run.ends[0], -1);
	expect_output(run.ends[1], "out\n");
	expect_output(run.ends[2], "err\n");
	exited = finish(&run);
	assert_int_equal(exited.exit_code, 7);
	assert_int_equal(exited.signal, 0);
}

static void test_environment(void **state)
{
	guest_message(Setup) setup = PADDOCK__INTERNAL__GUEST_SETUP__INIT;
	guest_message(Start) message = START("sh", "-c", "echo $HOME:$USER:$A:$B:$C:$(umask):$(id -u):$(id -g)");
	char *sandbox_env[] = {TEXT("A=1"), TEXT("B=2")};
	char *env[] = {TEXT("B=3"), TEXT("C=4")};
	struct client_frame frame;
	struct run run;

	setup.env = sandbox_env;
	setup.n_env = 2;
	frame = client_ask(&client, REQUEST(SETUP, setup, &setup));
	assert_int_equal(frame.reply->code, 0);
	client_frame_free(&frame);
	message.env = env;
	message.n_env = 2;
	run = start(message);
	expect_output(run.ends[1], "/home/user:user:1:3:4:0022:1000:1000\n");
	finish(&run);
}

/* What a program finds: no capability, no signal blocked, only three descriptors, a group of its own. */
static void test_clean_start(void **state)
{
	struct run run = start(START("sh", "-c",
				     "grep -E '^(CapEff|CapPrm|CapAmb|NoNewPrivs|SigBlk|SigIgn)' /proc/self/status;"
				     "ls /proc/self/fd; cat /proc/self/oom_score_adj; cat /proc/1/environ 2>&1"));

	expect_output(run.ends[1], "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"
				   "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n"
				   "CapAmb:\t0000000000000000\nNoNewPrivs:\t1\n"
				   "0\n1\n2\n3\n500\ncat: /proc/1/environ: Permission denied\n");
	finish(&run);
}

static void test_refusals(void **state)
{
	guest_message(Start) message = START("sh");

	expect_refusal(START("no-such-program"), PDK_FAILED_PRECONDITION, "cannot run no-such-program: not found");
	expect_refusal(START("/etc/passwd"), PDK_FAILED_PRECONDITION, "cannot run /etc/passwd: Permission denied");
	expect_refusal(START(""), PDK_FAILED_PRECONDITION, "not found");
	message.cwd = TEXT("/nowhere");
	expect_refusal(message, PDK_NOT_FOUND, "cwd: /nowhere");
	message.cwd = TEXT("/etc/passwd");
	expect_refusal(message, PDK_FAILED_PRECONDITION, "cwd: cannot enter /etc/passwd");
	message.cwd = TEXT("relative");
	expect_refusal(message, PDK_INVALID_ARGUMENT, "absolute");
	message.cwd = TEXT("");
	message.user = TEXT("daemon");
	expect_refusal(message, PDK_INVALID_ARGUMENT, "user");
	message.user = TEXT("");
	message.n_argv = 0;
	expect_refusal(message, PDK_INVALID_ARGUMENT, "argv");
}

static void test_stdin(void **state)
{
	guest_message(Start) message = START("cat");
	guest_message(CloseStdin) close_stdin = PADDOCK__INTERNAL__GUEST_CLOSE_STDIN__INIT;
	struct client_frame frame;
	struct run run;

	message.open_stdin = true;
	run = start(message);
	client_write_all(run.ends[0], "some input", 10);
	cleanup_fd(&run.ends[0]);
	run.ends[0] = -1;
	assert_false(client_has(&client, run.stream, 100));
	close_stdin.handle = run.handle;
	frame = client_ask(&client, REQUEST(CLOSE_STDIN, close_stdin, &close_stdin));
	assert_int_equal(frame.reply->code, 0);
	client_frame_free(&frame);
	expect_output(run.ends[1], "some input");
	assert_int_equal(finish(&run).exit_code, 0);
}

static void send_signal(uint64_t handle, uint32_t number, enum pdk_code code)
{
	guest_message(Signal) message = PADDOCK__INTERNAL__GUEST_SIGNAL__INIT;
	struct client_frame frame;

	message.handle = handle;
	message.signal = number;
	frame = client_ask(&client, REQUEST(SIGNAL, signal, &message));
	assert_int_equal(frame.reply->code, code);
	client_frame_free(&frame);
}

static void test_signals(void **state)
{
	struct run run = start(START("sh", "-c", "sleep 100 & wait"));

	send_signal(run.handle, 0, PDK_INVALID_ARGUMENT);
	send_signal(run.handle, 65, PDK_INVALID_ARGUMENT);
	send_signal(9999, SIGTERM, PDK_NOT_FOUND);
	send_signal(run.handle, SIGTERM, PDK_OK);
	/* The group got it: the sleep is gone too, so the pipe ends. */
	expect_output(run.ends[1], "");
	assert_int_equal(finish(&run).signal, SIGTERM);
	send_signal(run.handle, SIGTERM, PDK_NOT_FOUND);
}

static void test_timeout(void **state)
{
	guest_message(Start) message = START("sh", "-c", "trap 'echo term' TERM; while :; do sleep 0.05; done");
	guest_message(Exited) exited;
	struct run run;

	message.timeout_ms = 200;
	message.grace_ms = 300;
	run = start(message);
	exited = finish(&run);
	assert_int_equal(exited.signal, SIGKILL);
	assert_true(exited.timed_out);
}

/* The exit is told though a grandchild holds the pipe. */
static void test_exit_with_grandchild(void **state)
{
	struct run run = start(START("sh", "-c", "sleep 3 & echo gone"));

	assert_int_equal(finish(&run).exit_code, 0);
}

static void test_terminal(void **state)
{
	guest_message(Start) message =
		START("sh", "-c", "stty size; tty | cut -c1-8; stat -c %u $(tty); read a; stty size; cat; echo end");
	guest_message(Resize) resize = PADDOCK__INTERNAL__GUEST_RESIZE__INIT;
	guest_message(CloseStdin) close_stdin = PADDOCK__INTERNAL__GUEST_CLOSE_STDIN__INIT;
	struct client_frame frame;
	struct run run;
	static const char first[] = "30 100\r\n/dev/pts\r\n1000\r\n";
	char bytes[4096] = "";
	size_t n;

	message.columns = 100;
	message.rows = 30;
	run = start(message);
	assert_int_equal(run.ends[2], -1);
	n = client_read_all(run.ends[1], bytes, sizeof(first) - 1);
	assert_string_equal(bytes, first);
	resize.handle = close_stdin.handle = run.handle;
	resize.columns = 60;
	resize.rows = 20;
	frame = client_ask(&client, REQUEST(RESIZE, resize, &resize));
	assert_int_equal(frame.reply->code, 0);
	client_frame_free(&frame);
	client_write_all(run.ends[0], "x\nyy\n", 5);
	cleanup_fd(&run.ends[0]);
	run.ends[0] = -1;
	frame = client_ask(&client, REQUEST(CLOSE_STDIN, close_stdin, &close_stdin));
	client_frame_free(&frame);
	n = client_read_all(run.ends[1], bytes, sizeof(bytes) - 1);
	bytes[n] = '\0';
	assert_string_equal(bytes, "x\r\nyy\r\n20 60\r\nyy\r\nend\r\n");
	assert_int_equal(finish(&run).exit_code, 0);
}

static void test_terminal_output(void **state)
{
	guest_message(Start) message = START("sh", "-c", "seq 1 20000; echo end");
	static char bytes[300000];
	struct run run;
	size_t n = 0;

	message.columns = 80;
	message.rows = 25;
	run = start(message);
	while (n < sizeof(bytes) - 1 && !(n > 5 && strstr(bytes + n - 5, "end"))) {
		ssize_t m = read(run.ends[1], bytes + n, sizeof(bytes) - 1 - n);

		if (m > 0)
			n += (size_t)m;
		else
			usleep(1000);
	}
	assert_int_equal(n, 108894 + 20000 + 5);
	assert_int_equal(finish(&run).exit_code, 0);
}

static void test_link_loss(void **state)
{
	guest_message(Start) message = START("sh", "-c", "read a; echo got $a; exit 5");
	guest_message(Adopt) adopt = PADDOCK__INTERNAL__GUEST_ADOPT__INIT;
	struct client_frame frame;
	struct run run;

	message.open_stdin = true;
	run = start(message);
	for (int i = 0; i < 3; i++)
		cleanup_fd(&run.ends[i]);
	client_disconnect(&client);
	client_connect(&client);
	frame = client_ask(&client, REQUEST(ADOPT, adopt, &adopt));
	assert_int_equal(frame.reply->processes->n_handle, 1);
	assert_int_equal(frame.reply->processes->handle[0], run.handle);
	client_frame_free(&frame);
	adopt.handle = run.handle;
	run.stream = client_call(&client, REQUEST(ADOPT, adopt, &adopt));
	frame = client_next(&client, run.stream);
	take_started(&run, &frame);
	client_write_all(run.ends[0], "back\n", 5);
	expect_output(run.ends[1], "got back\n");
	assert_int_equal(finish(&run).exit_code, 5);
}

static void test_many_handles(void **state)
{
	enum { MANY = 1024 };

	for (int i = 0; i < MANY; i++) {
		struct run run = start(START("sleep", "1000"));

		for (int j = 0; j < 3; j++)
			cleanup_fd(&run.ends[j]);
	}
	expect_refusal(START("sleep", "1"), PDK_RESOURCE_EXHAUSTED, "running already");
	client_stop(&client);
	client_start(&client);
}

/* A frame that breaks the protocol ends the link, not init. */
/* The spare child: init's only child when nothing runs. 0: there is none. As the host numbers it. */
static pid_t spare_child(void)
{
	char path[64], text[64] = "";
	_cleanup_file_ FILE *file = NULL;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", client.pid, client.pid);
	file = fopen(path, "re");
	assert_non_null(file);
	return fgets(text, sizeof(text), file) ? atoi(text) : 0;
}

/* Wait until there is one (or none); it is settled when it sleeps. */
static pid_t await_spare(bool there)
{
	pid_t pid = spare_child();

	for (int i = 0; i < 1000 && (pid != 0) != there; i++) {
		usleep(10000);
		pid = spare_child();
	}
	assert_int_equal(pid != 0, there);
	usleep(50000);
	return pid;
}

/* It executes it now, or soon. */
static void expect_program(pid_t pid, const char *name)
{
	char path[64], comm[32] = "";

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	for (int i = 0; i < 1000 && strcmp(comm, name) != 0; i++) {
		_cleanup_file_ FILE *file = fopen(path, "re");

		assert_non_null(file);
		assert_non_null(fgets(comm, sizeof(comm), file));
		comm[strcspn(comm, "\n")] = '\0';
		usleep(10000);
	}
	assert_string_equal(comm, name);
}

static unsigned int open_files(pid_t pid)
{
	char path[64];
	unsigned int n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n - 2;
}

static void run_true(void)
{
	struct run run = start(START("true"));

	assert_int_equal(finish(&run).exit_code, 0);
}

static void test_spare_child(void **state)
{
	guest_message(Start) message;
	struct run run;
	pid_t spare;

	run_true();
	spare = await_spare(true);
	expect_program(spare, "paddock-init");
	assert_int_equal(open_files(spare), 4); /* /dev/null three times, and its socket */
	/* It becomes the next command. */
	message = START("sh", "-c", "pwd; echo $A; read x; exec sleep 60", "$0");
	message.env = (char *[]){TEXT("A=b")};
	message.n_env = 1;
	message.cwd = TEXT("/tmp");
	message.open_stdin = true;
	run = start(message);
	assert_int_equal(spare_child(), spare);
	client_write_all(run.ends[0], "\n", 1);
	close(STEAL_FD(run.ends[0]));
	expect_line(run.ends[1], "/tmp");
	expect_line(run.ends[1], "b");
	expect_program(spare, "sleep");
	assert_int_equal(open_files(spare), 3);
	send_signal(run.handle, SIGTERM, PDK_OK);
	assert_int_equal(finish(&run).signal, SIGTERM);
}

/* One that was killed, and a command that is too large for it: a child is forked as ever. */
static void test_spare_child_is_no_use(void **state)
{
	static char large[40000];
	struct client_frame frame;
	guest_message(Start) message;
	struct run run;
	pid_t spare;

	run_true();
	spare = await_spare(true);
	memset(large, 'x', sizeof(large) - 1);
	message = START("sh", "-c", "echo ${#A}");
	memcpy(large, "A=", 2);
	message.env = (char *[]){large};
	message.n_env = 1;
	run = start(message);
	expect_output(run.ends[1], "39997\n");
	finish(&run);
	assert_int_equal(spare_child(), spare);
	kill(spare, SIGKILL);
	await_spare(false);
	run_true();
	assert_int_not_equal(await_spare(true), spare);
	/* stopped, it holds up its command, and nobody else */
	spare = spare_child();
	kill(spare, SIGSTOP);
	message = START("true");
	run = (struct run){.handle = message.handle, .ends = {-1, -1, -1}};
	run.stream = client_call(&client, REQUEST(START, start, &message));
	run_true();
	assert_false(client_has(&client, run.stream, 100));
	kill(spare, SIGKILL);
	frame = client_next(&client, run.stream);
	assert_int_equal(frame.reply->code, PDK_ABORTED);
	client_frame_free(&frame);
	client_expect_end(&client, run.stream);
}

static void test_spare_child_goes_away(void **state)
{
	char byte;

	run_true();
	await_spare(true);
	/* Whoever sees the end of the link finds none. */
	assert_int_equal(shutdown(link_fd(client.link), SHUT_WR), 0);
	while (poll(&(struct pollfd){.fd = link_fd(client.link), .events = POLLIN}, 1, 10000) == 1 &&
	       recv(link_fd(client.link), &byte, 1, 0) > 0)
		;
	assert_int_equal(spare_child(), 0);
	client_disconnect(&client);
	client_connect(&client);
	run_true();
	await_spare(true);
	await_spare(false); /* it was not needed */
	run_true();
}

static void test_violation(void **state)
{
	struct run run = start(START("sleep", "1000"));

	for (int i = 0; i < 3; i++)
		cleanup_fd(&run.ends[i]);
	link_send(client.link, 2, LINK_REQUEST, "x", 1, NULL, 0);
	assert_false(client_has(&client, 2, 300));
	client_disconnect(&client);
	client_connect(&client);
	send_signal(run.handle, SIGKILL, PDK_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hello),
		cmocka_unit_test(test_output_and_exit),
		cmocka_unit_test(test_environment),
		cmocka_unit_test(test_clean_start),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_stdin),
		cmocka_unit_test(test_signals),
		cmocka_unit_test(test_timeout),
		cmocka_unit_test(test_exit_with_grandchild),
		cmocka_unit_test(test_terminal),
		cmocka_unit_test(test_terminal_output),
		cmocka_unit_test(test_link_loss),
		cmocka_unit_test(test_many_handles),
		cmocka_unit_test(test_spare_child),
		cmocka_unit_test(test_spare_child_is_no_use),
		cmocka_unit_test(test_spare_child_goes_away),
		cmocka_unit_test(test_violation),
	};

	return cmocka_run_group_tests(tests, start_client, stop_client);
}
